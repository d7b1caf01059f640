//! What happened: everything the harness did and saw, on one clock.
//!
//! The harness has one thread, so that "before" in a history is "before" in fact.

use std::fmt;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};

/// Microseconds since the scenario began.
pub type Time = u64;

/// A second, as a [`Time`].
pub const SECOND: Time = 1_000_000;

/// A server of the cluster, by its place in it.
pub type NodeIndex = usize;

/// A session of a socket: what is between one CONNECT and its end. Index into [`History::sessions`].
pub type SessionIndex = u32;

/// Who a publication goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// All sockets of the namespace.
    Everyone,
    /// The sockets in any of these rooms.
    Rooms(Vec<u16>),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target::Rooms(rooms) = self else { return f.write_str("all") };
        for (at, room) in rooms.iter().enumerate() {
            let separator = if at == 0 { "" } else { "+" };
            write!(f, "{separator}{room}")?;
        }
        Ok(())
    }
}

/// Where a publication comes into the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client of this node sent it.
    Node(NodeIndex),
    /// An emitter wrote it to Redis.
    Emitter,
}

/// Something that was published.
#[derive(Clone, Debug)]
pub struct Publication {
    /// Who published: one connection of somebody, since order is promised for no more than that.
    pub publisher: u32,
    /// Counted up by each publisher, over all targets.
    pub number: u32,
    /// Who it goes to.
    pub target: Target,
    /// Where it came in.
    pub origin: Origin,
    /// When it was sent.
    pub sent: Time,
    /// When it was known to be accepted. Without this, nobody is owed it.
    pub accepted: Option<Time>,
}

/// A message that a socket received.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Whose.
    pub session: SessionIndex,
    /// As in the publication.
    pub publisher: u32,
    /// As in the publication.
    pub number: u32,
    /// The target that the message says it had.
    pub target: Target,
    /// When.
    pub at: Time,
}

/// A room of a session.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Whose.
    pub session: SessionIndex,
    /// Which room.
    pub room: u16,
    /// When it asked to join.
    pub asked: Time,
    /// When that was acknowledged.
    pub joined: Option<Time>,
    /// When it asked to leave.
    pub leaving: Option<Time>,
    /// When that was acknowledged.
    pub left: Option<Time>,
}

/// A session of a socket.
#[derive(Clone, Debug)]
pub struct Session {
    /// The client; it has one session after the other.
    pub socket: u32,
    /// The server it is connected to.
    pub node: NodeIndex,
    /// The public id of the socket.
    pub id: String,
    /// When its CONNECT was sent.
    pub asked: Time,
    /// When the CONNECT was answered.
    pub opened: Time,
    /// When the client saw the end of it.
    pub closed: Option<Time>,
    /// What that end looked like.
    pub reason: String,
}

/// Which publications a fault may take.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Those from and to clients of these nodes.
    Nodes(Vec<NodeIndex>),
    /// Those that pass between one of these nodes and Redis.
    Links(Vec<NodeIndex>),
    /// All that pass through Redis.
    Redis,
    /// None: it must not take any.
    Nothing,
}

impl Reach {
    /// Whether the fault lies on the way from an origin to a node.
    pub fn covers(&self, origin: Origin, receiver: NodeIndex) -> bool {
        let touches = |nodes: &[NodeIndex]| {
            nodes.contains(&receiver)
                || matches!(origin, Origin::Node(node) if nodes.contains(&node))
        };
        let is_remote = origin != Origin::Node(receiver);
        match self {
            Reach::Nodes(nodes) => touches(nodes),
            Reach::Links(nodes) => is_remote && touches(nodes),
            Reach::Redis => is_remote,
            Reach::Nothing => false,
        }
    }
}

/// A fault that was made.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What was done.
    pub name: String,
    /// What it may take.
    pub reach: Reach,
    /// When it began.
    pub began: Time,
    /// When what was broken was whole again.
    pub healed: Time,
    /// How much longer the cluster may need.
    pub grace: Time,
}

/// A socket that appeared or went, as another socket was told by the rules.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The session that was told.
    pub watcher: SessionIndex,
    /// The public id that it is about.
    pub id: String,
    /// Whether it came or went.
    pub came: bool,
    /// When.
    pub at: Time,
}

/// A number that a node shows, and the same counted by the harness.
#[derive(Clone, Debug)]
pub struct Gauge {
    /// Which.
    pub name: String,
    /// What the node shows.
    pub shown: i64,
    /// What is true.
    pub counted: i64,
}

/// Everything that happened.
#[derive(Clone, Debug)]
pub struct History {
    /// In the order in which they were sent.
    pub publications: Vec<Publication>,
    /// In the order in which they came.
    pub receipts: Vec<Receipt>,
    /// In the order in which they were asked for.
    pub memberships: Vec<Membership>,
    /// In the order in which they opened.
    pub sessions: Vec<Session>,
    /// In the order in which they began.
    pub faults: Vec<Fault>,
    /// In the order in which they came.
    pub notices: Vec<Notice>,
    /// Read when everything was over.
    pub gauges: Vec<Gauge>,
    /// When everything had to be well again, and when the last publication was sent.
    pub quiesce: (Time, Time),
    /// How long a publication may take, once accepted.
    pub flight: Time,
}

impl Default for History {
    fn default() -> History {
        History {
            publications: Vec::new(),
            receipts: Vec::new(),
            memberships: Vec::new(),
            sessions: Vec::new(),
            faults: Vec::new(),
            notices: Vec::new(),
            gauges: Vec::new(),
            // Until the scenario says so, nothing has to be well.
            quiesce: (Time::MAX, Time::MAX),
            flight: 0,
        }
    }
}

impl History {
    /// Writes the logs into a directory, one file for each kind of actor.
    pub fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
        let open = |name: &str| -> Result<BufWriter<File>> {
            let path = directory.join(name);
            let file = File::create(&path).with_context(|| format!("write {}", path.display()))?;
            Ok(BufWriter::new(file))
        };
        let when =
            |time: Option<Time>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());

        let mut out = open("publishers.log")?;
        for publication in &self.publications {
            let Publication { publisher, number, target, origin, sent, accepted } = publication;
            let result = if accepted.is_some() { "accepted" } else { "unknown" };
            let accepted = when(*accepted);
            writeln!(
                out,
                "PUB {publisher} {number} {target} {sent} {accepted} {result} {origin:?}"
            )?;
        }
        out.flush()?;

        let mut out = open("sockets.log")?;
        for (index, session) in self.sessions.iter().enumerate() {
            let Session { socket, node, id, asked, opened, closed, reason } = session;
            writeln!(out, "CONN {socket} {index} {opened} asked={asked} node={node} id={id}")?;
            if let Some(closed) = closed {
                writeln!(out, "DISC {socket} {index} {closed} {reason}")?;
            }
        }
        for Membership { session, room, asked, joined, leaving, left } in &self.memberships {
            writeln!(out, "JOIN {session} {room} {asked} {}", when(*joined))?;
            if let Some(leaving) = leaving {
                writeln!(out, "LEAVE {session} {room} {leaving} {}", when(*left))?;
            }
        }
        for Receipt { session, publisher, number, target, at } in &self.receipts {
            writeln!(out, "RCV {session} {publisher} {number} {target} {at}")?;
        }
        for Notice { watcher, id, came, at } in &self.notices {
            let kind = if *came { "CAME" } else { "WENT" };
            writeln!(out, "{kind} {watcher} {id} {at}")?;
        }
        out.flush()?;

        let mut out = open("faults.log")?;
        for Fault { name, reach, began, healed, grace } in &self.faults {
            writeln!(out, "FAULT {began} {healed} grace={grace} {reach:?} {name}")?;
        }
        writeln!(out, "QUIESCE {} {}", self.quiesce.0, self.quiesce.1)?;
        out.flush()?;
        Ok(())
    }
}
