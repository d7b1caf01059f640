//! What can be subscribed to.

use std::sync::Arc;

/// With which command something is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TopicKind {
    /// `SUBSCRIBE`: one channel.
    Channel,
    /// `PSUBSCRIBE`: the channels that match a pattern.
    Pattern,
    /// `SSUBSCRIBE`: one channel of sharded pub/sub.
    Shard,
}

impl TopicKind {
    pub(super) const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    pub(super) fn subscribe(self) -> &'static str {
        match self {
            TopicKind::Channel => "SUBSCRIBE",
            TopicKind::Pattern => "PSUBSCRIBE",
            TopicKind::Shard => "SSUBSCRIBE",
        }
    }

    /// The command that publishes to what this kind receives.
    pub(super) fn publish(self) -> &'static str {
        match self {
            TopicKind::Channel | TopicKind::Pattern => "PUBLISH",
            TopicKind::Shard => "SPUBLISH",
        }
    }

    pub(super) fn unsubscribe(self) -> &'static str {
        match self {
            TopicKind::Channel => "UNSUBSCRIBE",
            TopicKind::Pattern => "PUNSUBSCRIBE",
            TopicKind::Shard => "SUNSUBSCRIBE",
        }
    }
}

/// Something to be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Topic {
    pub(crate) kind: TopicKind,
    /// The channel or the pattern.
    pub(crate) name: String,
    /// Whether others count the subscribers to learn how many answers they will get. Such a topic is
    /// subscribed to after all others: who is counted must be able to answer.
    pub(crate) is_counted: bool,
}

impl Topic {
    pub(crate) fn channel(name: String) -> Self {
        Self { kind: TopicKind::Channel, name, is_counted: false }
    }

    pub(crate) fn pattern(name: String) -> Self {
        Self { kind: TopicKind::Pattern, name, is_counted: false }
    }

    pub(crate) fn shard(name: String) -> Self {
        Self { kind: TopicKind::Shard, name, is_counted: false }
    }

    pub(crate) fn counted(self) -> Self {
        Self { is_counted: true, ..self }
    }
}

/// Values for each kind.
#[derive(Debug, Default)]
pub(super) struct ByKind<T>([T; 3]);

impl<T> ByKind<T> {
    pub(super) fn of(&self, kind: TopicKind) -> &T {
        &self.0[kind as usize]
    }

    pub(super) fn of_mut(&mut self, kind: TopicKind) -> &mut T {
        &mut self.0[kind as usize]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TopicKind, &T)> {
        TopicKind::ALL.into_iter().zip(&self.0)
    }
}

/// Names by kind.
pub(super) type Names = ByKind<Vec<Arc<str>>>;

impl Names {
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }
}
