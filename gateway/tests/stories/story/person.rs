//! A user with a session.

use super::*;

/// A user with a session.
pub struct Person {
    pub name: UserId,
    pub session: Session,
    pub events: Events,
    /// Events that arrived while another one was awaited.
    pub heard: Vec<EventMessage>,
}

impl Person {
    pub fn connected(&self) -> &Connected {
        self.session.connected()
    }

    /// Sends a request, and returns the raw result.
    pub async fn asks(&self, method: &str, params: Value) -> Value {
        self.session
            .request(method, &params)
            .await
            .unwrap_or_else(|error| panic!("{} {method:?} {params}: {error}", self.name))
    }

    /// Sends a request that is refused, and returns the error code.
    pub async fn is_refused(&self, method: &str, params: Value) -> ErrorCode {
        let answer: Result<Value, _> = self.session.request(method, &params).await;
        match answer {
            Err(RequestError::Refused(error)) => error.code,
            other => panic!("{} {method:?} {params}: {other:?} is no refusal", self.name),
        }
    }

    /// Returns the next raw event of this name; skips others before it.
    pub async fn receives_raw(&mut self, name: &str) -> Value {
        loop {
            let frame = tokio::time::timeout(TIMEOUT, self.events.next_frame()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{} waited in vain for {name}", self.name));
            let frame = frame.unwrap_or_else(|| {
                panic!(
                    "{}: the connection ended: {}",
                    self.name,
                    self.events.closed()
                )
            });
            let event: Value = self.session.encoding().decode(&frame).unwrap();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Returns the position in a channel of the entry that this session connected with.
    pub fn entry(&self, channel: &ChannelId) -> &Entry {
        let is_it = |entry: &&EntryResult| matches!(entry, EntryResult::Entry(e) if e.channel_id == *channel);
        match self.connected().channels.iter().find(is_it) {
            Some(EntryResult::Entry(entry)) => entry,
            _ => panic!(
                "{} is not in {channel}: {:?}",
                self.name,
                self.connected().channels
            ),
        }
    }

    pub async fn sends(&self, channel: &ChannelId, text: &str) -> Message {
        self.session
            .call::<MessageSend>(
                channel,
                &SendMessage {
                    text: Some(text.to_owned()),
                    ..SendMessage::default()
                },
            )
            .await
            .unwrap()
    }

    /// Returns the next event.
    pub async fn next(&mut self) -> EventMessage {
        if !self.heard.is_empty() {
            return self.heard.remove(0);
        }
        match tokio::time::timeout(TIMEOUT, self.events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!(
                "{}: the connection ended: {}",
                self.name,
                self.events.closed()
            ),
            Err(_) => panic!("{} waited in vain", self.name),
        }
    }

    /// Returns the next event of this name; skips others before it.
    pub async fn receives(&mut self, name: &str) -> EventMessage {
        loop {
            let event = self.next().await;
            if event.event == name {
                return event;
            }
        }
    }

    /// Returns the next created message, which must have this text.
    pub async fn sees(&mut self, text: &str) -> Message {
        match self.receives("message.created").await.read().unwrap() {
            Event::MessageCreated(message) => {
                assert_eq!(message.text, text);
                message
            }
            other => panic!("{other:?} is no message"),
        }
    }

    /// Checks that no event arrives for a while, except passing events of others.
    pub async fn receives_nothing(&mut self) {
        assert!(
            self.heard.is_empty(),
            "{} heard {:?}",
            self.name,
            self.heard
        );
        let heard = tokio::time::timeout(SILENCE, self.events.next()).await;
        assert!(heard.is_err(), "{} heard {heard:?}", self.name);
    }

    /// Waits for the end of the connection, and returns its close code.
    pub async fn is_closed(&mut self) -> u16 {
        let end = async { while self.events.next().await.is_some() {} };
        tokio::time::timeout(TIMEOUT, end)
            .await
            .unwrap_or_else(|_| panic!("{} was not closed", self.name));
        self.events.closed().code.unwrap_or(0)
    }
}
