//! What this node asks of all others, and how it gathers their answers.

use super::{
    Cluster,
    pending::{Question, Ticket},
};
use crate::{
    Acks, ClientAnswer, Flags, LinkState, Local, LostReason, RequestCause, RequestError, RoomName,
    Selection, SocketDetail,
    memory::{ask_local, ids, selection_of},
    request::size,
    wire::{RequestBody, ResponseBody},
};
use futures_util::{StreamExt, stream::BoxStream};
use protocol::socket::EventData;
use std::{collections::BTreeSet, pin::pin, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

/// The longest time that acknowledgements are waited for, whatever is asked for.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// What has come from other servers.
#[derive(Default)]
struct Gathered {
    bodies: Vec<ResponseBody>,
    received: usize,
    expected: Option<usize>,
    /// Why it is not everything.
    cause: Option<RequestCause>,
}

impl Gathered {
    fn result<T>(self, arrived: T) -> Result<T, RequestError<T>> {
        let Self { received, expected, cause, .. } = self;
        match cause {
            None => Ok(arrived),
            Some(cause) => Err(RequestError { cause, arrived, received, expected }),
        }
    }
}

impl From<LostReason> for RequestCause {
    fn from(reason: LostReason) -> Self {
        match reason {
            LostReason::LinkDown => RequestCause::LinkDown,
            LostReason::QueueFull => RequestCause::Overload,
            LostReason::TooLarge | LostReason::Invalid => RequestCause::Invalid,
        }
    }
}

impl<L: Local> Cluster<L> {
    pub(crate) async fn fetch_sockets(
        &self,
        ns: &str,
        selection: &Selection,
    ) -> Result<Vec<SocketDetail>, RequestError<Vec<SocketDetail>>> {
        let body = RequestBody::Fetch { selection: selection.clone() };
        let local = self.local.sockets(ns, selection);
        let asking = self.gather(ns, Question::Sockets, &body);
        let (mut sockets, mut gathered) = tokio::join!(local, asking);
        for body in gathered.bodies.drain(..) {
            if let ResponseBody::Sockets(more) = body {
                sockets.extend(more);
            }
        }
        gathered.result(sockets)
    }

    pub(crate) async fn sockets(
        &self,
        ns: &str,
        rooms: &[RoomName],
    ) -> Result<BTreeSet<RoomName>, RequestError<BTreeSet<RoomName>>> {
        let selection = selection_of(rooms);
        let (question, body) = if self.dialect.is_classic() {
            (Question::SocketIds, RequestBody::Sockets { rooms: rooms.to_vec() })
        } else {
            (Question::Sockets, RequestBody::Fetch { selection: selection.clone() })
        };
        let local = self.local.sockets(ns, &selection);
        let (local, mut gathered) = tokio::join!(local, self.gather(ns, question, &body));
        let mut all = ids(local);
        for body in gathered.bodies.drain(..) {
            match body {
                ResponseBody::SocketIds(more) => all.extend(more),
                ResponseBody::Sockets(more) => all.extend(ids(more)),
                _ => {}
            }
        }
        gathered.result(all)
    }

    pub(crate) async fn all_rooms(
        &self,
        ns: &str,
    ) -> Result<BTreeSet<RoomName>, RequestError<BTreeSet<RoomName>>> {
        // The sharded protocol does not know this question.
        let (question, body) = if self.dialect.is_classic() {
            (Question::Rooms, RequestBody::Rooms)
        } else {
            (Question::Sockets, RequestBody::Fetch { selection: Selection::default() })
        };
        let (local, mut gathered) =
            tokio::join!(self.local.rooms(ns), self.gather(ns, question, &body));
        let mut all: BTreeSet<_> = local.into_iter().collect();
        for body in gathered.bodies.drain(..) {
            match body {
                ResponseBody::Rooms(more) => all.extend(more),
                ResponseBody::Sockets(more) => {
                    all.extend(more.into_iter().flat_map(|socket| socket.rooms));
                }
                _ => {}
            }
        }
        gathered.result(all)
    }

    pub(crate) async fn server_side_emit_with_ack(
        &self,
        ns: &str,
        data: &EventData,
    ) -> Result<Vec<EventData>, RequestError<Vec<EventData>>> {
        let body = RequestBody::ServerEvent { data: data.clone() };
        let mut gathered = self.gather(ns, Question::ServerEvent, &body).await;
        let answers = gathered.bodies.drain(..).filter_map(|body| match body {
            ResponseBody::ServerEvent(answer) => Some(answer),
            _ => None,
        });
        let answers = answers.collect();
        gathered.result(answers)
    }

    pub(crate) async fn server_count(&self, ns: &str) -> Option<usize> {
        let others = self.count_others(ns).await?;
        Some(others + 1)
    }

    /// How many other servers answer, as Node counts them. It is the number of connections that subscribe to one
    /// channel. Ours is taken off only if it was among them all the while: one too many is waited for in vain, with
    /// one too few what is missing would be taken for the whole.
    async fn count_others(&self, ns: &str) -> Option<usize> {
        let is_counted = || self.namespace(ns).is_some_and(|known| known.is_counted(&self.bus));
        let was_counted = is_counted();
        let count = self.bus.count(self.dialect.channels(ns).request()).await?;
        Some(count.saturating_sub(usize::from(was_counted && is_counted())))
    }

    /// Asks all other servers and waits until all have answered, or for as long as they may take.
    async fn gather(&self, ns: &str, question: Question, body: &RequestBody) -> Gathered {
        let mut gathered = Gathered::default();
        let mut link = self.link().subscribe();
        let asking = async {
            tokio::select! {
                biased;
                result = self.exchange(ns, question, body, &mut gathered) => result,
                () = link_lost(&mut link) => Err(RequestCause::LinkDown),
            }
        };
        let counted = Counted::new(self);
        let result = tokio::time::timeout(self.config.requests_timeout, asking).await;
        gathered.cause = result.unwrap_or(Err(RequestCause::Timeout)).err();
        counted.ended(gathered.cause);
        gathered
    }

    async fn exchange(
        &self,
        ns: &str,
        question: Question,
        body: &RequestBody,
        gathered: &mut Gathered,
    ) -> Result<(), RequestCause> {
        self.check_link()?;
        // Where nobody listens, no answer comes.
        let namespace = self.namespace(ns).ok_or(RequestCause::Invalid)?;
        if !namespace.received(&self.bus).await {
            return Err(RequestCause::LinkDown);
        }
        gathered.expected = self.count_others(ns).await;
        if gathered.expected == Some(0) {
            return Ok(());
        }
        let ticket = self.pending.ticket(ns, question)?;
        self.publish_request(ns, &ticket, body)?;
        loop {
            let news = ticket.news();
            gathered.bodies.extend(news.bodies);
            gathered.received = news.n_servers;
            if news.is_over {
                return Err(RequestCause::Overload);
            }
            // More than expected are no fault: a server may have come since they were counted.
            if gathered.expected.is_some_and(|expected| news.n_servers >= expected) {
                return Ok(());
            }
            ticket.changed().await;
        }
    }

    fn publish_request(
        &self,
        ns: &str,
        ticket: &Ticket<'_>,
        body: &RequestBody,
    ) -> Result<(), LostReason> {
        let payload = self.dialect.encode_request(ns, Some(ticket.id()), body)?;
        let channel = self.dialect.channels(ns).request().to_owned();
        self.publish(channel, payload).inspect_err(|reason| {
            self.metrics.cluster_published_total.with_label_values(&[reason.kind()]).inc();
        })
    }

    pub(crate) async fn broadcast_with_ack(
        &self,
        ns: &str,
        selection: &Selection,
        flags: Flags,
        data: &EventData,
        timeout: Duration,
    ) -> Result<Acks, RequestError<Acks>> {
        let timeout = timeout.min(TIMEOUT_MAX);
        let bytes_max = self.config.response_bytes_max;
        if flags.local {
            return ask_local(&*self.local, ns, selection, flags, data, timeout, bytes_max).await;
        }
        let counted = Counted::new(self);
        let deadline = Instant::now() + timeout;
        let refused = |cause| {
            let arrived = Acks::default();
            Err(RequestError { cause, arrived, received: 0, expected: None })
        };
        let ticket = match self.pending.ticket(ns, Question::Ask) {
            Ok(ticket) => ticket,
            Err(cause) => {
                counted.ended(Some(cause));
                return refused(cause);
            }
        };
        if let Some(namespace) = self.namespace(ns) {
            // The event goes out in any case, and while the link is down nothing holds it up.
            let mut link = self.link().subscribe();
            let received = async {
                tokio::select! {
                    biased;
                    () = link_lost(&mut link) => {}
                    _ = namespace.received(&self.bus) => {}
                }
            };
            let _ = timeout_at(deadline, received).await;
        }
        let body = RequestBody::Ask {
            selection: selection.clone(),
            flags,
            data: data.clone(),
            timeout: Some(timeout),
        };
        let is_published = self.publish_request(ns, &ticket, &body);
        if let Err(reason @ (LostReason::Invalid | LostReason::TooLarge)) = is_published {
            counted.ended(Some(reason.into()));
            return refused(reason.into());
        }
        let mut asking = Asking::new(bytes_max, is_published.err().map(RequestCause::from));
        let local = self.local.ask(ns, selection, flags, data.clone(), timeout);
        let count = self.count_others(ns);
        let mut link = self.link().subscribe();
        let answered = asking.run(&ticket, local, count, link_lost(&mut link));
        let is_in_time = timeout_at(deadline, answered).await.is_ok();
        let result = asking.result(is_in_time);
        counted.ended(result.as_ref().err().map(|error| error.cause));
        result
    }
}

/// Resolves when the link is not up.
async fn link_lost(link: &mut watch::Receiver<LinkState>) {
    // The sender lives as long as the bus.
    let _ = link.wait_for(|link| *link != LinkState::Up).await;
}

/// A broadcast that waits for acknowledgements.
struct Asking {
    acks: Acks,
    bytes: usize,
    bytes_max: usize,
    received: usize,
    expected: Option<usize>,
    /// How many clients other servers have asked, and how many of those have answered.
    n_asked_elsewhere: u64,
    n_acks_elsewhere: u64,
    /// Why nothing is to be expected of other servers.
    failed: Option<RequestCause>,
    /// What the sockets of this node answer, once they are asked.
    local: LocalPart,
}

enum LocalPart {
    Asking,
    Answering(BoxStream<'static, ClientAnswer>),
    Done,
}

impl Asking {
    fn new(bytes_max: usize, failed: Option<RequestCause>) -> Self {
        Self {
            acks: Acks::default(),
            bytes: 0,
            bytes_max,
            received: 0,
            expected: None,
            n_asked_elsewhere: 0,
            n_acks_elsewhere: 0,
            failed,
            local: LocalPart::Asking,
        }
    }

    /// Gathers until nothing more can come.
    async fn run(
        &mut self,
        ticket: &Ticket<'_>,
        local: impl Future<Output = crate::Asked>,
        count: impl Future<Output = Option<usize>>,
        lost: impl Future<Output = ()>,
    ) {
        let (mut local, mut count, mut lost) = (pin!(local), pin!(count), pin!(lost));
        let mut is_counted = false;
        loop {
            self.take(ticket);
            if self.failed == Some(RequestCause::Overload) || self.is_done() {
                return;
            }
            let has_link = self.failed.is_none();
            let is_asking = matches!(self.local, LocalPart::Asking);
            tokio::select! {
                asked = &mut local, if is_asking => {
                    self.acks.n_asked += asked.n_asked as u64;
                    self.local = LocalPart::Answering(asked.answers);
                }
                answer = next(&mut self.local) => match answer {
                    Some(answer) => self.keep(answer),
                    None => self.local = LocalPart::Done,
                },
                expected = &mut count, if has_link && !is_counted => {
                    is_counted = true;
                    self.expected = expected;
                }
                () = ticket.changed(), if has_link => {}
                () = &mut lost, if has_link => self.failed = Some(RequestCause::LinkDown),
            }
        }
    }

    fn take(&mut self, ticket: &Ticket<'_>) {
        let news = ticket.news();
        self.received = news.n_servers;
        for body in news.bodies {
            match body {
                ResponseBody::ClientCount(count) => {
                    self.n_asked_elsewhere = self.n_asked_elsewhere.saturating_add(count);
                    self.acks.n_asked = self.acks.n_asked.saturating_add(count);
                }
                ResponseBody::Ack(answer) => {
                    self.n_acks_elsewhere += 1;
                    self.keep(answer);
                }
                _ => {}
            }
        }
        if news.is_over {
            self.failed = Some(RequestCause::Overload);
        }
    }

    fn keep(&mut self, answer: ClientAnswer) {
        self.bytes = self.bytes.saturating_add(size(&answer.args));
        if self.bytes > self.bytes_max {
            self.failed = Some(RequestCause::Overload);
        } else {
            self.acks.answers.push(answer);
        }
    }

    /// Whether all servers have told how many clients they asked, and all those have answered. On Node the numbers
    /// must be equal, and a server that comes meanwhile makes everybody wait for the deadline.
    fn is_done(&self) -> bool {
        let is_done_elsewhere = self.failed.is_some()
            || self.expected.is_some_and(|expected| self.received >= expected)
                && self.n_acks_elsewhere >= self.n_asked_elsewhere;
        is_done_elsewhere && matches!(self.local, LocalPart::Done)
    }

    fn result(self, is_in_time: bool) -> Result<Acks, RequestError<Acks>> {
        let Self { acks, received, expected, failed, .. } = self;
        // Who has left without an answer did not answer, as on Node.
        let is_whole = is_in_time && acks.is_complete();
        let cause = match failed {
            None if is_whole => return Ok(acks),
            None => RequestCause::Timeout,
            Some(cause) => cause,
        };
        Err(RequestError { cause, arrived: acks, received, expected })
    }
}

/// The next answer of this node's sockets, once they are asked.
async fn next(local: &mut LocalPart) -> Option<ClientAnswer> {
    match local {
        LocalPart::Answering(answers) => answers.next().await,
        LocalPart::Asking | LocalPart::Done => std::future::pending().await,
    }
}

/// Counts how a request ended, also if its caller goes away.
struct Counted<'a> {
    metrics: &'a crate::AdapterMetrics,
    result: &'static str,
}

impl<'a> Counted<'a> {
    fn new<L>(cluster: &'a Cluster<L>) -> Self {
        Self { metrics: &cluster.metrics, result: "abandoned" }
    }

    fn ended(mut self, cause: Option<RequestCause>) {
        self.result = cause.map_or("complete", RequestCause::kind);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.metrics.cluster_requests_total.with_label_values(&[self.result]).inc();
    }
}
