//! What is sent: each message's id, text and sender follow from its place in the run, so that whoever sees it can tell
//! what it should be.

use protocol::{ChannelId, MessageId, UserId, params::SendMessage};

use crate::{
    cli::MIN_PAYLOAD,
    told::Message,
    verify::{Index, Shown},
};

/// The messages of one run.
#[derive(Debug)]
pub struct Script {
    /// The upper half of the run's message ids: another run's are foreign.
    run: u32,
    /// Message n is sent by the n-th, and so on in turn.
    senders: Vec<UserId>,
    filler: String,
}

impl Script {
    /// Messages whose texts have this many bytes, sent by these users in turn.
    pub fn new(run: u32, senders: Vec<UserId>, payload: usize) -> Self {
        Self {
            run,
            senders,
            filler: "~".repeat(payload.saturating_sub(MIN_PAYLOAD)),
        }
    }

    /// Whose turn a message is: the place among the senders.
    pub fn sender(&self, message: Index) -> usize {
        message as usize % self.senders.len()
    }

    /// How many senders there are.
    pub fn senders(&self) -> usize {
        self.senders.len()
    }

    /// What `message.send` takes for it.
    pub fn message(&self, message: Index) -> SendMessage {
        let id = MessageId::from_bits(u64::from(self.run) << 32 | u64::from(message));
        SendMessage {
            message_id: Some(id),
            text: Some(format!("{message:08x} {}", self.filler)),
            ..SendMessage::default()
        }
    }

    /// What a message that somebody was shown in this channel is.
    pub fn read(&self, channel: &ChannelId, shown: &Message) -> Shown {
        let Message {
            id,
            channel_id,
            number,
            seq,
            sender_id,
            text,
            deleted_at,
        } = shown;
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
        Shown {
            message,
            seq: *seq,
            number: *number,
            intact,
            deleted,
        }
    }

    fn is_text_of(&self, message: Index, text: &str) -> bool {
        text.split_at_checked(MIN_PAYLOAD)
            .is_some_and(|(head, tail)| {
                tail == self.filler
                    && head.ends_with(' ')
                    && Index::from_str_radix(head.trim_end(), 16) == Ok(message)
            })
    }

    fn index(&self, id: &MessageId) -> Option<Index> {
        let bits = u64::from_str_radix(id.as_str().strip_prefix(MessageId::PREFIX)?, 16).ok()?;
        (bits >> 32 == u64::from(self.run)).then_some(bits as Index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str) -> UserId {
        id.parse().expect("an id")
    }

    #[test]
    fn a_message_is_recognised_and_any_change_to_it_too() {
        let script = Script::new(0xabcd_ef01, vec![user("u0"), user("u1")], 128);
        let channel: ChannelId = "c0".parse().expect("an id");
        let SendMessage {
            message_id, text, ..
        } = script.message(0x1_0003);
        let good = || Message {
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
            let shown = script.read(&channel, &message);
            (shown.message, shown.intact)
        };
        assert_eq!(read(good()), (Some(0x1_0003), true));
        assert_eq!(
            read(Message {
                sender_id: Some(user("u0")),
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(Message {
                text: good().text.replacen('3', "4", 1),
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(Message {
                text: good().text + "~",
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(Message {
                deleted_at: Some(3),
                ..good()
            }),
            (Some(0x1_0003), false)
        );
        assert_eq!(
            read(Message {
                deleted_at: Some(3),
                text: String::new(),
                ..good()
            }),
            (Some(0x1_0003), true)
        );
        assert_eq!(
            read(Message {
                channel_id: "c1".parse().expect("an id"),
                ..good()
            }),
            (None, false)
        );
        assert_eq!(
            read(Message {
                id: MessageId::from_bits(0x1_0003),
                ..good()
            }),
            (None, false)
        );
    }
}
