//! A client and a server, what happens between them, and what the client has told so far.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::{Duration, Instant},
};

use client::{
    Anomaly, Bounds, Cache, ConnectError, Failure, NoToken, Position, Settings, Update,
    machine::{Action, Answer, Ask, Input, Machine},
};
use protocol::{
    ChannelId, MessageId,
    event::Event,
    model::{EntryResult, Gap, Message},
    params::{Connect, SendMessage},
};

use crate::server::{Server, id_of, place_of};

/// The longest wait that a server of these stories asks for.
const LONGEST_HINT: Duration = Duration::from_secs(2);

pub struct Story {
    pub machine: Machine,
    pub server: Server,
    pub now: Instant,
    settings: Settings,
    asking: bool,
    connecting: Option<Box<Connect>>,
    token: u64,
    /// Not before this is there to be another attempt.
    not_before: Instant,
    pub attempts: usize,
    /// Where the told events leave each channel, and where its stream began last.
    stands: BTreeMap<usize, Position>,
    pub since: BTreeMap<usize, u64>,
    own: Option<u64>,
    /// Of which restoration of a channel the client knows.
    restorations: BTreeMap<usize, u64>,
    pub gaps: Vec<(Option<ChannelId>, Gap)>,
    pub repaired: usize,
    /// What was sent in each channel, in order.
    pub sent: Vec<(usize, MessageId)>,
    pub fates: BTreeMap<MessageId, Result<Message, Failure>>,
    pub cache: Cache,
    pub aways: Vec<Duration>,
    pub is_over: bool,
    pub renewals: usize,
}

impl Story {
    pub fn new(server: Server, settings: Settings, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(settings.clone(), 3, seed, now),
            server,
            now,
            settings,
            asking: false,
            connecting: None,
            token: 0,
            not_before: now,
            attempts: 0,
            stands: BTreeMap::new(),
            since: BTreeMap::new(),
            own: None,
            restorations: BTreeMap::new(),
            gaps: Vec::new(),
            repaired: 0,
            sent: Vec::new(),
            fates: BTreeMap::new(),
            cache: Cache::new(Bounds {
                messages: 10_000,
                channels: 10_000,
            }),
            aways: Vec::new(),
            is_over: false,
            renewals: 0,
        }
    }

    pub fn sends(&mut self, channel: usize) {
        let message = SendMessage {
            text: Some(format!("{}", self.sent.len())),
            ..SendMessage::default()
        };
        if let Ok(id) = self.machine.send(id_of(channel), message, self.now) {
            self.sent.push((channel, id));
        }
        self.acts();
    }

    fn handles(&mut self, input: Input) {
        let diverged = |entry: &EntryResult| match entry {
            EntryResult::Entry(entry) if entry.gap == Some(Gap::Diverged) => {
                Some((place_of(&entry.channel_id), entry.number))
            }
            _ => None,
        };
        match &input {
            Input::Connected(connected) => self
                .restorations
                .extend(connected.channels.iter().filter_map(diverged)),
            Input::Reply(_, Ok(Answer::ChannelSubscribe(entries))) => self
                .restorations
                .extend(entries.iter().filter_map(diverged)),
            Input::Event(event) if event.data["reason"] == "diverged" => {
                let place = place_of(event.channel_id.as_ref().unwrap());
                self.restorations
                    .insert(place, event.data["restored"].as_u64().unwrap());
            }
            _ => {}
        }
        self.machine.handle(input, self.now);
        self.acts();
    }

    /// The connection breaks.
    pub fn cut(&mut self) {
        if self.server.is_connected() {
            self.server.cut();
            self.handles(Input::Ended(client::Closed {
                code: None,
                reason: "cut".into(),
            }));
        }
    }

    /// The attempt under way fails.
    pub fn unreachable(&mut self) {
        if self.connecting.take().is_some() {
            self.handles(Input::Failed(ConnectError::Timeout));
        }
    }

    /// Lets one thing go on, drawn from those that can; false if only time can.
    pub fn goes_on(&mut self, draw: usize) -> bool {
        type Way = fn(&mut Story, usize) -> bool;
        let ways: [Way; 4] = [
            Self::gets_token,
            Self::gets_connection,
            |story, draw| story.server.works(draw),
            Self::reads,
        ];
        (0..ways.len()).any(|turn| ways[(draw + turn) % ways.len()](self, draw / ways.len()))
    }

    fn gets_token(&mut self, draw: usize) -> bool {
        let is_asked = std::mem::take(&mut self.asking);
        if is_asked && draw % 8 == 7 {
            self.handles(Input::Token(Err(NoToken::Later("not now".into()))));
        } else if is_asked {
            self.token += 1;
            self.handles(Input::Token(Ok(self.token.to_string())));
        }
        is_asked
    }

    fn gets_connection(&mut self, _: usize) -> bool {
        let Some(params) = self.connecting.take() else {
            return false;
        };
        let input = self
            .server
            .connects(&params)
            .map_or_else(Input::Failed, Input::Connected);
        self.handles(input);
        true
    }

    fn reads(&mut self, _: usize) -> bool {
        let Some(input) = self.server.delivers() else {
            return false;
        };
        self.handles(input);
        true
    }

    /// Lets time pass, and wakes the client whenever it wants.
    pub fn passes(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.due(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.machine.tick(self.now);
            self.acts();
            assert!(
                self.machine.due(self.now).is_none_or(|due| due > self.now),
                "it does not spin"
            );
        }
        self.now = end;
    }

    /// Everything works from here on, for so long.
    pub fn heals(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            while self.goes_on(0) {}
            let due = self.machine.due(self.now).map_or(end, |due| due.min(end));
            self.passes(due.saturating_duration_since(self.now));
        }
        while self.goes_on(0) {}
    }

    fn acts(&mut self) {
        while let Some(action) = self.machine.action() {
            match action {
                Action::AskToken => {
                    assert!(!self.asking, "one token is asked for at a time");
                    self.asking = true;
                }
                Action::Connect { address, params } => {
                    assert!(address < 3);
                    assert!(
                        self.connecting.is_none() && !self.server.is_connected(),
                        "one attempt at a time"
                    );
                    assert!(self.now >= self.not_before, "no attempt before its time");
                    assert!(params.resume.len() <= 200);
                    self.attempts += 1;
                    self.connecting = Some(params);
                }
                Action::Ask(ticket, ask) => {
                    self.renewals += usize::from(matches!(ask, Ask::TokenRefresh(_)));
                    self.server.asks(ticket, ask);
                }
                Action::Leave | Action::Cut => {
                    self.connecting = None;
                    self.server.cut();
                }
            }
        }
        while let Some(update) = self.machine.update() {
            self.cache.apply(&update);
            self.is_told(update);
        }
    }

    /// The promise about updates, kept by each of them.
    fn is_told(&mut self, update: Update) {
        assert!(!self.is_over, "nothing comes behind the end");
        match update {
            Update::Connected(connected) => {
                self.own.get_or_insert(connected.user_position.0);
                let entries = connected.channels.iter().filter_map(|entry| match entry {
                    EntryResult::Entry(entry) => Some(entry),
                    EntryResult::Failed(_) => None,
                });
                for entry in entries {
                    self.begins(
                        place_of(&entry.channel_id),
                        Position {
                            seq: entry.seq,
                            at: entry.at,
                        },
                    );
                }
            }
            Update::Joined(entry) => self.begins(
                place_of(&entry.channel_id),
                Position {
                    seq: entry.seq,
                    at: entry.at,
                },
            ),
            Update::Away { wait, .. } => {
                assert!(
                    wait <= self.settings.longest_wait + LONGEST_HINT,
                    "{wait:?}"
                );
                self.not_before = self.now + wait;
                self.aways.push(wait);
            }
            Update::Gap {
                channel_id,
                gap,
                from,
                to,
            } => {
                if let Some(id) = &channel_id {
                    let place = place_of(id);
                    assert_eq!(
                        from,
                        self.stands.get(&place).copied(),
                        "a gap is told where it is"
                    );
                    self.stands.insert(place, to);
                }
                self.gaps.push((channel_id, gap));
            }
            Update::Event(event) => match (&event.channel_id, event.seq, event.at) {
                (Some(id), Some(seq), Some(at)) => {
                    let stands = self
                        .stands
                        .get_mut(&place_of(id))
                        .expect("the channel is followed");
                    assert_eq!(seq, stands.seq + 1, "no hole, and nothing twice, in {id}");
                    *stands = Position { seq, at };
                }
                (None, Some(seq), Some(_)) => {
                    assert_eq!(
                        Some(seq),
                        self.own.map(|own| own + 1),
                        "no hole, and nothing twice, in the own stream"
                    );
                    self.own = Some(seq);
                    match event.read().unwrap() {
                        Event::ChannelAdded(entry) => {
                            self.begins(
                                place_of(&entry.channel_id),
                                Position {
                                    seq: entry.seq,
                                    at: entry.at,
                                },
                            );
                        }
                        Event::ChannelRemoved(id) => self.ends(&id),
                        _ => {}
                    }
                }
                _ => {}
            },
            Update::Lost { channel_id, .. } => self.ends(&channel_id),
            Update::Acknowledged(message) => self.fate(message.id.clone(), Ok(*message)),
            Update::Failed {
                message_id, why, ..
            } => self.fate(message_id, Err(why)),
            // The user is removed and added while events are on their way.
            Update::Anomaly(Anomaly::Foreign(_))
                if self.server.member.len() < self.server.channels.len() => {}
            Update::Anomaly(anomaly) => panic!("{anomaly:?} of a server that did as it promises"),
            Update::Repaired { .. } => self.repaired += 1,
            Update::Messages { .. } | Update::Participants { .. } | Update::Channels(_) => {}
            Update::Over(_) => self.is_over = true,
        }
    }

    fn begins(&mut self, place: usize, head: Position) {
        if let Entry::Vacant(stands) = self.stands.entry(place) {
            stands.insert(head);
            self.since.insert(place, head.seq);
        }
    }

    fn ends(&mut self, id: &ChannelId) {
        self.stands.remove(&place_of(id));
        self.since.remove(&place_of(id));
    }

    fn fate(&mut self, id: MessageId, fate: Result<Message, Failure>) {
        assert!(
            self.sent.iter().any(|(_, sent)| *sent == id),
            "{id} was sent"
        );
        assert!(
            self.fates.insert(id.clone(), fate).is_none(),
            "{id} has one fate"
        );
    }

    /// That nothing is missing once all has calmed down.
    pub fn is_whole(&self) {
        assert_eq!(self.machine.unacknowledged(), 0);
        for (channel, id) in &self.sent {
            let of = &self.server.channels[*channel];
            let stored = of
                .messages
                .iter()
                .filter(|message| message.id == *id)
                .count();
            match self.fates.get(id).expect("each message has its fate") {
                Ok(_) => assert!(
                    stored == 1 || of.restored > 0,
                    "{id} was acknowledged, and is stored {stored} times"
                ),
                Err(_) => assert!(self.server.refused.contains(id), "{id} was not refused"),
            }
        }
        for (place, of) in self.server.channels.iter().enumerate() {
            let own: BTreeSet<_> = self.sent.iter().map(|(_, id)| id).collect();
            let stored: Vec<_> = of
                .messages
                .iter()
                .map(|message| &message.id)
                .filter(|id| own.contains(id))
                .collect();
            let sent: Vec<_> = self
                .sent
                .iter()
                .map(|(_, id)| id)
                .filter(|id| stored.contains(id))
                .collect();
            assert!(
                stored == sent || of.restored > 0,
                "{stored:?} stand in the order sent: {sent:?}"
            );
            if !self.server.member.contains(&place) {
                continue;
            }
            let Some(since) = self.since.get(&place) else {
                continue;
            };
            assert_eq!(
                self.stands[&place],
                of.head(),
                "all of {} is told",
                id_of(place)
            );
            // What is told of an entity may be newer than the event that tells it. Lost by a restoration behind which the
            // position stands all the same, it is not told to be lost.
            if self.restorations.get(&place).copied().unwrap_or_default() < of.restored {
                continue;
            }
            for message in &of.messages {
                let kept = self.cache.message(&message.channel_id, &message.id);
                assert!(
                    kept.is_some() || message.seq <= *since || of.restored > 0,
                    "{message:?} is not known"
                );
                assert!(
                    kept.is_none_or(|kept| kept == message),
                    "{kept:?} is not how {message:?} is"
                );
            }
            let known = self
                .cache
                .messages(&id_of(place))
                .filter(|kept| !of.messages.iter().any(|message| message.id == kept.id));
            assert_eq!(
                known.count(),
                0,
                "what does not exist any more is not known"
            );
        }
    }
}
