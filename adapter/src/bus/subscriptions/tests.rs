use super::*;
use crate::AdapterConfig;
use prometheus::IntGauge;
use std::sync::atomic::{AtomicUsize, Ordering};

fn inbox() -> Arc<Inbox> {
    let depth = IntGauge::new("depth", "depth").expect("a valid name");
    Arc::new(Inbox::new(&AdapterConfig::default(), depth))
}

fn opened(topics: &[Topic]) -> Subscriptions {
    let subscriptions = Subscriptions::default();
    let inbox = inbox();
    for topic in topics {
        assert!(subscriptions.open(topic.clone(), &inbox, None).is_none());
    }
    subscriptions
}

fn names(names: &[Arc<str>]) -> Vec<&str> {
    names.iter().map(|name| &**name).collect()
}

fn frame(channel: &str) -> Frame {
    Frame { channel: channel.into(), payload: Vec::new() }
}

#[test]
fn what_others_count_is_sent_apart_from_the_rest() {
    let subscriptions = opened(&[
        Topic::channel("counted".into()).counted(),
        Topic::channel("a".into()),
        Topic::pattern("p*".into()),
    ]);
    let first = subscriptions.take_changes(false);
    assert_eq!(names(first.subscribe.of(TopicKind::Channel)), ["a"]);
    assert_eq!(names(first.subscribe.of(TopicKind::Pattern)), ["p*"]);
    assert!(first.count.is_empty());
    let then = subscriptions.take_changes(true);
    assert_eq!(names(then.count.of(TopicKind::Channel)), ["counted"]);
    assert!(then.subscribe.is_empty());
    assert!(subscriptions.take_changes(true).is_empty());
}

#[test]
fn only_what_differs_from_what_is_held_is_sent() {
    let subscriptions = Subscriptions::default();
    let inbox = inbox();
    for name in ["a", "b"] {
        assert!(subscriptions.open(Topic::channel(name.into()), &inbox, None).is_none());
    }
    drop(subscriptions.take_changes(true));
    subscriptions.held(TopicKind::Channel, "a");
    // Opened again, and closed before Redis heard of it.
    assert!(subscriptions.open(Topic::channel("a".into()), &inbox, None).is_none());
    assert!(subscriptions.close(TopicKind::Channel, "b", &inbox).is_empty());
    assert!(subscriptions.take_changes(true).is_empty());
    // Closed and opened again while the command that ends it is under way.
    assert!(subscriptions.close(TopicKind::Channel, "a", &inbox).is_empty());
    let changes = subscriptions.take_changes(true);
    assert_eq!(names(changes.unsubscribe.of(TopicKind::Channel)), ["a"]);
    assert!(subscriptions.open(Topic::channel("a".into()), &inbox, None).is_none());
    assert!(!subscriptions.ended(TopicKind::Channel, "a"), "it was asked for");
    let changes = subscriptions.take_changes(true);
    assert_eq!(names(changes.subscribe.of(TopicKind::Channel)), ["a"]);
    subscriptions.held(TopicKind::Channel, "a");
    assert!(subscriptions.ended(TopicKind::Channel, "a"), "by itself");
    assert!(!subscriptions.take_changes(true).subscribe.is_empty());
}

#[test]
fn a_message_comes_by_the_pattern_only_until_the_channel_is_confirmed() {
    let subscriptions = opened(&[Topic::channel("c*".into()).counted()]);
    drop(subscriptions.take_changes(true));
    subscriptions.held(TopicKind::Channel, "c*");
    subscriptions.begin(true);
    assert_eq!(names(&subscriptions.take_changes(true).stand_in), ["c*"]);
    subscriptions.held_by_pattern("c*");
    let by_pattern = |channel: &str| {
        subscriptions.inboxes(TopicKind::Pattern, br"c\*", &frame(channel)).is_some()
    };
    assert!(by_pattern("c*") && !by_pattern("cx"));
    subscriptions.ghost_gone("c*");
    assert_eq!(names(&subscriptions.take_changes(true).count_again), ["c*"]);
    assert!(by_pattern("c*"));
    subscriptions.held(TopicKind::Channel, "c*");
    assert!(!by_pattern("c*"), "it would come twice");
    assert!(subscriptions.inboxes(TopicKind::Channel, b"c*", &frame("c*")).is_some());
}

#[test]
fn who_waits_is_called_once_when_the_link_is_lost() {
    let subscriptions = Subscriptions::default();
    let n_called = Arc::new(AtomicUsize::new(0));
    let then = || -> Option<Then> {
        let n_called = Arc::clone(&n_called);
        Some(Box::new(move || _ = n_called.fetch_add(1, Ordering::Relaxed)))
    };
    let topic = Topic::channel("a".into());
    assert!(subscriptions.open(topic.clone(), &inbox(), then()).is_some(), "there is no link");
    subscriptions.link_is_up();
    assert!(subscriptions.open(topic.clone(), &inbox(), then()).is_none());
    subscriptions.link_is_down();
    subscriptions.link_is_down();
    assert_eq!(n_called.load(Ordering::Relaxed), 1);
    subscriptions.link_is_up();
    assert!(subscriptions.open(topic.clone(), &inbox(), then()).is_none());
    subscriptions.held(TopicKind::Channel, "a");
    assert_eq!(n_called.load(Ordering::Relaxed), 2);
    assert!(subscriptions.open(topic, &inbox(), then()).is_some(), "it is received already");
}

#[tokio::test]
async fn what_moves_tells_of_its_gap_when_it_is_received_again() {
    let (old, new) = (Subscriptions::default(), Subscriptions::default());
    let inbox = inbox();
    let shard = |name: &str| Topic::shard(name.into());
    for name in ["stays", "moves"] {
        assert!(old.open(shard(name), &inbox, None).is_none());
        old.held(TopicKind::Shard, name);
    }
    new.link_is_up();
    for (topic, moved) in old.give_away(|known| known == slot("stays")) {
        assert_eq!(topic, shard("moves"));
        assert!(new.take_over(topic, moved).is_empty());
    }
    assert!(old.inboxes(TopicKind::Shard, b"moves", &frame("moves")).is_none());
    assert!(old.inboxes(TopicKind::Shard, b"stays", &frame("stays")).is_some());
    assert_eq!(names(new.take_changes(true).subscribe.of(TopicKind::Shard)), ["moves"]);
    let mut next = Box::pin(inbox.next());
    let is_told = futures_util::poll!(next.as_mut());
    assert!(is_told.is_pending(), "not before it is confirmed");
    new.held(TopicKind::Shard, "moves");
    assert!(matches!(next.await, Some(super::super::Item::Losses(losses)) if losses.link));
}

/// Counts how often it is called.
fn then(n_called: &Arc<AtomicUsize>) -> Option<Then> {
    let n_called = Arc::clone(n_called);
    Some(Box::new(move || _ = n_called.fetch_add(1, Ordering::Relaxed)))
}

/// The base channel of the namespace `/#x` is also that of the room `x` in `/`.
#[test]
fn one_name_may_mean_several_things() {
    let subscriptions = Subscriptions::default();
    let (room, base) = (inbox(), inbox());
    let topic = Topic::shard("socket.io#/#x#".into());
    let listening = || -> Vec<Arc<Inbox>> {
        let inboxes =
            subscriptions.inboxes(TopicKind::Shard, topic.name.as_bytes(), &frame(&topic.name));
        inboxes.iter().flat_map(Inboxes::iter).cloned().collect()
    };
    let are = |expected: &[&Arc<Inbox>]| {
        let listening = listening();
        listening.len() == expected.len()
            && expected.iter().zip(&listening).all(|(one, other)| Arc::ptr_eq(one, other))
    };
    assert!(subscriptions.open(topic.clone(), &room, None).is_none());
    assert!(subscriptions.open(topic.clone().counted(), &base, None).is_none());
    assert!(subscriptions.open(topic.clone(), &room, None).is_none());
    assert!(are(&[&room, &base]), "each once");
    subscriptions.take_changes(true);
    subscriptions.held(TopicKind::Shard, &topic.name);
    assert!(subscriptions.close(TopicKind::Shard, &topic.name, &room).is_empty());
    assert!(are(&[&base]));
    assert!(subscriptions.take_changes(true).is_empty(), "the other one still needs it");
    assert!(subscriptions.close(TopicKind::Shard, &topic.name, &base).is_empty());
    let changes = subscriptions.take_changes(true);
    assert_eq!(names(changes.unsubscribe.of(TopicKind::Shard)), [&*topic.name]);
    assert!(are(&[]));
}

#[test]
fn who_opens_what_is_being_left_waits_until_it_is_received_again() {
    let subscriptions = Subscriptions::default();
    let inbox = inbox();
    let topic = Topic::shard("a".into());
    subscriptions.link_is_up();
    assert!(subscriptions.open(topic.clone(), &inbox, None).is_none());
    subscriptions.take_changes(true);
    subscriptions.held(TopicKind::Shard, "a");
    assert!(subscriptions.close(TopicKind::Shard, "a", &inbox).is_empty());
    assert!(!subscriptions.take_changes(true).unsubscribe.is_empty());
    let n_called = Arc::new(AtomicUsize::new(0));
    assert!(subscriptions.open(topic, &inbox, then(&n_called)).is_none());
    // The answer to the command that ends it was taken for another one, so it comes only now.
    assert!(subscriptions.take_changes(true).is_empty());
    assert_eq!(n_called.load(Ordering::Relaxed), 0, "it is not received");
    assert!(!subscriptions.ended(TopicKind::Shard, "a"));
    assert_eq!(names(subscriptions.take_changes(true).subscribe.of(TopicKind::Shard)), ["a"]);
    subscriptions.held(TopicKind::Shard, "a");
    assert_eq!(n_called.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn who_opens_while_the_link_is_nearly_up_waits() {
    let subscriptions = Subscriptions::default();
    let inbox = inbox();
    let n_called = Arc::new(AtomicUsize::new(0));
    let topic = |name: &str| Topic::channel(name.into());
    subscriptions.begin(false);
    assert!(subscriptions.open(topic("early"), &inbox, then(&n_called)).is_some());
    subscriptions.link_is_near();
    assert_eq!(names(subscriptions.take_changes(true).subscribe.of(TopicKind::Channel)), ["early"]);
    // Redis is told of this one when the link is up.
    assert!(subscriptions.open(topic("late"), &inbox, then(&n_called)).is_none());
    subscriptions.link_is_up();
    subscriptions.tell_gaps();
    assert_eq!(n_called.load(Ordering::Relaxed), 0);
    drop(subscriptions.take_changes(true));
    subscriptions.held(TopicKind::Channel, "late");
    assert_eq!(n_called.load(Ordering::Relaxed), 1);
    // Nor does it wait for a link that is lost before it is up; and what was not received before has no gap.
    subscriptions.link_is_down();
    subscriptions.begin(false);
    subscriptions.link_is_near();
    assert!(subscriptions.open(topic("lost"), &inbox, then(&n_called)).is_none());
    subscriptions.link_is_down();
    assert_eq!(n_called.load(Ordering::Relaxed), 2);
}
