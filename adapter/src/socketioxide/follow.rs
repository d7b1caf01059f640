//! What the adapter is told: which namespaces are open, and where channels follow rooms, which rooms have members here.
//!
//! Of rooms, socketioxide tells nobody who joins and who connects. What it does is to ask for the local adapter before each
//! join and leave, which wakes a look at all rooms; for connections there is a look now and then.

use super::{Cluster, local::rooms_in, namespace::Namespace};
use crate::Follow;
use socketioxide_core::adapter::SocketEmitter;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
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

/// The open namespaces, and the rooms of each that are followed.
pub(super) type Told = HashMap<String, HashSet<String>>;

impl<E: SocketEmitter> Cluster<E> {
    /// Begins to receive for a namespace.
    pub(super) fn open(&self, namespace: &Arc<Namespace<E>>) {
        let mut told = self.told();
        self.local.open(namespace);
        told.entry(namespace.path().to_owned()).or_default();
        self.adapter.open_namespace(namespace.path());
    }

    /// Stops receiving for a namespace. Does nothing if it was closed before.
    pub(super) fn close(&self, namespace: &Arc<Namespace<E>>) {
        let mut told = self.told();
        if self.local.close(namespace) {
            told.remove(namespace.path());
            self.adapter.close_namespace(namespace.path());
        }
    }

    /// While it is locked the adapter is told of nothing else, so that both always agree: threads open and close
    /// namespaces of the same path at the same time. socketioxide must not be called meanwhile. It closes namespaces
    /// while it holds locks of its own, and may do so on any call, with the last reference to one.
    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        // A panic half-way leaves nothing that the next opening or look would not put right.
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

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
            for namespaces in self.local.paths() {
                self.look_at(&namespaces);
            }
            time::sleep(started.elapsed() * PAUSE_FACTOR).await;
        }
    }

    fn look_at(&self, namespaces: &[Arc<Namespace<E>>]) {
        let Some(ns) = namespaces.first().map(|namespace| namespace.path()) else { return };
        let rooms = rooms_in(namespaces);
        let mut told = self.told();
        // It may have been closed meanwhile. If others were opened or closed, the next look sees it.
        let Some(followed) = told.get_mut(ns) else { return };
        for room in rooms.difference(followed) {
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

#[cfg(test)]
mod tests {
    use super::{
        super::stub::{Got, Hook, cluster, interrupted, json, namespace},
        *,
    };
    use crate::{AdapterConfig, ClientAnswer, Flags, Local, Mode, RedisConfig, Selection};
    use futures_util::StreamExt;
    use protocol::socket::EventData;
    use socketioxide_core::{
        Sid, Str,
        adapter::{BroadcastFlags, BroadcastOptions, CoreAdapter},
        packet::Packet,
    };
    use std::{
        collections::BTreeSet,
        sync::mpsc,
        thread::{self, JoinHandle},
    };

    const NS: &str = "/dynamic";

    fn linked(mode: Mode) -> AdapterConfig {
        // Nothing connects to it: the clusters of these tests do not run.
        let redis = Some(RedisConfig::new("redis://127.0.0.1:1".into()));
        AdapterConfig { mode, redis, ..AdapterConfig::default() }
    }

    fn event(json: &str) -> EventData {
        EventData { json: json.into(), attachments: Vec::new() }
    }

    fn everybody() -> Selection {
        Selection::default()
    }

    fn room(name: &str) -> Selection {
        Selection { rooms: vec![name.into()], except: Vec::new() }
    }

    fn check(got: &[&Got], expected: [&[(Sid, &str)]; 2]) {
        for (got, expected) in got.iter().zip(expected) {
            let expected: Vec<_> =
                expected.iter().map(|(id, text)| (*id, (*text).into())).collect();
            assert_eq!(got.take(), expected);
        }
    }

    #[tokio::test]
    async fn all_live_namespaces_of_a_path_take_part_until_the_last_is_closed() {
        let cluster = cluster(linked(Mode::Redis));
        let local = &*cluster.local;
        let [a, b] = [Sid::new(), Sid::new()];
        let (first, first_got) = namespace(&cluster, NS, &[a]);
        let (second, second_got) = namespace(&cluster, NS, &[b]);
        let got = [&first_got, &second_got];
        // Two clients ask for it at once, and socketioxide goes on with any of both.
        Arc::clone(&first).init(|| {});
        Arc::clone(&second).init(|| {});

        local.deliver(NS, &everybody(), Flags::default(), event(r#"["all"]"#));
        check(&got, [&[(a, r#"["all"]"#)], &[(b, r#"["all"]"#)]]);
        assert_eq!(local.n_sockets(), 2);

        local.join(NS, &everybody(), &["red".into()]).await;
        let rooms: BTreeSet<_> = local.rooms(NS).await.into_iter().collect();
        assert_eq!(rooms, [a.as_str().into(), b.as_str().into(), "red".into()].into());
        local.leave(NS, &room(a.as_str()), &["red".into()]).await;
        assert!(local.has_room(NS, "red") && local.has_room(NS, a.as_str()));
        let details = local.sockets(NS, &room("red")).await;
        assert_eq!(details.iter().map(|socket| &*socket.id).collect::<Vec<_>>(), [b.as_str()]);

        let data = event(r#"["q"]"#);
        let asked = local.ask(NS, &everybody(), Flags::default(), data, Duration::MAX).await;
        assert_eq!(asked.n_asked, 2);
        let sockets = asked.answers.map(|ClientAnswer { socket, args: _ }| socket);
        let sockets: BTreeSet<_> = sockets.collect().await;
        assert_eq!(sockets, [a, b].map(|id| Some(id.as_str().into())).into());
        check(&got, [&[(a, r#"["q"]"#)], &[(b, r#"["q"]"#)]]);

        local.disconnect(NS, &room("red"), false).await;
        check(&got, [&[], &[(b, "disconnect")]]);

        second.close().await.expect("it closes");
        assert!(cluster.adapter.is_open(NS));
        local.deliver(NS, &everybody(), Flags::default(), event(r#"["rest"]"#));
        check(&got, [&[(a, r#"["rest"]"#)], &[]]);
        drop(second);
        assert!(cluster.adapter.is_open(NS), "it was closed before");
        drop(first);
        assert!(!cluster.adapter.is_open(NS) && cluster.told().is_empty());
        local.deliver(NS, &everybody(), Flags::default(), event(r#"["nobody"]"#));
        check(&got, [&[], &[]]);
    }

    #[tokio::test]
    async fn an_event_of_this_server_reaches_all_live_namespaces_of_its_path() {
        let cluster = cluster(linked(Mode::Redis));
        let [a, b] = [Sid::new(), Sid::new()];
        let (first, first_got) = namespace(&cluster, NS, &[a]);
        let (second, second_got) = namespace(&cluster, NS, &[b]);
        let (other, other_got) = namespace(&cluster, "/other", &[a, b]);
        for namespace in [&first, &second, &other] {
            Arc::clone(namespace).init(|| {});
        }
        let packet = || Packet::event(Str::from(NS), json(r#"["ev"]"#.to_owned()));
        let mut to_all = BroadcastOptions::default();
        to_all.add_flag(BroadcastFlags::Broadcast);
        first.broadcast(packet(), to_all).await.expect("delivered");
        check(&[&first_got, &second_got], [&[(a, r#"["ev"]"#)], &[(b, r#"["ev"]"#)]]);
        let mut to_others = BroadcastOptions::new(a);
        to_others.add_flag(BroadcastFlags::Broadcast);
        first.broadcast(packet(), to_others).await.expect("delivered");
        check(&[&first_got, &second_got], [&[], &[(b, r#"["ev"]"#)]]);
        first.broadcast(packet(), BroadcastOptions::new(a)).await.expect("delivered");
        check(&[&first_got, &second_got], [&[(a, r#"["ev"]"#)], &[]]);
        assert_eq!(other_got.take(), []);
    }

    /// Lets a thread do something at the nth time that a namespace is asked for its path from now on, and waits a
    /// moment for it: long enough for it to be done unless something stops it.
    fn interrupt_at(
        nth: usize,
        hook: &Hook,
        work: impl FnOnce() + Send + 'static,
    ) -> mpsc::Receiver<JoinHandle<()>> {
        let (sender, thread) = mpsc::channel();
        let (mut work, mut n_asked) = (Some(work), 0);
        *hook.lock().expect("no test panicked") = Some(Box::new(move || {
            n_asked += 1;
            if n_asked == nth
                && let Some(work) = work.take()
            {
                let (done, is_done) = mpsc::channel();
                let thread = thread::spawn(move || {
                    work();
                    let _ = done.send(());
                });
                let _ = is_done.recv_timeout(Duration::from_millis(100));
                let _ = sender.send(thread);
            }
        }));
        thread
    }

    /// The only namespace of a path is closed, and while that happens the next one is opened.
    #[test]
    fn a_namespace_stays_open_that_is_opened_while_another_is_closed() {
        let cluster = cluster(linked(Mode::Redis));
        let mut n_interrupted = 0;
        for nth in 1.. {
            let hook = Hook::default();
            let closed = interrupted(&cluster, NS, Arc::clone(&hook));
            Arc::clone(&closed).init(|| {});
            let (opened, _) = namespace(&cluster, NS, &[]);
            let opening = Arc::clone(&opened);
            let thread = interrupt_at(nth, &hook, move || opening.init(|| {}));
            cluster.close(&closed.namespace);
            let Ok(thread) = thread.try_recv() else { break };
            thread.join().expect("it opened");
            n_interrupted += 1;
            assert!(cluster.adapter.is_open(NS), "interrupted at {nth}");
            assert_eq!(cluster.local.namespaces(NS).len(), 1, "interrupted at {nth}");
        }
        assert!(n_interrupted > 1, "it is asked while it is closed");
    }

    #[test]
    fn socketioxide_is_not_called_under_the_lock() {
        let cluster = cluster(linked(Mode::Redis));
        let (opened, _) = namespace(&cluster, NS, &[]);
        let (sender, is_free) = std::sync::mpsc::channel();
        let told = Arc::clone(&cluster.told);
        // There socketioxide takes the lock under which it closes others.
        opened.init(move || sender.send(told.try_lock().is_ok()).expect("it is received"));
        assert!(is_free.recv().expect("it was called"));
    }

    #[tokio::test]
    async fn a_room_is_followed_while_it_has_members_in_any_namespace_of_the_path() {
        let cluster = cluster(linked(Mode::RedisSharded));
        let [a, b] = [Sid::new(), Sid::new()];
        let (first, _) = namespace(&cluster, NS, &[a]);
        let (second, _) = namespace(&cluster, NS, &[b]);
        Arc::clone(&first).init(|| {});
        Arc::clone(&second).init(|| {});
        let follows_red = || {
            cluster.local.paths().iter().for_each(|namespaces| cluster.look_at(namespaces));
            cluster.told()[NS].contains("red")
        };
        assert!(!follows_red());
        cluster.local.join(NS, &everybody(), &["red".into()]).await;
        assert!(follows_red());
        cluster.local.leave(NS, &room(a.as_str()), &["red".into()]).await;
        assert!(follows_red());
        first.close().await.expect("it closes");
        assert!(follows_red());
        cluster.local.leave(NS, &room(b.as_str()), &["red".into()]).await;
        assert!(!follows_red());
        let seen = cluster.local.namespaces(NS);
        drop((first, second));
        // A look that began before everything was closed tells nothing of it.
        cluster.look_at(&seen);
        assert!(cluster.told().is_empty());
    }
}
