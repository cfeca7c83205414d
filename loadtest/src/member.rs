//! A member: a user with one connection that reads events, refreshes its token, and reconnects with
//! a resume.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use client::{Backoff, Closed, ConnectError, Events, Position, Reconnect, RequestError, Session};
use protocol::{
    ChannelId, ErrorCode, UserId,
    entity::{EntryResult, Gap},
    operation::{
        message::{ListMessages, MessageList},
        session::{Connect, RefreshToken, TokenRefresh, Watch},
    },
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    event::{EventName, ReceivedEvent},
    run_state::{RunCounters, RunState},
};

/// Backoff of a reconnect. Shorter than a client's, so that a short run has several reconnects.
const RECONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// Attempts to connect for the first time while the node refuses connections for their rate or
/// number.
const MAX_FIRST_ATTEMPTS: u32 = 5;

/// How long before its expiry a node warns of a token.
const EXPIRY_WARNING_SECONDS: u64 = 60;

/// Observes what members receive. `subscriber` is the member's [index](MemberConfig::subscriber).
pub trait DeliveryObserver: Send + Sync + 'static {
    /// The member is about to connect and subscribe.
    fn connecting(&self, _subscriber: usize) {}
    /// The member subscribed after the event `seq` and the message `number`.
    fn subscribed(&self, subscriber: usize, seq: u64, number: u64);
    /// The member resumed from its position, in a channel whose head is `head`.
    fn resumed(&self, _subscriber: usize, _head: u64) {}
    /// The member learned that it was removed from the channel.
    fn removed(&self, _subscriber: usize) {}
    /// The member received an event of the channel, in a frame of `frame_bytes`.
    fn received(&self, subscriber: usize, event: &ReceivedEvent, frame_bytes: usize);
    /// The member received a gap: its stream continues from `head`.
    fn gap_received(&self, subscriber: usize, head: u64);
    /// The member received a gap with the reason `diverged`: its history is superseded, and its
    /// stream continues from `head`.
    fn divergence_received(&self, subscriber: usize, head: u64) {
        self.gap_received(subscriber, head);
    }
    /// The member read what changed after its position, as a gap requires.
    fn changes_read(
        &self,
        _subscriber: usize,
        _after: u64,
        _head: u64,
        _messages: Vec<protocol::entity::Message>,
    ) {
    }
    /// The member received something that does not belong to its channel, or cannot be decoded.
    fn foreign_received(&self, subscriber: usize, what: &str);
}

/// The user and channel of a member.
pub struct MemberConfig {
    /// Selects the member's first node and its encoding.
    pub placement: usize,
    /// Index among the channel's subscribers, if the member subscribes.
    pub subscriber: usize,
    /// The user.
    pub user: UserId,
    /// The channel.
    pub channel: ChannelId,
    /// Whether the member subscribes.
    pub watch: Watch,
    /// Whether the member is removed and added while the run goes on.
    pub is_guest: bool,
}

/// Handle of a member that is connected or reconnecting.
#[derive(Debug, Clone)]
pub struct Member {
    session: watch::Receiver<Option<Session>>,
}

impl Member {
    /// The current session, if the member is connected.
    pub fn session(&self) -> Option<Session> {
        self.session.borrow().clone()
    }

    /// Waits for a session. Returns `None` when the run has ended.
    pub async fn connected(&mut self) -> Option<Session> {
        self.session.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Connects a member with this token, and spawns the task that keeps it connected until the run
/// ends.
pub async fn join(
    state: Arc<RunState>,
    config: MemberConfig,
    token: String,
    observer: Arc<dyn DeliveryObserver>,
) -> Result<Member> {
    let (sender, session) = watch::channel(None);
    let mut task = MemberTask {
        state,
        config,
        observer,
        position: None,
        node_offset: 0,
        session: sender,
    };
    let (mut attempt, mut backoff) = (1, RECONNECT_BACKOFF);
    let (first, events) = loop {
        match task.connect(token.clone()).await {
            Ok(connected) => break connected,
            Err(error) if attempt < MAX_FIRST_ATTEMPTS && is_temporary(&error) => {
                task.state
                    .counters
                    .record_error(format!("connect: {error}"));
                attempt += 1;
                sleep(
                    backoff
                        .wait(rand::random())
                        .max(Reconnect::hint(&error).unwrap_or_default()),
                )
                .await;
            }
            Err(error) => return Err(with_explanation(error)),
        }
    };
    task.resume_or_start(&first)?;
    tokio::spawn(task.run(first, events));
    Ok(Member { session })
}

struct MemberTask {
    state: Arc<RunState>,
    config: MemberConfig,
    observer: Arc<dyn DeliveryObserver>,
    /// Position of the last durable event.
    position: Option<Position>,
    /// How many times the member moved on to the next node.
    node_offset: usize,
    session: watch::Sender<Option<Session>>,
}

impl MemberTask {
    async fn connect(&self, token: String) -> Result<(Session, Events), ConnectError> {
        let resume = self
            .position
            .map(|position| (self.config.channel.clone(), position.into()))
            .into_iter()
            .collect();
        let client = Some(concat!("chaos-loadtest/", env!("CARGO_PKG_VERSION")).to_owned());
        let params = Connect {
            token,
            resume,
            watch: self.config.watch,
            client,
            ..Connect::default()
        };
        if self.config.watch == Watch::All {
            self.observer.connecting(self.config.subscriber);
        }
        let _permit = self.state.connect_permits.acquire().await;
        let started = Instant::now();
        let connected = self
            .state
            .connector(self.config.placement, self.node_offset)
            .connect(&params)
            .await?;
        self.state.connecting.record(
            self.config.placement,
            u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
        Ok(connected)
    }

    /// Starts or resumes the channel by the reply to `connect`.
    fn resume_or_start(&mut self, session: &Session) -> Result<()> {
        if self.config.watch == Watch::All {
            let of_channel = |entry: &&EntryResult| match entry {
                EntryResult::Entry(entry) => entry.channel_id == self.config.channel,
                EntryResult::Failed(entry) => entry.channel_id == self.config.channel,
            };
            match session.connected().channels.iter().find(of_channel) {
                Some(EntryResult::Entry(entry)) => match (self.position, entry.gap) {
                    (None, _) => {
                        self.observer
                            .subscribed(self.config.subscriber, entry.seq, entry.number);
                        self.position = Some(Position {
                            seq: entry.seq,
                            at: entry.at,
                        });
                    }
                    (Some(_), Some(gap)) => self.handle_gap(
                        session,
                        gap,
                        Position {
                            seq: entry.seq,
                            at: entry.at,
                        },
                    ),
                    // Replayed events follow.
                    (Some(_), None) => self.observer.resumed(self.config.subscriber, entry.seq),
                },
                Some(EntryResult::Failed(_)) | None if self.config.is_guest => self.leave(),
                Some(EntryResult::Failed(entry)) => bail!(
                    "{} cannot subscribe to its channel: {}",
                    self.config.user,
                    entry.error
                ),
                None => bail!(
                    "the reply to connect lacks the channel of {}",
                    self.config.user
                ),
            }
        }
        self.session.send_replace(Some(session.clone()));
        Ok(())
    }

    /// Continues from the head, and reads the changes that the gap left out.
    fn handle_gap(&mut self, session: &Session, gap: Gap, head: Position) {
        let subscriber = self.config.subscriber;
        let before = self.position.replace(head);
        if gap == Gap::Diverged {
            return self.observer.divergence_received(subscriber, head.seq);
        }
        self.observer.gap_received(subscriber, head.seq);
        let (mut session, mut sessions) = (session.clone(), self.session.subscribe());
        let (channel, observer, state) = (
            self.config.channel.clone(),
            self.observer.clone(),
            self.state.clone(),
        );
        let after = before.map_or(0, |position| position.seq);
        tokio::spawn(async move {
            let mut backoff = RECONNECT_BACKOFF;
            loop {
                match changes(&session, &channel, after).await {
                    Ok(messages) => {
                        return observer.changes_read(subscriber, after, head.seq, messages);
                    }
                    Err(error) => state
                        .counters
                        .record_error(format!("message.list after a gap: {error}")),
                }
                sleep(backoff.wait(rand::random())).await;
                let Ok(next) = sessions
                    .wait_for(Option::is_some)
                    .await
                    .map(|next| next.clone())
                else {
                    return;
                };
                session = next.expect("`wait_for` returned because the session is present");
            }
        });
    }

    fn leave(&mut self) {
        self.position = None;
        self.observer.removed(self.config.subscriber);
    }

    async fn run(mut self, mut session: Session, mut events: Events) {
        let mut ended = self.state.ended.subscribe();
        loop {
            let closed = tokio::select! {
                closed = self.read(&session, &mut events) => closed,
                _ = ended.wait_for(|ended| *ended) => break,
            };
            self.session.send_replace(None);
            self.state
                .counters
                .record_error(format!("session: {closed}"));
            if Reconnect::after(&closed) == Reconnect::Never {
                return;
            }
            (session, events) = tokio::select! {
                reconnected = self.reconnect(&closed) => reconnected,
                _ = ended.wait_for(|ended| *ended) => return,
            };
            RunCounters::count(&self.state.counters.reconnects);
        }
        // The connection is closed when the last clone of its session is dropped.
        self.session.send_replace(None);
    }

    /// Reads events until the connection ends.
    async fn read(&mut self, session: &Session, events: &mut Events) -> Closed {
        while let Some(frame) = events.next_frame().await {
            let event = match ReceivedEvent::read(session.encoding(), &frame) {
                Ok(event) => event,
                Err(error) => {
                    self.observer.foreign_received(
                        self.config.subscriber,
                        &format!("an event that cannot be decoded: {error}"),
                    );
                    continue;
                }
            };
            if event.name == EventName::TokenExpiring {
                tokio::spawn(refresh(
                    self.state.clone(),
                    self.config.placement,
                    self.config.user.clone(),
                    session.clone(),
                ));
                continue;
            }
            match (event.name, &event.data.entry, &event.data.channel_id) {
                // With a position the member has resumed already: the reply to `connect` overtook
                // the event.
                (EventName::ChannelAdded, Some(entry), _)
                    if entry.channel_id == self.config.channel && self.position.is_none() =>
                {
                    self.position = Some(Position {
                        seq: entry.seq,
                        at: entry.at,
                    });
                    self.observer
                        .subscribed(self.config.subscriber, entry.seq, entry.number);
                }
                (EventName::ChannelRemoved, _, Some(channel))
                    if *channel == self.config.channel =>
                {
                    self.leave()
                }
                _ => {}
            }
            match &event.channel_id {
                Some(channel) if *channel != self.config.channel => {
                    self.observer.foreign_received(
                        self.config.subscriber,
                        &format!("{:?} of channel {channel}", event.name),
                    );
                    continue;
                }
                // A gap of the user's own stream. The next session says whether the member is in
                // the channel.
                None if event.name == EventName::ChannelGap => {
                    session.abort().await;
                    return events.closed();
                }
                None => continue,
                Some(_) => {}
            }
            if let (EventName::ChannelGap, Some(seq), Some(at)) =
                (event.name, event.data.seq, event.data.at)
            {
                self.handle_gap(
                    session,
                    event.data.reason.unwrap_or(Gap::Trimmed),
                    Position { seq, at },
                );
                continue;
            }
            // A removed member has no position: events that were on their way do not set one.
            if let (Some(seq), Some(at), Some(_)) = (event.seq, event.at, self.position) {
                self.position = Some(Position { seq, at });
            }
            self.observer
                .received(self.config.subscriber, &event, frame_bytes(frame.len()));
        }
        events.closed()
    }

    /// Reconnects, with retries until it succeeds.
    async fn reconnect(&mut self, closed: &Closed) -> (Session, Events) {
        let mut backoff = RECONNECT_BACKOFF;
        if Reconnect::elsewhere(closed) {
            self.node_offset += 1;
        }
        sleep(closed.retry_after().unwrap_or_default()).await;
        loop {
            let mut hint = Duration::ZERO;
            let record_error = match self
                .state
                .tenant
                .token(self.config.placement + self.node_offset, &self.config.user)
                .await
            {
                Ok(token) => match self.connect(token).await {
                    Ok((session, events)) => match self.resume_or_start(&session) {
                        Ok(()) => return (session, events),
                        Err(error) => format!("{error:#}"),
                    },
                    Err(error) => {
                        hint = Reconnect::hint(&error).unwrap_or_default();
                        format!("reconnect: {error}")
                    }
                },
                Err(error) => format!("mint a token: {error}"),
            };
            self.state.counters.record_error(record_error);
            self.node_offset += 1;
            sleep(backoff.wait(rand::random()).max(hint)).await;
        }
    }
}

/// Returns all messages that changed after `after`.
async fn changes(
    session: &Session,
    channel: &ChannelId,
    mut after: u64,
) -> Result<Vec<protocol::entity::Message>, RequestError> {
    let mut messages = Vec::new();
    loop {
        let limit = session.connected().limits.get("page").copied();
        let page = session
            .call::<MessageList>(
                channel,
                &ListMessages {
                    changed_after: Some(after),
                    limit,
                    ..ListMessages::default()
                },
            )
            .await?;
        messages.extend(page.items);
        match messages.last() {
            Some(last) if page.more && last.seq > after => after = last.seq,
            _ => return Ok(messages),
        }
    }
}

async fn refresh(state: Arc<RunState>, client: usize, user: UserId, session: Session) {
    // The node warns of a short token at once. A new one would expire at about the same time, so
    // wait.
    if state.tenant.token_seconds() <= EXPIRY_WARNING_SECONDS {
        sleep(Duration::from_secs_f64(
            state.tenant.token_seconds() as f64 / 2.0,
        ))
        .await;
    }
    let refreshed = async {
        let token = state.tenant.token(client, &user).await?;
        session
            .call::<TokenRefresh>((), RefreshToken { token })
            .await
            .map_err(anyhow::Error::from)
    };
    if let Err(error) = refreshed.await {
        state
            .counters
            .record_error(format!("token.refresh: {error}"));
    }
}

/// Bytes of a server frame on the wire: a header of 2 to 10 bytes (no mask) and the payload.
fn frame_bytes(payload: usize) -> usize {
    payload
        + match payload {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        }
}

/// Whether a connection that was refused may succeed soon.
fn is_temporary(error: &ConnectError) -> bool {
    match error {
        ConnectError::Refused { error, .. } => {
            matches!(error.code, ErrorCode::RateLimited | ErrorCode::Unavailable)
        }
        ConnectError::Closed(closed) => closed.close_code().is_some(),
        ConnectError::Upgrade { status, .. } => matches!(status, 429 | 503),
        ConnectError::Timeout => true,
        _ => false,
    }
}

fn with_explanation(error: ConnectError) -> anyhow::Error {
    let sentence = match &error {
        ConnectError::Unreachable(_) => "cannot reach a node by WebSocket",
        ConnectError::Upgrade { .. } | ConnectError::Handshake(_) => {
            "the server at this address does not upgrade to WebSocket"
        }
        _ => "a client cannot connect",
    };
    anyhow::Error::new(error).context(sentence)
}
