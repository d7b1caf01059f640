//! Judges a history: a pure function, so that it can be tested with histories that never happened.
//!
//! A socket is *certainly* in a room from the acknowledged join to the request to leave, and *possibly* from the
//! request to join to the acknowledged leave. What it receives must be for a room it was possibly in, and it must
//! receive what was published while it was certainly there, unless a fault lay on the way.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Serialize;

use super::history::{
    Fault, Gauge, History, Publication, Receipt, SECOND, SessionIndex, Target, Time,
};

#[cfg(test)]
mod tests;

/// The promise that was broken; what it says is in `ARCHITECTURE.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Clause {
    /// Isolation.
    G1,
    /// At most once.
    G2,
    /// Order.
    G3,
    /// No silent hole, and only faults lose anything.
    G4,
    /// Convergence.
    G6,
    /// Paired lifecycle.
    G8,
}

/// A promise that was not kept, and where.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Which promise.
    pub clause: Clause,
    /// What was seen, for a person.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.clause, self.text)
    }
}

/// The numbers of a history.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Totals {
    /// Publications.
    pub published: u64,
    /// Messages that sockets received.
    pub delivered: u64,
    /// Messages that sockets were owed.
    pub expected: u64,
    /// Of these, the ones that a fault took.
    pub lost: u64,
    /// From the first to the last lost publication, for the fault where that took longest.
    pub window_ms: u64,
    /// Messages that came again.
    pub dup: u64,
    /// Messages that came after a later one.
    pub reorder: u64,
    /// From the end of a fault to the last publication that was still lost to it, or to the last client that was
    /// back, whichever took longest.
    pub recover_ms: u64,
}

/// What a history amounts to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Verdict {
    /// The numbers.
    pub totals: Totals,
    /// None in a good history.
    pub violations: Vec<Violation>,
}

/// From and to, both included.
#[derive(Clone, Copy, Debug)]
struct Interval {
    session: SessionIndex,
    from: Time,
    to: Time,
}

/// The sessions that were in a room or in the namespace, and when.
#[derive(Default)]
struct Memberships {
    certain: HashMap<Target, Vec<Interval>>,
    possible: HashMap<(SessionIndex, Target), Vec<Interval>>,
}

impl Memberships {
    fn of(history: &History) -> Memberships {
        let mut all = Memberships::default();
        for (session, record) in (0..).zip(&history.sessions) {
            let closed = record.closed.unwrap_or(Time::MAX);
            let certain = Interval { session, from: record.opened, to: closed };
            let possible = Interval { session, from: record.asked, to: closed };
            all.certain.entry(Target::Everyone).or_default().push(certain);
            all.possible.entry((session, Target::Everyone)).or_default().push(possible);
        }
        for membership in &history.memberships {
            let session = membership.session;
            let room = Target::Rooms(vec![membership.room]);
            let closed = history.sessions[session as usize].closed.unwrap_or(Time::MAX);
            if let Some(from) = membership.joined {
                // A message that is on its way when somebody asks to leave may come too late.
                let to = membership.leaving.map_or(closed, |at| at.saturating_sub(history.flight));
                let certain = Interval { session, from, to: to.min(closed) };
                all.certain.entry(room.clone()).or_default().push(certain);
            }
            let to = membership.left.unwrap_or(closed).min(closed);
            let possible = Interval { session, from: membership.asked, to };
            all.possible.entry((session, room)).or_default().push(possible);
        }
        all
    }

    /// The sessions that were certainly selected all the time.
    fn certain(&self, target: &Target, from: Time, to: Time) -> HashSet<SessionIndex> {
        let mut sessions = HashSet::new();
        for part in parts(target) {
            let intervals = self.certain.get(&part).into_iter().flatten();
            let inside = intervals.filter(|interval| interval.from <= from && to <= interval.to);
            sessions.extend(inside.map(|interval| interval.session));
        }
        sessions
    }

    /// Whether a session was possibly selected at some instant.
    fn possible(&self, session: SessionIndex, target: &Target, from: Time, to: Time) -> bool {
        parts(target).any(|part| {
            let intervals = self.possible.get(&(session, part));
            let mut intervals = intervals.into_iter().flatten();
            intervals.any(|interval| interval.from <= to && from <= interval.to)
        })
    }
}

/// The rooms of a target, each as a target.
fn parts(target: &Target) -> impl Iterator<Item = Target> + '_ {
    let (everyone, rooms) = match target {
        Target::Everyone => (Some(Target::Everyone), &[][..]),
        Target::Rooms(rooms) => (None, &rooms[..]),
    };
    everyone.into_iter().chain(rooms.iter().map(|room| Target::Rooms(vec![*room])))
}

/// The first and the last publication that a fault took.
#[derive(Clone, Copy)]
struct Losses {
    first: Time,
    last: Time,
}

struct Judge<'a> {
    history: &'a History,
    memberships: Memberships,
    verdict: Verdict,
}

/// Judges a history.
pub fn check(history: &History) -> Verdict {
    let memberships = Memberships::of(history);
    let mut judge = Judge { history, memberships, verdict: Verdict::default() };
    let received = judge.receipts();
    let losses = judge.expectations(&received);
    judge.convergence();
    judge.lifecycles();
    judge.durations(&losses);
    judge.verdict
}

impl Judge<'_> {
    fn violation(&mut self, clause: Clause, text: String) {
        self.verdict.violations.push(Violation { clause, text });
    }

    /// Looks at what came: G1, G2 and G3.
    fn receipts(&mut self) -> HashSet<(SessionIndex, u32, u32)> {
        let history = self.history;
        let known: HashMap<(u32, u32), &Publication> = history
            .publications
            .iter()
            .map(|publication| ((publication.publisher, publication.number), publication))
            .collect();
        let mut received = HashSet::new();
        let mut last: HashMap<(SessionIndex, u32, &Target), u32> = HashMap::new();
        for receipt in &history.receipts {
            let Receipt { session, publisher, number, target, at } = receipt;
            let is_member = |publication: &&Publication| {
                publication.target == *target
                    && self.memberships.possible(*session, target, publication.sent, *at)
            };
            if known.get(&(*publisher, *number)).filter(|it| is_member(it)).is_none() {
                self.violation(Clause::G1, format!("received by one it was not for: {receipt:?}"));
            }
            if !received.insert((*session, *publisher, *number)) {
                self.verdict.totals.dup += 1;
                self.violation(Clause::G2, format!("received again: {receipt:?}"));
                continue;
            }
            let last = last.entry((*session, *publisher, target)).or_insert(*number);
            if *number < *last {
                self.verdict.totals.reorder += 1;
                let text = format!("received after number {last}: {receipt:?}");
                self.violation(Clause::G3, text);
            }
            *last = (*last).max(*number);
        }
        self.verdict.totals.delivered = history.receipts.len() as u64;
        received
    }

    /// Looks at what did not come: G4, G5 and the first half of G6. Gives the losses of each fault.
    fn expectations(
        &mut self,
        received: &HashSet<(SessionIndex, u32, u32)>,
    ) -> Vec<Option<Losses>> {
        let history = self.history;
        let mut losses: Vec<Option<Losses>> = vec![None; history.faults.len()];
        self.verdict.totals.published = history.publications.len() as u64;
        for publication in &history.publications {
            let Some(accepted) = publication.accepted else { continue };
            let owed = self.memberships.certain(&publication.target, publication.sent, accepted);
            self.verdict.totals.expected += owed.len() as u64;
            for session in owed {
                if received.contains(&(session, publication.publisher, publication.number)) {
                    continue;
                }
                self.verdict.totals.lost += 1;
                let record = &history.sessions[session as usize];
                if publication.sent >= history.quiesce.0 {
                    let text = format!(
                        "lost when all was well again: {publication:?} for session {session} on node {}",
                        record.node
                    );
                    self.violation(Clause::G6, text);
                    continue;
                }
                let arrival = accepted.saturating_add(history.flight);
                let is_gone = record.closed.is_some_and(|closed| closed <= arrival);
                let fault = history.faults.iter().position(|fault| {
                    fault.reach.covers(publication.origin, record.node)
                        && publication.sent <= fault.healed.saturating_add(fault.grace)
                        && fault.began <= arrival
                });
                if let Some(fault) = fault {
                    let losses = losses[fault]
                        .get_or_insert(Losses { first: publication.sent, last: publication.sent });
                    losses.last = losses.last.max(publication.sent);
                } else if !is_gone {
                    let text = format!(
                        "lost without a fault on its way: {publication:?} for session {session} on node {}",
                        record.node
                    );
                    self.violation(Clause::G4, text);
                }
            }
        }
        losses
    }

    /// The second half of G6: everybody is connected, nobody is thrown out any more, and what nodes show is true.
    fn convergence(&mut self) {
        let history = self.history;
        let (from, to) = history.quiesce;
        if from == Time::MAX {
            return;
        }
        let sockets: HashSet<u32> = history.sessions.iter().map(|session| session.socket).collect();
        let here: HashSet<u32> = history
            .sessions
            .iter()
            .filter(|session| {
                session.opened <= from && session.closed.is_none_or(|closed| closed > from)
            })
            .map(|session| session.socket)
            .collect();
        if here.len() < sockets.len() {
            let text = format!(
                "{} of {} sockets are not connected",
                sockets.len() - here.len(),
                sockets.len()
            );
            self.violation(Clause::G6, text);
        }
        for (index, session) in history.sessions.iter().enumerate() {
            if session.closed.is_some_and(|closed| closed > from && closed <= to) {
                let text = format!("session {index} closed when all was well again: {session:?}");
                self.violation(Clause::G6, text);
            }
        }
        for Gauge { name, shown, counted } in &history.gauges {
            if shown != counted {
                self.violation(Clause::G6, format!("{name} shows {shown}, it is {counted}"));
            }
        }
    }

    /// G8, as other sockets see it.
    fn lifecycles(&mut self) {
        let history = self.history;
        let mut seen: HashMap<(SessionIndex, &str), (u32, u32)> = HashMap::new();
        for notice in &history.notices {
            let (came, went) = seen.entry((notice.watcher, &notice.id)).or_default();
            let is_wrong = if notice.came { *came > 0 || *went > 0 } else { *went > 0 };
            if notice.came {
                *came += 1;
            } else {
                *went += 1;
            }
            if is_wrong {
                self.violation(
                    Clause::G8,
                    format!("told again, or in the wrong order: {notice:?}"),
                );
            }
        }
        // What became of the clients of a node is known to its other clients, whatever happens to Redis.
        for (watcher, watching) in (0..).zip(&history.sessions) {
            if !history.notices.iter().any(|notice| notice.watcher == watcher) {
                continue;
            }
            for session in history.sessions.iter().filter(|session| session.node == watching.node) {
                let until = watching.closed.unwrap_or(Time::MAX);
                let is_over = session.closed.is_some_and(|closed| {
                    closed.saturating_add(PATIENCE) < until.min(history.quiesce.1)
                });
                let is_here = session.closed.is_none();
                let (came, went) =
                    seen.get(&(watcher, session.id.as_str())).copied().unwrap_or_default();
                if came > 0 && ((is_over && went == 0) || (is_here && went > 0)) {
                    let text = format!("session {watcher} was told {went} ends of {session:?}");
                    self.violation(Clause::G8, text);
                }
            }
        }
    }

    fn durations(&mut self, losses: &[Option<Losses>]) {
        let history = self.history;
        for (fault, losses) in history.faults.iter().zip(losses) {
            let totals = &mut self.verdict.totals;
            if let Some(Losses { first, last }) = losses {
                totals.window_ms = totals.window_ms.max((last - first) / 1000);
                totals.recover_ms = totals.recover_ms.max(last.saturating_sub(fault.healed) / 1000);
            }
            let back = last_return(history, fault).unwrap_or(fault.healed);
            totals.recover_ms = totals.recover_ms.max(back.saturating_sub(fault.healed) / 1000);
        }
    }
}

/// How long a node may take to notice that a client is gone: its ping interval and timeout, and some more.
const PATIENCE: Time = 20 * SECOND;

/// When the last client was connected again that a fault had disconnected.
fn last_return(history: &History, fault: &Fault) -> Option<Time> {
    let next = history.faults.iter().map(|other| other.began).filter(|&at| at > fault.began).min();
    let ends = fault.began..next.unwrap_or(history.quiesce.0);
    let mut opened: HashMap<u32, Vec<Time>> = HashMap::new();
    for session in &history.sessions {
        opened.entry(session.socket).or_default().push(session.opened);
    }
    let lost = history.sessions.iter().filter_map(|session| {
        session.closed.filter(|at| ends.contains(at)).map(|at| (session, at))
    });
    lost.filter_map(|(session, closed)| {
        opened[&session.socket].iter().copied().filter(|&at| at > closed).min()
    })
    .max()
}
