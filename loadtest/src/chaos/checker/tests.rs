//! The checker is told lies: it must believe every good history, and no bad one.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::super::history::{Membership, Notice, Origin, Reach, Session};
use super::*;

const NODES: usize = 3;
const SOCKETS: u32 = 12;
const ROOMS: u16 = 4;
const END: Time = 40 * SECOND;
/// When the fault of a random history begins and is healed.
const FAULT: (Time, Time) = (10 * SECOND, 12 * SECOND);

fn session(socket: u32, node: usize) -> Session {
    Session {
        socket,
        node,
        id: format!("id-{socket}"),
        asked: 0,
        opened: 1,
        closed: None,
        reason: String::new(),
    }
}

fn publication(number: u32, target: Target, sent: Time) -> Publication {
    let accepted = Some(sent + 1000);
    Publication { publisher: 0, number, target, origin: Origin::Node(0), sent, accepted }
}

fn receipt(session: SessionIndex, of: &Publication, at: Time) -> Receipt {
    let target = of.target.clone();
    Receipt { session, publisher: of.publisher, number: of.number, target, at }
}

fn membership(session: SessionIndex, room: u16, asked: Time) -> Membership {
    Membership { session, room, asked, joined: Some(asked + 1000), leaving: None, left: None }
}

/// Two sockets on two nodes in room 1, and three publications that both received.
fn plain() -> History {
    let mut history = History {
        sessions: vec![session(0, 0), session(1, 1)],
        memberships: vec![membership(0, 1, SECOND), membership(1, 1, SECOND)],
        quiesce: (20 * SECOND, 30 * SECOND),
        flight: SECOND,
        ..History::default()
    };
    for number in 0..3 {
        let publication =
            publication(number, Target::Rooms(vec![1]), (3 + Time::from(number)) * SECOND);
        for session in 0..2 {
            history.receipts.push(receipt(session, &publication, publication.sent + 2000));
        }
        history.publications.push(publication);
    }
    history
}

#[track_caller]
fn broken(history: &History, clause: Clause) {
    let verdict = check(history);
    assert!(
        verdict.violations.iter().any(|violation| violation.clause == clause),
        "{clause:?} was not noticed: {:?}",
        verdict.violations
    );
}

#[track_caller]
fn kept(history: &History) -> Totals {
    let verdict = check(history);
    assert!(verdict.violations.is_empty(), "{:?}", verdict.violations);
    verdict.totals
}

#[test]
fn a_good_history_is_believed() {
    let totals = kept(&plain());
    assert_eq!((totals.published, totals.expected, totals.delivered, totals.lost), (3, 6, 6, 0));
}

#[test]
fn a_second_copy_is_noticed() {
    let mut history = plain();
    let copy = history.receipts[1].clone();
    history.receipts.push(copy);
    broken(&history, Clause::G2);
    assert_eq!(check(&history).totals.dup, 1);
}

#[test]
fn a_hole_is_noticed() {
    let mut history = plain();
    history.receipts.remove(3);
    broken(&history, Clause::G4);
}

#[test]
fn a_swap_is_noticed() {
    let mut history = plain();
    history.receipts.swap(1, 3);
    broken(&history, Clause::G3);
    assert_eq!(check(&history).totals.reorder, 1);
}

#[test]
fn a_message_that_nobody_published_is_noticed() {
    let mut history = plain();
    history.receipts[0].number = 99;
    broken(&history, Clause::G1);
}

#[test]
fn a_message_that_names_another_room_than_it_was_published_to_is_noticed() {
    let mut history = plain();
    history.receipts[0].target = Target::Everyone;
    broken(&history, Clause::G1);
}

#[test]
fn a_message_of_a_foreign_room_is_noticed() {
    let mut history = plain();
    let foreign = publication(3, Target::Rooms(vec![2]), 7 * SECOND);
    history.receipts.push(receipt(0, &foreign, 7 * SECOND + 2000));
    history.publications.push(foreign);
    broken(&history, Clause::G1);
}

#[test]
fn a_message_from_before_the_join_is_only_received_if_it_was_under_way() {
    let mut history = plain();
    let early = publication(7, Target::Rooms(vec![1]), SECOND / 2);
    history.publications.push(early.clone());
    history.receipts.insert(0, receipt(0, &early, SECOND + 500));
    history.receipts[0].publisher = 5;
    history.publications[3].publisher = 5;
    kept(&history);
    history.receipts[0].at = SECOND - 1;
    broken(&history, Clause::G1);
}

#[test]
fn a_message_from_after_the_leave_is_noticed() {
    let mut history = plain();
    history.memberships[0].leaving = Some(6 * SECOND);
    history.memberships[0].left = Some(6 * SECOND + 1000);
    let late = publication(3, Target::Rooms(vec![1]), 7 * SECOND);
    for session in 0..2 {
        history.receipts.push(receipt(session, &late, 7 * SECOND + 2000));
    }
    history.publications.push(late);
    broken(&history, Clause::G1);
    history.memberships[0].left = Some(7 * SECOND + 1);
    kept(&history);
}

#[test]
fn who_is_in_two_of_the_rooms_is_owed_one_copy() {
    let mut history = plain();
    history.memberships.push(membership(0, 2, SECOND));
    let both = publication(3, Target::Rooms(vec![1, 2]), 7 * SECOND);
    for session in 0..2 {
        history.receipts.push(receipt(session, &both, 7 * SECOND + 2000));
    }
    history.publications.push(both.clone());
    assert_eq!(kept(&history).expected, 8);
    history.receipts.push(receipt(0, &both, 7 * SECOND + 3000));
    broken(&history, Clause::G2);
}

fn fault(reach: Reach) -> Fault {
    let name = "fault".to_owned();
    Fault { name, reach, began: 3 * SECOND, healed: 4 * SECOND, grace: SECOND }
}

#[test]
fn a_hole_is_forgiven_only_where_and_when_the_fault_was() {
    let mut history = plain();
    // Number 1, from node 0 to node 1, published at second 4.
    history.receipts.remove(3);
    for (reach, is_forgiven) in [
        (Reach::Redis, true),
        (Reach::Links(vec![1]), true),
        (Reach::Links(vec![0]), true),
        (Reach::Nodes(vec![1]), true),
        (Reach::Links(vec![2]), false),
        (Reach::Nodes(vec![2]), false),
        (Reach::Nothing, false),
    ] {
        history.faults = vec![fault(reach)];
        assert_eq!(check(&history).violations.is_empty(), is_forgiven, "{:?}", history.faults);
    }
    history.faults = vec![Fault { began: 0, healed: SECOND, ..fault(Reach::Redis) }];
    broken(&history, Clause::G4);
    history.faults = vec![Fault { began: 9 * SECOND, healed: 9 * SECOND, ..fault(Reach::Redis) }];
    broken(&history, Clause::G4);
}

#[test]
fn redis_is_no_excuse_on_one_node() {
    let mut history = plain();
    // Number 1, from node 0 to node 0.
    history.receipts.remove(2);
    for reach in [Reach::Redis, Reach::Links(vec![0])] {
        history.faults = vec![fault(reach)];
        broken(&history, Clause::G4);
    }
    history.faults = vec![fault(Reach::Nodes(vec![0]))];
    kept(&history);
}

#[test]
fn a_hole_is_forgiven_if_the_socket_closed_at_once() {
    let mut history = plain();
    history.receipts.retain(|receipt| receipt.session != 1 || receipt.number != 2);
    history.sessions[1].closed = Some(5 * SECOND + 500_000);
    history.sessions.push(Session { asked: 7 * SECOND, opened: 8 * SECOND, ..session(1, 1) });
    kept(&history);
    history.sessions[1].closed = Some(6 * SECOND + 500_000);
    broken(&history, Clause::G4);
}

#[test]
fn what_nobody_accepted_is_owed_to_nobody() {
    let mut history = plain();
    history.publications[1].accepted = None;
    history.receipts.remove(3);
    assert_eq!(kept(&history).expected, 4);
}

#[test]
fn nothing_is_forgiven_when_all_must_be_well() {
    let mut history = plain();
    let late = publication(3, Target::Rooms(vec![1]), 25 * SECOND);
    history.receipts.push(receipt(0, &late, late.sent + 2000));
    history.publications.push(late);
    history.faults = vec![Fault { healed: 26 * SECOND, ..fault(Reach::Redis) }];
    broken(&history, Clause::G6);
}

#[test]
fn who_is_away_or_thrown_out_when_all_must_be_well_is_noticed() {
    let mut history = plain();
    history.sessions[1].closed = Some(25 * SECOND);
    broken(&history, Clause::G6);
    history.sessions[1].closed = Some(15 * SECOND);
    broken(&history, Clause::G6);
    history.sessions.push(Session { asked: 16 * SECOND, opened: 17 * SECOND, ..session(1, 2) });
    kept(&history);
}

#[test]
fn a_gauge_that_lies_is_noticed() {
    let mut history = plain();
    history.gauges = vec![Gauge { name: "sockets".to_owned(), shown: 2, counted: 2 }];
    kept(&history);
    history.gauges[0].shown = 3;
    broken(&history, Clause::G6);
}

#[test]
fn sockets_come_and_go_once_and_in_this_order() {
    let mut history = plain();
    history.sessions[1].node = 0;
    let notice = |came, at| Notice { watcher: 0, id: "id-1".to_owned(), came, at };
    history.notices = vec![notice(true, 2)];
    kept(&history);
    history.notices = vec![notice(true, 2), notice(true, 3)];
    broken(&history, Clause::G8);
    // It never closed.
    history.notices = vec![notice(true, 2), notice(false, 3)];
    broken(&history, Clause::G8);
    history.sessions[1].closed = Some(6 * SECOND);
    history.quiesce = (40 * SECOND, 50 * SECOND);
    history.sessions.push(Session { id: "id-2".to_owned(), opened: 7 * SECOND, ..session(1, 2) });
    history.publications.clear();
    history.receipts.clear();
    kept(&history);
    history.notices = vec![notice(false, 2), notice(true, 3)];
    broken(&history, Clause::G8);
    history.notices = vec![notice(true, 2), notice(false, 3), notice(false, 4)];
    broken(&history, Clause::G8);
    // Its end was never told.
    history.notices = vec![notice(true, 2)];
    broken(&history, Clause::G8);
}

#[test]
fn losses_and_returns_are_timed() {
    let mut history = plain();
    history.receipts.retain(|receipt| receipt.session == 0);
    history.faults = vec![Fault { grace: 3 * SECOND, ..fault(Reach::Redis) }];
    let totals = kept(&history);
    assert_eq!((totals.lost, totals.window_ms, totals.recover_ms), (3, 2000, 1000));

    history.sessions[1].closed = Some(3 * SECOND + 1);
    history.sessions.push(Session { asked: 9 * SECOND, opened: 10 * SECOND, ..session(1, 2) });
    assert_eq!(kept(&history).recover_ms, 6000);
}

/// A history as a correct cluster could have made it, with a fault of Redis in the middle.
fn random(seed: u64) -> History {
    let mut random = StdRng::seed_from_u64(seed);
    let mut history = History {
        sessions: (0..SOCKETS).map(|socket| session(socket, socket as usize % NODES)).collect(),
        quiesce: (30 * SECOND, END),
        flight: SECOND,
        faults: vec![Fault { began: FAULT.0, healed: FAULT.1, ..fault(Reach::Redis) }],
        ..History::default()
    };
    for session in 0..SOCKETS {
        for room in 0..ROOMS {
            let mut at = random.random_range(2..SECOND);
            while random.random_bool(0.7) && at < 25 * SECOND {
                let mut stay = membership(session, room, at);
                at += random.random_range(SECOND..20 * SECOND);
                if random.random_bool(0.7) {
                    stay.leaving = Some(at);
                    stay.left = Some(at + 1000);
                    history.memberships.push(stay);
                    at += random.random_range(2000..4 * SECOND);
                } else {
                    history.memberships.push(stay);
                    break;
                }
            }
        }
    }
    let mut numbers = [0; 4];
    let mut at = 2 * SECOND;
    while at < END - SECOND {
        at += random.random_range(1000..200_000);
        let publisher = random.random_range(0..4_usize);
        let number = numbers[publisher];
        numbers[publisher] += 1;
        let target = match random.random_range(0..8) {
            0 => Target::Everyone,
            1 => Target::Rooms(vec![0, 2]),
            _ => Target::Rooms(vec![random.random_range(0..ROOMS)]),
        };
        let origin = if publisher == 3 { Origin::Emitter } else { Origin::Node(publisher) };
        let accepted = random.random_bool(0.95).then_some(at + 900);
        let publisher = u32::try_from(publisher).expect("few publishers");
        history.publications.push(Publication {
            publisher,
            number,
            target,
            origin,
            sent: at,
            accepted,
        });
    }
    let memberships = Memberships::of(&history);
    for publication in &history.publications {
        let Publication { target, sent, .. } = publication;
        let owed = memberships.certain(target, *sent, sent + 900);
        for (session, record) in (0..).zip(&history.sessions) {
            let arrival = sent + random.random_range(950..5000);
            let is_possible = memberships.possible(session, target, *sent, arrival);
            let is_owed = owed.contains(&session) && publication.accepted.is_some();
            let is_faulty = history.faults[0].reach.covers(publication.origin, record.node)
                && (FAULT.0..FAULT.1).contains(sent);
            let is_taken = is_faulty && random.random_bool(0.8);
            if is_possible && !is_taken && (is_owed || random.random_bool(0.5)) {
                history.receipts.push(receipt(session, publication, arrival));
            }
        }
    }
    // Each socket receives in order; between sockets, time decides.
    let mut latest: HashMap<SessionIndex, Time> = HashMap::new();
    for receipt in &mut history.receipts {
        let latest = latest.entry(receipt.session).or_default();
        *latest = (*latest + 1).max(receipt.at);
        receipt.at = *latest;
    }
    history.receipts.sort_by_key(|receipt| receipt.at);
    history
}

/// Receipts that the checker must miss, by their place.
fn owed(history: &History, when: impl Fn(Time) -> bool) -> Vec<usize> {
    let memberships = Memberships::of(history);
    let is_owed = |receipt: &Receipt| {
        let publication = history.publications.iter().find(|publication| {
            (publication.publisher, publication.number) == (receipt.publisher, receipt.number)
        });
        publication.is_some_and(|Publication { target, sent, accepted, .. }| {
            let certain = accepted.map(|accepted| memberships.certain(target, *sent, accepted));
            when(*sent) && certain.is_some_and(|sessions| sessions.contains(&receipt.session))
        })
    };
    let receipts = history.receipts.iter().enumerate();
    receipts.filter(|(_, receipt)| is_owed(receipt)).map(|(at, _)| at).collect()
}

#[test]
fn random_good_histories_are_believed_and_no_change_of_them_is() {
    for seed in 0..40 {
        let good = random(seed);
        let totals = kept(&good);
        assert!(totals.expected > 500 && totals.lost > 10, "seed {seed}: {totals:?}");
        let mut random = StdRng::seed_from_u64(seed);

        let mut copied = good.clone();
        let copy = copied.receipts.choose(&mut random).expect("receipts").clone();
        copied.receipts.push(Receipt { at: END, ..copy });
        broken(&copied, Clause::G2);

        let is_before = |at: Time| at + 2 * SECOND < FAULT.0;
        let is_after = |at: Time| at > FAULT.1 + 2 * SECOND && at < good.quiesce.0;
        for (clause, places) in [
            (Clause::G4, owed(&good, is_before)),
            (Clause::G4, owed(&good, is_after)),
            (Clause::G6, owed(&good, |at| at >= good.quiesce.0)),
        ] {
            let mut holed = good.clone();
            holed.receipts.remove(*places.choose(&mut random).expect("owed receipts"));
            broken(&holed, clause);
        }

        let mut swapped = good.clone();
        let (one, other) = neighbours(&good, &mut random);
        let (first, second) = (good.receipts[one].at, good.receipts[other].at);
        swapped.receipts.swap(one, other);
        (swapped.receipts[one].at, swapped.receipts[other].at) = (first, second);
        broken(&swapped, Clause::G3);

        let mut strayed = good.clone();
        strayed.receipts.push(stray(&good, &mut random));
        broken(&strayed, Clause::G1);
    }
}

/// Two receipts of one session, publisher and target.
fn neighbours(history: &History, random: &mut StdRng) -> (usize, usize) {
    loop {
        let one = random.random_range(0..history.receipts.len());
        let of = &history.receipts[one];
        let mut later = history.receipts.iter().enumerate().skip(one + 1);
        let other = later.find(|(_, receipt)| {
            (receipt.session, receipt.publisher, &receipt.target)
                == (of.session, of.publisher, &of.target)
        });
        if let Some((other, _)) = other {
            return (one, other);
        }
    }
}

/// A receipt of a session that was not in the room while the publication was under way: never, or no longer.
fn stray(history: &History, random: &mut StdRng) -> Receipt {
    let memberships = Memberships::of(history);
    loop {
        let publication = history.publications.choose(random).expect("publications");
        let session = random.random_range(0..SOCKETS);
        let at = publication.sent + 3000;
        if !memberships.possible(session, &publication.target, publication.sent, at) {
            return receipt(session, publication, at);
        }
    }
}
