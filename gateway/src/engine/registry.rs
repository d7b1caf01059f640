//! The sessions of a node by their secret id.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::id::Id;

use super::session::Session;
use crate::hash::OwnKeyMap;

/// Maps that are locked one by one: polls of different sessions seldom meet.
const SHARDS: usize = 16;

/// Every session that a request may name.
#[derive(Default)]
pub struct Registry {
    shards: [Mutex<OwnKeyMap<Id, Arc<Session>>>; SHARDS],
    len: AtomicUsize,
}

impl Registry {
    fn shard(&self, id: Id) -> MutexGuard<'_, OwnKeyMap<Id, Arc<Session>>> {
        // The last characters are random and base64url has 64 of them: all shards fill evenly.
        let last = id.as_str().as_bytes()[protocol::id::ID_LEN - 1];
        self.shards[usize::from(last) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a session.
    pub fn insert(&self, session: Arc<Session>) {
        self.shard(session.id()).insert(session.id(), session);
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// Finds a session.
    pub fn get(&self, id: Id) -> Option<Arc<Session>> {
        self.shard(id).get(&id).cloned()
    }

    /// Removes a session, if it is still there.
    pub fn remove(&self, id: Id) {
        let mut shard = self.shard(id);
        if shard.remove(&id).is_some() {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
        if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
            shard.shrink_to_fit();
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All sessions at about this moment.
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions = Vec::with_capacity(self.len());
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            sessions.extend(shard.values().cloned());
        }
        sessions
    }
}
