//! Questions to clients: events that ask for an acknowledgement, and the answers to them.
//!
//! A question has one id for all sockets it goes to. An answer counts once for each socket that
//! was asked; whatever else clients send under that id is ignored. A question ends when everybody
//! has answered or left, when its time is over, or when nobody wants the answers any more.

use std::collections::{HashMap, VecDeque, hash_map::Entry};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use adapter::{ClientAnswer, RoomName};
use futures_util::Stream;
use prometheus::IntCounter;
use protocol::id::Id;
use protocol::socket::{ACK_ID_MAX, EventData};
use smallvec::SmallVec;
use tokio::time::Sleep;

use crate::hash::OwnKeyMap;

/// Questions that may be open at once on a node. Each ends with its timeout.
const QUESTIONS_MAX: usize = 10_000;

/// Bytes of answers that may wait to be taken, per question. Whoever asks takes them as they come,
/// so that more of them means that nobody does.
const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// The open questions of a node.
pub struct Questions {
    state: Mutex<State>,
    /// How many are open: a socket that leaves looks here first, because mostly none is.
    n_open: AtomicUsize,
    dropped: IntCounter,
}

#[derive(Default)]
struct State {
    next_id: u64,
    open: HashMap<u64, Question>,
    /// The questions of each socket that owes an answer, for when it leaves.
    owed: OwnKeyMap<Id, SmallVec<[u64; 2]>>,
}

impl State {
    fn new_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id = (id + 1) % ACK_ID_MAX;
        id
    }
}

/// One event that waits for answers.
#[derive(Default)]
struct Question {
    waiting: OwnKeyMap<Id, ()>,
    answers: VecDeque<ClientAnswer>,
    answers_bytes: usize,
    waker: Option<Waker>,
}

/// The answers to one question as they come. Dropping this ends the question.
pub(super) struct Answers {
    questions: Arc<Questions>,
    id: u64,
    deadline: Pin<Box<Sleep>>,
}

impl Questions {
    /// No question yet. Answers that found no room are counted in `dropped`.
    pub(super) fn new(dropped: IntCounter) -> Self {
        Self { state: Mutex::default(), n_open: AtomicUsize::new(0), dropped }
    }

    /// Opens a question, unless too many are open.
    pub(super) fn open(self: &Arc<Self>, timeout: Duration) -> Option<Answers> {
        let mut state = self.lock();
        if state.open.len() >= QUESTIONS_MAX {
            return None;
        }
        let id = state.new_id();
        state.open.insert(id, Question::default());
        drop(state);
        self.n_open.fetch_add(1, Ordering::Release);
        let deadline = Box::pin(tokio::time::sleep(timeout));
        Some(Answers { questions: self.clone(), id, deadline })
    }

    /// The id of a question whose answers nobody hears.
    pub(super) fn unheard(&self) -> u64 {
        self.lock().new_id()
    }

    /// Notes sockets that get a question. Called before it is sent to them.
    pub(super) fn ask(&self, id: u64, sockets: impl Iterator<Item = Id>) {
        let mut state = self.lock();
        let State { open, owed, .. } = &mut *state;
        let Some(question) = open.get_mut(&id) else { return };
        for socket in sockets {
            question.waiting.insert(socket, ());
            owed.entry(socket).or_default().push(id);
        }
    }

    /// A socket does not get the question after all.
    pub(super) fn excuse(&self, id: u64, socket: Id) {
        self.lock().settle(id, socket, None);
    }

    /// A socket has left its namespace: nothing can come of it any more.
    pub(super) fn left(&self, socket: Id) {
        if self.n_open.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut state = self.lock();
        for id in state.owed.get(&socket).cloned().unwrap_or_default() {
            state.settle(id, socket, None);
        }
    }

    /// Takes a client's answer. Says whether it was asked for.
    pub fn answer(&self, id: u64, socket: Id, answer: EventData) -> bool {
        let mut state = self.lock();
        let Some(question) = state.open.get(&id) else { return false };
        let is_too_much = question.answers_bytes + bytes(&answer) > ANSWERS_BYTES_MAX;
        let taken = (!is_too_much).then_some(answer);
        let was_asked = state.settle(id, socket, taken);
        if was_asked && is_too_much {
            self.dropped.inc();
        }
        was_asked
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A socket owes no answer any more. Says whether it did.
    fn settle(&mut self, id: u64, socket: Id, answer: Option<EventData>) -> bool {
        let Some(question) = self.open.get_mut(&id) else { return false };
        if question.waiting.remove(&socket).is_none() {
            return false;
        }
        if let Some(args) = answer {
            question.answers_bytes += bytes(&args);
            let socket = Some(RoomName::from(socket.as_str()));
            question.answers.push_back(ClientAnswer { socket, args });
        }
        if let Some(waker) = question.waker.take() {
            waker.wake();
        }
        self.forget(id, socket);
        true
    }

    fn forget(&mut self, id: u64, socket: Id) {
        if let Entry::Occupied(mut owed) = self.owed.entry(socket) {
            owed.get_mut().retain(|other| *other != id);
            if owed.get().is_empty() {
                owed.remove();
            }
        }
    }
}

fn bytes(answer: &EventData) -> usize {
    answer.json.len() + answer.attachments.iter().map(bytes::Bytes::len).sum::<usize>()
}

impl Answers {
    /// Under which id clients are asked.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Stream for Answers {
    type Item = ClientAnswer;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ClientAnswer>> {
        let time_is_over = self.deadline.as_mut().poll(cx).is_ready();
        let mut state = self.questions.lock();
        let Some(question) = state.open.get_mut(&self.id) else { return Poll::Ready(None) };
        if let Some(answer) = question.answers.pop_front() {
            question.answers_bytes -= bytes(&answer.args);
            return Poll::Ready(Some(answer));
        }
        if time_is_over || question.waiting.is_empty() {
            return Poll::Ready(None);
        }
        question.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut state = self.questions.lock();
        let Some(question) = state.open.remove(&self.id) else { return };
        for socket in question.waiting.into_keys() {
            state.forget(self.id, socket);
        }
        drop(state);
        self.questions.n_open.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};
    use protocol::id::NodeTag;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn questions() -> Arc<Questions> {
        let dropped = IntCounter::new("dropped", "help").expect("a valid name");
        Arc::new(Questions::new(dropped))
    }

    fn socket() -> Id {
        Id::generate(NodeTag::random(), 0)
    }

    fn text(text: &str) -> EventData {
        EventData { json: text.into(), attachments: Vec::new() }
    }

    #[tokio::test]
    async fn an_answer_counts_once_and_only_from_those_who_were_asked() {
        let questions = questions();
        let mut answers = questions.open(LONG).expect("room");
        let (asked, other, id) = (socket(), socket(), answers.id());
        questions.ask(id, [asked].into_iter());
        assert!(!questions.answer(id, other, text("[1]")));
        assert!(!questions.answer(id + 1, asked, text("[2]")));
        assert!(questions.answer(id, asked, text("[3]")));
        assert!(!questions.answer(id, asked, text("[4]")));
        let answer = answers.next().await.expect("an answer");
        assert_eq!((answer.socket.as_deref(), answer.args), (Some(asked.as_str()), text("[3]")));
        assert_eq!(answers.next().await, None);
        drop(answers);
        assert!(!questions.answer(id, asked, text("[5]")), "the question is closed");
    }

    #[tokio::test]
    async fn a_question_ends_with_the_last_who_owes_an_answer() {
        let questions = questions();
        let mut answers = questions.open(LONG).expect("room");
        let (leaving, excused) = (socket(), socket());
        questions.ask(answers.id(), [leaving, excused].into_iter());
        questions.left(leaving);
        assert_eq!(answers.next().now_or_never(), None, "one still owes an answer");
        questions.excuse(answers.id(), excused);
        assert_eq!(answers.next().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_ends_with_its_time_and_leaves_nothing_behind() {
        let questions = questions();
        let mut answers = questions.open(Duration::from_secs(5)).expect("room");
        let (silent, talkative) = (socket(), socket());
        questions.ask(answers.id(), [silent, talkative].into_iter());
        questions.answer(answers.id(), talkative, text("[]"));
        assert!(answers.next().await.is_some());
        assert_eq!(answers.next().await, None);
        drop(answers);
        let state = questions.lock();
        assert!(state.open.is_empty() && state.owed.is_empty());
        assert_eq!(questions.n_open.load(Ordering::Acquire), 0);
    }

    #[tokio::test]
    async fn answers_beyond_the_limit_are_counted_and_end_the_wait() {
        let questions = questions();
        let mut answers = questions.open(LONG).expect("room");
        let (first, second) = (socket(), socket());
        questions.ask(answers.id(), [first, second].into_iter());
        let large = text(&format!("[\"{}\"]", "x".repeat(ANSWERS_BYTES_MAX / 2)));
        questions.answer(answers.id(), first, large.clone());
        questions.answer(answers.id(), second, large);
        assert_eq!(questions.dropped.get(), 1);
        assert!(answers.next().await.is_some());
        assert_eq!(answers.next().await, None);
    }
}
