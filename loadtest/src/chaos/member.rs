//! A client that lives through the scenario: it connects, joins its rooms, publishes when it is told to, and when its
//! session ends it comes back as `socket.io-client` does.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use protocol::engine::OpenPacket;
use rand::Rng;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::harness::Harness;
use super::history::{
    Membership, NodeIndex, Notice, Origin, Publication, Receipt, Session, SessionIndex, Target,
};
use super::message;
use super::transport::{Packets, Transport, carry};

/// The room whose members are told who comes and goes.
pub const WATCH: &str = "watch";

/// `socket.io-client` waits for one second, more or less half of it, before it connects again.
const PAUSE: std::ops::Range<u64> = 500..1500;

/// How long a client tries one node. Short, since a balancer would have it try another one.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// Packets that wait between a session and its transport.
const PACKETS_MAX: usize = 4096;

/// What a client is told to do.
pub enum Command {
    /// Publish something with so many bytes of padding.
    Say(Target, usize),
    /// Leave the room, or join it if it is not there.
    Toggle(u16),
}

/// One client.
pub struct Member {
    /// Its number among the clients.
    pub index: u32,
    /// How it connects.
    pub transport: Transport,
    /// The node it tries first.
    pub home: NodeIndex,
    /// Whether it asks to be told who comes and goes.
    pub watches: bool,
    commands: mpsc::Sender<Command>,
    /// Whether it is connected and in all its rooms.
    settled: Cell<bool>,
}

/// What an acknowledgement will mean.
enum Awaited {
    Said(usize),
    Joined(usize),
    Left(usize),
    Watching,
}

/// The part of the CONNECT answer that matters.
#[derive(Deserialize)]
struct Connected<'a> {
    sid: &'a str,
}

impl Member {
    /// A client and what its life needs.
    pub fn new(
        index: u32,
        transport: Transport,
        home: NodeIndex,
        watches: bool,
    ) -> (Rc<Member>, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(PACKETS_MAX);
        let settled = Cell::new(false);
        (Rc::new(Member { index, transport, home, watches, commands, settled }), receiver)
    }

    /// Whether it is connected and in all its rooms.
    pub fn is_settled(&self) -> bool {
        self.settled.get()
    }

    /// Tells it to do something; a client that has no time for it does not.
    pub fn tell(&self, command: Command) {
        if self.is_settled() {
            let _ = self.commands.try_send(command);
        }
    }

    /// Lives until it is dropped. `rooms` are those it joins whenever it connects.
    pub async fn live(
        self: Rc<Self>,
        harness: Rc<Harness>,
        rooms: Vec<u16>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let rooms = RefCell::new(rooms);
        let mut node = self.home;
        loop {
            let life = Life {
                harness: &harness,
                member: &self,
                node,
                rooms: &rooms,
                session: Cell::new(None),
                awaited: RefCell::default(),
                next_ack: Cell::new(0),
                memberships: RefCell::default(),
                spoken: Cell::new((0, 0)),
            };
            let Err(end) = life.run(&mut commands).await;
            self.settled.set(false);
            match life.session.get() {
                Some(session) => {
                    let mut history = harness.history.borrow_mut();
                    let session = &mut history.sessions[session as usize];
                    session.closed = Some(harness.now());
                    session.reason = format!("{end:#}");
                    drop(history);
                }
                // Nobody was there: a balancer would try the next one at once.
                None => node = (node + 1) % harness.n_nodes(),
            }
            if life.session.get().is_some() || node == self.home {
                let pause = harness.random.borrow_mut().random_range(PAUSE);
                sleep(Duration::from_millis(pause)).await;
            }
            // What was asked of the session that has ended is not for the next one.
            while commands.try_recv().is_ok() {}
        }
    }
}

/// One session of a client.
struct Life<'a> {
    harness: &'a Harness,
    member: &'a Member,
    node: NodeIndex,
    rooms: &'a RefCell<Vec<u16>>,
    session: Cell<Option<SessionIndex>>,
    awaited: RefCell<HashMap<u64, Awaited>>,
    next_ack: Cell<u64>,
    /// The records of the rooms it is in or about to be in.
    memberships: RefCell<BTreeMap<u16, usize>>,
    /// The publisher that this session is, and its next number.
    spoken: Cell<(u32, u32)>,
}

impl Life<'_> {
    async fn run(&self, commands: &mut mpsc::Receiver<Command>) -> Result<Infallible> {
        let (to_session, incoming) = mpsc::channel(PACKETS_MAX);
        let (outgoing, to_transport) = mpsc::channel(PACKETS_MAX);
        let packets = Packets { incoming: to_session, outgoing: to_transport };
        let address = self.harness.entrance(self.node);
        // Once the transport has failed, what it brought before is still read.
        let talk = self.talk(incoming, outgoing, commands);
        tokio::pin!(talk);
        tokio::select! {
            biased;
            end = &mut talk => end,
            end = carry(address, self.member.transport, packets) => {
                let Err(reason) = end;
                match talk.await {
                    Err(end) if end.is::<Ended>() => Err(reason),
                    end => end,
                }
            }
        }
    }

    async fn talk(
        &self,
        mut incoming: mpsc::Receiver<String>,
        outgoing: mpsc::Sender<String>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<Infallible> {
        let deadline = Instant::now() + OPEN_TIMEOUT;
        let patience = timeout_at(deadline, self.open(&mut incoming, &outgoing))
            .await
            .context("open timeout")??;
        self.spoken.set((self.harness.publisher(), 0));
        if self.member.watches {
            self.ask(&outgoing, &format!(r#""join","{WATCH}""#), Awaited::Watching)?;
        }
        for room in self.rooms.borrow().iter() {
            self.join(&outgoing, *room)?;
        }
        let mut deadline = Instant::now() + patience;
        loop {
            let packet = tokio::select! {
                biased;
                packet = timeout_at(deadline, incoming.recv()) => {
                    packet.context("ping timeout")?.ok_or(Ended)?
                }
                Some(command) = commands.recv() => {
                    self.obey(&outgoing, &command)?;
                    continue;
                }
            };
            deadline = Instant::now() + patience;
            self.packet(&packet, &outgoing)?;
        }
    }

    /// From the open packet to the answer to CONNECT; gives the time in which a ping has to come.
    async fn open(
        &self,
        incoming: &mut mpsc::Receiver<String>,
        outgoing: &mpsc::Sender<String>,
    ) -> Result<Duration> {
        let packet = incoming.recv().await.ok_or(Ended)?;
        let json = packet.strip_prefix('0').context("no open packet")?;
        let open = OpenPacket::parse(json).context("parse the open packet")?;
        let patience = open.ping_interval + open.ping_timeout;
        send(outgoing, "40".to_owned())?;
        let asked = self.harness.now();
        loop {
            let packet = incoming.recv().await.ok_or(Ended)?;
            let Some(json) = packet.strip_prefix("40") else {
                // What the connection itself says may come in between; an event may not.
                ensure!(!packet.starts_with('4'), "{packet:?} before the answer to CONNECT");
                self.packet(&packet, outgoing)?;
                continue;
            };
            let answer: Connected<'_> =
                serde_json::from_str(json).context("parse the CONNECT answer")?;
            let mut history = self.harness.history.borrow_mut();
            self.session.set(Some(u32::try_from(history.sessions.len())?));
            history.sessions.push(Session {
                socket: self.member.index,
                node: self.node,
                id: answer.sid.to_owned(),
                asked,
                opened: self.harness.now(),
                closed: None,
                reason: String::new(),
            });
            return Ok(patience);
        }
    }

    fn packet(&self, packet: &str, outgoing: &mpsc::Sender<String>) -> Result<()> {
        let mut kinds = packet.chars();
        match (kinds.next(), kinds.next()) {
            (Some('2'), None) => send(outgoing, "3".to_owned()),
            (Some('6'), None) => Ok(()),
            (Some('1'), None) => bail!("transport close: by packet"),
            (Some('4'), Some('2')) => self.event(&packet[2..]),
            (Some('4'), Some('3')) => self.acknowledged(&packet[2..]),
            (Some('4'), Some('1')) => bail!("io server disconnect"),
            _ => {
                self.harness.troubled(format!("unexpected packet {packet:?}"));
                bail!("unexpected packet {packet:?}")
            }
        }
    }

    fn event(&self, event: &str) -> Result<()> {
        let session = self.session.get().context("an event before CONNECT")?;
        let at = self.harness.now();
        if let Some(message) = message::parse(event) {
            let message::Message { publisher, number, target } = message;
            let receipt = Receipt { session, publisher, number, target, at };
            self.harness.history.borrow_mut().receipts.push(receipt);
            return Ok(());
        }
        let Ok((name, id)) = serde_json::from_str::<(String, String)>(event) else {
            self.harness.troubled(format!("a changed message: {event:.100}"));
            bail!("a changed message");
        };
        let notice = Notice { watcher: session, id, came: name == "came", at };
        self.harness.history.borrow_mut().notices.push(notice);
        Ok(())
    }

    fn acknowledged(&self, ack: &str) -> Result<()> {
        let at = ack.find('[').context("parse an ack")?;
        let awaited = self.awaited.borrow_mut().remove(&ack[..at].parse()?);
        let Some(awaited) = awaited else {
            self.harness.troubled(format!("a second ack: {ack}"));
            bail!("a second ack");
        };
        let now = Some(self.harness.now());
        if ack[at..] != *"[]" {
            self.harness.troubled(format!("refused: {ack}"));
            bail!("refused: {ack}");
        }
        let mut history = self.harness.history.borrow_mut();
        match awaited {
            Awaited::Said(at) => history.publications[at].accepted = now,
            Awaited::Joined(at) => history.memberships[at].joined = now,
            Awaited::Left(at) => history.memberships[at].left = now,
            Awaited::Watching => {}
        }
        drop(history);
        let is_joining =
            |awaited: &Awaited| matches!(awaited, Awaited::Joined(_) | Awaited::Watching);
        if !self.awaited.borrow().values().any(is_joining) {
            self.member.settled.set(true);
        }
        Ok(())
    }

    fn obey(&self, outgoing: &mpsc::Sender<String>, command: &Command) -> Result<()> {
        match command {
            Command::Say(target, padding) => self.say(outgoing, target, *padding),
            Command::Toggle(room) if self.memberships.borrow().contains_key(room) => {
                self.leave(outgoing, *room)
            }
            Command::Toggle(room) => {
                self.rooms.borrow_mut().push(*room);
                self.join(outgoing, *room)
            }
        }
    }

    fn say(&self, outgoing: &mpsc::Sender<String>, target: &Target, padding: usize) -> Result<()> {
        let (publisher, number) = self.spoken.get();
        self.spoken.set((publisher, number + 1));
        let text = message::text(publisher, number, target, padding);
        let event = match target {
            Target::Everyone => format!(r#""say-all","{text}""#),
            Target::Rooms(rooms) if rooms.len() == 1 => {
                format!(r#""say","{}","{text}""#, message::room(rooms[0]))
            }
            Target::Rooms(rooms) => {
                let (one, other) = (message::room(rooms[0]), message::room(rooms[1]));
                format!(r#""say-two","{one}","{other}","{text}""#)
            }
        };
        let mut history = self.harness.history.borrow_mut();
        let awaited = Awaited::Said(history.publications.len());
        history.publications.push(Publication {
            publisher,
            number,
            target: target.clone(),
            origin: Origin::Node(self.node),
            sent: self.harness.now(),
            accepted: None,
        });
        drop(history);
        self.ask(outgoing, &event, awaited)
    }

    fn join(&self, outgoing: &mpsc::Sender<String>, room: u16) -> Result<()> {
        let session = self.session.get().context("a join before CONNECT")?;
        let asked = self.harness.now();
        let membership =
            Membership { session, room, asked, joined: None, leaving: None, left: None };
        let mut history = self.harness.history.borrow_mut();
        let at = history.memberships.len();
        history.memberships.push(membership);
        drop(history);
        self.memberships.borrow_mut().insert(room, at);
        self.ask(outgoing, &format!(r#""join","{}""#, message::room(room)), Awaited::Joined(at))
    }

    fn leave(&self, outgoing: &mpsc::Sender<String>, room: u16) -> Result<()> {
        let at = self.memberships.borrow_mut().remove(&room).context("leave a room it is in")?;
        self.rooms.borrow_mut().retain(|other| *other != room);
        self.harness.history.borrow_mut().memberships[at].leaving = Some(self.harness.now());
        self.ask(outgoing, &format!(r#""leave","{}""#, message::room(room)), Awaited::Left(at))
    }

    fn ask(&self, outgoing: &mpsc::Sender<String>, event: &str, awaited: Awaited) -> Result<()> {
        let ack = self.next_ack.get();
        self.next_ack.set(ack + 1);
        self.awaited.borrow_mut().insert(ack, awaited);
        send(outgoing, format!("42{ack}[{event}]"))
    }
}

/// The transport brings nothing more; why is its own to say.
#[derive(Debug)]
struct Ended;

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the transport ended")
    }
}

impl std::error::Error for Ended {}

fn send(outgoing: &mpsc::Sender<String>, packet: String) -> Result<()> {
    match outgoing.try_send(packet) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Closed(_)) => Err(Ended.into()),
        Err(mpsc::error::TrySendError::Full(_)) => bail!("the server does not read"),
    }
}
