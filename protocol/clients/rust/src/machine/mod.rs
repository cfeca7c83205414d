//! The client as a state machine without I/O: takes time and input, returns actions and updates.
//!
//! Owned here: when to connect, with which token, to which address and from which positions; what
//! to retry; what the application receives, in which order. Left to the driver
//! ([`Client`](crate::Client)): sockets, clocks and tasks. Random numbers follow from a seed, so
//! that a run can be repeated.
//!
//! A driver passes each [`MachineInput`] to [`Machine::handle`], calls [`Machine::tick`] at
//! [`Machine::due`], carries out every [`MachineAction`], and delivers every [`Update`].

mod channel_streams;
mod connection_state;
mod incoming;
mod io;
mod leaving;
mod recovery;
mod renewal;
mod replies;
mod requests;
mod retry;
mod send_queue;
mod settings;
mod subscriptions;
mod timeouts;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use protocol::{
    ChannelId, Cursor, MessageId,
    operation::{
        message::SendMessage,
        session::{Connect, Connected},
    },
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use io::{
    ClientReply, ClientRequest, MachineAction, MachineInput, RequestId, TokenUnavailable,
};
pub use settings::{SendError, Settings};
pub use update::{Anomaly, DisconnectCause, SendFailure, Update};

use crate::{Backoff, Closed, ConnectError, Position, Reconnect};
use channel_streams::{ChannelStreams, SubscriptionState};
use connection_state::{ConnectionState, OnlineState, TokenRenewal};
use recovery::ChannelListRecovery;
use send_queue::SendQueue;

/// The client's state, see the [module](self).
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    random: StdRng,
    connection: ConnectionState,
    backoff: Backoff,
    addresses: usize,
    address: usize,
    token: Option<String>,
    is_asking_for_token: bool,
    user_position: Option<Position>,
    list_recovery: Option<ChannelListRecovery>,
    streams: ChannelStreams,
    /// Channels that the application follows by id.
    followed: BTreeSet<ChannelId>,
    send_queue: SendQueue,
    pending: BTreeMap<RequestId, PendingRequest>,
    last_request_id: u64,
    actions: VecDeque<MachineAction>,
    updates: VecDeque<Update>,
}

/// A request in flight.
#[derive(Debug)]
struct PendingRequest {
    at: Instant,
    purpose: Purpose,
}

/// The purpose of a request.
#[derive(Debug)]
enum Purpose {
    Send(ChannelId),
    Subscribe(Vec<ChannelId>),
    Unsubscribe(Vec<ChannelId>),
    Recovery(ChannelId),
    List,
    Renew,
    Clock { expires_at: u64 },
    Ping,
}

impl Machine {
    /// Creates a machine at `now` for this number of addresses. It connects to a random one first.
    pub fn new(settings: Settings, addresses: usize, seed: u64, now: Instant) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut streams = ChannelStreams::default();
        for (id, cursor) in &settings.channels {
            streams.insert(
                id.clone(),
                position_of(*cursor),
                SubscriptionState::Unsubscribed,
            );
        }
        Self {
            connection: ConnectionState::Waiting(now),
            backoff: Backoff::new(settings.initial_backoff, settings.max_backoff),
            address: random.random_range(0..addresses.max(1)),
            addresses: addresses.max(1),
            random,
            token: None,
            is_asking_for_token: false,
            user_position: settings.user_position,
            list_recovery: None,
            streams,
            followed: settings.channels.keys().cloned().collect(),
            send_queue: SendQueue::new(settings.outbox),
            pending: BTreeMap::new(),
            last_request_id: 0,
            actions: VecDeque::new(),
            updates: VecDeque::new(),
            settings,
        }
    }

    /// Handles an input.
    pub fn handle(&mut self, input: MachineInput, now: Instant) {
        match (&mut self.connection, &input) {
            (ConnectionState::Online(online), MachineInput::Event(_) | MachineInput::Reply(..)) => {
                online.last_received = now
            }
            // Ignore input from a session that was left: the next session receives it again.
            (_, MachineInput::Event(_) | MachineInput::Reply(..)) => return,
            _ => {}
        }
        match input {
            MachineInput::Token(outcome) => renewal::token_received(self, outcome, now),
            MachineInput::Connected(connected) => self.connected(connected, now),
            MachineInput::Failed(error) => self.connect_failed(error, now),
            MachineInput::Event(event) => incoming::handle_event(self, event, now),
            MachineInput::Reply(request_id, outcome) => {
                replies::handle_reply(self, request_id, outcome, now)
            }
            MachineInput::Ended(closed) => self.session_ended(closed, now),
        }
        requests::send_requests(self, now);
    }

    /// Handles the passing of time.
    pub fn tick(&mut self, now: Instant) {
        timeouts::check_timeouts(self, now);
        requests::send_requests(self, now);
        if let ConnectionState::Waiting(until) = self.connection
            && until <= now
        {
            self.connect();
        }
    }

    /// When to call [`tick`](Self::tick) next.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        match &self.connection {
            ConnectionState::Waiting(until) => Some(*until),
            ConnectionState::WithoutToken
            | ConnectionState::Connecting
            | ConnectionState::Ended => None,
            ConnectionState::Online(online) => {
                let overdue = self
                    .pending
                    .values()
                    .next()
                    .map(|pending| pending.at + self.settings.reply_timeout);
                let list_recovery = self
                    .list_recovery
                    .as_ref()
                    .and_then(|list_recovery| list_recovery.retry.due());
                let later = [
                    online.paused,
                    list_recovery,
                    self.streams.due(now),
                    self.send_queue.due(now),
                ]
                .into_iter()
                .flatten()
                .filter(|at| *at > now);
                later
                    .chain(overdue)
                    .chain(online.due(requests::is_pinging(self)))
                    .min()
            }
        }
    }

    /// The next action for the driver.
    pub fn action(&mut self) -> Option<MachineAction> {
        self.actions.pop_front()
    }

    /// The next update for the application.
    pub fn update(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }

    /// Whether no update waits.
    pub fn has_no_updates(&self) -> bool {
        self.updates.is_empty()
    }

    /// Whether the client has ended for good.
    pub fn is_over(&self) -> bool {
        matches!(self.connection, ConnectionState::Ended)
    }

    /// Accepts a message for sending, and gives it an id if it has none. Its outcome is an
    /// [`Update`].
    ///
    /// # Errors
    /// The message is not accepted, see [`SendError`].
    pub fn send(
        &mut self,
        channel_id: ChannelId,
        message: SendMessage,
        now: Instant,
    ) -> Result<MessageId, SendError> {
        if self.is_over() {
            return Err(SendError::Ended);
        }
        let id = message
            .message_id
            .clone()
            .unwrap_or_else(|| MessageId::from_bits(self.random.random()));
        if !self.send_queue.push(channel_id, id.clone(), message) {
            return Err(SendError::Full);
        }
        requests::send_requests(self, now);
        Ok(id)
    }

    /// Number of messages that are not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.send_queue.len()
    }

    /// Follows a channel, from a position or from now on. Does nothing if it is followed already.
    pub fn follow(&mut self, channel_id: ChannelId, from: Cursor, now: Instant) {
        self.followed.insert(channel_id.clone());
        match self.streams.state(&channel_id) {
            Some(SubscriptionState::Leaving { .. }) => self
                .streams
                .set_state(&channel_id, SubscriptionState::Leaving { is_wanted: true }),
            Some(_) => {}
            None => self.streams.insert(
                channel_id,
                position_of(from),
                SubscriptionState::Unsubscribed,
            ),
        }
        requests::send_requests(self, now);
    }

    /// Stops following a channel. With [`Watch::All`](protocol::operation::session::Watch) the next session
    /// follows it again if the user is a participant.
    pub fn unfollow(&mut self, channel_id: &ChannelId, now: Instant) {
        self.followed.remove(channel_id);
        match self.streams.state(channel_id) {
            Some(SubscriptionState::Unsubscribed) => self.streams.remove(channel_id),
            Some(_) => self
                .streams
                .set_state(channel_id, SubscriptionState::Leaving { is_wanted: false }),
            None => {}
        }
        requests::send_requests(self, now);
    }

    /// Ends the client.
    pub fn close(&mut self) {
        match self.connection {
            ConnectionState::Ended => return,
            ConnectionState::Online(_) | ConnectionState::Connecting => {
                self.actions.push_back(MachineAction::Leave)
            }
            ConnectionState::Waiting(_) | ConnectionState::WithoutToken => {}
        }
        self.end(DisconnectCause::ClosedByApplication);
    }

    /// Connects, or asks for the token that it needs.
    fn connect(&mut self) {
        let Some(token) = self.token.clone() else {
            self.connection = ConnectionState::WithoutToken;
            return self.ask_for_token();
        };
        let params = Connect {
            token,
            resume: self.streams.resume(),
            user_position: self.user_position.map(Cursor::from),
            watch: self.settings.watch,
            client: self.settings.client.clone(),
            ..Connect::default()
        };
        self.connection = ConnectionState::Connecting;
        self.actions.push_back(MachineAction::Connect {
            address: self.address,
            params: Box::new(params),
        });
    }

    fn connected(&mut self, connected: Box<Connected>, now: Instant) {
        if !matches!(self.connection, ConnectionState::Connecting) {
            return;
        }
        self.connection = ConnectionState::Online(OnlineState::new(&connected, now));
        let Connected {
            channels,
            user_position,
            user_gap,
            ..
        } = &*connected;
        let (channels, head, gap) = (channels.clone(), Position::from(*user_position), *user_gap);
        self.emit(Update::Connected(connected));
        match (self.user_position, gap) {
            (Some(from), Some(gap)) => incoming::handle_own_gap(self, gap, from, head),
            (Some(_), None) => {}
            (None, _) => self.user_position = Some(head),
        }
        incoming::handle_entries(self, channels, now);
    }

    fn connect_failed(&mut self, error: ConnectError, now: Instant) {
        if !matches!(self.connection, ConnectionState::Connecting) {
            return;
        }
        let (reconnect, hint) = (Reconnect::after_failure(&error), Reconnect::hint(&error));
        if Reconnect::elsewhere_after_failure(&error) {
            self.next_address();
        }
        self.disconnect(DisconnectCause::Failed(error), reconnect, hint, now);
    }

    fn session_ended(&mut self, closed: Closed, now: Instant) {
        let ConnectionState::Online(online) = &self.connection else {
            return;
        };
        // A node that drains spreads the reconnects of its clients.
        let spread = online.leave_at.map(|at| at.saturating_duration_since(now));
        let (reconnect, hint) = (Reconnect::after(&closed), closed.retry_after().max(spread));
        if Reconnect::elsewhere(&closed) {
            self.next_address();
        }
        self.disconnect(DisconnectCause::Closed(closed), reconnect, hint, now);
    }

    /// Waits for the next attempt to connect, or ends.
    fn disconnect(
        &mut self,
        why: DisconnectCause,
        reconnect: Reconnect,
        hint: Option<Duration>,
        now: Instant,
    ) {
        if let ConnectionState::Online(online) = &mut self.connection {
            if online.is_stable(now) {
                self.backoff.reset();
            }
            // A new token that was not sent yet serves the next session.
            if let TokenRenewal::Refreshing { token, .. } = &mut online.renewal {
                self.token = Some(std::mem::take(token));
            }
        }
        self.streams.disconnected();
        self.send_queue.disconnected();
        self.pending.clear();
        if let Some(list_recovery) = &mut self.list_recovery {
            list_recovery.disconnected();
        }
        let is_first = self.backoff.is_fresh();
        let random = self.random.random();
        let wait = match reconnect {
            Reconnect::Never => return self.end(why),
            Reconnect::WithNewToken | Reconnect::AtOnce if is_first => {
                self.backoff.wait(random);
                Duration::ZERO
            }
            Reconnect::WithNewToken | Reconnect::AtOnce | Reconnect::AfterBackoff => {
                self.backoff.wait(random)
            }
        };
        if reconnect == Reconnect::WithNewToken {
            self.token = None;
        }
        // The backoff is added to the hint, which other clients got too.
        let wait = wait + hint.unwrap_or_default();
        self.connection = ConnectionState::Waiting(now + wait);
        self.emit(Update::Away { why, wait });
    }

    fn end(&mut self, why: DisconnectCause) {
        self.connection = ConnectionState::Ended;
        self.pending.clear();
        for (channel_id, message) in self.send_queue.drain() {
            let why = SendFailure::Ended {
                was_sent: message.was_sent,
            };
            self.emit(Update::Failed {
                channel_id,
                message_id: message.id,
                why,
            });
        }
        self.emit(Update::Ended(why));
    }

    fn next_address(&mut self) {
        self.address = (self.address + 1) % self.addresses;
    }

    fn emit(&mut self, update: Update) {
        self.updates.push_back(update);
    }

    fn ask_for_token(&mut self) {
        if !self.is_asking_for_token {
            self.is_asking_for_token = true;
            self.actions.push_back(MachineAction::AskToken);
        }
    }

    fn request(
        &mut self,
        purpose: Purpose,
        now: Instant,
        request: impl FnOnce(&mut Self, RequestId) -> Option<ClientRequest>,
    ) {
        let request_id = RequestId(self.last_request_id + 1);
        if let Some(ask) = request(self, request_id) {
            self.last_request_id += 1;
            self.pending
                .insert(request_id, PendingRequest { at: now, purpose });
            self.actions
                .push_back(MachineAction::Request(request_id, ask));
        }
    }
}

fn position_of(cursor: Cursor) -> Option<Position> {
    match cursor {
        Cursor::Now => None,
        Cursor::After(seq, at) => Some(Position { seq, at }),
    }
}
