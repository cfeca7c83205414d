//! A client whose server is scripted by the test.

use std::time::{Duration, Instant};

use client::{
    Closed, SendError, Settings, Update,
    machine::{ClientRequest, Machine, MachineAction, MachineInput, RequestId},
};
use protocol::{
    ErrorBody, ErrorCode,
    operation::{message::SendMessage, session::Connect},
};
use serde_json::{Value, json};

/// A client whose server is scripted by the test, in simulated time.
pub struct ScriptedClient {
    pub machine: Machine,
    pub now: Instant,
}

impl ScriptedClient {
    pub fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self {
            machine: Machine::new(settings, 2, 7, now),
            now,
        }
    }

    /// Creates a client with a session. The reply to `connect` has these entries.
    pub fn connected(settings: Settings, entries: Value) -> (Self, Box<Connect>) {
        let mut client = Self::new(settings);
        client.tick();
        assert_eq!(client.actions(), [MachineAction::AskToken]);
        client.input(MachineInput::Token(Ok("t".into())));
        let params = client.connect_attempt().1;
        client.reply_to_connect(entries);
        (client, params)
    }

    pub fn reply_to_connect(&mut self, entries: Value) -> Vec<Update> {
        let connected = json!({ "session_id": "ses_0000000000000001", "user": { "id": "alice" }, "app_id": "app_0000000000000001",
            "environment": "test", "features": [], "heartbeat_ms": 25000, "limits": { "page": 200 }, "user_position": [1, 1],
            "channels": entries, "more": false });
        self.input(MachineInput::Connected(
            serde_json::from_value(connected).unwrap(),
        ));
        let updates = self.updates();
        assert!(
            updates
                .iter()
                .any(|update| matches!(update, Update::Connected(_)))
        );
        updates
    }

    pub fn input(&mut self, input: MachineInput) {
        self.machine.handle(input, self.now);
    }

    pub fn tick(&mut self) {
        self.machine.tick(self.now);
    }

    pub fn actions(&mut self) -> Vec<MachineAction> {
        std::iter::from_fn(|| self.machine.action()).collect()
    }

    pub fn updates(&mut self) -> Vec<Update> {
        std::iter::from_fn(|| self.machine.update()).collect()
    }

    /// Returns the only action, which must be a request.
    pub fn request(&mut self) -> (RequestId, ClientRequest) {
        match &mut self.actions()[..] {
            [MachineAction::Request(request_id, request)] => (*request_id, request.clone()),
            other => panic!("{other:?} is not a single request"),
        }
    }

    pub fn connect_attempt(&mut self) -> (usize, Box<Connect>) {
        match self.actions().pop() {
            Some(MachineAction::Connect { address, params }) => (address, params),
            other => panic!("{other:?} is not an attempt to connect"),
        }
    }

    /// Lets time pass until the machine is due. Returns how long that was.
    pub fn wait_until_due(&mut self) -> Duration {
        let due = self
            .machine
            .due(self.now)
            .expect("the machine is due some time");
        let waited = due.saturating_duration_since(self.now);
        self.now = self.now.max(due);
        self.tick();
        waited
    }

    pub fn event(&mut self, event: Value) {
        self.input(MachineInput::Event(serde_json::from_value(event).unwrap()));
    }

    pub fn send(&mut self, channel: &str) -> Result<protocol::MessageId, SendError> {
        let message = SendMessage {
            text: Some("hi".into()),
            ..SendMessage::default()
        };
        self.machine
            .send(channel.parse().unwrap(), message, self.now)
    }
}

/// A full entry of a channel.
pub fn entry(channel: &str, seq: u64) -> Value {
    let of = json!({ "id": channel, "type": "group", "metadata": {}, "created_at": 1, "participant_count": 1 });
    json!({ "channel_id": channel, "channel": of, "seq": seq, "at": seq, "number": 0, "read": 0 })
}

/// An entry that did not fit into its reply in full.
pub fn positions(channel: &str, seq: u64) -> Value {
    json!({ "channel_id": channel, "seq": seq, "at": seq, "number": 0, "read": 0, "unread": 0 })
}

pub fn event_at(channel: &str, seq: u64) -> Value {
    json!({ "event": "later", "channel_id": channel, "seq": seq, "at": seq, "data": {} })
}

pub fn error(code: ErrorCode, retry_after_ms: Option<u64>) -> ErrorBody {
    ErrorBody {
        retry_after_ms,
        ..ErrorBody::new(code, "no")
    }
}

pub fn closed(code: u16) -> MachineInput {
    MachineInput::Ended(Closed {
        code: Some(code),
        reason: String::new(),
    })
}
