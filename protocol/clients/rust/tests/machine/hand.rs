//! A client whose other side is played by hand.

use std::time::{Duration, Instant};

use client::{
    Closed, SendError, Settings, Update,
    machine::{Action, Ask, Input, Machine, Ticket},
};
use protocol::{
    ErrorBody, ErrorCode,
    params::{Connect, SendMessage},
};
use serde_json::{Value, json};

/// A client whose other side the test plays by hand.
pub struct Hand {
    pub machine: Machine,
    pub now: Instant,
}

impl Hand {
    pub fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(settings, 2, 7, now),
            now,
        }
    }

    /// Through the first token and the first connection, with these channels in the answer.
    pub fn connected(settings: Settings, entries: Value) -> (Self, Box<Connect>) {
        let mut hand = Self::new(settings);
        hand.ticks();
        assert_eq!(hand.acts(), [Action::AskToken]);
        hand.takes(Input::Token(Ok("t".into())));
        let params = hand.attempt().1;
        hand.answers_connect(entries);
        (hand, params)
    }

    pub fn answers_connect(&mut self, entries: Value) -> Vec<Update> {
        let connected = json!({ "session_id": "ses_0000000000000001", "user": { "id": "alice" }, "app_id": "app_0000000000000001",
            "environment": "test", "features": [], "heartbeat_ms": 25000, "limits": { "page": 200 }, "user_position": [1, 1],
            "channels": entries, "more": false });
        self.takes(Input::Connected(serde_json::from_value(connected).unwrap()));
        let told = self.told();
        assert!(
            told.iter()
                .any(|update| matches!(update, Update::Connected(_)))
        );
        told
    }

    pub fn takes(&mut self, input: Input) {
        self.machine.handle(input, self.now);
    }

    pub fn ticks(&mut self) {
        self.machine.tick(self.now);
    }

    pub fn acts(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.machine.action()).collect()
    }

    pub fn told(&mut self) -> Vec<Update> {
        std::iter::from_fn(|| self.machine.update()).collect()
    }

    /// The one request that was made.
    pub fn asks(&mut self) -> (Ticket, Ask) {
        match &mut self.acts()[..] {
            [Action::Ask(ticket, ask)] => (*ticket, ask.clone()),
            other => panic!("{other:?} is not one request"),
        }
    }

    pub fn attempt(&mut self) -> (usize, Box<Connect>) {
        match self.acts().pop() {
            Some(Action::Connect { address, params }) => (address, params),
            other => panic!("{other:?} is no attempt"),
        }
    }

    /// Waits until the client wants to be woken; how long it was.
    pub fn waits(&mut self) -> Duration {
        let due = self.machine.due(self.now).expect("it wants to be woken");
        let waited = due.saturating_duration_since(self.now);
        self.now = self.now.max(due);
        self.ticks();
        waited
    }

    pub fn hears(&mut self, event: Value) {
        self.takes(Input::Event(serde_json::from_value(event).unwrap()));
    }

    pub fn sends(&mut self, channel: &str) -> Result<protocol::MessageId, SendError> {
        let message = SendMessage {
            text: Some("hi".into()),
            ..SendMessage::default()
        };
        self.machine
            .send(channel.parse().unwrap(), message, self.now)
    }
}

pub fn entry(channel: &str, seq: u64) -> Value {
    json!({ "channel_id": channel, "seq": seq, "at": seq, "number": 0, "read": 0 })
}

pub fn posted(channel: &str, seq: u64) -> Value {
    json!({ "event": "later", "channel_id": channel, "seq": seq, "at": seq, "data": {} })
}

pub fn error(code: ErrorCode, retry_after_ms: Option<u64>) -> ErrorBody {
    ErrorBody {
        retry_after_ms,
        ..ErrorBody::new(code, "no")
    }
}

pub fn closed(code: u16) -> Input {
    Input::Ended(Closed {
        code: Some(code),
        reason: String::new(),
    })
}
