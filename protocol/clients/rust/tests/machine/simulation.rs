//! A simulated client and server, with checks of every update that the client reports.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::{Duration, Instant},
};

use client::{
    Anomaly, CacheBounds, ConnectError, MessageCache, Position, SendFailure, Settings,
    TokenUnavailable, Update,
    machine::{ClientReply, ClientRequest, Machine, MachineAction, MachineInput},
};
use protocol::{
    ChannelId, MessageId,
    entity::{EntryResult, Gap, Message},
    event::Event,
    operation::{message::SendMessage, session::Connect},
};

use crate::server::{SimulatedServer, id_of, index_of};

/// The longest delay that the simulated server asks for.
const LONGEST_HINT: Duration = Duration::from_secs(2);

pub struct Simulation {
    pub machine: Machine,
    pub server: SimulatedServer,
    pub now: Instant,
    settings: Settings,
    asking: bool,
    connecting: Option<Box<Connect>>,
    token: u64,
    /// Earliest instant of the next attempt to connect.
    not_before: Instant,
    pub attempts: usize,
    /// Position of each channel by the reported updates, and the `seq` where its stream started.
    positions: BTreeMap<usize, Position>,
    pub started_at_seq: BTreeMap<usize, u64>,
    own: Option<u64>,
    /// The number of restorations of each channel that the client knows of.
    restorations: BTreeMap<usize, u64>,
    pub gaps: Vec<(Option<ChannelId>, Gap)>,
    pub recovered: usize,
    /// Messages sent, with their channels, in order.
    pub sent: Vec<(usize, MessageId)>,
    pub outcomes: BTreeMap<MessageId, Result<Message, SendFailure>>,
    pub cache: MessageCache,
    pub disconnects: Vec<Duration>,
    pub is_over: bool,
    pub renewals: usize,
}

impl Simulation {
    pub fn new(server: SimulatedServer, settings: Settings, seed: u64) -> Self {
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
            positions: BTreeMap::new(),
            started_at_seq: BTreeMap::new(),
            own: None,
            restorations: BTreeMap::new(),
            gaps: Vec::new(),
            recovered: 0,
            sent: Vec::new(),
            outcomes: BTreeMap::new(),
            cache: MessageCache::new(CacheBounds {
                messages: 10_000,
                channels: 10_000,
            }),
            disconnects: Vec::new(),
            is_over: false,
            renewals: 0,
        }
    }

    pub fn send(&mut self, channel: usize) {
        let message = SendMessage {
            text: Some(format!("{}", self.sent.len())),
            ..SendMessage::default()
        };
        if let Ok(id) = self.machine.send(id_of(channel), message, self.now) {
            self.sent.push((channel, id));
        }
        self.perform_actions();
    }

    fn input(&mut self, input: MachineInput) {
        let diverged = |entry: &EntryResult| match entry {
            EntryResult::Entry(entry) if entry.gap == Some(Gap::Diverged) => {
                Some((index_of(&entry.channel_id), entry.number))
            }
            _ => None,
        };
        match &input {
            MachineInput::Connected(connected) => self
                .restorations
                .extend(connected.channels.iter().filter_map(diverged)),
            MachineInput::Reply(_, Ok(ClientReply::ChannelSubscribe(entries))) => self
                .restorations
                .extend(entries.iter().filter_map(diverged)),
            MachineInput::Event(event) if event.data["reason"] == "diverged" => {
                let channel = index_of(event.channel_id.as_ref().unwrap());
                self.restorations
                    .insert(channel, event.data["restored"].as_u64().unwrap());
            }
            _ => {}
        }
        self.machine.handle(input, self.now);
        self.perform_actions();
    }

    /// Breaks the connection.
    pub fn cut(&mut self) {
        if self.server.is_connected() {
            self.server.cut();
            self.input(MachineInput::Ended(client::Closed {
                code: None,
                reason: "cut".into(),
            }));
        }
    }

    /// Fails the current attempt to connect.
    pub fn fail_connect(&mut self) {
        if self.connecting.take().is_some() {
            self.input(MachineInput::Failed(ConnectError::Timeout));
        }
    }

    /// Performs one step that is possible now, chosen by `draw`. Returns false if none is possible
    /// before time passes.
    pub fn advance(&mut self, draw: usize) -> bool {
        type SimulatedAction = fn(&mut Simulation, usize) -> bool;
        let actions: [SimulatedAction; 4] = [
            Self::provide_token,
            Self::connect,
            |simulation, draw| simulation.server.work(draw),
            Self::deliver,
        ];
        (0..actions.len())
            .any(|turn| actions[(draw + turn) % actions.len()](self, draw / actions.len()))
    }

    fn provide_token(&mut self, draw: usize) -> bool {
        let is_asked = std::mem::take(&mut self.asking);
        if is_asked && draw % 8 == 7 {
            self.input(MachineInput::Token(Err(TokenUnavailable::Later(
                "not now".into(),
            ))));
        } else if is_asked {
            self.token += 1;
            self.input(MachineInput::Token(Ok(self.token.to_string())));
        }
        is_asked
    }

    fn connect(&mut self, _: usize) -> bool {
        let Some(params) = self.connecting.take() else {
            return false;
        };
        let input = self
            .server
            .connect(&params)
            .map_or_else(MachineInput::Failed, MachineInput::Connected);
        self.input(input);
        true
    }

    fn deliver(&mut self, _: usize) -> bool {
        let Some(input) = self.server.deliver() else {
            return false;
        };
        self.input(input);
        true
    }

    /// Lets time pass, and calls the machine whenever it is due.
    pub fn pass_time(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.due(self.now).filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.machine.tick(self.now);
            self.perform_actions();
            assert!(
                self.machine.due(self.now).is_none_or(|due| due > self.now),
                "the machine must not be due twice at one instant"
            );
        }
        self.now = end;
    }

    /// Runs client and server without faults for this time.
    pub fn run_without_faults(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            while self.advance(0) {}
            let due = self.machine.due(self.now).map_or(end, |due| due.min(end));
            self.pass_time(due.saturating_duration_since(self.now));
        }
        while self.advance(0) {}
    }

    fn perform_actions(&mut self) {
        while let Some(action) = self.machine.action() {
            match action {
                MachineAction::AskToken => {
                    assert!(!self.asking, "the client asks for one token at a time");
                    self.asking = true;
                }
                MachineAction::Connect { address, params } => {
                    assert!(address < 3);
                    assert!(
                        self.connecting.is_none() && !self.server.is_connected(),
                        "the client makes one attempt at a time"
                    );
                    assert!(
                        self.now >= self.not_before,
                        "the client attempts to connect too early"
                    );
                    assert!(params.resume.len() <= 200);
                    self.attempts += 1;
                    self.connecting = Some(params);
                }
                MachineAction::Request(request_id, request) => {
                    self.renewals += usize::from(matches!(request, ClientRequest::TokenRefresh(_)));
                    self.server.request(request_id, request);
                }
                MachineAction::Leave | MachineAction::Cut => {
                    self.connecting = None;
                    self.server.cut();
                }
            }
        }
        while let Some(update) = self.machine.update() {
            self.cache.apply(&update);
            self.updates_drained(update);
        }
    }

    /// Checks an update against the promises of [`Update`].
    fn updates_drained(&mut self, update: Update) {
        assert!(!self.is_over, "an update follows the end");
        match update {
            Update::Connected(connected) => {
                self.own.get_or_insert(connected.user_position.0);
                let entries = connected.channels.iter().filter_map(|entry| match entry {
                    EntryResult::Entry(entry) => Some(entry),
                    EntryResult::Failed(_) => None,
                });
                for entry in entries {
                    self.stream_started(
                        index_of(&entry.channel_id),
                        Position {
                            seq: entry.seq,
                            at: entry.at,
                        },
                    );
                }
            }
            Update::Joined(entry) => self.stream_started(
                index_of(&entry.channel_id),
                Position {
                    seq: entry.seq,
                    at: entry.at,
                },
            ),
            Update::Away { wait, .. } => {
                assert!(wait <= self.settings.max_backoff + LONGEST_HINT, "{wait:?}");
                self.not_before = self.now + wait;
                self.disconnects.push(wait);
            }
            Update::Gap {
                channel_id,
                gap,
                from,
                to,
            } => {
                if let Some(id) = &channel_id {
                    let channel = index_of(id);
                    assert_eq!(
                        from,
                        self.positions.get(&channel).copied(),
                        "the gap does not start at the position"
                    );
                    self.positions.insert(channel, to);
                }
                self.gaps.push((channel_id, gap));
            }
            Update::Event(event) => match (&event.channel_id, event.seq, event.at) {
                (Some(id), Some(seq), Some(at)) => {
                    let position = self
                        .positions
                        .get_mut(&index_of(id))
                        .expect("the channel is followed");
                    assert_eq!(seq, position.seq + 1, "hole or repeated event in {id}");
                    *position = Position { seq, at };
                }
                (None, Some(seq), Some(_)) => {
                    assert_eq!(
                        Some(seq),
                        self.own.map(|own| own + 1),
                        "hole or repeated event in the user's own stream"
                    );
                    self.own = Some(seq);
                    match event.read().unwrap() {
                        Event::ChannelAdded(entry) => {
                            self.stream_started(
                                index_of(&entry.channel_id),
                                Position {
                                    seq: entry.seq,
                                    at: entry.at,
                                },
                            );
                        }
                        Event::ChannelRemoved(id) => self.stream_ended(&id),
                        _ => {}
                    }
                }
                _ => {}
            },
            Update::Lost { channel_id, .. } => self.stream_ended(&channel_id),
            Update::Acknowledged(message) => self.record_outcome(message.id.clone(), Ok(*message)),
            Update::Failed {
                message_id, why, ..
            } => self.record_outcome(message_id, Err(why)),
            // The user was removed and added while events were on their way.
            Update::Anomaly(Anomaly::Foreign(_))
                if self.server.memberships.len() < self.server.channels.len() => {}
            Update::Anomaly(anomaly) => {
                panic!("{anomaly:?}, although the server kept its promises")
            }
            Update::Recovered { .. } => self.recovered += 1,
            Update::Messages { .. } | Update::Participants { .. } | Update::Channels(_) => {}
            Update::Ended(_) => self.is_over = true,
        }
    }

    fn stream_started(&mut self, channel: usize, head: Position) {
        if let Entry::Vacant(positions) = self.positions.entry(channel) {
            positions.insert(head);
            self.started_at_seq.insert(channel, head.seq);
        }
    }

    fn stream_ended(&mut self, id: &ChannelId) {
        self.positions.remove(&index_of(id));
        self.started_at_seq.remove(&index_of(id));
    }

    fn record_outcome(&mut self, id: MessageId, outcome: Result<Message, SendFailure>) {
        assert!(
            self.sent.iter().any(|(_, sent)| *sent == id),
            "{id} was not sent"
        );
        assert!(
            self.outcomes.insert(id.clone(), outcome).is_none(),
            "{id} has two outcomes"
        );
    }

    /// Checks that nothing is missing after a time without faults.
    pub fn assert_nothing_missing(&self) {
        assert_eq!(self.machine.unacknowledged(), 0);
        for (channel, id) in &self.sent {
            let state = &self.server.channels[*channel];
            let stored = state
                .messages
                .iter()
                .filter(|message| message.id == *id)
                .count();
            match self.outcomes.get(id).expect("each message has an outcome") {
                Ok(_) => assert!(
                    stored == 1 || state.restored > 0,
                    "{id} was acknowledged, and is stored {stored} times"
                ),
                Err(_) => assert!(self.server.refused.contains(id), "{id} was not refused"),
            }
        }
        for (channel, state) in self.server.channels.iter().enumerate() {
            let own: BTreeSet<_> = self.sent.iter().map(|(_, id)| id).collect();
            let stored: Vec<_> = state
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
                stored == sent || state.restored > 0,
                "{stored:?} are not stored in the order sent: {sent:?}"
            );
            if !self.server.memberships.contains(&channel) {
                continue;
            }
            let Some(started_at_seq) = self.started_at_seq.get(&channel) else {
                continue;
            };
            assert_eq!(
                self.positions[&channel],
                state.head(),
                "events of {} are missing",
                id_of(channel)
            );
            // A message may be newer than the event that contains it. If a restoration loses the
            // newer state and keeps the client's position, the client gets no event.
            if self.restorations.get(&channel).copied().unwrap_or_default() < state.restored {
                continue;
            }
            for message in &state.messages {
                let kept = self.cache.message(&message.channel_id, &message.id);
                assert!(
                    kept.is_some() || message.seq <= *started_at_seq || state.restored > 0,
                    "{message:?} is not cached"
                );
                assert!(
                    kept.is_none_or(|kept| kept == message),
                    "{kept:?} is cached instead of {message:?}"
                );
            }
            let known = self
                .cache
                .messages(&id_of(channel))
                .filter(|kept| !state.messages.iter().any(|message| message.id == kept.id));
            assert_eq!(known.count(), 0, "messages are cached that do not exist");
        }
    }
}
