//! One subscriber connection to one server, for as long as the node wants topics there.
//!
//! A task owns the socket: it connects, joins everything that is wanted again, serves, and on any fault begins anew,
//! without end. A server that hangs is noticed by a PING; a Sentinel is asked whether the master is still the same.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::pending,
    io,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::wire::{self, Garbled, Heard, say};
use crate::{
    Topic,
    bus::Listener,
    redis::{
        self, Address, CONNECT_TIMEOUT, Deployment, RECONNECT_DELAY, WATCH_PERIOD, WATCH_TIMEOUT,
    },
};

/// Where a link goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// The one master of a deployment without shards.
    Master,
    /// A master of a Cluster.
    Shard(Arc<Address>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("the master"),
            Self::Shard(address) => address.fmt(f),
        }
    }
}

/// What a link is told. Unbounded, but never longer than what the node joins and leaves while the link connects.
#[derive(Debug)]
pub(super) enum Order {
    Join(Vec<(Topic, Ticket)>),
    Leave(Vec<Topic>),
}

/// The number of one order to join. Answers carry it: of a topic that was left and joined again meanwhile, the answer to the
/// first order says nothing.
pub(super) type Ticket = u64;

/// What a link tells.
#[derive(Debug)]
pub(super) struct Report {
    /// The link's number: what an earlier link said no longer matters.
    pub(super) link: u64,
    pub(super) news: News,
}

#[derive(Debug)]
pub(super) enum News {
    /// Connected, and all that was wanted has been joined or refused.
    Up,
    /// Not connected any more, or still not, for this reason.
    Down(String),
    /// What is published on these arrives from now on.
    Joined(Vec<(Topic, Ticket)>),
    /// The server has ended a subscription by itself: the slot has moved away.
    Ended(Topic, Ticket),
    /// The server refused a subscription, in its own words (`MOVED` among them). The link has forgotten the topic.
    Refused(Topic, Ticket, String),
}

/// The handle on a link, which ends with it.
#[derive(Debug)]
pub(super) struct Link {
    orders: UnboundedSender<Order>,
    _task: AbortOnDropHandle<()>,
}

impl Link {
    pub(super) fn open(
        number: u64,
        place: Place,
        deployment: Arc<Deployment>,
        listener: Arc<dyn Listener>,
        reports: UnboundedSender<Report>,
    ) -> Self {
        let (orders, received) = unbounded_channel();
        let task = Task {
            number,
            place,
            deployment,
            listener,
            reports,
            orders: received,
            wanted: HashMap::new(),
        };
        Self {
            orders,
            _task: AbortOnDropHandle::new(tokio::spawn(task.run())),
        }
    }

    pub(super) fn order(&self, order: Order) {
        // The task ends with this handle only.
        let _ = self.orders.send(order);
    }
}

struct Task {
    number: u64,
    place: Place,
    deployment: Arc<Deployment>,
    listener: Arc<dyn Listener>,
    reports: UnboundedSender<Report>,
    orders: UnboundedReceiver<Order>,
    /// The topics to be joined, on this connection and every later one.
    wanted: HashMap<Topic, Ticket>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Redis(#[from] ::redis::RedisError),
    #[error(transparent)]
    Garbled(#[from] Garbled),
    #[error("{0}")]
    Refused(String),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server does not answer")]
    Silent,
    #[error("the server is not the master, or not any more")]
    Deposed,
    #[error("the server answered something else than was asked")]
    OutOfStep,
}

/// What the server has not answered yet, in the order sent.
enum Awaited {
    Join(Topic, Ticket),
    Leave(Topic),
    Okay,
}

/// An established connection.
struct Session {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    awaited: VecDeque<Awaited>,
    /// How many of the first joins are still unanswered; `None` once they all were.
    beginning: Option<usize>,
    /// Clock ticks since the last sign of life that was asked for; `None` while none is awaited. Ticks and not time, so
    /// that a node that was itself held up does not blame the server.
    silent: Option<u32>,
}

const READ_BUFFER: usize = 64 << 10;

/// How many periods a server may be silent before it is given up: [`WATCH_TIMEOUT`] in all.
const PATIENCE: u32 = (WATCH_TIMEOUT.as_secs() / WATCH_PERIOD.as_secs()) as u32;

impl Task {
    async fn run(mut self) {
        let mut delay = Duration::from_millis(50);
        loop {
            let began = Instant::now();
            // A listener that panics is a fault as any other: the connection begins anew, and the node is told what it missed.
            let fault = match AssertUnwindSafe(self.session()).catch_unwind().await {
                Ok(Ok(never)) => match never {},
                Ok(Err(fault)) => fault.to_string(),
                Err(_) => "the listener panicked".to_owned(),
            };
            self.tell(News::Down(fault));
            if began.elapsed() > RECONNECT_DELAY * 2 {
                delay = Duration::from_millis(50);
            }
            let until = Instant::now() + crate::jittered(delay);
            delay = (delay * 2).min(RECONNECT_DELAY);
            loop {
                tokio::select! {
                    () = sleep_until(until) => break,
                    Some(order) = self.orders.recv() => match order {
                        Order::Join(topics) => self.wanted.extend(topics),
                        Order::Leave(topics) => topics.iter().for_each(|topic| { self.wanted.remove(topic); }),
                    },
                }
            }
        }
    }

    async fn session(&mut self) -> Result<std::convert::Infallible, Fault> {
        let address = match &self.place {
            Place::Master => redis::current_master(&self.deployment).await?,
            Place::Shard(address) => (**address).clone(),
        };
        let mut session = timeout(CONNECT_TIMEOUT, self.greet(&address))
            .await
            .map_err(|_| Fault::Silent)??;
        session.beginning = Some(self.wanted.len());
        for (topic, ticket) in &self.wanted {
            self.join(&mut session, topic.clone(), *ticket);
        }
        self.settle(&mut session);
        let deposed = self.deposed(address);
        tokio::pin!(deposed);
        let mut tick = interval(WATCH_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            session.incoming.reserve(READ_BUFFER / 4);
            let (mut reading, mut writing) = session.stream.split();
            tokio::select! {
                read = reading.read_buf(&mut session.incoming) => {
                    if read? == 0 {
                        return Err(Fault::Closed);
                    }
                    session.silent = session.silent.map(|_| 0);
                    self.hear(&mut session)?;
                }
                written = writing.write_buf(&mut session.outgoing), if !session.outgoing.is_empty() => { written?; }
                Some(order) = self.orders.recv() => self.obey(&mut session, order),
                _ = tick.tick() => session.check()?,
                () = &mut deposed => return Err(Fault::Deposed),
            }
        }
    }

    /// Connects, authenticates, and sees that a Sentinel's master thinks that it is one.
    async fn greet(&self, address: &Address) -> Result<Session, Fault> {
        let mut stream = redis::connect(address).await?;
        let (mut outgoing, mut incoming) = (BytesMut::new(), BytesMut::with_capacity(READ_BUFFER));
        let mut answers = 1;
        let credentials = self.deployment.credentials();
        if let Some(password) = &credentials.password {
            match &credentials.user {
                Some(user) => say(&mut outgoing, &["AUTH", user, password]),
                None => say(&mut outgoing, &["AUTH", password]),
            }
            answers += 1;
        }
        let role_matters = matches!(*self.deployment, Deployment::Sentinel { .. });
        say(
            &mut outgoing,
            if role_matters { &["ROLE"] } else { &["PING"] },
        );
        stream.write_all_buf(&mut outgoing).await?;
        while answers > 0 {
            match wire::hear(&mut incoming)? {
                Some(Heard::Okay) => answers -= 1,
                Some(Heard::Role(role)) if role == "master" => answers -= 1,
                Some(Heard::Role(_)) => return Err(Fault::Deposed),
                Some(Heard::Refused(why)) => return Err(Fault::Refused(why)),
                Some(_) => return Err(Fault::OutOfStep),
                None if stream.read_buf(&mut incoming).await? == 0 => return Err(Fault::Closed),
                None => {}
            }
        }
        let awaited = VecDeque::new();
        Ok(Session {
            stream,
            incoming,
            outgoing,
            awaited,
            beginning: None,
            silent: None,
        })
    }

    /// Resolves when the Sentinels name another master; never elsewhere.
    fn deposed(&self, address: Address) -> impl Future<Output = ()> + use<> {
        let watched = matches!(*self.deployment, Deployment::Sentinel { .. })
            .then(|| self.deployment.clone());
        async move {
            let Some(deployment) = watched else {
                return pending().await;
            };
            loop {
                sleep(WATCH_PERIOD).await;
                if redis::current_master(&deployment)
                    .await
                    .is_ok_and(|master| master != address)
                {
                    return;
                }
            }
        }
    }

    fn obey(&mut self, session: &mut Session, order: Order) {
        match order {
            Order::Join(topics) => topics.into_iter().for_each(|(topic, ticket)| {
                self.wanted.insert(topic.clone(), ticket);
                self.join(session, topic, ticket);
            }),
            Order::Leave(topics) => topics.into_iter().for_each(|topic| {
                if self.wanted.remove(&topic).is_some() {
                    say(
                        &mut session.outgoing,
                        &[self.verbs().1, &redis::channel(&topic)],
                    );
                    session.awaited.push_back(Awaited::Leave(topic));
                }
            }),
        }
    }

    fn join(&self, session: &mut Session, topic: Topic, ticket: Ticket) {
        // One command for each: on a Cluster those of one command must share a slot, and a refusal names its topic by its turn.
        say(
            &mut session.outgoing,
            &[self.verbs().0, &redis::channel(&topic)],
        );
        session.awaited.push_back(Awaited::Join(topic, ticket));
    }

    fn verbs(&self) -> (&'static str, &'static str) {
        if self.deployment.is_cluster() {
            ("SSUBSCRIBE", "SUNSUBSCRIBE")
        } else {
            ("SUBSCRIBE", "UNSUBSCRIBE")
        }
    }

    /// Takes in everything that has arrived as a whole.
    fn hear(&mut self, session: &mut Session) -> Result<(), Fault> {
        let mut joined = Vec::new();
        while let Some(heard) = wire::hear(&mut session.incoming)? {
            match heard {
                Heard::Record { channel, record } => {
                    if let Some(topic) = topic_of(&channel) {
                        self.listener.record(topic, record);
                    }
                }
                Heard::Joined(channel) => match session.awaited.pop_front() {
                    Some(Awaited::Join(topic, ticket)) if topic_of(&channel) == Some(&topic) => {
                        session.answered();
                        if self.wanted.get(&topic) == Some(&ticket) {
                            joined.push((topic, ticket));
                        }
                    }
                    _ => return Err(Fault::OutOfStep),
                },
                Heard::Left(channel) => {
                    let topic = topic_of(&channel).ok_or(Fault::OutOfStep)?;
                    match session.awaited.front() {
                        Some(Awaited::Leave(asked)) if **asked == *topic => {
                            session.awaited.pop_front();
                        }
                        _ => {
                            if let Some((topic, ticket)) = self.wanted.remove_entry(topic) {
                                self.tell_joined(&mut joined);
                                self.tell(News::Ended(topic, ticket));
                            }
                        }
                    }
                }
                Heard::Refused(why) => match session.awaited.pop_front() {
                    Some(Awaited::Join(topic, ticket)) => {
                        session.answered();
                        if self.wanted.get(&topic) == Some(&ticket) {
                            self.wanted.remove(&topic);
                            self.tell(News::Refused(topic, ticket, why));
                        }
                    }
                    Some(Awaited::Leave(_)) => {}
                    Some(Awaited::Okay) | None => return Err(Fault::Refused(why)),
                },
                Heard::Okay => match session.awaited.pop_front() {
                    Some(Awaited::Okay) => session.silent = None,
                    _ => return Err(Fault::OutOfStep),
                },
                Heard::Role(_) => return Err(Fault::OutOfStep),
            }
        }
        self.tell_joined(&mut joined);
        self.settle(session);
        Ok(())
    }

    /// Tells that the link is up, once, when the first joins are all answered.
    fn settle(&self, session: &mut Session) {
        if session.beginning == Some(0) {
            session.beginning = None;
            self.tell(News::Up);
        }
    }

    fn tell_joined(&self, joined: &mut Vec<(Topic, Ticket)>) {
        if !joined.is_empty() {
            self.tell(News::Joined(std::mem::take(joined)));
        }
    }

    fn tell(&self, news: News) {
        // Whoever listens ends this task by dropping its handle.
        let _ = self.reports.send(Report {
            link: self.number,
            news,
        });
    }
}

impl Session {
    /// A join was answered. The first ones come first, so counting is enough.
    fn answered(&mut self) {
        if let Some(left) = &mut self.beginning {
            *left = left.saturating_sub(1);
        }
    }

    /// Asks for a sign of life, or misses it.
    fn check(&mut self) -> Result<(), Fault> {
        match &mut self.silent {
            Some(ticks) if *ticks + 1 >= PATIENCE => return Err(Fault::Silent),
            Some(ticks) => *ticks += 1,
            None => {
                say(&mut self.outgoing, &["PING"]);
                self.awaited.push_back(Awaited::Okay);
                self.silent = Some(0);
            }
        }
        Ok(())
    }
}

fn topic_of(channel: &[u8]) -> Option<&str> {
    redis::topic(std::str::from_utf8(channel).ok()?)
}
