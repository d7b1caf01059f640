//! The namespaces that exist on this node: those of the configuration, and those that a client
//! named and a pattern allows.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use adapter::RoomName;

use crate::config::{NamespaceConfig, NamespacePath};

/// Longest namespace name a client may ask for, in bytes.
const NAME_BYTES_MAX: usize = 200;

/// A namespace that exists.
pub struct Namespace {
    index: u32,
    name: Box<str>,
    /// From a pattern: it ends with its last socket.
    dynamic: bool,
    config: RwLock<Arc<NamespaceConfig>>,
    n_sockets: AtomicUsize,
    /// How many lanes have members of a room. Asked for every frame from another node, before it is
    /// decoded.
    rooms: RwLock<HashMap<RoomName, u32>>,
    /// The same for the rooms of which the adapter is told, the sockets' own among them if it wants
    /// those. Apart from `rooms`, because the adapter is told under this lock and may ask for a room.
    followed: Mutex<HashMap<RoomName, u32>>,
}

impl Namespace {
    /// A number that no other namespace of this process ever has.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The concrete name, `/` first.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<NamespaceConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sockets that are connected or about to be.
    pub fn n_sockets(&self) -> usize {
        self.n_sockets.load(Ordering::Relaxed)
    }

    /// Whether a lane has members of `room`.
    pub(super) fn has_room(&self, room: &str) -> bool {
        self.rooms.read().unwrap_or_else(PoisonError::into_inner).contains_key(room)
    }

    pub(super) fn room_added(&self, room: &RoomName) {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        *rooms.entry(room.clone()).or_default() += 1;
    }

    /// A lane has members of a room that is followed. Calls `opened` if none had before; under the
    /// lock, so that what one lane reports cannot overtake what another one does.
    pub(super) fn follow(&self, room: &RoomName, opened: impl FnOnce()) {
        let mut followed = self.followed();
        let n_lanes = followed.entry(room.clone()).or_default();
        *n_lanes += 1;
        if *n_lanes == 1 {
            opened();
        }
    }

    /// A lane has no members of a room any more. Calls `closed` if no lane has.
    pub(super) fn unfollow(&self, room: &str, closed: impl FnOnce()) {
        let mut followed = self.followed();
        let Some(n_lanes) = followed.get_mut(room) else { return };
        *n_lanes -= 1;
        if *n_lanes == 0 {
            followed.remove(room);
            closed();
        }
    }

    fn followed(&self) -> MutexGuard<'_, HashMap<RoomName, u32>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn room_removed(&self, room: &str) {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(n_lanes) = rooms.get_mut(room) {
            *n_lanes -= 1;
            if *n_lanes == 0 {
                rooms.remove(room);
            }
        }
    }
}

/// Why a client may not enter a namespace. The text is what it gets as `connect_error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamespaceError {
    /// Neither configured nor matched by a pattern.
    #[error("Invalid namespace")]
    Unknown,
    /// The cap on namespaces from patterns is reached.
    #[error("Too many namespaces")]
    TooMany,
}

/// All namespaces of this node.
pub struct Namespaces {
    dynamic_max: usize,
    state: Mutex<State>,
    /// The same as `State::live`, for readers on the path of messages.
    live: RwLock<HashMap<Box<str>, Arc<Namespace>>>,
}

struct State {
    configured: Vec<Arc<NamespaceConfig>>,
    next_index: u32,
    n_dynamic: usize,
}

/// What changed in the set of namespaces; the adapter follows it.
pub enum Change {
    /// A namespace now exists.
    Opened,
    /// A namespace is gone.
    Closed,
}

impl Namespaces {
    /// The namespaces of the configuration; `changed` hears of each that is exact.
    pub fn new(
        configured: Vec<NamespaceConfig>,
        dynamic_max: usize,
        mut changed: impl FnMut(&str, Change),
    ) -> Self {
        let configured: Vec<_> = configured.into_iter().map(Arc::new).collect();
        let mut live = HashMap::new();
        let mut next_index = 0;
        for config in &configured {
            if let NamespacePath::Exact(name) = &config.path {
                live.insert(Box::from(&**name), namespace(next_index, name, false, config));
                next_index += 1;
                changed(name, Change::Opened);
            }
        }
        let state = State { configured, next_index, n_dynamic: 0 };
        Self { dynamic_max, state: Mutex::new(state), live: RwLock::new(live) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds a namespace that exists.
    pub fn get(&self, name: &str) -> Option<Arc<Namespace>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All that exist.
    pub fn all(&self) -> Vec<Arc<Namespace>> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Counts a socket into a namespace, which a pattern may bring into being.
    pub fn enter(
        &self,
        name: &str,
        changed: impl FnOnce(&str, Change),
    ) -> Result<Arc<Namespace>, NamespaceError> {
        let mut state = self.state();
        if let Some(namespace) = self.get(name) {
            namespace.n_sockets.fetch_add(1, Ordering::Relaxed);
            return Ok(namespace);
        }
        let plain =
            name.len() <= NAME_BYTES_MAX && !name.contains(|c: char| c == '#' || c.is_control());
        let config = state.configured.iter().find(|config| plain && config.path.matches(name));
        let config = config.cloned().ok_or(NamespaceError::Unknown)?;
        if state.n_dynamic >= self.dynamic_max {
            return Err(NamespaceError::TooMany);
        }
        let namespace = namespace(state.next_index, name, true, &config);
        state.next_index += 1;
        state.n_dynamic += 1;
        namespace.n_sockets.fetch_add(1, Ordering::Relaxed);
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        live.insert(name.into(), namespace.clone());
        drop(live);
        changed(name, Change::Opened);
        Ok(namespace)
    }

    /// Counts a socket out. A namespace from a pattern ends with its last socket, so that names
    /// made up by clients do not add up.
    pub fn leave(&self, namespace: &Namespace, changed: impl FnOnce(&str, Change)) {
        let mut state = self.state();
        if namespace.n_sockets.fetch_sub(1, Ordering::Relaxed) > 1 || !namespace.dynamic {
            return;
        }
        state.n_dynamic -= 1;
        self.live.write().unwrap_or_else(PoisonError::into_inner).remove(namespace.name());
        changed(namespace.name(), Change::Closed);
    }

    /// Puts new rules into force for namespaces whose path was configured before. Answers the paths
    /// that were added or removed: these need a restart.
    pub fn reload(&self, configured: Vec<NamespaceConfig>) -> Vec<String> {
        let mut state = self.state();
        let mut unchanged = Vec::new();
        let mut restart = Vec::new();
        for new in configured {
            let Some(old) = state.configured.iter_mut().find(|old| old.path == new.path) else {
                restart.push(new.path.as_str().to_owned());
                continue;
            };
            *old = Arc::new(new);
            unchanged.push(old.clone());
        }
        let removed =
            state.configured.iter().filter(|old| !unchanged.iter().any(|c| c.path == old.path));
        restart.extend(removed.map(|config| config.path.as_str().to_owned()));
        for namespace in self.all() {
            let path = namespace.config().path.clone();
            if let Some(config) = unchanged.iter().find(|config| config.path == path) {
                *namespace.config.write().unwrap_or_else(PoisonError::into_inner) = config.clone();
            }
        }
        restart
    }
}

fn namespace(
    index: u32,
    name: &str,
    dynamic: bool,
    config: &Arc<NamespaceConfig>,
) -> Arc<Namespace> {
    Arc::new(Namespace {
        index,
        name: name.into(),
        dynamic,
        config: RwLock::new(config.clone()),
        n_sockets: AtomicUsize::new(0),
        rooms: RwLock::default(),
        followed: Mutex::default(),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_room_opens_with_the_first_lane_and_closes_with_the_last() {
        let namespace = namespace(0, "/", false, &Arc::default());
        let told = RefCell::new(Vec::new());
        let room = RoomName::from("a");
        let follow = || namespace.follow(&room, || told.borrow_mut().push("opened"));
        let unfollow = || namespace.unfollow("a", || told.borrow_mut().push("closed"));
        follow();
        follow();
        unfollow();
        assert_eq!(*told.borrow(), ["opened"]);
        unfollow();
        follow();
        assert_eq!(*told.borrow(), ["opened", "closed", "opened"]);
        assert!(!namespace.has_room("a"), "followed is not the same as having members");
    }
}
