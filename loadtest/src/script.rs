//! The content of all messages of a run. A message's id, text and sender follow from its index, so
//! every received message can be checked without a table of sent messages.

use protocol::{ChannelId, MessageId, UserId, operation::message::SendMessage};

use crate::{
    cli::MIN_PAYLOAD,
    event::ReceivedMessage,
    verify::{MessageIndex, ObservedMessage},
};

/// Generates and recognizes the messages of one run.
#[derive(Debug)]
pub struct MessageScript {
    /// Upper half of the run's message ids. Messages of another run are foreign.
    run: u32,
    /// The senders, in turn: message `n` is sent by sender `n % senders.len()`.
    senders: Vec<UserId>,
    filler: String,
}

impl MessageScript {
    /// Creates a script of messages whose texts have `payload` bytes.
    pub fn new(run: u32, senders: Vec<UserId>, payload: usize) -> Self {
        Self {
            run,
            senders,
            filler: "~".repeat(payload.saturating_sub(MIN_PAYLOAD)),
        }
    }

    /// Index of a message's sender.
    pub fn sender(&self, message: MessageIndex) -> usize {
        message as usize % self.senders.len()
    }

    /// Number of senders.
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    /// Returns the parameters of `message.send`.
    pub fn message(&self, message: MessageIndex) -> SendMessage {
        let id = MessageId::from_bits(u64::from(self.run) << 32 | u64::from(message));
        SendMessage {
            message_id: Some(id),
            text: Some(format!("{message:08x} {}", self.filler)),
            ..SendMessage::default()
        }
    }

    /// Identifies a message received in this channel and checks its content.
    pub fn read(&self, channel: &ChannelId, observed: &ReceivedMessage) -> ObservedMessage {
        let ReceivedMessage {
            id,
            channel_id,
            number,
            seq,
            sender_id,
            text,
            deleted_at,
        } = observed;
        let deleted = deleted_at.is_some();
        let message = self.index(id).filter(|_| channel_id == channel);
        let intact = message.is_some_and(|message| {
            sender_id.as_ref() == Some(&self.senders[self.sender(message)])
                && if deleted {
                    text.is_empty()
                } else {
                    self.is_text_of(message, text)
                }
        });
        ObservedMessage {
            message,
            seq: *seq,
            number: *number,
            intact,
            deleted,
        }
    }

    fn is_text_of(&self, message: MessageIndex, text: &str) -> bool {
        text.split_at_checked(MIN_PAYLOAD)
            .is_some_and(|(head, tail)| {
                tail == self.filler
                    && head.ends_with(' ')
                    && MessageIndex::from_str_radix(head.trim_end(), 16) == Ok(message)
            })
    }

    fn index(&self, id: &MessageId) -> Option<MessageIndex> {
        let bits = u64::from_str_radix(id.as_str().strip_prefix(MessageId::PREFIX)?, 16).ok()?;
        (bits >> 32 == u64::from(self.run)).then_some(bits as MessageIndex)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        id.parse().expect("an id")
    }

    #[test]
    fn changed_messages_are_not_intact() {
        let script = MessageScript::new(0xabcd_ef01, vec![user("u0"), user("u1")], 128);
        let channel: ChannelId = "c0".parse().expect("an id");
        let SendMessage {
            message_id, text, ..
        } = script.message(0x1_0003);
        let good = || ReceivedMessage {
            id: message_id.clone().expect("it has one"),
            channel_id: channel.clone(),
            number: 1,
            seq: 2,
            sender_id: Some(user("u1")),
            text: text.clone().expect("it has one"),
            deleted_at: None,
        };
        assert_eq!(good().text.len(), 128);
        let read = |message| {
            let observed = script.read(&channel, &message);
            (observed.message, observed.intact)
        };
        assert_eq!(read(good()), (Some(0x1_0003), true));
        assert_eq!(
            read(ReceivedMessage {
                sender_id: Some(user("u0")),
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(ReceivedMessage {
                text: good().text.replacen('3', "4", 1),
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(ReceivedMessage {
                text: good().text + "~",
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(ReceivedMessage {
                deleted_at: Some(3),
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(ReceivedMessage {
                deleted_at: Some(3),
                text: String::new(),
                ..good()
            }),
            (Some(0x1_0003), true)
        );
        assert_eq!(
            read(ReceivedMessage {
                channel_id: "c1".parse().expect("an id"),
                ..good()
            }),
            (None, false)
        );
        assert_eq!(
            read(ReceivedMessage {
                id: MessageId::from_bits(0x1_0003),
                ..good()
            }),
            (None, false)
        );
    }
}
