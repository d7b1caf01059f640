//! Which rooms have members here, where channels follow rooms.
//!
//! socketioxide tells nobody who joins and who connects. What it does is to ask for the local adapter before each
//! join and leave, which wakes a look at all rooms; for connections there is a look now and then.

use super::{Cluster, namespace::Namespace};
use crate::Follow;
use socketioxide_core::adapter::SocketEmitter;
use std::time::{Duration, Instant};
use tokio::{sync::oneshot, time};
use tokio_util::sync::CancellationToken;

/// How long after it nobody has changed a room can a connection go unseen.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// socketioxide asks before it changes something. So much later it has done it; if not, the next look sees it.
const SETTLE_DELAY: Duration = Duration::from_millis(2);
/// After a look comes a pause of so many times its length, so that looking takes at most 5 % of a core.
const PAUSE_FACTOR: u32 = 20;
/// How long Redis may take to confirm a subscription before nobody waits for it any longer.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

impl<E: SocketEmitter> Cluster<E> {
    /// Tells the adapter of rooms that got their first member or lost their last one, until the shutdown.
    pub(super) async fn follow_rooms(&self, shutdown: &CancellationToken) {
        if self.adapter.follows() == Follow::Nothing {
            return;
        }
        shutdown.run_until_cancelled(self.look_at_rooms()).await;
    }

    async fn look_at_rooms(&self) {
        loop {
            if time::timeout(LOOK_INTERVAL, self.local.changed.notified()).await.is_ok() {
                time::sleep(SETTLE_DELAY).await;
            }
            let started = Instant::now();
            for namespace in self.local.namespaces() {
                self.look_at(&namespace);
            }
            time::sleep(started.elapsed() * PAUSE_FACTOR).await;
        }
    }

    fn look_at(&self, namespace: &Namespace<E>) {
        let (ns, rooms) = (namespace.path(), namespace.rooms());
        let mut followed = namespace.followed();
        for room in rooms.difference(&followed) {
            self.adapter.room_opened(ns, room);
        }
        for room in followed.difference(&rooms) {
            self.adapter.room_closed(ns, room);
        }
        *followed = rooms;
    }

    pub(super) async fn wait_until_followed(&self, ns: &str, room: &str) {
        let (confirm, confirmed) = oneshot::channel();
        self.adapter.when_followed(ns, room, move || {
            let _ = confirm.send(());
        });
        let _ = time::timeout(CONFIRM_TIMEOUT, confirmed).await;
    }
}
