//! Checks of the stored values that the domain relies on, partition by partition.

use domain::schema::{
    CHANNEL_COUNT, CHANNELS, ENTITY, OWNERS, PARTICIPANT_COUNT, PARTICIPANTS, Subject, TOMBSTONE,
    subject,
};
use protocol::{
    codec::from_msgpack,
    entity::{Participant, Role},
};
use serde::de::IgnoredAny;
use store::{
    Document,
    embedded::{Finding, ValueCheck},
};

/// Checks that values are MessagePack and that counts match the documents of their partition.
#[derive(Debug, Default)]
pub(crate) struct ChatCheck {
    participants: u64,
    /// Documents in a user's channel list.
    channels: u64,
    /// Participants with the role of owner.
    owners: i64,
    /// The channel's own count of its owners.
    counted_owners: i64,
    has_entity: bool,
    is_deleted: bool,
}

impl ValueCheck for ChatCheck {
    fn document(&mut self, table: &str, document: &Document) -> Option<Finding> {
        self.has_entity |= table == ENTITY.name;
        self.is_deleted |= table == TOMBSTONE.name;
        self.channels += u64::from(table == CHANNELS.name);
        if table == PARTICIPANTS.name {
            self.participants += 1;
            // In an app's index, the table of that name holds other values.
            let participant = from_msgpack::<Participant>(&document.value);
            self.owners +=
                i64::from(participant.is_ok_and(|participant| participant.role == Role::Owner));
        }
        if table == OWNERS.name {
            self.counted_owners = from_msgpack(&document.value).unwrap_or(-1);
        }
        from_msgpack::<IgnoredAny>(&document.value)
            .err()
            .map(|error| Finding {
                what: format!("has a value that is no MessagePack ({error})"),
                repair: "would remove it, or replace it by a deleted message".to_owned(),
            })
    }

    fn partition(&mut self, name: &str, counters: &[(String, u64)]) -> Option<Finding> {
        let Self {
            participants,
            channels,
            owners,
            counted_owners,
            has_entity,
            is_deleted,
        } = std::mem::take(self);
        let count = |wanted| {
            counters
                .iter()
                .find(|(name, _)| name == wanted)
                .map_or(0, |(_, count)| *count)
        };
        let (counted, counted_channels) = (count(PARTICIPANT_COUNT), count(CHANNEL_COUNT));
        // A deletion job removes the participants of a deleted channel step by step.
        let is_live = matches!(subject(name), Subject::Channel(_)) && has_entity && !is_deleted;
        let finding = |what| {
            Some(Finding {
                what,
                repair: "would correct the count".to_owned(),
            })
        };
        if matches!(subject(name), Subject::User(_)) && has_entity && channels != counted_channels {
            return finding(format!(
                "has {channels} channels and counts {counted_channels}"
            ));
        }
        if is_live && participants != counted {
            return finding(format!(
                "has {participants} participants and counts {counted}"
            ));
        }
        if is_live && owners != counted_owners {
            return finding(format!("has {owners} owners and counts {counted_owners}"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use protocol::{ParticipantId, codec::to_msgpack};
    use store::Stamps;

    use super::*;

    fn document(value: &'static [u8]) -> Document {
        Document {
            key: "ada".into(),
            version: 1,
            value: value.into(),
            stamps: Stamps::default(),
            counts: Vec::new(),
        }
    }

    fn participant(role: Role) -> Document {
        let participant = Participant {
            id: ParticipantId::from_bits(1),
            channel_id: "general".parse().unwrap(),
            user_id: "ada".parse().unwrap(),
            role,
            created_at: 0,
            read: None,
        };
        Document {
            value: to_msgpack(&participant).into(),
            ..document(b"")
        }
    }

    /// Checks a channel with two participants, one of them an owner, and a document in `table`.
    fn check_channel(counted: u64, owners: i64, table: &str) -> Option<String> {
        let mut chat = ChatCheck::default();
        let told = [
            (PARTICIPANTS.name, participant(Role::Owner)),
            (PARTICIPANTS.name, participant(Role::Member)),
            (
                OWNERS.name,
                Document {
                    value: to_msgpack(&owners).into(),
                    ..document(b"")
                },
            ),
            (table, document(b"\x80")),
        ];
        for (table, document) in told {
            assert_eq!(chat.document(table, &document), None);
        }
        let found = chat.partition(
            "c:app_1:live:general",
            &[(PARTICIPANT_COUNT.to_owned(), counted)],
        );
        assert_eq!(
            chat.partition("c:app_1:live:other", &[]),
            None,
            "each partition is checked by its own documents"
        );
        found.map(|finding| finding.what)
    }

    #[test]
    fn wrong_participant_and_owner_counts_are_found() {
        assert_eq!(check_channel(2, 1, ENTITY.name), None);
        assert_eq!(
            check_channel(3, 1, ENTITY.name).as_deref(),
            Some("has 2 participants and counts 3")
        );
        assert_eq!(
            check_channel(2, 2, ENTITY.name).as_deref(),
            Some("has 1 owners and counts 2")
        );
        assert_eq!(
            check_channel(0, 1, TOMBSTONE.name),
            None,
            "a deleted channel keeps its participants until its job removes them"
        );
    }

    #[test]
    fn wrong_channel_count_of_a_user_is_found() {
        let check_user = |counted: u64, table: &str| {
            let mut chat = ChatCheck::default();
            for table in [table, CHANNELS.name] {
                assert_eq!(chat.document(table, &document(b"\x80")), None);
            }
            chat.partition("u:app_1:live:ada", &[(CHANNEL_COUNT.to_owned(), counted)])
                .map(|finding| finding.what)
        };
        assert_eq!(check_user(1, ENTITY.name), None);
        assert_eq!(
            check_user(2, ENTITY.name).as_deref(),
            Some("has 1 channels and counts 2")
        );
        assert_eq!(
            check_user(2, TOMBSTONE.name),
            None,
            "a deleted user is not checked"
        );
    }

    #[test]
    fn value_that_is_not_messagepack_is_found() {
        for wrong in [&b"\xc1"[..], b"\x81\xa1a", b"\x80\x80", b""] {
            assert!(
                ChatCheck::default()
                    .document(ENTITY.name, &document(wrong))
                    .is_some(),
                "{wrong:?}"
            );
        }
    }
}
