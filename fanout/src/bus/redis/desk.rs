//! Which topics are joined, where, and who waits for it.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    Status,
    link::{News, Order, Place, Report, Ticket},
    servers::Servers,
};
use crate::{
    Topic,
    bus::{BusError, Listener},
    jittered,
    redis::Deployment,
};

/// How often the slot map is read while all is well: a slot can move without anybody telling.
const MAP_PERIOD: Duration = Duration::from_secs(2);

/// The pause before a topic that was sent from one server to the next and back is tried again.
const BOUNCE_PAUSE: Duration = Duration::from_millis(50);

/// The pause before a subscription that was refused for another reason is tried again; it doubles so many times.
const REFUSED_PAUSE: Duration = Duration::from_millis(250);
const MOST_DOUBLED: u32 = 4;

/// What callers ask for. Unbounded: each caller of a join waits for it, and leaving is as frequent as joining.
#[derive(Debug)]
pub(super) enum Request {
    Join {
        number: u64,
        topics: Vec<Topic>,
        done: oneshot::Sender<Result<(), BusError>>,
    },
    GiveUp {
        number: u64,
    },
    Leave(Vec<Topic>),
}

/// The one task that decides.
pub(super) struct Desk {
    listener: Arc<dyn Listener>,
    status: Arc<Status>,
    requests: UnboundedReceiver<Request>,
    reports: UnboundedReceiver<Report>,
    topics: HashMap<Topic, Entry>,
    joins: HashMap<u64, Join>,
    servers: Servers,
    last_ticket: Ticket,
    /// Topics to be placed again, and when.
    later: HashMap<Topic, Instant>,
}

/// A topic that somebody wants.
#[derive(Debug, Default)]
struct Entry {
    /// Where it was ordered, and by which order; `None` while no place is known.
    ordered: Option<(Place, Ticket)>,
    /// Whether that link has confirmed it and is up.
    joined: bool,
    /// Whether it ever was joined: the next confirmation then means that records may have been missed.
    heard_before: bool,
    /// Whether it was sent on by a server since it was last joined.
    bounced: bool,
    /// How often it was refused since then.
    refusals: u32,
    /// Whether a join of it has succeeded, so that only leaving ends it.
    kept: bool,
    /// The joins under way that ask for it, whether or not it is what they still wait for.
    joins: Vec<u64>,
}

impl Entry {
    fn is_at(&self, place: &Place) -> bool {
        self.ordered.as_ref().is_some_and(|(at, _)| at == place)
    }
}

/// A join under way.
#[derive(Debug)]
struct Join {
    /// All of its topics.
    topics: Vec<Topic>,
    /// Those that were not confirmed yet.
    missing: HashSet<Topic>,
    done: oneshot::Sender<Result<(), BusError>>,
}

impl Desk {
    pub(super) fn new(
        deployment: Deployment,
        listener: Arc<dyn Listener>,
        status: Arc<Status>,
    ) -> (Self, UnboundedSender<Request>) {
        let (requester, requests) = unbounded_channel();
        let (reporter, reports) = unbounded_channel();
        let servers = Servers::new(deployment, listener.clone(), reporter);
        let (topics, joins, later) = Default::default();
        (
            Self {
                listener,
                status,
                requests,
                reports,
                topics,
                joins,
                servers,
                last_ticket: 0,
                later,
            },
            requester,
        )
    }

    pub(super) async fn run(mut self) {
        self.servers.begin();
        let mut map_tick = interval(MAP_PERIOD);
        map_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut later_tick = interval(BOUNCE_PAUSE);
        later_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.serve(request),
                    None => return,
                },
                Some(report) = self.reports.recv() => self.take_in(report),
                Some(read) = self.servers.map_read() => match read {
                    Ok(()) => self.follow_map(),
                    Err(why) => *self.status.fault.lock() = Some(why),
                },
                _ = map_tick.tick() => self.servers.read_map(),
                _ = later_tick.tick(), if !self.later.is_empty() => self.place_what_is_due(),
            }
        }
    }

    fn serve(&mut self, request: Request) {
        match request {
            Request::Join {
                number,
                topics,
                done,
            } => {
                let (mut missing, mut unplaced) = (HashSet::new(), Vec::new());
                for topic in &topics {
                    let entry = self.topics.entry(topic.clone()).or_default();
                    entry.joins.push(number);
                    if !entry.joined && missing.insert(topic.clone()) && entry.ordered.is_none() {
                        unplaced.push(topic.clone());
                    }
                }
                self.joins.insert(
                    number,
                    Join {
                        topics,
                        missing,
                        done,
                    },
                );
                self.finish_if_complete(number);
                self.place(unplaced);
            }
            Request::GiveUp { number } => {
                let Some(join) = self.joins.remove(&number) else {
                    return;
                };
                let mut unwanted = join.topics;
                unwanted.retain(|topic| {
                    let Some(entry) = self.topics.get_mut(topic) else {
                        return false;
                    };
                    entry.joins.retain(|join| *join != number);
                    !entry.kept && entry.joins.is_empty()
                });
                self.forget(unwanted);
            }
            Request::Leave(topics) => self.forget(topics),
        }
    }

    /// Answers a join that waits for nothing any more.
    fn finish_if_complete(&mut self, number: u64) {
        if self
            .joins
            .get(&number)
            .is_none_or(|join| !join.missing.is_empty())
        {
            return;
        }
        let Some(join) = self.joins.remove(&number) else {
            return;
        };
        for topic in &join.topics {
            if let Some(entry) = self.topics.get_mut(topic) {
                entry.kept = true;
                entry.joins.retain(|join| *join != number);
            }
        }
        // Whoever asked may have gone.
        let _ = join.done.send(Ok(()));
    }

    /// Ends what stands about these topics. Joins that wait for one of them fail.
    fn forget(&mut self, topics: Vec<Topic>) {
        let mut orders: HashMap<Place, Vec<Topic>> = HashMap::new();
        for topic in topics {
            let Some(entry) = self.topics.remove(&topic) else {
                continue;
            };
            self.later.remove(&topic);
            for join in entry.joins {
                if let Some(join) = self.joins.remove(&join) {
                    let _ = join.done.send(Err(BusError(
                        "the topic was left while it was joined".to_owned(),
                    )));
                }
            }
            if let Some((place, _)) = entry.ordered {
                orders.entry(place).or_default().push(topic);
            }
        }
        for (place, topics) in orders {
            self.servers.order(&place, Order::Leave(topics));
        }
    }

    fn take_in(&mut self, Report { link, news }: Report) {
        match news {
            News::Up => {
                self.servers.is_up(link);
                self.show_connected();
            }
            News::Down(why) => {
                let Some(place) = self.servers.is_down(link, &why) else {
                    return;
                };
                for entry in self.topics.values_mut().filter(|entry| entry.is_at(&place)) {
                    entry.joined = false;
                }
                self.show_connected();
                *self.status.fault.lock() = Some(why);
                // A master that is gone has a successor, perhaps.
                self.servers.read_map();
            }
            News::Joined(topics) => self.joined(topics),
            News::Ended(topic, ticket) => {
                // The server that let go of the slot knows who has it now: asking it again is answered with MOVED.
                if let Some(entry) = self.ordered_by(&topic, ticket)
                    && let Some((place, _)) = entry.ordered.take()
                {
                    entry.joined = false;
                    self.order(&place, vec![topic]);
                }
            }
            News::Refused(topic, ticket, why) => self.refused(topic, ticket, &why),
        }
    }

    fn joined(&mut self, topics: Vec<(Topic, Ticket)>) {
        let mut again = Vec::new();
        for (topic, ticket) in topics {
            let Some(entry) = self.ordered_by(&topic, ticket) else {
                continue;
            };
            (entry.joined, entry.bounced, entry.refusals) = (true, false, 0);
            let joins = entry.joins.clone();
            if std::mem::replace(&mut entry.heard_before, true) {
                again.push(topic.clone());
            }
            for number in joins {
                if let Some(join) = self.joins.get_mut(&number) {
                    join.missing.remove(&topic);
                    self.finish_if_complete(number);
                }
            }
        }
        if !again.is_empty() {
            self.listener.missed(Some(&again));
        }
    }

    fn refused(&mut self, topic: Topic, ticket: Ticket, why: &str) {
        let Some(entry) = self.ordered_by(&topic, ticket) else {
            return;
        };
        (entry.joined, entry.ordered) = (false, None);
        let bounced = std::mem::replace(&mut entry.bounced, true);
        let refusals = entry.refusals.min(MOST_DOUBLED);
        entry.refusals = refusals + 1;
        if !self.servers.learn(why) {
            let pause = jittered(REFUSED_PAUSE * (1 << refusals));
            let fault = self.status.fault.lock().replace(why.to_owned());
            if fault.as_deref() == Some(why) {
                tracing::debug!(%topic, why, "Redis refuses a subscription");
            } else {
                tracing::warn!(%topic, why, "Redis refuses a subscription, and perhaps others");
            }
            self.later.insert(topic, Instant::now() + pause);
        } else if bounced {
            self.later.insert(topic, Instant::now() + BOUNCE_PAUSE);
        } else {
            self.place(vec![topic]);
        }
    }

    /// The entry of a topic, if this is the order that holds for it now.
    fn ordered_by(&mut self, topic: &Topic, ticket: Ticket) -> Option<&mut Entry> {
        self.topics.get_mut(topic).filter(|entry| {
            entry
                .ordered
                .as_ref()
                .is_some_and(|(_, current)| *current == ticket)
        })
    }

    fn place_what_is_due(&mut self) {
        let now = Instant::now();
        let due: Vec<Topic> = self
            .later
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &due {
            self.later.remove(topic);
        }
        self.place(due);
    }

    /// Orders topics where they belong. Those whose place is not known wait for the slot map.
    fn place(&mut self, topics: Vec<Topic>) {
        let mut orders: HashMap<Place, Vec<Topic>> = HashMap::new();
        for topic in topics {
            match self.servers.home(&topic) {
                Some(place) => orders.entry(place).or_default().push(topic),
                None => {
                    self.later.insert(topic, Instant::now() + REFUSED_PAUSE);
                    self.servers.read_map();
                }
            }
        }
        for (place, topics) in orders {
            self.order(&place, topics);
        }
    }

    fn order(&mut self, place: &Place, topics: Vec<Topic>) {
        let mut tickets = Vec::with_capacity(topics.len());
        for topic in topics {
            let Some(entry) = self.topics.get_mut(&topic) else {
                continue;
            };
            self.last_ticket += 1;
            entry.ordered = Some((place.clone(), self.last_ticket));
            tickets.push((topic, self.last_ticket));
        }
        self.servers.order(place, Order::Join(tickets));
        self.show_connected();
    }

    /// Moves topics to where the map says now.
    fn follow_map(&mut self) {
        let mut strayed: HashMap<Place, Vec<Topic>> = HashMap::new();
        for (topic, entry) in &mut self.topics {
            if let Some((place, _)) = entry
                .ordered
                .take_if(|(place, _)| self.servers.home(topic).as_ref() != Some(place))
            {
                entry.joined = false;
                strayed.entry(place).or_default().push(topic.clone());
            }
        }
        for (place, topics) in strayed {
            self.servers.order(&place, Order::Leave(topics.clone()));
            self.place(topics);
        }
        self.servers.keep_masters_only();
        self.show_connected();
    }

    fn show_connected(&self) {
        let connected = self.servers.are_up();
        self.status.connected.store(connected, Ordering::Relaxed);
        if connected {
            *self.status.fault.lock() = None;
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.status.connected.store(false, Ordering::Relaxed);
    }
}
