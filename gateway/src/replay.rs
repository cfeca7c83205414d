//! Replay: converts log entries to records that contain the current entities.
//!
//! [`domain::schema`] declares the log entry of each event.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use domain::{
    Services,
    channel_state::channel_of,
    document::encode,
    entries::{self, Detail},
    error::{Error, Result},
    reactions::Reacted,
    schema::{
        ENTITY, LoggedEvent, MESSAGES, ONLY, PARTICIPANTS, Subject, logged_event, scope_of_topic,
        subject,
    },
};
use fanout::{
    Gap, PageLimit, Position, Replay, Topic,
    record::{Control, Record},
};
use protocol::{ChannelId, EventKind, codec, entity::Participant};
use serde::{Serialize, de::DeserializeOwned};
use store::{Continuity, Document, DocumentKey, LogEntry, Partition, Stamps, Table};

/// Log entries that are searched at once for the removal of a participant.
const ENTRIES_PER_SEARCH: usize = 1000;

/// Reads one page of a topic's log after a position, as records.
///
/// # Errors
/// Fails if the store fails, or if an entry or document cannot be decoded.
pub async fn replay(
    services: &Services,
    topic: &Topic,
    after: Position,
    limit: PageLimit,
) -> Result<Replay> {
    let partition = Partition::new(topic.clone());
    let log = services.store.log(&partition, after, limit.records).await?;
    let head = log.head.position();
    let broken = |gap| Replay {
        records: Vec::new(),
        head,
        continuity: fanout::Continuity::Broken(gap),
    };
    match log.continuity {
        Continuity::Trimmed => return Ok(broken(Gap::Trimmed)),
        Continuity::Diverged => return Ok(broken(Gap::Diverged)),
        Continuity::Continuous => {}
    }
    let mut events: Vec<Event> = log.entries.iter().map(Event::of).collect::<Result<_>>()?;
    let keys = events.iter().map(Event::document).collect::<Result<_>>()?;
    let documents = services
        .store
        .documents(&partition, keys, limit.bytes)
        .await?;
    events.truncate(documents.len());
    for (event, document) in events.iter_mut().zip(documents) {
        event.document = document;
    }
    let entities = Entities {
        channel: current_channel(services, &partition, &events).await?,
        removed: removed_participants(services, &partition, &events).await?,
    };
    let mut records = Vec::with_capacity(events.len());
    let mut bytes = 0;
    for event in &events {
        // The entity was cleared with a deleted channel of the same id.
        let Some(record) = record(services, topic, event, &entities).await? else {
            return Ok(broken(Gap::Trimmed));
        };
        // The body includes the fields that an event adds to its document.
        bytes += record.body.len();
        if bytes > limit.bytes && !records.is_empty() {
            break;
        }
        records.push(record);
    }
    Ok(Replay {
        records,
        head,
        continuity: fanout::Continuity::Continuous,
    })
}

/// An entry of the log with the document that it refers to.
struct Event<'a> {
    entry: &'a LogEntry,
    logged: LoggedEvent,
    document: Option<Document>,
}

impl<'a> Event<'a> {
    fn of(entry: &'a LogEntry) -> Result<Self> {
        let logged = EventKind::of(entry.kind).and_then(logged_event);
        let logged = logged.ok_or_else(|| {
            Error::internal(format!(
                "the log contains an event of kind {}, which is never logged",
                entry.kind
            ))
        })?;
        Ok(Self {
            entry,
            logged,
            document: None,
        })
    }

    /// Returns the document that the event refers to. Events without one ask for a participant
    /// without an id, which is never there.
    fn document(&self) -> Result<(Table, DocumentKey)> {
        let reference = &self.entry.reference;
        Ok(match self.logged {
            LoggedEvent::Message => (MESSAGES, text(reference)?.into()),
            LoggedEvent::Reaction => (MESSAGES, read::<Reacted>(reference)?.message_id.shared()),
            LoggedEvent::Participant => (PARTICIPANTS, text(reference)?.into()),
            LoggedEvent::Channel | LoggedEvent::User => (ENTITY, ONLY.into()),
            LoggedEvent::RemovedParticipant
            | LoggedEvent::DeletedChannel
            | LoggedEvent::AddedChannel
            | LoggedEvent::RemovedChannel => (PARTICIPANTS, "".into()),
        })
    }
}

/// The entities that the events of a page refer to.
struct Entities {
    /// The current channel, if an event is about it.
    channel: Option<Bytes>,
    /// Last states of participants that were removed after an event about them, by user id.
    removed: HashMap<String, Bytes>,
}

/// Returns the record of an event; `None` if its entity was cleared.
async fn record(
    services: &Services,
    topic: &Topic,
    event: &Event<'_>,
    entities: &Entities,
) -> Result<Option<Record>> {
    let (entry, document) = (event.entry, event.document.as_ref());
    let mut record = Record {
        kind: entry.kind,
        position: entry.position,
        body: entry.reference.clone(),
        ..Record::default()
    };
    match event.logged {
        LoggedEvent::Message => {
            let Some(document) = document else {
                return Ok(None);
            };
            record.stamps = document.stamps;
            record.counts = (!document.counts.is_empty()).then(|| counts_of(document));
            record.body = document.value.clone();
        }
        LoggedEvent::Reaction => {
            let Some(document) = document else {
                return Ok(None);
            };
            let reacted: Reacted = read(&entry.reference)?;
            if document.stamps.deleted_at != 0 {
                // A deleted message keeps nothing of what users gave to it.
                record.count = Some(0);
                record.body = encode(&Reacted {
                    emoji: String::new(),
                    ..reacted
                });
            } else {
                let count = document
                    .counts
                    .iter()
                    .find(|(name, _)| *name == reacted.emoji);
                record.count = Some(count.map_or(0, |(_, count)| *count));
            }
        }
        LoggedEvent::Participant => {
            match (document, entities.removed.get(&text(&entry.reference)?)) {
                (Some(document), _) => put_entity(&mut record, document),
                (None, Some(last)) => record.body = last.clone(),
                (None, None) => return Ok(None),
            }
        }
        LoggedEvent::RemovedParticipant => {
            let participant: Participant = read(&entry.reference)?;
            let user = participant.user_id.as_str().as_bytes();
            record.control = Control::Evict(Bytes::copy_from_slice(user));
        }
        LoggedEvent::Channel => {
            let Some(channel) = &entities.channel else {
                return Ok(None);
            };
            record.body = channel.clone();
        }
        LoggedEvent::DeletedChannel => record.control = Control::Close,
        LoggedEvent::AddedChannel => put_channel_entry(services, topic, entry, &mut record).await?,
        LoggedEvent::RemovedChannel => record.body = channel_removed(&text(&entry.reference)?),
        LoggedEvent::User => {
            let Some(document) = document else {
                return Ok(None);
            };
            put_entity(&mut record, document);
        }
    }
    Ok(Some(record))
}

fn put_entity(record: &mut Record, document: &Document) {
    record.stamps = Stamps {
        created_at: document.stamps.created_at,
        ..Stamps::default()
    };
    record.body = document.value.clone();
}

/// Makes the record of an added channel: the user's current entry, or the removal if the user is no
/// longer in the channel.
async fn put_channel_entry(
    services: &Services,
    topic: &Topic,
    entry: &LogEntry,
    record: &mut Record,
) -> Result<()> {
    #[derive(Serialize)]
    struct Data {
        entry: protocol::entity::Entry,
    }
    let (Subject::User(user), Some(scope)) = (subject(topic), scope_of_topic(topic)) else {
        return Err(Error::internal(
            "the log of another partition than a user's contains an added channel",
        ));
    };
    let id: ChannelId = parse(&text(&entry.reference)?)?;
    let entries = entries::read_entries(
        services,
        &scope,
        &parse(user)?,
        std::slice::from_ref(&id),
        Detail::Full,
    )
    .await?;
    match entries.into_iter().next().flatten() {
        Some(entry) => record.body = encode(&Data { entry }),
        None => {
            record.kind = EventKind::ChannelRemoved as u8;
            record.body = channel_removed(id.as_str());
        }
    }
    Ok(())
}

async fn current_channel(
    services: &Services,
    partition: &Partition,
    events: &[Event<'_>],
) -> Result<Option<Bytes>> {
    if !events
        .iter()
        .any(|event| event.logged == LoggedEvent::Channel)
    {
        return Ok(None);
    }
    let snapshot = services
        .snapshot(partition.clone(), vec![(ENTITY, ONLY.into())])
        .await?;
    Ok(channel_of(&snapshot)?.map(|(channel, _)| encode(&channel)))
}

/// Finds the participants of these events that are gone: a later entry removed them. Those that
/// were cleared with a deleted channel of the same id have no such entry.
async fn removed_participants(
    services: &Services,
    partition: &Partition,
    events: &[Event<'_>],
) -> Result<HashMap<String, Bytes>> {
    let wanted: HashSet<String> = events
        .iter()
        .filter(|event| event.logged == LoggedEvent::Participant && event.document.is_none())
        .map(|event| text(&event.entry.reference))
        .collect::<Result<_>>()?;
    let mut removed = HashMap::new();
    let mut page: Vec<LogEntry> = events.iter().map(|event| event.entry.clone()).collect();
    while removed.len() < wanted.len() && !page.is_empty() {
        for entry in page
            .iter()
            .filter(|entry| entry.kind == EventKind::ParticipantRemoved as u8)
        {
            let participant: Participant = read(&entry.reference)?;
            let user = participant.user_id.as_str();
            if wanted.contains(user) {
                removed.insert(user.to_owned(), entry.reference.clone());
            }
        }
        let after = page.last().map(|entry| entry.position).unwrap_or_default();
        page = services
            .store
            .log(partition, after, ENTRIES_PER_SEARCH)
            .await?
            .entries;
    }
    Ok(removed)
}

fn counts_of(document: &Document) -> Bytes {
    let counts: std::collections::BTreeMap<_, _> = document.counts.iter().cloned().collect();
    encode(&counts)
}

fn channel_removed(id: &str) -> Bytes {
    #[derive(Serialize)]
    struct Data<'a> {
        channel_id: &'a str,
    }
    encode(&Data { channel_id: id })
}

fn read<T: DeserializeOwned>(reference: &Bytes) -> Result<T> {
    codec::from_msgpack(reference)
        .map_err(|e| Error::internal(format!("an entry of the log cannot be read: {e}")))
}

fn text(reference: &Bytes) -> Result<String> {
    String::from_utf8(reference.to_vec())
        .map_err(|e| Error::internal(format!("an entry of the log cannot be read: {e}")))
}

fn parse<T: std::str::FromStr>(id: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    id.parse().map_err(Error::internal)
}
