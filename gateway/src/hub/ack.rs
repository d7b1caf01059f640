//! Questions to clients: events that ask for an acknowledgement, and the answers to them.
//!
//! A question has one id for all sockets it goes to. An answer counts once for each socket that
//! was asked; whatever else clients send under that id is ignored.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::id::Id;
use protocol::socket::EventData;
use tokio::sync::Notify;

/// Questions that may be open at once on a node. Each ends with its timeout.
const QUESTIONS_MAX: usize = 10_000;

/// What came of a question.
#[derive(Debug, Default)]
pub struct Answers {
    /// Sockets that were asked.
    pub n_asked: usize,
    /// The answers in the order of their arrival: who, and the arguments as a JSON array.
    pub answers: Vec<(Id, EventData)>,
}

impl Answers {
    /// Whether everybody who was asked has answered.
    pub fn is_complete(&self) -> bool {
        self.answers.len() == self.n_asked
    }
}

/// Too many questions are open.
#[derive(Debug, thiserror::Error)]
#[error("too many unanswered events: wait for some of their timeouts")]
pub struct TooManyQuestions;

/// The open questions of a node.
#[derive(Default)]
pub struct Questions {
    next_id: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Question>>>,
}

/// One event that waits for answers.
#[derive(Default)]
pub struct Question {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    n_asked: usize,
    waiting: HashSet<Id>,
    answers: Vec<(Id, EventData)>,
}

/// Closes a question when dropped, also when its asker gives up waiting.
pub(super) struct Open<'a> {
    questions: &'a Questions,
    pub(super) id: u64,
    pub(super) question: Arc<Question>,
}

impl Questions {
    /// Opens a question.
    pub(super) fn open(&self) -> Result<Open<'_>, TooManyQuestions> {
        let mut open = self.lock();
        if open.len() >= QUESTIONS_MAX {
            return Err(TooManyQuestions);
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed) % protocol::socket::ACK_ID_MAX;
        let question = Arc::new(Question::default());
        open.insert(id, question.clone());
        Ok(Open { questions: self, id, question })
    }

    /// Takes a client's answer. Says whether it was asked for.
    pub fn answer(&self, id: u64, socket: Id, answer: EventData) -> bool {
        let question = self.lock().get(&id).cloned();
        question.is_some_and(|question| question.answer(socket, answer))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Question>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.id);
    }
}

impl Question {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a socket that gets the question. Called before it is sent.
    pub(super) fn ask(&self, socket: Id) {
        let mut state = self.lock();
        state.n_asked += 1;
        state.waiting.insert(socket);
    }

    fn answer(&self, socket: Id, answer: EventData) -> bool {
        let mut state = self.lock();
        if !state.waiting.remove(&socket) {
            return false;
        }
        state.answers.push((socket, answer));
        let last = state.waiting.is_empty();
        drop(state);
        if last {
            self.changed.notify_waiters();
        }
        true
    }

    /// Waits until nobody who was asked still owes an answer.
    pub(super) async fn answered(&self) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.lock().waiting.is_empty() {
                return;
            }
            changed.await;
        }
    }

    /// What has been answered so far.
    pub(super) fn take(&self) -> Answers {
        let mut state = self.lock();
        Answers { n_asked: state.n_asked, answers: std::mem::take(&mut state.answers) }
    }
}

#[cfg(test)]
mod tests {
    use protocol::id::NodeTag;

    use super::*;

    #[test]
    fn an_answer_counts_once_and_only_from_those_who_were_asked() {
        let questions = Questions::default();
        let open = questions.open().expect("room");
        let (asked, other) =
            (Id::generate(NodeTag::random(), 0), Id::generate(NodeTag::random(), 0));
        open.question.ask(asked);
        assert!(!questions.answer(open.id, other, EventData::default()));
        assert!(!questions.answer(open.id + 1, asked, EventData::default()));
        assert!(questions.answer(open.id, asked, EventData::default()));
        assert!(!questions.answer(open.id, asked, EventData::default()));
        assert!(open.question.take().is_complete());
        let id = open.id;
        drop(open);
        assert!(!questions.answer(id, asked, EventData::default()), "the question is closed");
    }
}
