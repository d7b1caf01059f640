//! Requests of this node that wait for the answers of others.
//!
//! An entry lives as long as its [`Ticket`]: who asked and goes away takes it along. So the table holds no more
//! than callers that wait, and what comes for a request that is over meets nothing.

use crate::{
    AdapterConfig, AdapterMetrics, ClientAnswer, RequestCause,
    wire::{Response, ResponseBody},
};
use prometheus::{IntCounter, IntGauge};
use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::Notify;

/// All requests that wait.
pub(crate) struct Pending {
    /// What the ids of our requests begin with, so that a late answer to one of them can be told from one that
    /// is for another server.
    uid: String,
    next: AtomicU64,
    entries: Mutex<HashMap<String, Arc<Entry>>>,
    entries_max: usize,
    bytes_max: usize,
    depth: IntGauge,
    counters: Counters,
}

/// What can become of an answer, resolved once.
struct Counters {
    taken: IntCounter,
    late: IntCounter,
    foreign: IntCounter,
    duplicate: IntCounter,
    unfit: IntCounter,
    overflow: IntCounter,
}

/// What was asked, which says what fits as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Sockets,
    SocketIds,
    Rooms,
    ServerEvent,
    Ask,
}

struct Entry {
    ns: String,
    question: Question,
    answers: Mutex<Answers>,
    changed: Notify,
}

/// What has come for one request.
#[derive(Debug, Default)]
struct Answers {
    /// Not yet taken by who asked.
    fresh: Vec<ResponseBody>,
    /// How many servers have answered.
    n_servers: usize,
    /// The servers that have, as far as they say who they are.
    servers: HashSet<String>,
    /// The sockets that have answered, as far as they are told.
    sockets: HashSet<String>,
    bytes: usize,
    /// More came than is kept.
    is_over: bool,
}

/// What came since the last look.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) bodies: Vec<ResponseBody>,
    /// How many servers have answered so far.
    pub(crate) n_servers: usize,
    /// More came than is kept; nothing else will.
    pub(crate) is_over: bool,
}

/// The right to the answers of a request.
pub(crate) struct Ticket<'a> {
    pending: &'a Pending,
    id: String,
    entry: Arc<Entry>,
}

impl Pending {
    pub(crate) fn new(config: &AdapterConfig, uid: &str, metrics: &AdapterMetrics) -> Self {
        metrics.requests_pending_limit.set(config.requests_max as i64);
        let counter = |result| metrics.cluster_responses_total.with_label_values(&[result]);
        Self {
            uid: uid.to_owned(),
            next: AtomicU64::new(0),
            entries: Mutex::default(),
            entries_max: config.requests_max,
            bytes_max: config.response_bytes_max,
            depth: metrics.requests_pending.clone(),
            counters: Counters {
                taken: counter("taken"),
                late: counter("late"),
                foreign: counter("foreign"),
                duplicate: counter("duplicate"),
                unfit: counter("unfit"),
                overflow: counter("overflow"),
            },
        }
    }

    /// Makes room for the answers to a request, if there is any left.
    pub(crate) fn ticket(&self, ns: &str, question: Question) -> Result<Ticket<'_>, RequestCause> {
        let entry = Arc::new(Entry {
            ns: ns.to_owned(),
            question,
            answers: Mutex::default(),
            changed: Notify::new(),
        });
        let mut entries = self.entries();
        if entries.len() >= self.entries_max {
            return Err(RequestCause::Overload);
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number:x}", self.uid);
        entries.insert(id.clone(), Arc::clone(&entry));
        drop(entries);
        self.depth.inc();
        Ok(Ticket { pending: self, id, entry })
    }

    /// Takes an answer that came in a namespace, and says whether anybody waited for it.
    pub(crate) fn answer(&self, ns: &str, response: Response, bytes: usize) -> bool {
        let entry = self.entries().get(&response.request_id).cloned();
        let counters = &self.counters;
        let (is_taken, counter) = match entry {
            None if self.is_ours(&response.request_id) => (false, &counters.late),
            None => (false, &counters.foreign),
            Some(entry) if entry.ns != ns => (false, &counters.unfit),
            Some(entry) => match entry.take(response, bytes, self.bytes_max) {
                Taken::Yes => (true, &counters.taken),
                Taken::Duplicate => (false, &counters.duplicate),
                Taken::Unfit => (false, &counters.unfit),
                Taken::Overflow => (false, &counters.overflow),
            },
        };
        counter.inc();
        is_taken
    }

    fn is_ours(&self, request_id: &str) -> bool {
        request_id.strip_prefix(&*self.uid).is_some_and(|rest| rest.starts_with('-'))
    }

    /// No code that holds the lock can panic half-way through a change.
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Arc<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of an answer to a request that waits.
enum Taken {
    Yes,
    Duplicate,
    Unfit,
    Overflow,
}

impl Entry {
    fn take(&self, response: Response, bytes: usize, bytes_max: usize) -> Taken {
        let mut answers = self.answers();
        if answers.is_over {
            return Taken::Overflow;
        }
        let Response { from, body, .. } = response;
        if !fits(self.question, &body) {
            return Taken::Unfit;
        }
        // Node counts answers without a look at who gives them, so one that comes twice stands for one that
        // is missing. Where the answer says who gives it, ours does not.
        if let ResponseBody::Ack(ClientAnswer { socket, .. }) = &body {
            if let Some(socket) = socket
                && !answers.sockets.insert(socket.to_string())
            {
                return Taken::Duplicate;
            }
        } else {
            if let Some(from) = from
                && !answers.servers.insert(from)
            {
                return Taken::Duplicate;
            }
            answers.n_servers += 1;
        }
        answers.bytes = answers.bytes.saturating_add(bytes);
        let has_room = answers.bytes <= bytes_max;
        if has_room {
            answers.fresh.push(body);
        } else {
            answers.is_over = true;
        }
        drop(answers);
        self.changed.notify_one();
        if has_room { Taken::Yes } else { Taken::Overflow }
    }

    /// No code that holds the lock can panic half-way through a change.
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An empty answer fits everything but a question to clients: it says that a server has answered, not how many
/// clients it asked.
fn fits(question: Question, body: &ResponseBody) -> bool {
    match (question, body) {
        // An empty list of ids looks like one of descriptions.
        (Question::SocketIds, ResponseBody::Sockets(sockets)) => sockets.is_empty(),
        (Question::Ask, body) => {
            matches!(body, ResponseBody::ClientCount(_) | ResponseBody::Ack(_))
        }
        (Question::Sockets, ResponseBody::Sockets(_))
        | (Question::SocketIds, ResponseBody::SocketIds(_))
        | (Question::Rooms, ResponseBody::Rooms(_))
        | (Question::ServerEvent, ResponseBody::ServerEvent(_))
        | (_, ResponseBody::Empty) => true,
        _ => false,
    }
}

impl Ticket<'_> {
    /// The id under which others answer.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Waits until something came. For one caller only.
    pub(crate) async fn changed(&self) {
        self.entry.changed.notified().await;
    }

    /// Takes what came since the last look.
    pub(crate) fn news(&self) -> News {
        let mut answers = self.entry.answers();
        News {
            bodies: mem::take(&mut answers.fresh),
            n_servers: answers.n_servers,
            is_over: answers.is_over,
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.pending.entries().remove(&self.id);
        self.pending.depth.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;
    use protocol::socket::EventData;

    fn pending(entries_max: usize, bytes_max: usize) -> (Pending, AdapterMetrics) {
        let metrics = AdapterMetrics::register(&Registry::new()).expect("no name is taken");
        let config = AdapterConfig {
            requests_max: entries_max,
            response_bytes_max: bytes_max,
            ..AdapterConfig::default()
        };
        (Pending::new(&config, "me", &metrics), metrics)
    }

    fn response(request_id: &str, from: Option<&str>, body: ResponseBody) -> Response {
        Response { request_id: request_id.into(), from: from.map(str::to_owned), body }
    }

    fn ack(socket: Option<&str>) -> ResponseBody {
        let args = EventData { json: "[1]".into(), attachments: Vec::new() };
        ResponseBody::Ack(ClientAnswer { socket: socket.map(Into::into), args })
    }

    #[test]
    fn an_entry_goes_with_its_ticket() {
        let (pending, metrics) = pending(1, 100);
        let ticket = pending.ticket("/", Question::Rooms).expect("room for one");
        assert!(pending.ticket("/", Question::Rooms).is_err());
        assert_eq!(metrics.requests_pending.get(), 1);
        let id = ticket.id().to_owned();
        drop(ticket);
        assert!(pending.entries().is_empty());
        assert_eq!(metrics.requests_pending.get(), 0);
        assert!(!pending.answer("/", response(&id, None, ResponseBody::Rooms(vec![])), 1));
        assert_eq!(pending.counters.late.get(), 1);
        let next = pending.ticket("/", Question::Rooms).expect("room again");
        assert_ne!(next.id(), id);
    }

    #[test]
    fn only_what_fits_is_taken_and_each_once() {
        let (pending, _) = pending(10, 100);
        let ticket = pending.ticket("/", Question::Ask).expect("room");
        let count = || ResponseBody::ClientCount(1);
        let take = |ns, from, body| pending.answer(ns, response(ticket.id(), from, body), 1);
        assert!(take("/", Some("a"), count()));
        assert!(!take("/", Some("a"), count()), "the same server again");
        assert!(
            take("/", None, count()) && take("/", None, count()),
            "Node does not say who it is"
        );
        assert!(take("/", Some("a"), ack(Some("s"))));
        assert!(!take("/", Some("a"), ack(Some("s"))), "the same socket again");
        assert!(take("/", None, ack(None)) && take("/", None, ack(None)));
        assert!(!take("/", Some("b"), ResponseBody::Empty) && !take("/x", Some("b"), count()));
        assert!(!pending.answer("/", response("other", None, count()), 1));
        assert!(!pending.answer("/", response("me", None, count()), 1));
        let news = ticket.news();
        assert_eq!((news.bodies.len(), news.n_servers, news.is_over), (6, 3, false));
        let counters = &pending.counters;
        assert_eq!((counters.taken.get(), counters.duplicate.get()), (6, 2));
        assert_eq!((counters.unfit.get(), counters.foreign.get()), (2, 2));
    }

    #[test]
    fn answers_are_bounded_by_bytes() {
        let (pending, _) = pending(10, 100);
        let ticket = pending.ticket("/", Question::Rooms).expect("room");
        let take =
            |bytes| pending.answer("/", response(ticket.id(), None, ResponseBody::Empty), bytes);
        assert!(take(60) && !take(60) && !take(1));
        let news = ticket.news();
        assert_eq!((news.bodies.len(), news.is_over), (1, true));
        assert_eq!(pending.counters.overflow.get(), 2);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let (pending, _) = pending(10, 100);
        let ticket = pending.ticket("/", Question::Sockets).expect("room");
        pending.answer("/", response(ticket.id(), None, ResponseBody::Sockets(vec![])), 1);
        ticket.changed().await;
        assert_eq!(ticket.news().n_servers, 1);
    }

    #[tokio::test]
    async fn no_ids_are_an_answer_to_who_asks_for_ids() {
        let (pending, _) = pending(10, 100);
        let ticket = pending.ticket("/", Question::SocketIds).expect("room");
        pending.answer("/", response(ticket.id(), None, ResponseBody::Sockets(vec![])), 1);
        assert_eq!(ticket.news().n_servers, 1);
    }
}
