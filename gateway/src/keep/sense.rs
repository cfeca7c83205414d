//! What chat relies on in a store, as far as one partition tells it.

use serde::de::IgnoredAny;

use crate::{
    service::scope::{ENTITY, PARTICIPANT_COUNT, PARTICIPANTS, Subject, TOMBSTONE, subject},
    store::{
        Document,
        embedded::{Finding, Sense},
    },
};

/// Judges documents one by one, and channels by those that they hold.
#[derive(Debug, Default)]
pub(super) struct Chat {
    participants: u64,
    has_entity: bool,
    is_deleted: bool,
}

impl Sense for Chat {
    fn document(&mut self, table: &str, document: &Document) -> Option<Finding> {
        self.participants += u64::from(table == PARTICIPANTS.name);
        self.has_entity |= table == ENTITY.name;
        self.is_deleted |= table == TOMBSTONE.name;
        protocol::codec::from_msgpack::<IgnoredAny>(&document.value).err().map(|error| Finding {
            what: format!("has a value that is no MessagePack ({error})"),
            mending: "could not tell what it was: would remove it, or put a deleted message in its place".to_owned(),
        })
    }

    fn partition(&mut self, name: &str, counters: &[(String, u64)]) -> Option<Finding> {
        let Self { participants, has_entity, is_deleted } = std::mem::take(self);
        let counted = counters.iter().find(|(name, _)| name == PARTICIPANT_COUNT).map_or(0, |(_, count)| *count);
        // Of a deleted channel the participants are removed by and by.
        let is_live = matches!(subject(name), Subject::Channel(_)) && has_entity && !is_deleted;
        (is_live && participants != counted).then(|| Finding {
            what: format!("has {participants} participants and counts {counted}"),
            mending: "would set the count right".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Stamps;

    fn document(value: &'static [u8]) -> Document {
        Document { key: "ada".into(), version: 1, value: value.into(), stamps: Stamps::default(), counts: Vec::new() }
    }

    /// What is wrong with a channel of two participants that counts so many, and has a document in this table.
    fn of_two(counted: u64, table: &str) -> Option<Finding> {
        let mut chat = Chat::default();
        for table in [PARTICIPANTS.name, PARTICIPANTS.name, table] {
            assert_eq!(chat.document(table, &document(b"\x80")), None);
        }
        let found = chat.partition("c:app_1:live:general", &[(PARTICIPANT_COUNT.to_owned(), counted)]);
        assert_eq!(chat.partition("c:app_1:live:other", &[]), None, "each is judged by its own documents");
        found
    }

    #[test]
    fn a_channel_that_counts_other_participants_than_it_has_is_found() {
        assert_eq!(of_two(2, ENTITY.name), None);
        assert!(of_two(3, ENTITY.name).is_some_and(|finding| finding.what == "has 2 participants and counts 3"));
        assert_eq!(of_two(0, TOMBSTONE.name), None, "a deleted one has them until they are cleared away");
    }

    #[test]
    fn a_value_that_is_no_messagepack_is_found() {
        for wrong in [&b"\xc1"[..], b"\x81\xa1a", b"\x80\x80", b""] {
            assert!(Chat::default().document(ENTITY.name, &document(wrong)).is_some(), "{wrong:?}");
        }
    }
}
