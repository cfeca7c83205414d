//! A simulated server: a few channels, one user, and at most one connection, which may break at any
//! point.

mod requests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use client::{
    Closed, ConnectError, Position,
    machine::{ClientReply, ClientRequest, MachineInput, RequestId},
};
use protocol::{
    ChannelId, Cursor, ErrorBody, ErrorCode, EventMessage, MessageId,
    entity::{Entry, EntryResult, FailedEntry, Gap, Message},
    operation::{
        channel::EntryList,
        message::MessagePage,
        page::List,
        session::{Connect, Connected, Watch},
    },
};
use serde_json::{Value, json};

/// Messages per page. Few, so that recoveries take several pages.
const PAGE: usize = 2;

/// The reply to the next `message.send`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendReply {
    UnavailableBefore,
    UnavailableAfter,
    RateLimited,
    Internal,
    Forbidden,
}

/// An event, and the channel's messages after it.
#[derive(Debug, Clone)]
struct LoggedEvent {
    position: Position,
    name: &'static str,
    /// Index of the message, or in the user's own log of the channel.
    subject: usize,
    after: Vec<Message>,
}

#[derive(Debug, Default)]
pub struct SimulatedChannel {
    log: Vec<LoggedEvent>,
    /// Events up to this `seq` are not in the log any more.
    trimmed: u64,
    pub messages: Vec<Message>,
    /// How often the channel was restored from an older state.
    pub restored: u64,
}

impl SimulatedChannel {
    pub fn head(&self) -> Position {
        self.log
            .last()
            .map_or(Position { seq: 0, at: 0 }, |logged| logged.position)
    }

    fn gap(&self, from: Position) -> Option<Gap> {
        let exists = from.seq == 0
            || self
                .log
                .get(from.seq as usize - 1)
                .is_some_and(|logged| logged.position == from);
        match exists {
            false => Some(Gap::Diverged),
            true => (from.seq < self.trimmed).then_some(Gap::Trimmed),
        }
    }
}

#[derive(Debug)]
struct SimulatedSession {
    watch: Watch,
    subscribed: BTreeSet<usize>,
    pending: VecDeque<(RequestId, ClientRequest)>,
    outgoing: VecDeque<MachineInput>,
}

#[derive(Debug)]
pub struct SimulatedServer {
    pub channels: Vec<SimulatedChannel>,
    user_log: Vec<LoggedEvent>,
    pub memberships: BTreeSet<usize>,
    session: Option<SimulatedSession>,
    pub send_replies: VecDeque<SendReply>,
    /// Messages that were refused with a permanent error or `internal`.
    pub refused: BTreeSet<MessageId>,
    /// Tokens are numbers, and lower ones have expired.
    pub oldest_token: u64,
    clock: u64,
    posted: u64,
}

pub fn id_of(channel: usize) -> ChannelId {
    format!("channel-{channel}").parse().unwrap()
}

pub fn index_of(id: &ChannelId) -> usize {
    id.as_str()
        .strip_prefix("channel-")
        .unwrap()
        .parse()
        .unwrap()
}

impl SimulatedServer {
    pub fn new(channels: usize) -> Self {
        Self {
            channels: (0..channels).map(|_| SimulatedChannel::default()).collect(),
            user_log: Vec::new(),
            memberships: (0..channels).collect(),
            session: None,
            send_replies: VecDeque::new(),
            refused: BTreeSet::new(),
            oldest_token: 0,
            clock: 1000,
            posted: 0,
        }
    }

    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Breaks the connection. Frames on their way are lost in both directions.
    pub fn cut(&mut self) {
        self.session = None;
    }

    /// Closes the connection after the frames that were sent.
    pub fn close(&mut self, code: u16, reason: &str) {
        if let Some(session) = &mut self.session {
            session.pending.clear();
            session.outgoing.push_back(MachineInput::Ended(Closed {
                code: Some(code),
                reason: reason.into(),
            }));
        }
    }

    pub fn request(&mut self, request_id: RequestId, request: ClientRequest) {
        if let Some(session) = &mut self.session {
            session.pending.push_back((request_id, request));
        }
    }

    /// Returns the next frame that the client reads.
    pub fn deliver(&mut self) -> Option<MachineInput> {
        let outgoing = self.session.as_mut()?.outgoing.pop_front()?;
        if matches!(outgoing, MachineInput::Ended(_)) {
            self.session = None;
        }
        Some(outgoing)
    }

    pub fn connect(&mut self, params: &Connect) -> Result<Box<Connected>, ConnectError> {
        let token: u64 = params.token.parse().unwrap();
        if token < self.oldest_token {
            let error = ErrorBody::new(ErrorCode::Unauthenticated, "the token has expired");
            return Err(ConnectError::Refused {
                error,
                closed: Closed {
                    code: Some(4003),
                    reason: String::new(),
                },
            });
        }
        self.session = Some(SimulatedSession {
            watch: params.watch,
            subscribed: BTreeSet::new(),
            pending: VecDeque::new(),
            outgoing: VecDeque::new(),
        });
        let own_head = self
            .user_log
            .last()
            .map_or(Position { seq: 0, at: 0 }, |logged| logged.position);
        let own_from = match params.user_position {
            Some(Cursor::After(seq, _)) => seq as usize,
            _ => self.user_log.len(),
        };
        let mut pending: BTreeMap<usize, Cursor> = params
            .resume
            .iter()
            .map(|(id, cursor)| (index_of(id), *cursor))
            .collect();
        if params.watch == Watch::All {
            for channel in &self.memberships {
                pending.entry(*channel).or_insert(Cursor::Now);
            }
        }
        let (entries, replays) = self.subscribe(pending);
        // The user's own stream first: a removal in it ends the subscription, and what is added
        // again has no replay.
        let (mut lost, missed) = (BTreeSet::new(), self.user_log.split_off(own_from));
        self.user_log.extend(missed.iter().cloned());
        for logged in missed {
            if logged.name == "channel.removed" {
                lost.insert(logged.subject);
            }
            self.send_user_event(&logged);
        }
        replays
            .into_iter()
            .filter(|(channel, _)| !lost.contains(channel))
            .for_each(|(channel, from)| self.replay(channel, from));
        let connected = json!({ "session_id": "ses_0000000000000001", "user": { "id": "alice" }, "app_id": "app_0000000000000001",
            "environment": "test", "features": [], "heartbeat_ms": 25000, "limits": { "page": PAGE },
            "user_position": [own_head.seq, own_head.at], "channels": entries, "more": false });
        Ok(Box::new(serde_json::from_value(connected).unwrap()))
    }

    /// Stores a message of the client or of another user.
    pub fn post(
        &mut self,
        channel: usize,
        id: Option<MessageId>,
        text: &str,
        is_delivered: bool,
    ) -> Message {
        self.posted += 1;
        let id = id.unwrap_or_else(|| MessageId::from_bits(1 << 63 | self.posted));
        let place = self.channels[channel].messages.len();
        let message = json!({ "id": id, "channel_id": id_of(channel), "number": place + 1, "sender_id": "somebody", "kind": "text", "text": text,
            "attachments": [], "mention_ids": [], "metadata": {} });
        self.channels[channel]
            .messages
            .push(serde_json::from_value(message).unwrap());
        self.log_event(channel, "message.created", place, is_delivered)
    }

    pub fn delete(&mut self, channel: usize, draw: usize) {
        let messages = &mut self.channels[channel].messages;
        if !messages.is_empty() {
            let place = draw % messages.len();
            (messages[place].text, messages[place].deleted_at) = (String::new(), Some(1));
            self.log_event(channel, "message.deleted", place, true);
        }
    }

    fn log_event(
        &mut self,
        channel: usize,
        name: &'static str,
        subject: usize,
        is_delivered: bool,
    ) -> Message {
        self.clock += 1;
        let state = &mut self.channels[channel];
        let position = Position {
            seq: state.head().seq + 1,
            at: self.clock,
        };
        state.messages[subject].seq = position.seq;
        let message = state.messages[subject].clone();
        state.log.push(LoggedEvent {
            position,
            name,
            subject,
            after: state.messages.clone(),
        });
        if is_delivered && self.is_subscribed(channel) {
            self.send_event(channel, position.seq);
        }
        message
    }

    /// Trims the log.
    pub fn trim(&mut self, channel: usize) {
        self.channels[channel].trimmed = self.channels[channel].head().seq;
    }

    /// Makes a live subscription lose events, and reports the gap.
    pub fn skip_events(&mut self, channel: usize) {
        self.post(channel, None, "skipped", false);
        self.post(channel, None, "skipped", false);
        self.send_gap(channel, Gap::Trimmed);
    }

    /// Restores the store without its newest writes.
    pub fn restore(&mut self, channel: usize, lost: usize) {
        let state = &mut self.channels[channel];
        let kept = (state.log.len() - lost.min(state.log.len())).max(state.trimmed as usize);
        state.log.truncate(kept);
        state.messages = state
            .log
            .last()
            .map_or_else(Vec::new, |logged| logged.after.clone());
        state.restored += 1;
        // The next writes reuse the numbers of the lost ones.
        self.send_gap(channel, Gap::Diverged);
    }

    fn send_gap(&mut self, channel: usize, reason: Gap) {
        let head = self.channels[channel].head();
        if self.is_subscribed(channel) {
            let data = json!({ "reason": reason, "seq": head.seq, "at": head.at, "restored": self.channels[channel].restored });
            self.push(EventMessage {
                event: "channel.gap".into(),
                channel_id: Some(id_of(channel)),
                seq: None,
                at: None,
                data,
            });
        }
    }

    pub fn remove_user(&mut self, channel: usize) {
        if self.memberships.remove(&channel) {
            self.log_user_event("channel.removed", channel);
        }
    }

    pub fn add_user(&mut self, channel: usize) {
        if self.memberships.insert(channel) {
            self.log_user_event("channel.added", channel);
        }
    }

    fn log_user_event(&mut self, name: &'static str, subject: usize) {
        self.clock += 1;
        let logged = LoggedEvent {
            position: Position {
                seq: self.user_log.len() as u64 + 1,
                at: self.clock,
            },
            name,
            subject,
            after: Vec::new(),
        };
        self.user_log.push(logged.clone());
        self.send_user_event(&logged);
    }

    fn send_user_event(&mut self, logged: &LoggedEvent) {
        let (id, head) = (id_of(logged.subject), self.channels[logged.subject].head());
        let data = match logged.name {
            "channel.added" => {
                json!({ "entry": { "channel_id": id, "seq": head.seq, "at": head.at, "number": 0, "read": 0 } })
            }
            _ => json!({ "channel_id": id }),
        };
        let Some(session) = &mut self.session else {
            return;
        };
        if logged.name == "channel.added"
            && session.watch == Watch::All
            && self.memberships.contains(&logged.subject)
        {
            session.subscribed.insert(logged.subject);
        } else {
            session.subscribed.remove(&logged.subject);
        }
        let Position { seq, at } = logged.position;
        self.push(EventMessage {
            event: logged.name.into(),
            channel_id: None,
            seq: Some(seq),
            at: Some(at),
            data,
        });
    }

    /// Sends a passing event to the session.
    pub fn send_passing(&mut self, name: &str, data: Value) {
        self.push(EventMessage {
            event: name.into(),
            channel_id: None,
            seq: None,
            at: None,
            data,
        });
    }

    fn push(&mut self, event: EventMessage) {
        if let Some(session) = &mut self.session {
            session.outgoing.push_back(MachineInput::Event(event));
        }
    }

    fn is_subscribed(&self, channel: usize) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.subscribed.contains(&channel))
    }

    /// Sends an event of a channel, with the message in its current state.
    fn send_event(&mut self, channel: usize, seq: u64) {
        let state = &self.channels[channel];
        let logged = &state.log[seq as usize - 1];
        let data = json!({ "message": state.messages[logged.subject] });
        let Position { seq, at } = logged.position;
        let event = EventMessage {
            event: logged.name.into(),
            channel_id: Some(id_of(channel)),
            seq: Some(seq),
            at: Some(at),
            data,
        };
        self.push(event);
    }

    fn replay(&mut self, channel: usize, from: u64) {
        for seq in from + 1..=self.channels[channel].head().seq {
            self.send_event(channel, seq);
        }
    }

    /// Subscribes. Returns the entries, and what to replay after the reply.
    fn subscribe(
        &mut self,
        pending: BTreeMap<usize, Cursor>,
    ) -> (Vec<EntryResult>, Vec<(usize, u64)>) {
        let (mut entries, mut replays) = (Vec::new(), Vec::new());
        for (channel, cursor) in pending {
            let channel_id = id_of(channel);
            if !self.memberships.contains(&channel) {
                let error = ErrorBody::new(ErrorCode::NotFound, "no such channel");
                entries.push(EntryResult::Failed(FailedEntry { channel_id, error }));
                continue;
            }
            let head = self.channels[channel].head();
            let gap = match cursor {
                Cursor::Now => None,
                Cursor::After(seq, at) => self.channels[channel].gap(Position { seq, at }),
            };
            if let (Cursor::After(seq, _), None) = (cursor, gap) {
                replays.push((channel, seq));
            }
            let of = json!({ "id": channel_id, "type": "group", "metadata": {}, "created_at": 1, "participant_count": 1 });
            let entry = json!({ "channel_id": channel_id, "channel": of, "seq": head.seq, "at": head.at, "number": 0, "read": 0 });
            let mut entry: Entry = serde_json::from_value(entry).unwrap();
            entry.gap = gap;
            entries.push(EntryResult::Entry(entry));
            self.session.as_mut().unwrap().subscribed.insert(channel);
        }
        (entries, replays)
    }
}
