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
