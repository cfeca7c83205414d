//! The client that never loses anything, as a state machine without I/O: time and input in, actions and updates out.
//!
//! Owned here: when to connect, with which token, to which address, from which positions; what is asked again; what the
//! application is told, in which order. Left out: sockets, clocks and tasks (the shell's, [`Client`](crate::Client)).
//! Randomness comes from a seed, so that a run can be repeated.
//!
//! Whoever drives it gives each [`Input`] to [`Machine::handle`], calls [`Machine::tick`] when [`Machine::due`] has come,
//! does every [`Action`], and hands on every [`Update`].

mod io;
mod link;
mod online;
mod outbox;
mod renewal;
mod repair;
mod replies;
mod retry;
mod settings;
mod streams;
mod told;
mod update;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use protocol::{
    ChannelId, MessageId,
    params::{Connect, Cursor, SendMessage},
    results::Connected,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

pub use io::{Action, Answer, Ask, Input, NoToken, Ticket};
pub use settings::{SendError, Settings};
pub use update::{Anomaly, Failure, Update, Why};

use crate::{Backoff, Closed, ConnectError, Position, Reconnect};
use link::{Link, Online, Renewal};
use outbox::Outbox;
use repair::Listing;
use streams::{State, Streams};

/// The client's state. See the [module](self).
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    random: StdRng,
    link: Link,
    backoff: Backoff,
    addresses: usize,
    address: usize,
    token: Option<String>,
    is_asking_for_token: bool,
    own: Option<Position>,
    listing: Option<Listing>,
    streams: Streams,
    /// What the application follows by name.
    followed: BTreeSet<ChannelId>,
    outbox: Outbox,
    asked: BTreeMap<Ticket, Asked>,
    last_ticket: u64,
    actions: VecDeque<Action>,
    updates: VecDeque<Update>,
}

/// A request under way.
#[derive(Debug)]
struct Asked {
    at: Instant,
    what: What,
}

/// What a request is for.
#[derive(Debug)]
enum What {
    Send(ChannelId),
    Subscribe(Vec<ChannelId>),
    Unsubscribe(Vec<ChannelId>),
    Repair(ChannelId),
    List,
    Renew,
    Clock { expires_at: u64 },
    Ping,
}

impl Machine {
    /// A client that begins at `now`, with so many addresses to connect to, of which it takes any first.
    pub fn new(settings: Settings, addresses: usize, seed: u64, now: Instant) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let mut streams = Streams::default();
        for (id, cursor) in &settings.channels {
            streams.insert(id.clone(), place_of(*cursor), State::Apart);
        }
        Self {
            link: Link::Waiting(now),
            backoff: Backoff::new(settings.first_wait, settings.longest_wait),
            address: random.random_range(0..addresses.max(1)),
            addresses: addresses.max(1),
            random,
            token: None,
            is_asking_for_token: false,
            own: settings.user_position,
            listing: None,
            streams,
            followed: settings.channels.keys().cloned().collect(),
            outbox: Outbox::new(settings.outbox),
            asked: BTreeMap::new(),
            last_ticket: 0,
            actions: VecDeque::new(),
            updates: VecDeque::new(),
            settings,
        }
    }

    /// Takes what happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match (&mut self.link, &input) {
            (Link::Online(online), Input::Event(_) | Input::Reply(..)) => online.heard = now,
            // Of a session that was left meanwhile: what it told comes again in the next one.
            (_, Input::Event(_) | Input::Reply(..)) => return,
            _ => {}
        }
        match input {
            Input::Token(outcome) => self.token_came(outcome, now),
            Input::Connected(connected) => self.connected(connected, now),
            Input::Failed(error) => self.failed(error, now),
            Input::Event(event) => self.event(event, now),
            Input::Reply(ticket, outcome) => self.replied(ticket, outcome, now),
            Input::Ended(closed) => self.ended(closed, now),
        }
        self.pump(now);
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.overdue(now);
        self.pump(now);
        if let Link::Waiting(until) = self.link
            && until <= now
        {
            self.connect();
        }
    }

    /// When [`tick`](Self::tick) is to be called next.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        match &self.link {
            Link::Waiting(until) => Some(*until),
            Link::WithoutToken | Link::Connecting | Link::Over => None,
            Link::Online(online) => {
                let overdue = self
                    .asked
                    .values()
                    .next()
                    .map(|asked| asked.at + self.settings.patience);
                let listing = self
                    .listing
                    .as_ref()
                    .and_then(|listing| listing.retry.due());
                let later = [
                    online.paused,
                    listing,
                    self.streams.due(now),
                    self.outbox.due(now),
                ]
                .into_iter()
                .flatten()
                .filter(|at| *at > now);
                later
                    .chain(overdue)
                    .chain(online.due(self.is_pinging()))
                    .min()
            }
        }
    }

    /// What the shell has to do next.
    pub fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What the application is told next.
    pub fn update(&mut self) -> Option<Update> {
        self.updates.pop_front()
    }

    /// Whether nothing waits to be told.
    pub fn is_told(&self) -> bool {
        self.updates.is_empty()
    }

    /// Whether it ended.
    pub fn is_over(&self) -> bool {
        matches!(self.link, Link::Over)
    }

    /// Takes a message for sending, and gives it an id if it has none. Its fate is told.
    ///
    /// # Errors
    /// It is not taken: see [`SendError`].
    pub fn send(
        &mut self,
        channel_id: ChannelId,
        message: SendMessage,
        now: Instant,
    ) -> Result<MessageId, SendError> {
        if self.is_over() {
            return Err(SendError::Over);
        }
        let id = message
            .message_id
            .clone()
            .unwrap_or_else(|| MessageId::from_bits(self.random.random()));
        if !self.outbox.push(channel_id, id.clone(), message) {
            return Err(SendError::Full);
        }
        self.pump(now);
        Ok(id)
    }

    /// How many messages wait for their acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.outbox.held()
    }

    /// Follows a channel from a position, or from now on; one that is followed already goes on as it is.
    pub fn follow(&mut self, channel_id: ChannelId, from: Cursor, now: Instant) {
        self.followed.insert(channel_id.clone());
        match self.streams.state(&channel_id) {
            Some(State::Leaving { .. }) => self
                .streams
                .enter(&channel_id, State::Leaving { is_wanted: true }),
            Some(_) => {}
            None => self
                .streams
                .insert(channel_id, place_of(from), State::Apart),
        }
        self.pump(now);
    }

    /// Follows a channel no more. With [`Watch::All`](protocol::params::Watch) the next session follows it again if it is the user's.
    pub fn unfollow(&mut self, channel_id: &ChannelId, now: Instant) {
        self.followed.remove(channel_id);
        match self.streams.state(channel_id) {
            Some(State::Apart) => self.streams.remove(channel_id),
            Some(_) => self
                .streams
                .enter(channel_id, State::Leaving { is_wanted: false }),
            None => {}
        }
        self.pump(now);
    }

    /// Ends the client.
    pub fn close(&mut self) {
        match self.link {
            Link::Over => return,
            Link::Online(_) | Link::Connecting => self.actions.push_back(Action::Leave),
            Link::Waiting(_) | Link::WithoutToken => {}
        }
        self.over(Why::Asked);
    }

    /// Makes an attempt, or asks for the token that it needs.
    fn connect(&mut self) {
        let Some(token) = self.token.clone() else {
            self.link = Link::WithoutToken;
            return self.ask_for_token();
        };
        let params = Connect {
            token,
            resume: self.streams.resume(),
            user_position: self.own.map(Cursor::from),
            watch: self.settings.watch,
            client: self.settings.client.clone(),
            ..Connect::default()
        };
        self.link = Link::Connecting;
        self.actions.push_back(Action::Connect {
            address: self.address,
            params: Box::new(params),
        });
    }

    fn connected(&mut self, connected: Box<Connected>, now: Instant) {
        if !matches!(self.link, Link::Connecting) {
            return;
        }
        self.link = Link::Online(Online::new(&connected, now));
        let Connected {
            channels,
            user_position,
            user_gap,
            ..
        } = &*connected;
        let (channels, head, gap) = (channels.clone(), Position::from(*user_position), *user_gap);
        self.tell(Update::Connected(connected));
        match (self.own, gap) {
            (Some(from), Some(gap)) => self.meet_own_gap(gap, from, head),
            (Some(_), None) => {}
            (None, _) => self.own = Some(head),
        }
        self.entries(channels, now);
    }

    fn failed(&mut self, error: ConnectError, now: Instant) {
        if !matches!(self.link, Link::Connecting) {
            return;
        }
        let (reconnect, hint) = (Reconnect::after_failure(&error), Reconnect::hint(&error));
        if Reconnect::elsewhere_after_failure(&error) {
            self.next_address();
        }
        self.away(Why::Failed(error), reconnect, hint, now);
    }

    fn ended(&mut self, closed: Closed, now: Instant) {
        let Link::Online(online) = &self.link else {
            return;
        };
        // The server spreads those whom it told that it ends.
        let spread = online.leave_at.map(|at| at.saturating_duration_since(now));
        let (reconnect, hint) = (Reconnect::after(&closed), closed.retry_after().max(spread));
        if Reconnect::elsewhere(&closed) {
            self.next_address();
        }
        self.away(Why::Closed(closed), reconnect, hint, now);
    }

    /// There is no session any more, or still none.
    fn away(&mut self, why: Why, reconnect: Reconnect, hint: Option<Duration>, now: Instant) {
        if let Link::Online(online) = &mut self.link {
            if online.has_lasted(now) {
                self.backoff.reset();
            }
            // A new token that the session did not get to is as good for the next one.
            if let Renewal::Handing { token, .. } = &mut online.renewal {
                self.token = Some(std::mem::take(token));
            }
        }
        self.streams.disconnected();
        self.outbox.disconnected();
        self.asked.clear();
        if let Some(listing) = &mut self.listing {
            *listing = Listing::default();
        }
        let is_first = self.backoff.is_fresh();
        let random = self.random.random();
        let wait = match reconnect {
            Reconnect::Never => return self.over(why),
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
        // On top of the hint, which others were given, too.
        let wait = wait + hint.unwrap_or_default();
        self.link = Link::Waiting(now + wait);
        self.tell(Update::Away { why, wait });
    }

    fn over(&mut self, why: Why) {
        self.link = Link::Over;
        self.asked.clear();
        for (channel_id, letter) in self.outbox.drain() {
            let why = Failure::Over {
                was_sent: letter.was_sent,
            };
            self.tell(Update::Failed {
                channel_id,
                message_id: letter.id,
                why,
            });
        }
        self.tell(Update::Over(why));
    }

    fn next_address(&mut self) {
        self.address = (self.address + 1) % self.addresses;
    }

    fn tell(&mut self, update: Update) {
        self.updates.push_back(update);
    }

    fn ask_for_token(&mut self) {
        if !self.is_asking_for_token {
            self.is_asking_for_token = true;
            self.actions.push_back(Action::AskToken);
        }
    }

    fn ask(
        &mut self,
        what: What,
        now: Instant,
        request: impl FnOnce(&mut Self, Ticket) -> Option<Ask>,
    ) {
        let ticket = Ticket(self.last_ticket + 1);
        if let Some(ask) = request(self, ticket) {
            self.last_ticket += 1;
            self.asked.insert(ticket, Asked { at: now, what });
            self.actions.push_back(Action::Ask(ticket, ask));
        }
    }
}

fn place_of(cursor: Cursor) -> Option<Position> {
    match cursor {
        Cursor::Now => None,
        Cursor::After(seq, at) => Some(Position { seq, at }),
    }
}
