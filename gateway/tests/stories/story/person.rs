//! A user with a session.

use super::*;

/// Somebody with a session.
pub struct Person {
    pub name: UserId,
    pub session: Session,
    pub events: Events,
    /// What came while something else was waited for.
    pub heard: Vec<EventMessage>,
}

impl Person {
    pub fn connected(&self) -> &Connected {
        self.session.connected()
    }

    /// Asks, and has the whole result as it came.
    pub async fn asks(&self, method: &str, params: Value) -> Value {
        self.session
            .request(method, &params)
            .await
            .unwrap_or_else(|error| panic!("{} {method:?} {params}: {error}", self.name))
    }

    /// Asks what is refused: with which error.
    pub async fn is_refused(&self, method: &str, params: Value) -> ErrorCode {
        let answer: Result<Value, _> = self.session.request(method, &params).await;
        match answer {
            Err(RequestError::Refused(error)) => error.code,
            other => panic!("{} {method:?} {params}: {other:?} is no refusal", self.name),
        }
    }

    /// The next event of this name as it stands on the wire; others before it are passed over.
    pub async fn hears_raw(&mut self, name: &str) -> Value {
        loop {
            let frame = tokio::time::timeout(PATIENCE, self.events.next_frame()).await;
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

    /// Where this session stands in a channel: of the entry that it connected with.
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

    /// The next event, whatever it is.
    pub async fn next(&mut self) -> EventMessage {
        if !self.heard.is_empty() {
            return self.heard.remove(0);
        }
        match tokio::time::timeout(PATIENCE, self.events.next()).await {
            Ok(Some(event)) => event,
            Ok(None) => panic!(
                "{}: the connection ended: {}",
                self.name,
                self.events.closed()
            ),
            Err(_) => panic!("{} waited in vain", self.name),
        }
    }

    /// The next event of this name; others before it are passed over.
    pub async fn hears(&mut self, name: &str) -> EventMessage {
        loop {
            let event = self.next().await;
            if event.event == name {
                return event;
            }
        }
    }

    /// The next message created, which must say this.
    pub async fn sees(&mut self, text: &str) -> Message {
        match self.hears("message.created").await.read().unwrap() {
            Event::MessageCreated(message) => {
                assert_eq!(message.text, text);
                message
            }
            other => panic!("{other:?} is no message"),
        }
    }

    /// Nothing comes for a while, passing events of others aside.
    pub async fn hears_nothing(&mut self) {
        assert!(
            self.heard.is_empty(),
            "{} heard {:?}",
            self.name,
            self.heard
        );
        let heard = tokio::time::timeout(SILENCE, self.events.next()).await;
        assert!(heard.is_err(), "{} heard {heard:?}", self.name);
    }

    /// The connection ends; with which code.
    pub async fn is_closed(&mut self) -> u16 {
        let end = async { while self.events.next().await.is_some() {} };
        tokio::time::timeout(PATIENCE, end)
            .await
            .unwrap_or_else(|_| panic!("{} was not closed", self.name));
        self.events.closed().code.unwrap_or(0)
    }
}
