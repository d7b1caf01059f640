//! Which master of a Redis Cluster has which slot.

use super::error::LinkError;
use redis::{Client, ConnectionAddr, ErrorKind, FromRedisValue, Value, aio::MultiplexedConnection};

/// How many slots a Redis Cluster has.
const SLOTS: usize = 16_384;
/// Stands for no master.
const NOBODY: u16 = u16::MAX;

/// Host and port of a server.
pub(super) type Address = (String, u16);

/// Who has which slot, as one server says, or as several agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Topology {
    /// For each slot the index of its master.
    owners: Vec<u16>,
    masters: Vec<Address>,
}

/// What one server says.
pub(super) struct View {
    pub(super) topology: Topology,
    /// Whether the cluster works, as far as this server can tell.
    pub(super) is_ok: bool,
}

impl View {
    /// Asks a server.
    pub(super) async fn ask(
        connection: &mut MultiplexedConnection,
        client: &Client,
    ) -> Result<Self, LinkError> {
        let info = redis::cmd("CLUSTER").arg("INFO").to_owned();
        let info: Result<String, _> = info.query_async(connection).await;
        let is_ok = match info {
            Ok(info) => !info.lines().any(|line| line == "cluster_state:fail"),
            // Who may not ask has to believe.
            Err(error) if matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension) => {
                true
            }
            Err(error) => return Err(LinkError::of_command("CLUSTER INFO", error)),
        };
        Ok(Self { topology: Topology::ask(connection, client).await?, is_ok })
    }
}

/// The slot of a channel: that of the part in braces, if there is any.
pub(super) fn slot(channel: &str) -> u16 {
    let tag = channel.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let hashed = match tag {
        Some((tag, _)) if !tag.is_empty() => tag,
        _ => channel,
    };
    crc16::State::<crc16::XMODEM>::calculate(hashed.as_bytes()) % SLOTS as u16
}

impl Topology {
    /// Without any master.
    pub(super) fn empty() -> Self {
        Self { owners: vec![NOBODY; SLOTS], masters: Vec::new() }
    }

    /// Asks a server.
    pub(super) async fn ask(
        connection: &mut MultiplexedConnection,
        client: &Client,
    ) -> Result<Self, LinkError> {
        let slots = redis::cmd("CLUSTER").arg("SLOTS").to_owned();
        let answer: Value = slots
            .query_async(connection)
            .await
            .map_err(|error| LinkError::of_command("CLUSTER SLOTS", error))?;
        let host = match client.get_connection_info().addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.as_str(),
            _ => "",
        };
        Self::parse(&answer, host).ok_or(LinkError::TopologyUnknown)
    }

    /// Reads an answer: ranges, each with its master and then its replicas. A server that does not know its own
    /// address leaves it out; it is the one that was asked.
    fn parse(answer: &Value, asked: &str) -> Option<Self> {
        let Value::Array(ranges) = answer else { return None };
        let mut topology = Self::empty();
        for range in ranges {
            let Value::Array(range) = range else { return None };
            let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &range[..] else {
                return None;
            };
            let [host, Value::Int(port), ..] = &master[..] else { return None };
            let host: Option<String> = Option::from_redis_value_ref(host).ok()?;
            let host = host.filter(|host| !host.is_empty() && host != "?");
            let address = (host.unwrap_or_else(|| asked.to_owned()), u16::try_from(*port).ok()?);
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            let owner = topology.index(&address);
            topology.owners.get_mut(first..=last)?.fill(owner);
        }
        Some(topology)
    }

    /// What several servers say, each of which knows best what it has itself: news take a while to spread. If
    /// two claim a slot, the one that had it before keeps it; it will say when it has given it away.
    pub(super) fn agree(self, views: &[(Address, Self)], before: &Self) -> Self {
        let mut agreed = Self::empty();
        for slot in 0..SLOTS as u16 {
            let claimed_by = |address: &Address| {
                views.iter().any(|(by, view)| by == address && view.owner(slot) == Some(address))
            };
            let before = before.owner(slot).filter(|owner| claimed_by(owner));
            let claimant = || views.iter().map(|(by, _)| by).find(|by| claimed_by(by));
            if let Some(owner) = before.or_else(claimant).or_else(|| self.owner(slot)) {
                let owner = agreed.index(owner);
                agreed.owners[usize::from(slot)] = owner;
            }
        }
        agreed
    }

    /// The master that has a slot.
    pub(super) fn owner(&self, slot: u16) -> Option<&Address> {
        self.masters.get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    /// A master has been named as the owner of a slot.
    pub(super) fn set_owner(&mut self, slot: u16, owner: &Address) {
        let owner = self.index(owner);
        if let Some(known) = self.owners.get_mut(usize::from(slot)) {
            *known = owner;
        }
    }

    /// The masters that have slots.
    pub(super) fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// Whether each slot has a master.
    pub(super) fn is_complete(&self) -> bool {
        !self.owners.contains(&NOBODY)
    }

    /// A channel of which a master has the slot: the name with a number behind it. In a name that begins with a
    /// part in braces a number behind it would change nothing, so there it stands in front.
    pub(super) fn channel_of(&self, master: &Address, name: &str) -> Option<String> {
        let has_it = |channel: &String| self.owner(slot(channel)) == Some(master);
        let behind = (0..SLOTS * 64).map(|number| format!("{name}{number}"));
        let before = (0..SLOTS * 64).map(|number| format!("{{{number}}}{name}"));
        if name.contains('{') {
            before.into_iter().find(has_it)
        } else {
            behind.into_iter().find(has_it)
        }
    }

    fn index(&mut self, master: &Address) -> u16 {
        let index = self.masters.iter().position(|known| known == master);
        let index = index.unwrap_or_else(|| {
            self.masters.push(master.clone());
            self.masters.len() - 1
        });
        // There are never more masters than slots.
        index as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Address {
        (String::from("10.0.0.1"), port)
    }

    fn view(ranges: &[(i64, i64, u16)]) -> Topology {
        let ranges = ranges.iter().map(|(first, last, port)| {
            let host = Value::BulkString(b"10.0.0.1".to_vec());
            let master = Value::Array(vec![host, Value::Int((*port).into()), Value::Nil]);
            Value::Array(vec![Value::Int(*first), Value::Int(*last), master])
        });
        Topology::parse(&Value::Array(ranges.collect()), "asked").expect("valid")
    }

    #[test]
    fn slots_are_those_of_redis() {
        // As `CLUSTER KEYSLOT` says.
        assert_eq!(slot("foo"), 12182);
        assert_eq!(slot("123456789"), 12739);
        assert_eq!(slot("a{foo}b"), 12182);
        assert_eq!(slot("{}foo"), slot("{}foo{bar}"[..5].trim()));
        assert_eq!(slot("x{foo}{bar}"), 12182);
        assert_ne!(slot("x{foo"), 12182);
    }

    #[test]
    fn an_answer_is_read() {
        let topology = view(&[(0, 8191, 1), (8192, 16383, 2)]);
        assert!(topology.is_complete());
        assert_eq!(topology.owner(8191), Some(&address(1)));
        assert_eq!(topology.owner(8192), Some(&address(2)));
        let gap = view(&[(0, 8191, 1)]);
        assert!(!gap.is_complete());
        assert_eq!(gap.owner(8192), None);
        let nameless = Value::Array(vec![Value::Array(vec![
            Value::Int(0),
            Value::Int(1),
            Value::Array(vec![Value::Nil, Value::Int(7)]),
        ])]);
        let nameless = Topology::parse(&nameless, "asked").expect("valid");
        assert_eq!(nameless.owner(1), Some(&(String::from("asked"), 7)));
        for wrong in [Value::Nil, Value::Array(vec![Value::Array(vec![Value::Int(1)])])] {
            assert_eq!(Topology::parse(&wrong, "asked"), None);
        }
    }

    #[test]
    fn a_master_knows_best_what_it_has() {
        let before = view(&[(0, 16383, 1)]);
        let after = view(&[(0, 99, 2), (100, 16383, 1)]);
        // The first knows of nothing yet.
        let agreed = |first: &Topology, second: &Topology| {
            let views = [(address(1), first.clone()), (address(2), second.clone())];
            before.clone().agree(&views, &before).owner(50).cloned()
        };
        assert_eq!(agreed(&after, &after), Some(address(2)));
        assert_eq!(agreed(&before, &after), Some(address(1)), "both claim it");
        // The old owner has given it away, the new one has not been told.
        assert_eq!(agreed(&after, &before), Some(address(1)));
    }

    #[test]
    fn there_is_a_channel_for_each_master() {
        let topology = view(&[(0, 5, 1), (6, 16383, 2)]);
        for (master, name) in [(1, "socket.io-carillon#"), (2, "x#"), (1, "{tag}-carillon#")] {
            let channel = topology.channel_of(&address(master), name).expect("one is found");
            assert!(channel.contains(name));
            assert_eq!(topology.owner(slot(&channel)), Some(&address(master)));
        }
        assert_eq!(topology.channel_of(&address(3), "x"), None);
    }
}
