//! The subscriber connection to one server.
//! After every fault it connects again and subscribes to all topics that are still wanted.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::Arc,
};

use chaos_redis::{
    Address, ConnectionError, ConnectionHeartbeat, Deployment, Dialer, Names, RespReply,
    SubscriberConnection, Target, supervise,
};
use futures_util::FutureExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::task::AbortOnDropHandle;

use crate::{Topic, bus::Listener, capacity::ShrinkIfSparse};

/// A command to a link. The queue is unbounded: it holds the joins and leaves of the node while the
/// link connects.
#[derive(Debug)]
pub(super) enum LinkCommand {
    Subscribe(Vec<(Topic, LinkRequestId)>),
    Unsubscribe(Vec<Topic>),
}

/// Identifies one request to subscribe. Events carry it, so that the answer to an earlier request
/// for the same topic is ignored.
pub(super) type LinkRequestId = u64;

#[derive(Debug)]
pub(super) struct LinkEvent {
    /// The link's id. Events of links that were replaced are ignored.
    pub(super) link: u64,
    pub(super) kind: LinkEventKind,
}

#[derive(Debug)]
pub(super) enum LinkEventKind {
    /// The link is connected, and the server has confirmed or refused each wanted topic.
    Connected,
    /// The connection, or an attempt to connect, failed for this reason.
    Disconnected(String),
    /// The server confirmed these topics. Records that are published from now on arrive.
    Subscribed(Vec<(Topic, LinkRequestId)>),
    /// The server ended a subscription because the slot moved.
    Unsubscribed(Topic, LinkRequestId),
    /// The server refused a subscription with this error, `MOVED` for example. The link no longer
    /// wants the topic.
    Refused(Topic, LinkRequestId, String),
}

/// A handle to a link. Dropping it ends the link.
#[derive(Debug)]
pub(super) struct Link {
    commands: UnboundedSender<LinkCommand>,
    _supervisor: AbortOnDropHandle<()>,
}

impl Link {
    /// Starts connecting and returns at once.
    pub(super) fn open(
        id: u64,
        target: Target,
        deployment: Arc<Deployment>,
        names: Names,
        listener: Arc<dyn Listener>,
        events: UnboundedSender<LinkEvent>,
    ) -> Self {
        let (sender, commands) = unbounded_channel();
        let subscriber = Subscriber {
            id,
            names,
            listener,
            events,
            commands,
            wanted: HashMap::new(),
        };
        let supervisor = tokio::spawn(supervise(deployment, target, subscriber));
        Self {
            commands: sender,
            _supervisor: AbortOnDropHandle::new(supervisor),
        }
    }

    pub(super) fn send(&self, command: LinkCommand) {
        // The receiver lives as long as this handle.
        let _ = self.commands.send(command);
    }
}

struct Subscriber {
    id: u64,
    names: Names,
    listener: Arc<dyn Listener>,
    events: UnboundedSender<LinkEvent>,
    commands: UnboundedReceiver<LinkCommand>,
    /// Topics to subscribe to on this connection and on every later one.
    wanted: HashMap<Topic, LinkRequestId>,
}

/// A command that the server has not answered yet.
enum Pending {
    Subscribe(Topic, LinkRequestId),
    Unsubscribe(Topic),
    Ping,
}

/// An open connection.
struct Session {
    connection: SubscriberConnection,
    heartbeat: ConnectionHeartbeat,
    /// Unanswered commands, in the order sent.
    pending: VecDeque<Pending>,
    /// Number of unanswered subscriptions among those sent when the connection opened; `None` once
    /// all are answered.
    initial_pending: Option<usize>,
}

impl Dialer for Subscriber {
    type Connection = SubscriberConnection;

    const PURPOSE: &'static str = "subscriptions";

    async fn open(
        &mut self,
        deployment: &Deployment,
        address: &Address,
    ) -> Result<SubscriberConnection, ConnectionError> {
        let mut connection = SubscriberConnection::open(deployment, address).await?;
        connection.check_role(deployment).await?;
        Ok(connection)
    }

    async fn serve(&mut self, connection: SubscriberConnection) -> ConnectionError {
        // If the listener panics, the connection is closed. The next one reports the gap.
        match AssertUnwindSafe(self.run(connection)).catch_unwind().await {
            Ok(Ok(never)) => match never {},
            Ok(Err(error)) => error,
            Err(_) => ConnectionError::ListenerPanicked,
        }
    }

    fn disconnected(&mut self, reason: String) {
        self.emit(LinkEventKind::Disconnected(reason));
    }

    async fn pause(&mut self) -> Infallible {
        loop {
            match self.commands.recv().await {
                Some(LinkCommand::Subscribe(topics)) => self.wanted.extend(topics),
                Some(LinkCommand::Unsubscribe(topics)) => topics.iter().for_each(|topic| {
                    self.wanted.remove(topic);
                }),
                // The handle was dropped, which ends this task.
                None => std::future::pending().await,
            }
        }
    }
}

impl Subscriber {
    async fn run(
        &mut self,
        connection: SubscriberConnection,
    ) -> Result<Infallible, ConnectionError> {
        let initial_pending = Some(self.wanted.len());
        let mut session = Session {
            connection,
            heartbeat: ConnectionHeartbeat::new(),
            pending: VecDeque::new(),
            initial_pending,
        };
        for (topic, request) in &self.wanted {
            session.subscribe(&self.names, topic.clone(), *request);
        }
        self.report_connected(&mut session);
        loop {
            tokio::select! {
                received = session.connection.receive() => {
                    received?;
                    session.heartbeat.received();
                    self.handle_replies(&mut session)?;
                }
                Some(command) = self.commands.recv() => self.handle_command(&mut session, command),
                ping_due = session.heartbeat.tick() => if ping_due? {
                    session.connection.ping();
                    session.pending.push_back(Pending::Ping);
                },
            }
        }
    }

    fn handle_command(&mut self, session: &mut Session, command: LinkCommand) {
        match command {
            LinkCommand::Subscribe(topics) => topics.into_iter().for_each(|(topic, request)| {
                self.wanted.insert(topic.clone(), request);
                session.subscribe(&self.names, topic, request);
            }),
            LinkCommand::Unsubscribe(topics) => topics.into_iter().for_each(|topic| {
                if self.wanted.remove(&topic).is_some() {
                    session.connection.unsubscribe(&self.names.channel(&topic));
                    session.pending.push_back(Pending::Unsubscribe(topic));
                }
            }),
        }
        self.wanted.shrink_if_sparse();
    }

    /// Handles all replies that have arrived completely.
    fn handle_replies(&mut self, session: &mut Session) -> Result<(), ConnectionError> {
        session.pending.shrink_if_sparse();
        let mut subscribed = Vec::new();
        while let Some(reply) = session.connection.next_reply()? {
            match reply {
                RespReply::Message { channel, payload } => {
                    if let Some(topic) = self.topic_of(&channel) {
                        self.listener.record(topic, payload);
                    }
                }
                RespReply::Subscribed(channel) => match session.pending.pop_front() {
                    Some(Pending::Subscribe(topic, request))
                        if self.topic_of(&channel) == Some(&topic) =>
                    {
                        session.subscription_answered();
                        if self.wanted.get(&topic) == Some(&request) {
                            subscribed.push((topic, request));
                        }
                    }
                    _ => return Err(ConnectionError::OutOfOrder),
                },
                RespReply::Unsubscribed(channel) => {
                    let topic = self.topic_of(&channel).ok_or(ConnectionError::OutOfOrder)?;
                    match session.pending.front() {
                        Some(Pending::Unsubscribe(requested)) if **requested == *topic => {
                            session.pending.pop_front();
                        }
                        _ => {
                            if let Some((topic, request)) = self.wanted.remove_entry(topic) {
                                self.report_subscribed(&mut subscribed);
                                self.emit(LinkEventKind::Unsubscribed(topic, request));
                            }
                        }
                    }
                }
                RespReply::Error(error) => match session.pending.pop_front() {
                    Some(Pending::Subscribe(topic, request)) => {
                        session.subscription_answered();
                        if self.wanted.get(&topic) == Some(&request) {
                            self.wanted.remove(&topic);
                            self.emit(LinkEventKind::Refused(topic, request, error));
                        }
                    }
                    Some(Pending::Unsubscribe(_)) => {}
                    Some(Pending::Ping) | None => return Err(ConnectionError::Refused(error)),
                },
                RespReply::Ok => match session.pending.pop_front() {
                    Some(Pending::Ping) => session.heartbeat.answered(),
                    _ => return Err(ConnectionError::OutOfOrder),
                },
                RespReply::Role(_) => return Err(ConnectionError::OutOfOrder),
            }
        }
        self.report_subscribed(&mut subscribed);
        self.report_connected(session);
        Ok(())
    }

    /// Reports once that the link is connected, when all initial subscriptions are answered.
    fn report_connected(&self, session: &mut Session) {
        if session.initial_pending == Some(0) {
            session.initial_pending = None;
            self.emit(LinkEventKind::Connected);
        }
    }

    fn report_subscribed(&self, subscribed: &mut Vec<(Topic, LinkRequestId)>) {
        if !subscribed.is_empty() {
            self.emit(LinkEventKind::Subscribed(std::mem::take(subscribed)));
        }
    }

    fn topic_of<'a>(&self, channel: &'a [u8]) -> Option<&'a str> {
        self.names.topic(std::str::from_utf8(channel).ok()?)
    }

    fn emit(&self, kind: LinkEventKind) {
        // The receiver is gone only while the bus shuts down.
        let _ = self.events.send(LinkEvent {
            link: self.id,
            kind,
        });
    }
}

impl Session {
    fn subscribe(&mut self, names: &Names, topic: Topic, request: LinkRequestId) {
        self.connection.subscribe(&names.channel(&topic));
        self.pending.push_back(Pending::Subscribe(topic, request));
    }

    /// Counts down `initial_pending`. The server answers the initial subscriptions before all later
    /// ones.
    fn subscription_answered(&mut self) {
        if let Some(pending) = &mut self.initial_pending {
            *pending = pending.saturating_sub(1);
        }
    }
}
