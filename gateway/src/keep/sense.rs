//! What chat relies on in a store, as far as one partition tells it.

use protocol::{
    codec::from_msgpack,
    model::{Participant, Role},
};
use serde::de::IgnoredAny;

use crate::{
    service::scope::{
        ENTITY, OWNERS, PARTICIPANT_COUNT, PARTICIPANTS, Subject, TOMBSTONE, subject,
    },
    store::{
        Document,
        embedded::{Finding, Sense},
    },
};

/// Judges documents one by one, and channels by those that they hold.
#[derive(Debug, Default)]
pub(super) struct Chat {
    participants: u64,
    /// Participants with that role, and what the channel counts of them.
    owners: i64,
    counted_owners: i64,
    has_entity: bool,
    is_deleted: bool,
}

impl Sense for Chat {
    fn document(&mut self, table: &str, document: &Document) -> Option<Finding> {
        self.has_entity |= table == ENTITY.name;
        self.is_deleted |= table == TOMBSTONE.name;
        if table == PARTICIPANTS.name {
            self.participants += 1;
            // The table of that name in an app's index holds something else.
            let participant = from_msgpack::<Participant>(&document.value);
            self.owners +=
                i64::from(participant.is_ok_and(|participant| participant.role == Role::Owner));
        }
        if table == OWNERS.name {
            self.counted_owners = from_msgpack(&document.value).unwrap_or(-1);
        }
        from_msgpack::<IgnoredAny>(&document.value).err().map(|error| Finding {
            what: format!("has a value that is no MessagePack ({error})"),
            mending: "could not tell what it was: would remove it, or put a deleted message in its place".to_owned(),
        })
    }

    fn partition(&mut self, name: &str, counters: &[(String, u64)]) -> Option<Finding> {
        let Self {
            participants,
            owners,
            counted_owners,
            has_entity,
            is_deleted,
        } = std::mem::take(self);
        let counted = counters
            .iter()
            .find(|(name, _)| name == PARTICIPANT_COUNT)
            .map_or(0, |(_, count)| *count);
        // Of a deleted channel the participants are removed by and by.
        let is_live = matches!(subject(name), Subject::Channel(_)) && has_entity && !is_deleted;
        let wrong = |what| {
            Some(Finding {
                what,
                mending: "would set the count right".to_owned(),
            })
        };
        if is_live && participants != counted {
            return wrong(format!(
                "has {participants} participants and counts {counted}"
            ));
        }
        if is_live && owners != counted_owners {
            return wrong(format!("has {owners} owners and counts {counted_owners}"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use protocol::{ParticipantId, codec::to_msgpack};

    use super::*;
    use crate::store::Stamps;

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

    /// What is wrong with a channel of two participants, one of whom owns it, that counts so many, and has a document in this table.
    fn of_two(counted: u64, owners: i64, table: &str) -> Option<String> {
        let mut chat = Chat::default();
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
            "each is judged by its own documents"
        );
        found.map(|finding| finding.what)
    }

    #[test]
    fn a_channel_that_counts_others_than_it_has_is_found() {
        assert_eq!(of_two(2, 1, ENTITY.name), None);
        assert_eq!(
            of_two(3, 1, ENTITY.name).as_deref(),
            Some("has 2 participants and counts 3")
        );
        assert_eq!(
            of_two(2, 2, ENTITY.name).as_deref(),
            Some("has 1 owners and counts 2")
        );
        assert_eq!(
            of_two(0, 1, TOMBSTONE.name),
            None,
            "a deleted one has them until they are cleared away"
        );
    }

    #[test]
    fn a_value_that_is_no_messagepack_is_found() {
        for wrong in [&b"\xc1"[..], b"\x81\xa1a", b"\x80\x80", b""] {
            assert!(
                Chat::default()
                    .document(ENTITY.name, &document(wrong))
                    .is_some(),
                "{wrong:?}"
            );
        }
    }
}
