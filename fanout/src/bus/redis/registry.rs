//! The registry of subscriptions: which topics are joined, at which server, and which joins wait
//! for them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use chaos_redis::{Deployment, Names, Target, jittered};
use tokio::{
    sync::{
        mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
        oneshot,
    },
    time::{Instant, MissedTickBehavior, interval},
};

use super::{
    link::{LinkCommand, LinkEvent, LinkEventKind, LinkRequestId},
    servers::Servers,
    status::Status,
};
use crate::{
    Topic,
    bus::{BusError, Listener},
    capacity::ShrinkIfSparse,
};

/// Period at which the topology is refreshed without a fault: a slot can move unnoticed.
const TOPOLOGY_REFRESH_PERIOD: Duration = Duration::from_secs(2);

/// Pause before a topic is tried again that one server redirected to another and that one
/// redirected too.
const REDIRECT_BACKOFF: Duration = Duration::from_millis(50);

/// First pause before a subscription is tried again that was refused for another reason.
const REFUSED_BACKOFF: Duration = Duration::from_millis(250);
const MAX_REFUSED_BACKOFF_DOUBLINGS: u32 = 4;

/// A request to the registry. The queue is unbounded: the caller of a join waits for it, and leaves
/// are as frequent as joins.
#[derive(Debug)]
pub(super) enum RegistryRequest {
    Join {
        join: u64,
        topics: Vec<Topic>,
        done: oneshot::Sender<Result<(), BusError>>,
    },
    CancelJoin {
        join: u64,
    },
    Leave(Vec<Topic>),
}

/// Owns all state of the bus, in one task.
pub(super) struct SubscriptionRegistry {
    listener: Arc<dyn Listener>,
    status: Arc<Status>,
    requests: UnboundedReceiver<RegistryRequest>,
    events: UnboundedReceiver<LinkEvent>,
    subscriptions: HashMap<Topic, Subscription>,
    joins: HashMap<u64, Join>,
    servers: Servers,
    last_request: LinkRequestId,
    /// Topics to subscribe to again, and when.
    retries: HashMap<Topic, Instant>,
}

#[derive(Debug, Default)]
struct Subscription {
    /// The server and the id of the last request to subscribe; `None` while no server is known.
    requested: Option<(Target, LinkRequestId)>,
    /// Whether that link has confirmed the subscription and is connected.
    is_confirmed: bool,
    /// Whether it was ever confirmed: after the next confirmation records may have been missed.
    was_confirmed: bool,
    /// Whether a server redirected it since it was last confirmed.
    was_redirected: bool,
    /// Refusals since it was last confirmed.
    refusals: u32,
    /// Whether a join has succeeded, so that only a leave ends the subscription.
    is_kept: bool,
    /// The unfinished joins that include the topic.
    joins: Vec<u64>,
}

impl Subscription {
    fn is_at(&self, target: &Target) -> bool {
        self.requested.as_ref().is_some_and(|(at, _)| at == target)
    }
}

/// A join that is not finished.
#[derive(Debug)]
struct Join {
    topics: Vec<Topic>,
    unconfirmed: HashSet<Topic>,
    done: oneshot::Sender<Result<(), BusError>>,
}

impl SubscriptionRegistry {
    pub(super) fn new(
        deployment: Deployment,
        names: Names,
        listener: Arc<dyn Listener>,
        status: Arc<Status>,
    ) -> (Self, UnboundedSender<RegistryRequest>) {
        let (request_sender, requests) = unbounded_channel();
        let (event_sender, events) = unbounded_channel();
        let servers = Servers::new(deployment, names, listener.clone(), event_sender);
        let (subscriptions, joins, retries) = Default::default();
        (
            Self {
                listener,
                status,
                requests,
                events,
                subscriptions,
                joins,
                servers,
                last_request: 0,
                retries,
            },
            request_sender,
        )
    }

    pub(super) async fn run(mut self) {
        self.servers.connect();
        let mut refresh_tick = interval(TOPOLOGY_REFRESH_PERIOD);
        refresh_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry_tick = interval(REDIRECT_BACKOFF);
        retry_tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = self.requests.recv() => match request {
                    Some(request) => self.handle_request(request),
                    None => return,
                },
                Some(event) = self.events.recv() => self.handle_event(event),
                Some(refreshed) = self.servers.topology_refreshed() => match refreshed {
                    Ok(()) => self.follow_topology(),
                    Err(error) => *self.status.fault.lock() = Some(error),
                },
                _ = refresh_tick.tick() => self.servers.refresh_topology(),
                _ = retry_tick.tick(), if !self.retries.is_empty() => self.retry_due(),
            }
        }
    }

    fn handle_request(&mut self, request: RegistryRequest) {
        match request {
            RegistryRequest::Join { join, topics, done } => {
                let (mut unconfirmed, mut new) = (HashSet::new(), Vec::new());
                for topic in &topics {
                    let subscription = self.subscriptions.entry(topic.clone()).or_default();
                    subscription.joins.push(join);
                    if !subscription.is_confirmed
                        && unconfirmed.insert(topic.clone())
                        && subscription.requested.is_none()
                    {
                        new.push(topic.clone());
                    }
                }
                self.joins.insert(
                    join,
                    Join {
                        topics,
                        unconfirmed,
                        done,
                    },
                );
                self.finish_if_confirmed(join);
                self.subscribe(new);
            }
            RegistryRequest::CancelJoin { join: id } => {
                let Some(join) = self.joins.remove(&id) else {
                    return;
                };
                let mut unwanted = join.topics;
                unwanted.retain(|topic| {
                    let Some(subscription) = self.subscriptions.get_mut(topic) else {
                        return false;
                    };
                    subscription.joins.retain(|join| *join != id);
                    !subscription.is_kept && subscription.joins.is_empty()
                });
                self.remove(unwanted);
            }
            RegistryRequest::Leave(topics) => self.remove(topics),
        }
    }

    /// Completes a join whose topics are all confirmed.
    fn finish_if_confirmed(&mut self, id: u64) {
        if self
            .joins
            .get(&id)
            .is_none_or(|join| !join.unconfirmed.is_empty())
        {
            return;
        }
        let Some(join) = self.joins.remove(&id) else {
            return;
        };
        for topic in &join.topics {
            if let Some(subscription) = self.subscriptions.get_mut(topic) {
                subscription.is_kept = true;
                subscription.joins.retain(|join| *join != id);
            }
        }
        // The caller may have gone.
        let _ = join.done.send(Ok(()));
    }

    /// Removes subscriptions. Joins that wait for one of them fail.
    fn remove(&mut self, topics: Vec<Topic>) {
        let mut by_target: HashMap<Target, Vec<Topic>> = HashMap::new();
        for topic in topics {
            let Some(subscription) = self.subscriptions.remove(&topic) else {
                continue;
            };
            self.retries.remove(&topic);
            for join in subscription.joins {
                if let Some(join) = self.joins.remove(&join) {
                    let _ = join.done.send(Err(BusError(
                        "the topic was left while it was joined".to_owned(),
                    )));
                }
            }
            if let Some((target, _)) = subscription.requested {
                by_target.entry(target).or_default().push(topic);
            }
        }
        self.subscriptions.shrink_if_sparse();
        for (target, topics) in by_target {
            self.servers.send(&target, LinkCommand::Unsubscribe(topics));
        }
    }

    fn handle_event(&mut self, LinkEvent { link, kind }: LinkEvent) {
        match kind {
            LinkEventKind::Connected => {
                self.servers.set_connected(link);
                self.update_connected();
            }
            LinkEventKind::Disconnected(reason) => {
                let Some(target) = self.servers.set_disconnected(link) else {
                    return;
                };
                for subscription in self
                    .subscriptions
                    .values_mut()
                    .filter(|subscription| subscription.is_at(&target))
                {
                    subscription.is_confirmed = false;
                }
                self.update_connected();
                *self.status.fault.lock() = Some(reason);
                // A replica may have become the master.
                self.servers.refresh_topology();
            }
            LinkEventKind::Subscribed(topics) => self.handle_subscribed(topics),
            LinkEventKind::Unsubscribed(topic, request) => {
                // The server that gave the slot away answers another attempt with MOVED.
                if let Some(subscription) = self.subscription_of(&topic, request)
                    && let Some((target, _)) = subscription.requested.take()
                {
                    subscription.is_confirmed = false;
                    self.subscribe_at(&target, vec![topic]);
                }
            }
            LinkEventKind::Refused(topic, request, error) => {
                self.handle_refused(topic, request, &error)
            }
        }
    }

    fn handle_subscribed(&mut self, topics: Vec<(Topic, LinkRequestId)>) {
        let mut resubscribed = Vec::new();
        self.status.is_forbidden.store(false, Ordering::Relaxed);
        for (topic, request) in topics {
            let Some(subscription) = self.subscription_of(&topic, request) else {
                continue;
            };
            (
                subscription.is_confirmed,
                subscription.was_redirected,
                subscription.refusals,
            ) = (true, false, 0);
            let joins = subscription.joins.clone();
            if std::mem::replace(&mut subscription.was_confirmed, true) {
                resubscribed.push(topic.clone());
            }
            for id in joins {
                if let Some(join) = self.joins.get_mut(&id) {
                    join.unconfirmed.remove(&topic);
                    self.finish_if_confirmed(id);
                }
            }
        }
        if !resubscribed.is_empty() {
            self.listener.missed(Some(&resubscribed));
        }
    }

    fn handle_refused(&mut self, topic: Topic, request: LinkRequestId, error: &str) {
        let Some(subscription) = self.subscription_of(&topic, request) else {
            return;
        };
        (subscription.is_confirmed, subscription.requested) = (false, None);
        let was_redirected = std::mem::replace(&mut subscription.was_redirected, true);
        let refusals = subscription.refusals.min(MAX_REFUSED_BACKOFF_DOUBLINGS);
        subscription.refusals = refusals + 1;
        if !self.servers.learn(error) {
            let pause = jittered(REFUSED_BACKOFF * (1 << refusals));
            if error.starts_with("NOPERM") {
                self.status.is_forbidden.store(true, Ordering::Relaxed);
            }
            let fault = self.status.fault.lock().replace(error.to_owned());
            if fault.as_deref() == Some(error) {
                tracing::debug!(%topic, error, "Redis refused a subscription");
            } else {
                tracing::warn!(%topic, error, "Redis refused a subscription; further topics with this error are logged at level debug");
            }
            self.retries.insert(topic, Instant::now() + pause);
        } else if was_redirected {
            self.retries
                .insert(topic, Instant::now() + REDIRECT_BACKOFF);
        } else {
            self.subscribe(vec![topic]);
        }
    }

    /// Returns the subscription to a topic if `request` is its latest request.
    fn subscription_of(
        &mut self,
        topic: &Topic,
        request: LinkRequestId,
    ) -> Option<&mut Subscription> {
        let is_latest = |subscription: &&mut Subscription| {
            subscription
                .requested
                .as_ref()
                .is_some_and(|(_, latest)| *latest == request)
        };
        self.subscriptions.get_mut(topic).filter(is_latest)
    }

    fn retry_due(&mut self) {
        let now = Instant::now();
        let due: Vec<Topic> = self
            .retries
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &due {
            self.retries.remove(topic);
        }
        self.subscribe(due);
    }

    /// Subscribes to topics at their servers. Topics whose server is not known wait for the
    /// topology.
    fn subscribe(&mut self, topics: Vec<Topic>) {
        let mut by_target: HashMap<Target, Vec<Topic>> = HashMap::new();
        for topic in topics {
            match self.servers.target_of(&topic) {
                Some(target) => by_target.entry(target).or_default().push(topic),
                None => {
                    self.retries.insert(topic, Instant::now() + REFUSED_BACKOFF);
                    self.servers.refresh_topology();
                }
            }
        }
        for (target, topics) in by_target {
            self.subscribe_at(&target, topics);
        }
    }

    fn subscribe_at(&mut self, target: &Target, topics: Vec<Topic>) {
        let mut requests = Vec::with_capacity(topics.len());
        for topic in topics {
            let Some(subscription) = self.subscriptions.get_mut(&topic) else {
                continue;
            };
            self.last_request += 1;
            subscription.requested = Some((target.clone(), self.last_request));
            requests.push((topic, self.last_request));
        }
        self.servers.send(target, LinkCommand::Subscribe(requests));
        self.update_connected();
    }

    /// Moves subscriptions to the servers that the topology names now.
    fn follow_topology(&mut self) {
        let mut moved: HashMap<Target, Vec<Topic>> = HashMap::new();
        for (topic, subscription) in &mut self.subscriptions {
            let target = self.servers.target_of(topic);
            if let Some((from, _)) = subscription
                .requested
                .take_if(|(at, _)| target.as_ref() != Some(at))
            {
                subscription.is_confirmed = false;
                moved.entry(from).or_default().push(topic.clone());
            }
        }
        for (from, topics) in moved {
            self.servers
                .send(&from, LinkCommand::Unsubscribe(topics.clone()));
            self.subscribe(topics);
        }
        self.servers.follow_masters();
        self.update_connected();
    }

    fn update_connected(&self) {
        let is_connected = self.servers.are_connected();
        self.status
            .is_connected
            .store(is_connected, Ordering::Relaxed);
        self.status
            .is_partly_connected
            .store(self.servers.is_any_connected(), Ordering::Relaxed);
        if is_connected {
            *self.status.fault.lock() = None;
        }
    }
}

impl Drop for SubscriptionRegistry {
    fn drop(&mut self) {
        self.status.is_connected.store(false, Ordering::Relaxed);
        self.status
            .is_partly_connected
            .store(false, Ordering::Relaxed);
    }
}
