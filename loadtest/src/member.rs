//! A user with one connection: connects, reads, refreshes its token, and comes back with a resume when the connection ends.

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use client::{Backoff, Closed, ConnectError, Events, Position, Reconnect, RequestError, Session};
use protocol::{
    ChannelId, ErrorCode, UserId,
    model::{EntryResult, Gap},
    params::{Connect, ListMessages, Watch},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    stage::{Counters, Stage},
    told::{Name, Told},
};

/// Waits between attempts to come back: shorter than a client's, so that a short run has its share of them.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));

/// How often a first connection is tried that is refused for want of room.
const ATTEMPTS: u32 = 5;

/// How many seconds before a token's end a node warns of it.
const WARNING: u64 = 60;

/// Whoever looks at what a member gets.
pub trait Witness: Send + Sync + 'static {
    /// The member is about to make a session.
    fn connects(&self, _who: usize) {}
    /// The member's stream begins behind this event.
    fn starts(&self, who: usize, seq: u64, number: u64);
    /// The member's stream goes on where it was; the channel's head is this.
    fn goes_on(&self, _who: usize, _head: u64) {}
    /// The member is not in the channel any more.
    fn removed(&self, _who: usize) {}
    /// An event of the channel came, in a frame of so many bytes.
    fn told(&self, who: usize, told: &Told, frame: usize);
    /// The member was told that its stream goes on from this head.
    fn told_gap(&self, who: usize, head: u64);
    /// The member was told that what it has does not hold any more, and that its stream goes on from this head.
    fn told_diverged(&self, who: usize, head: u64) {
        self.told_gap(who, head);
    }
    /// After a gap the member read what changed after its position.
    fn read_changes(
        &self,
        _who: usize,
        _after: u64,
        _head: u64,
        _messages: Vec<protocol::model::Message>,
    ) {
    }
    /// Something came that belongs elsewhere.
    fn foreign(&self, who: usize, what: &str);
}

/// Who a member is.
pub struct Role {
    /// What decides its node and encoding: neighbours differ.
    pub spread: usize,
    /// Its place among the channel's subscribers.
    pub who: usize,
    /// Which user.
    pub user: UserId,
    /// In which channel.
    pub channel: ChannelId,
    /// Whether it subscribes.
    pub watch: Watch,
    /// Whether it is removed and added again while the run goes on.
    pub comes_and_goes: bool,
}

/// A member that is connected, or coming back.
#[derive(Debug, Clone)]
pub struct Member {
    session: watch::Receiver<Option<Session>>,
}

impl Member {
    /// The session, if there is one at this moment.
    pub fn session(&self) -> Option<Session> {
        self.session.borrow().clone()
    }

    /// The session, once there is one; none when the run is over.
    pub async fn connected(&mut self) -> Option<Session> {
        self.session.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Connects with this token, and keeps the member alive until the run is over.
pub async fn join(
    stage: Arc<Stage>,
    role: Role,
    token: String,
    witness: Arc<dyn Witness>,
) -> Result<Member> {
    let (sender, session) = watch::channel(None);
    let mut life = Life {
        stage,
        role,
        witness,
        position: None,
        further: 0,
        session: sender,
    };
    let (mut attempt, mut backoff) = (1, BACKOFF);
    let (first, events) = loop {
        match life.connect(token.clone()).await {
            Ok(connected) => break connected,
            Err(error) if attempt < ATTEMPTS && may_pass(&error) => {
                life.stage.counters.trouble(format!("connect: {error}"));
                attempt += 1;
                sleep(
                    backoff
                        .wait(rand::random())
                        .max(Reconnect::hint(&error).unwrap_or_default()),
                )
                .await;
            }
            Err(error) => return Err(explain(error)),
        }
    };
    life.enter(&first)?;
    tokio::spawn(life.live(first, events));
    Ok(Member { session })
}

struct Life {
    stage: Arc<Stage>,
    role: Role,
    witness: Arc<dyn Witness>,
    /// Of the last durable event.
    position: Option<Position>,
    /// How many nodes it went on, as it does when one goes away.
    further: usize,
    session: watch::Sender<Option<Session>>,
}

impl Life {
    async fn connect(&self, token: String) -> Result<(Session, Events), ConnectError> {
        let resume = self
            .position
            .map(|position| (self.role.channel.clone(), position.into()))
            .into_iter()
            .collect();
        let client = Some(concat!("chaos-loadtest/", env!("CARGO_PKG_VERSION")).to_owned());
        let params = Connect {
            token,
            resume,
            watch: self.role.watch,
            client,
            ..Connect::default()
        };
        self.witness.connects(self.role.who);
        let _door = self.stage.doors.acquire().await;
        let started = Instant::now();
        let connected = self
            .stage
            .connector(self.role.spread, self.further)
            .connect(&params)
            .await?;
        self.stage.connecting.record(
            self.role.spread,
            u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
        Ok(connected)
    }

    /// Takes up the channel where the answer to `connect` says that it goes on.
    fn enter(&mut self, session: &Session) -> Result<()> {
        if self.role.watch == Watch::All {
            let of_channel = |entry: &&EntryResult| match entry {
                EntryResult::Entry(entry) => entry.channel_id == self.role.channel,
                EntryResult::Failed(entry) => entry.channel_id == self.role.channel,
            };
            match session.connected().channels.iter().find(of_channel) {
                Some(EntryResult::Entry(entry)) => match (self.position, entry.gap) {
                    (None, _) => {
                        self.witness.starts(self.role.who, entry.seq, entry.number);
                        self.position = Some(Position {
                            seq: entry.seq,
                            at: entry.at,
                        });
                    }
                    (Some(_), Some(gap)) => self.meet_gap(
                        session,
                        gap,
                        Position {
                            seq: entry.seq,
                            at: entry.at,
                        },
                    ),
                    // What is replayed follows as events.
                    (Some(_), None) => self.witness.goes_on(self.role.who, entry.seq),
                },
                Some(EntryResult::Failed(_)) | None if self.role.comes_and_goes => self.leave(),
                Some(EntryResult::Failed(entry)) => bail!(
                    "{} cannot subscribe to its channel: {}",
                    self.role.user,
                    entry.error
                ),
                None => bail!(
                    "The answer to connect does not have the channel of {}",
                    self.role.user
                ),
            }
        }
        self.publish(session)
    }

    /// Does what the wire asks for where the stream does not go on from where it was.
    fn meet_gap(&mut self, session: &Session, gap: Gap, head: Position) {
        let who = self.role.who;
        let before = self.position.replace(head);
        if gap == Gap::Diverged {
            return self.witness.told_diverged(who, head.seq);
        }
        self.witness.told_gap(who, head.seq);
        let (mut session, mut sessions) = (session.clone(), self.session.subscribe());
        let (channel, witness, stage) = (
            self.role.channel.clone(),
            self.witness.clone(),
            self.stage.clone(),
        );
        let after = before.map_or(0, |position| position.seq);
        tokio::spawn(async move {
            let mut backoff = BACKOFF;
            loop {
                match changes(&session, &channel, after).await {
                    Ok(messages) => return witness.read_changes(who, after, head.seq, messages),
                    Err(error) => stage
                        .counters
                        .trouble(format!("message.list after a gap: {error}")),
                }
                sleep(backoff.wait(rand::random())).await;
                let Ok(next) = sessions
                    .wait_for(Option::is_some)
                    .await
                    .map(|next| next.clone())
                else {
                    return;
                };
                session = next.expect("it was waited for");
            }
        });
    }

    fn leave(&mut self) {
        self.position = None;
        self.witness.removed(self.role.who);
    }

    fn publish(&self, session: &Session) -> Result<()> {
        self.session.send_replace(Some(session.clone()));
        Ok(())
    }

    async fn live(mut self, mut session: Session, mut events: Events) {
        let mut over = self.stage.over.subscribe();
        loop {
            let closed = tokio::select! {
                closed = self.read(&session, &mut events) => closed,
                _ = over.wait_for(|over| *over) => break,
            };
            self.session.send_replace(None);
            self.stage
                .counters
                .trouble(format!("a session {}", told_end(&closed)));
            if Reconnect::after(&closed) == Reconnect::Never {
                return;
            }
            let again = tokio::select! {
                again = self.come_back(&closed) => again,
                _ = over.wait_for(|over| *over) => return,
            };
            (session, events) = again;
            Counters::count(&self.stage.counters.reconnects);
        }
        // The connection is closed when the last of its sessions is dropped.
        self.session.send_replace(None);
    }

    /// Reads until the connection ends.
    async fn read(&mut self, session: &Session, events: &mut Events) -> Closed {
        while let Some(frame) = events.next_frame().await {
            let told = match Told::read(session.encoding(), &frame) {
                Ok(told) => told,
                Err(error) => {
                    self.witness.foreign(
                        self.role.who,
                        &format!("an event that cannot be read: {error}"),
                    );
                    continue;
                }
            };
            if told.event == Name::TokenExpiring {
                tokio::spawn(refresh(
                    self.stage.clone(),
                    self.role.spread,
                    self.role.user.clone(),
                    session.clone(),
                ));
                continue;
            }
            match (told.event, &told.data.entry, &told.data.channel_id) {
                // Where it stands in the channel already, the reply was faster, and its stream goes on.
                (Name::ChannelAdded, Some(entry), _)
                    if entry.channel_id == self.role.channel && self.position.is_none() =>
                {
                    self.position = Some(Position {
                        seq: entry.seq,
                        at: entry.at,
                    });
                    self.witness.starts(self.role.who, entry.seq, entry.number);
                }
                (Name::ChannelRemoved, _, Some(channel)) if *channel == self.role.channel => {
                    self.leave()
                }
                _ => {}
            }
            match &told.channel_id {
                Some(channel) if *channel != self.role.channel => {
                    self.witness.foreign(
                        self.role.who,
                        &format!("{:?} of channel {channel}", told.event),
                    );
                    continue;
                }
                // Of the own stream: whether it is in the channel is told to the next session.
                None if told.event == Name::ChannelGap => {
                    session.abort().await;
                    return events.closed();
                }
                None => continue,
                Some(_) => {}
            }
            if let (Name::ChannelGap, Some(seq), Some(at)) =
                (told.event, told.data.seq, told.data.at)
            {
                self.meet_gap(
                    session,
                    told.data.reason.unwrap_or(Gap::Trimmed),
                    Position { seq, at },
                );
                continue;
            }
            // Who was removed has no position, whatever was on its way.
            if let (Some(seq), Some(at), Some(_)) = (told.seq, told.at, self.position) {
                self.position = Some(Position { seq, at });
            }
            self.witness.told(self.role.who, &told, framed(frame.len()));
        }
        events.closed()
    }

    /// Connects until it succeeds.
    async fn come_back(&mut self, closed: &Closed) -> (Session, Events) {
        let mut backoff = BACKOFF;
        if Reconnect::elsewhere(closed) {
            self.further += 1;
        }
        sleep(closed.retry_after().unwrap_or_default()).await;
        loop {
            let mut hint = Duration::ZERO;
            let trouble = match self
                .stage
                .tenant
                .token(self.role.spread + self.further, &self.role.user)
                .await
            {
                Ok(token) => match self.connect(token).await {
                    Ok((session, events)) => match self.enter(&session) {
                        Ok(()) => return (session, events),
                        Err(error) => format!("{error:#}"),
                    },
                    Err(error) => {
                        hint = Reconnect::hint(&error).unwrap_or_default();
                        format!("coming back: {error}")
                    }
                },
                Err(error) => format!("a new token: {error}"),
            };
            self.stage.counters.trouble(trouble);
            self.further += 1;
            sleep(backoff.wait(rand::random()).max(hint)).await;
        }
    }
}

/// All messages that changed after this `seq`.
async fn changes(
    session: &Session,
    channel: &ChannelId,
    mut after: u64,
) -> Result<Vec<protocol::model::Message>, RequestError> {
    let mut messages = Vec::new();
    loop {
        let limit = session.connected().limits.get("page").copied();
        let page = session
            .messages(
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

async fn refresh(stage: Arc<Stage>, client: usize, user: UserId, session: Session) {
    // A node warns of a short token at once: a new one would end no later than that one yet.
    if stage.tenant.token_seconds() <= WARNING {
        sleep(Duration::from_secs_f64(
            stage.tenant.token_seconds() as f64 / 2.0,
        ))
        .await;
    }
    let refreshed = async {
        let token = stage.tenant.token(client, &user).await?;
        session
            .refresh_token(&token)
            .await
            .map_err(anyhow::Error::from)
    };
    if let Err(error) = refreshed.await {
        stage.counters.trouble(format!("token.refresh: {error}"));
    }
}

/// A server's frame has no mask: two to ten bytes before the payload.
fn framed(payload: usize) -> usize {
    payload
        + match payload {
            0..=125 => 2,
            126..=0xffff => 4,
            _ => 10,
        }
}

fn told_end(closed: &Closed) -> String {
    match closed.close_code() {
        Some(code) => format!("was closed with {}: {}", code.code(), closed.reason),
        None => closed.to_string(),
    }
}

/// Whether a refused connection may succeed in a moment.
fn may_pass(error: &ConnectError) -> bool {
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

fn explain(error: ConnectError) -> anyhow::Error {
    let sentence = match &error {
        ConnectError::Unreachable(_) => "A node cannot be reached by WebSocket",
        ConnectError::Upgrade { .. } | ConnectError::Handshake(_) => {
            "What answers there does not upgrade to WebSocket"
        }
        _ => "A client cannot connect",
    };
    anyhow::Error::new(error).context(sentence)
}
