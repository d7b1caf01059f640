//! What comes of asking the whole cluster.

use crate::ClientAnswer;
use protocol::socket::EventData;
use thiserror::Error;

/// Why an answer is not whole. What has arrived is in it: it is never passed off as everything.
#[derive(Debug, Error)]
#[error("{cause}: {}", answered(*received, *expected))]
pub struct RequestError<T> {
    /// Why it ended.
    pub cause: RequestCause,
    /// What has arrived, this node's own part included.
    pub arrived: T,
    /// How many other servers have answered.
    pub received: usize,
    /// How many other servers were to answer; unknown if Redis could not be asked.
    pub expected: Option<usize>,
}

/// Why a request ended before everybody had answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestCause {
    /// Time is over.
    #[error("not everybody answered in time")]
    Timeout,
    /// There is no link to Redis, or it was lost meanwhile.
    #[error("there is no link to Redis")]
    LinkDown,
    /// Too many requests wait for answers, or the answers are too large to be kept.
    #[error("too much waits for answers")]
    Overload,
    /// The request is one that Node servers or their clients cannot bear, or larger than they take.
    #[error("the request is not valid")]
    Invalid,
}

impl RequestCause {
    /// A stable name for logs and metrics.
    pub fn kind(self) -> &'static str {
        match self {
            RequestCause::Timeout => "timeout",
            RequestCause::LinkDown => "link_down",
            RequestCause::Overload => "overload",
            RequestCause::Invalid => "invalid",
        }
    }
}

fn answered(received: usize, expected: Option<usize>) -> String {
    match expected {
        Some(expected) => format!("{received} of {expected} other servers answered"),
        None => format!("{received} other servers answered"),
    }
}

/// The acknowledgements of a broadcast.
#[derive(Debug, Default)]
pub struct Acks {
    /// How many sockets were asked, as far as is known.
    pub n_asked: u64,
    /// What they answered, in the order of arrival.
    pub answers: Vec<ClientAnswer>,
}

impl Acks {
    /// Whether everybody who was asked has answered. Counts and answers of different servers may overtake
    /// each other, so there may be more answers than are known to be asked.
    pub(crate) fn is_complete(&self) -> bool {
        self.answers.len() as u64 >= self.n_asked
    }
}

/// How many bytes an event or an answer holds.
pub(crate) fn size(data: &EventData) -> usize {
    data.json.len() + data.attachments.iter().map(bytes::Bytes::len).sum::<usize>()
}
