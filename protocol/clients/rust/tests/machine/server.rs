//! A server without sockets: a few channels, one user, and at most one connection, which may be lost at any point.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use client::{
    Closed, ConnectError, Position,
    machine::{Answer, Ask, Input, Ticket},
};
use protocol::{
    ChannelId, ErrorBody, ErrorCode, EventMessage, MessageId,
    model::{Entry, EntryResult, FailedEntry, Gap, Message},
    params::{Connect, Cursor, Watch},
    results::{Connected, List, MessageList},
};
use serde_json::{Value, json};

/// Messages of a page: few, so that gaps take several.
const PAGE: usize = 2;

/// How the next `message.send` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    UnavailableBefore,
    UnavailableAfter,
    RateLimited,
    Internal,
    Forbidden,
}

/// An event, and the channel's messages after it.
#[derive(Debug, Clone)]
struct Logged {
    position: Position,
    name: &'static str,
    /// Of which message, by its place; of the user's own stream, which channel.
    about: usize,
    after: Vec<Message>,
}

#[derive(Debug, Default)]
pub struct Channel {
    log: Vec<Logged>,
    /// Events up to here are not kept.
    trimmed: u64,
    pub messages: Vec<Message>,
    /// How often it was restored from an older state.
    pub restored: u64,
}

impl Channel {
    pub fn head(&self) -> Position {
        self.log
            .last()
            .map_or(Position { seq: 0, at: 0 }, |logged| logged.position)
    }

    fn gap(&self, from: Position) -> Option<Gap> {
        let stands = from.seq == 0
            || self
                .log
                .get(from.seq as usize - 1)
                .is_some_and(|logged| logged.position == from);
        match stands {
            false => Some(Gap::Diverged),
            true => (from.seq < self.trimmed).then_some(Gap::Trimmed),
        }
    }
}

#[derive(Debug)]
struct Session {
    watch: Watch,
    listens: BTreeSet<usize>,
    asked: VecDeque<(Ticket, Ask)>,
    told: VecDeque<Input>,
}

#[derive(Debug)]
pub struct Server {
    pub channels: Vec<Channel>,
    own: Vec<Logged>,
    pub member: BTreeSet<usize>,
    session: Option<Session>,
    pub answers: VecDeque<Answered>,
    /// Messages that were refused for good, or as a defect.
    pub refused: BTreeSet<MessageId>,
    /// Tokens are numbered; older ones have expired.
    pub oldest_token: u64,
    clock: u64,
    others: u64,
}

pub fn id_of(channel: usize) -> ChannelId {
    format!("channel-{channel}").parse().unwrap()
}

pub fn place_of(id: &ChannelId) -> usize {
    id.as_str()
        .strip_prefix("channel-")
        .unwrap()
        .parse()
        .unwrap()
}

impl Server {
    pub fn new(channels: usize) -> Self {
        Self {
            channels: (0..channels).map(|_| Channel::default()).collect(),
            own: Vec::new(),
            member: (0..channels).collect(),
            session: None,
            answers: VecDeque::new(),
            refused: BTreeSet::new(),
            oldest_token: 0,
            clock: 1000,
            others: 0,
        }
    }

    pub fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// The connection is gone, with whatever was on its way in both directions.
    pub fn cut(&mut self) {
        self.session = None;
    }

    /// The server closes, after what it has told.
    pub fn closes(&mut self, code: u16, reason: &str) {
        if let Some(session) = &mut self.session {
            session.asked.clear();
            session.told.push_back(Input::Ended(Closed {
                code: Some(code),
                reason: reason.into(),
            }));
        }
    }

    pub fn asks(&mut self, ticket: Ticket, ask: Ask) {
        if let Some(session) = &mut self.session {
            session.asked.push_back((ticket, ask));
        }
    }

    /// The next thing that the client reads.
    pub fn delivers(&mut self) -> Option<Input> {
        let told = self.session.as_mut()?.told.pop_front()?;
        if matches!(told, Input::Ended(_)) {
            self.session = None;
        }
        Some(told)
    }

    pub fn connects(&mut self, params: &Connect) -> Result<Box<Connected>, ConnectError> {
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
        self.session = Some(Session {
            watch: params.watch,
            listens: BTreeSet::new(),
            asked: VecDeque::new(),
            told: VecDeque::new(),
        });
        let own_head = self
            .own
            .last()
            .map_or(Position { seq: 0, at: 0 }, |logged| logged.position);
        let own_from = match params.user_position {
            Some(Cursor::After(seq, _)) => seq as usize,
            _ => self.own.len(),
        };
        let mut asked: BTreeMap<usize, Cursor> = params
            .resume
            .iter()
            .map(|(id, cursor)| (place_of(id), *cursor))
            .collect();
        if params.watch == Watch::All {
            for channel in &self.member {
                asked.entry(*channel).or_insert(Cursor::Now);
            }
        }
        let (entries, replays) = self.subscribes(asked);
        // The own stream first: a removal that it tells ends what is listened to, and what is added again begins anew.
        let (mut lost, missed) = (BTreeSet::new(), self.own.split_off(own_from));
        self.own.extend(missed.iter().cloned());
        for logged in missed {
            if logged.name == "channel.removed" {
                lost.insert(logged.about);
            }
            self.tells_own(&logged);
        }
        replays
            .into_iter()
            .filter(|(channel, _)| !lost.contains(channel))
            .for_each(|(channel, from)| self.replays(channel, from));
        let connected = json!({ "session_id": "ses_0000000000000001", "user": { "id": "alice" }, "app_id": "app_0000000000000001",
            "environment": "test", "features": [], "heartbeat_ms": 25000, "limits": { "page": PAGE },
            "user_position": [own_head.seq, own_head.at], "channels": entries, "more": false });
        Ok(Box::new(serde_json::from_value(connected).unwrap()))
    }

    /// Somebody else, or the client, posts.
    pub fn posts(
        &mut self,
        channel: usize,
        id: Option<MessageId>,
        text: &str,
        is_told: bool,
    ) -> Message {
        self.others += 1;
        let id = id.unwrap_or_else(|| MessageId::from_bits(1 << 63 | self.others));
        let place = self.channels[channel].messages.len();
        let message = json!({ "id": id, "channel_id": id_of(channel), "number": place + 1, "sender_id": "somebody", "kind": "text", "text": text,
            "attachments": [], "mention_ids": [], "metadata": {} });
        self.channels[channel]
            .messages
            .push(serde_json::from_value(message).unwrap());
        self.happens(channel, "message.created", place, is_told)
    }

    pub fn deletes(&mut self, channel: usize, draw: usize) {
        let messages = &mut self.channels[channel].messages;
        if !messages.is_empty() {
            let place = draw % messages.len();
            (messages[place].text, messages[place].deleted_at) = (String::new(), Some(1));
            self.happens(channel, "message.deleted", place, true);
        }
    }

    fn happens(
        &mut self,
        channel: usize,
        name: &'static str,
        about: usize,
        is_told: bool,
    ) -> Message {
        self.clock += 1;
        let of = &mut self.channels[channel];
        let position = Position {
            seq: of.head().seq + 1,
            at: self.clock,
        };
        of.messages[about].seq = position.seq;
        let message = of.messages[about].clone();
        of.log.push(Logged {
            position,
            name,
            about,
            after: of.messages.clone(),
        });
        if is_told && self.listens(channel) {
            self.tell(channel, position.seq);
        }
        message
    }

    /// The log forgets.
    pub fn trims(&mut self, channel: usize) {
        self.channels[channel].trimmed = self.channels[channel].head().seq;
    }

    /// A live subscription loses events, and is told so.
    pub fn skips(&mut self, channel: usize) {
        self.posts(channel, None, "unheard", false);
        self.posts(channel, None, "unheard", false);
        self.tell_gap(channel, Gap::Trimmed);
    }

    /// The store is restored without its newest writes.
    pub fn restores(&mut self, channel: usize, lost: usize) {
        let of = &mut self.channels[channel];
        let kept = (of.log.len() - lost.min(of.log.len())).max(of.trimmed as usize);
        of.log.truncate(kept);
        of.messages = of
            .log
            .last()
            .map_or_else(Vec::new, |logged| logged.after.clone());
        of.restored += 1;
        // What is written next stands at the numbers of what was lost.
        self.tell_gap(channel, Gap::Diverged);
    }

    fn tell_gap(&mut self, channel: usize, reason: Gap) {
        let head = self.channels[channel].head();
        if self.listens(channel) {
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

    pub fn removes(&mut self, channel: usize) {
        if self.member.remove(&channel) {
            self.happens_to_user("channel.removed", channel);
        }
    }

    pub fn adds(&mut self, channel: usize) {
        if self.member.insert(channel) {
            self.happens_to_user("channel.added", channel);
        }
    }

    fn happens_to_user(&mut self, name: &'static str, about: usize) {
        self.clock += 1;
        let logged = Logged {
            position: Position {
                seq: self.own.len() as u64 + 1,
                at: self.clock,
            },
            name,
            about,
            after: Vec::new(),
        };
        self.own.push(logged.clone());
        self.tells_own(&logged);
    }

    fn tells_own(&mut self, logged: &Logged) {
        let (id, head) = (id_of(logged.about), self.channels[logged.about].head());
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
            && self.member.contains(&logged.about)
        {
            session.listens.insert(logged.about);
        } else {
            session.listens.remove(&logged.about);
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

    /// A passing event of the session.
    pub fn tells(&mut self, name: &str, data: Value) {
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
            session.told.push_back(Input::Event(event));
        }
    }

    fn listens(&self, channel: usize) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.listens.contains(&channel))
    }

    /// An event of a channel as it is told now.
    fn tell(&mut self, channel: usize, seq: u64) {
        let of = &self.channels[channel];
        let logged = &of.log[seq as usize - 1];
        let data = json!({ "message": of.messages[logged.about] });
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

    fn replays(&mut self, channel: usize, from: u64) {
        for seq in from + 1..=self.channels[channel].head().seq {
            self.tell(channel, seq);
        }
    }

    /// Listens, and answers the entries and what is to be replayed behind the reply.
    fn subscribes(
        &mut self,
        asked: BTreeMap<usize, Cursor>,
    ) -> (Vec<EntryResult>, Vec<(usize, u64)>) {
        let (mut entries, mut replays) = (Vec::new(), Vec::new());
        for (channel, cursor) in asked {
            let channel_id = id_of(channel);
            if !self.member.contains(&channel) {
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
            let mut entry: Entry =
                serde_json::from_value(json!({ "channel_id": channel_id, "seq": head.seq, "at": head.at, "number": 0, "read": 0 }))
                    .unwrap();
            entry.gap = gap;
            entries.push(EntryResult::Entry(entry));
            self.session.as_mut().unwrap().listens.insert(channel);
        }
        (entries, replays)
    }

    /// Works on one of the requests, in any order.
    pub fn works(&mut self, draw: usize) -> bool {
        let Some(session) = &mut self.session else {
            return false;
        };
        if session.asked.is_empty() {
            return false;
        }
        let (ticket, ask) = session.asked.remove(draw % session.asked.len()).unwrap();
        let mut replays = Vec::new();
        let outcome = match ask {
            Ask::MessageSend {
                channel_id,
                message,
            } => {
                let channel = place_of(&channel_id);
                self.sends(channel, message.message_id.unwrap(), &message.text.unwrap())
            }
            Ask::ChannelSubscribe(channels) => {
                let asked = channels
                    .into_iter()
                    .map(|(id, cursor)| (place_of(&id), cursor))
                    .collect();
                let (entries, later) = self.subscribes(asked);
                replays = later;
                Ok(Answer::ChannelSubscribe(entries))
            }
            Ask::ChannelUnsubscribe(ids) => {
                let session = self.session.as_mut().unwrap();
                session
                    .listens
                    .retain(|channel| !ids.contains(&id_of(*channel)));
                Ok(Answer::ChannelUnsubscribe)
            }
            Ask::MessageList { channel_id, .. } | Ask::ParticipantList { channel_id, .. }
                if !self.member.contains(&place_of(&channel_id)) =>
            {
                Err(ErrorBody::new(ErrorCode::NotFound, "no such channel"))
            }
            Ask::MessageList { channel_id, which } => {
                let messages = &self.channels[place_of(&channel_id)].messages;
                let (mut items, limit) = (messages.clone(), which.limit.unwrap_or(50) as usize);
                let more = match which.changed_after {
                    Some(after) => {
                        items.retain(|message| message.seq > after);
                        items.sort_by_key(|message| message.seq);
                        let more = items.len() > limit;
                        items.truncate(limit);
                        more
                    }
                    None => {
                        items.drain(..items.len().saturating_sub(limit));
                        messages.len() > limit
                    }
                };
                Ok(Answer::MessageList(MessageList { items, more }))
            }
            Ask::ParticipantList { page, .. } => {
                let cursor = page.cursor.is_none().then(|| "more".to_owned());
                Ok(Answer::ParticipantList(List {
                    items: Vec::new(),
                    cursor,
                }))
            }
            Ask::ChannelList(_) => Ok(Answer::ChannelList(List {
                items: Vec::new(),
                cursor: None,
            })),
            Ask::TokenRefresh(token) => match token.parse::<u64>().unwrap() < self.oldest_token {
                true => Err(ErrorBody::new(ErrorCode::Unauthenticated, "expired")),
                false => Ok(Answer::TokenRefresh(1 << 50)),
            },
            Ask::Ping => Ok(Answer::Ping(self.clock)),
        };
        self.session
            .as_mut()
            .unwrap()
            .told
            .push_back(Input::Reply(ticket, outcome));
        replays
            .into_iter()
            .for_each(|(channel, from)| self.replays(channel, from));
        true
    }

    fn sends(&mut self, channel: usize, id: MessageId, text: &str) -> Result<Answer, ErrorBody> {
        if !self.member.contains(&channel) {
            self.refused.insert(id);
            return Err(ErrorBody::new(ErrorCode::NotFound, "no such channel"));
        }
        let stored = self.channels[channel]
            .messages
            .iter()
            .find(|message| message.id == id)
            .cloned();
        // What is stored is answered, whatever would be refused now.
        let answered = self
            .answers
            .pop_front()
            .filter(|answered| stored.is_none() || *answered != Answered::Forbidden);
        let unavailable = ErrorBody::new(ErrorCode::Unavailable, "the store is away");
        match answered {
            Some(Answered::UnavailableBefore) => return Err(unavailable),
            Some(Answered::RateLimited) => {
                return Err(ErrorBody {
                    retry_after_ms: Some(40),
                    ..ErrorBody::new(ErrorCode::RateLimited, "slower")
                });
            }
            Some(Answered::Internal) => {
                self.refused.insert(id);
                return Err(ErrorBody::new(ErrorCode::Internal, "a defect"));
            }
            Some(Answered::Forbidden) => {
                self.refused.insert(id);
                return Err(ErrorBody::new(ErrorCode::Forbidden, "no"));
            }
            Some(Answered::UnavailableAfter) | None => {}
        }
        let message = stored.unwrap_or_else(|| self.posts(channel, Some(id.clone()), text, true));
        if answered.is_some() {
            Err(unavailable)
        } else {
            Ok(Answer::MessageSend(Box::new(message)))
        }
    }
}
