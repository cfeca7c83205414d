//! What records mean: how they look on the wire, and how the log is read again with the entities as
//! they are now.
//!
//! Owned here: the way from a record or a line of the log to a frame. Left out: order, gaps and
//! subscribers (the hub's).

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    Services,
    channel_state::channel_of,
    document::encode,
    entries::Detail,
    error::{Error, Result},
    reactions::Reacted,
    scope::{self, ENTITY, MESSAGES, ONLY, PARTICIPANTS, Scope, Subject},
};
use fanout::{
    Class, Gap, Outbox, PageLimit, Position, Replay, SourceError, Topic,
    fair::Party,
    record::{Control, Record},
};
use futures_util::future::join_all;
use protocol::{
    ChannelId, Encoding, EventKind, UserId, codec,
    event::GapData,
    splice::{self, EntityStamps, Parts},
};
use serde::Serialize;
use store::{
    Continuity, Document, Entry, Key, Partition, Stamps, Table,
    cost::{self, Meter},
};

use crate::{metrics::Metrics, socket::frame};

/// Who is told, on this node, that users came into channels and left them.
pub trait Membership: Send + Sync + 'static {
    /// The user's session behind this outbox was just told `channel.added`, with this position in
    /// its entry.
    fn added(
        &self,
        scope: Scope,
        user: UserId,
        channel: ChannelId,
        position: Position,
        outbox: &Arc<Outbox>,
    );

    /// The user's session behind this outbox is about to be told `channel.removed`.
    fn removed(&self, scope: Scope, user: UserId, channel: ChannelId, outbox: &Arc<Outbox>);
}

/// The gateway's [`fanout::Source`].
pub struct Source {
    services: Services,
    metrics: Arc<Metrics>,
    /// Weak, since sessions hold the hub, and the hub its source.
    membership: Weak<dyn Membership>,
}

impl Source {
    /// A source over a store, which tells `membership` who came into channels and left them.
    pub fn new<M: Membership>(
        services: Services,
        metrics: Arc<Metrics>,
        membership: &Arc<M>,
    ) -> Arc<Self> {
        let membership: Weak<dyn Membership> = Arc::<M>::downgrade(membership);
        Arc::new(Self {
            services,
            metrics,
            membership,
        })
    }

    async fn replay(&self, topic: &Topic, after: Position, limit: PageLimit) -> Result<Replay> {
        let partition = Partition::new(topic.clone());
        let mut log = self
            .services
            .store
            .log(&partition, after, limit.records)
            .await?;
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
        let keys: Vec<(Table, Key)> = log.entries.iter().map(key_of).collect::<Result<_>>()?;
        let documents = self
            .services
            .store
            .documents(&partition, keys, limit.bytes)
            .await?;
        log.entries.truncate(documents.len());
        let channel = self.channel_now(topic, &log.entries).await?;
        let gone = self.gone(topic, &log.entries, &documents).await?;
        let mut records = Vec::with_capacity(log.entries.len());
        let mut bytes = 0;
        for (entry, document) in log.entries.iter().zip(&documents) {
            match self
                .record(topic, entry, document.as_ref(), channel.as_ref(), &gone)
                .await?
            {
                Some(record) => {
                    // Also what an event adds to its document, or has instead of one.
                    bytes += record.body.len();
                    if bytes > limit.bytes && !records.is_empty() {
                        break;
                    }
                    records.push(record);
                }
                // What the event was about was cleared away with a deleted channel of the same id.
                None => return Ok(broken(Gap::Trimmed)),
            }
        }
        Ok(Replay {
            records,
            head,
            continuity: fanout::Continuity::Continuous,
        })
    }

    /// The channel itself as it is now, if an event is about it.
    async fn channel_now(&self, topic: &Topic, entries: &[Entry]) -> Result<Option<Bytes>> {
        if !entries
            .iter()
            .any(|e| e.kind == EventKind::ChannelUpdated as u8)
        {
            return Ok(None);
        }
        let snapshot = self
            .services
            .snapshot(Partition::new(topic.clone()), vec![(ENTITY, ONLY.into())])
            .await?;
        Ok(channel_of(&snapshot)?.map(|(channel, _)| encode(&channel)))
    }

    /// An event of the log with its entity as it is now; `None` if that is gone for good.
    async fn record(
        &self,
        topic: &Topic,
        entry: &Entry,
        document: Option<&Document>,
        channel: Option<&Bytes>,
        gone: &HashMap<String, Bytes>,
    ) -> Result<Option<Record>> {
        let mut record = Record {
            kind: entry.kind,
            position: entry.position,
            ..Record::default()
        };
        match kind_of(entry)? {
            EventKind::MessageCreated | EventKind::MessageUpdated | EventKind::MessageDeleted => {
                let Some(document) = document else {
                    return Ok(None);
                };
                record.stamps = document.stamps;
                record.counts = (!document.counts.is_empty()).then(|| counts_of(document));
                record.body = document.value.clone();
            }
            EventKind::ReactionAdded | EventKind::ReactionRemoved => {
                let Some(document) = document else {
                    return Ok(None);
                };
                let reacted: Reacted = read(&entry.reference)?;
                if document.stamps.deleted_at != 0 {
                    // What was said about a message is gone with it.
                    record.count = Some(0);
                    record.body = encode(&Reacted {
                        emoji: String::new(),
                        ..reacted
                    });
                    return Ok(Some(record));
                }
                let count = document
                    .counts
                    .iter()
                    .find(|(name, _)| *name == reacted.emoji)
                    .map_or(0, |(_, n)| *n);
                record.count = Some(count);
                record.body = entry.reference.clone();
            }
            EventKind::ParticipantAdded | EventKind::ParticipantUpdated => {
                match (document, gone.get(&text(&entry.reference)?)) {
                    (Some(document), _) => {
                        record.stamps = Stamps {
                            created_at: document.stamps.created_at,
                            ..Stamps::default()
                        };
                        record.body = document.value.clone();
                    }
                    (None, Some(last)) => record.body = last.clone(),
                    (None, None) => return Ok(None),
                }
            }
            EventKind::ParticipantRemoved => {
                let participant: protocol::entity::Participant = read(&entry.reference)?;
                record.control = Control::Evict(Bytes::copy_from_slice(
                    participant.user_id.as_str().as_bytes(),
                ));
                record.body = entry.reference.clone();
            }
            EventKind::ChannelUpdated => {
                let Some(channel) = channel else {
                    return Ok(None);
                };
                record.body = channel.clone();
            }
            EventKind::ChannelDeleted => {
                record.control = Control::Close;
                record.body = entry.reference.clone();
            }
            EventKind::ChannelAdded => self.channel_added(topic, entry, &mut record).await?,
            EventKind::ChannelRemoved => record.body = channel_removed(&text(&entry.reference)?),
            EventKind::UserUpdated => {
                let Some(document) = document else {
                    return Ok(None);
                };
                record.stamps = Stamps {
                    created_at: document.stamps.created_at,
                    ..Stamps::default()
                };
                record.body = document.value.clone();
            }
            _ => {
                return Err(Error::internal(format!(
                    "the log holds an event of kind {} that is never kept",
                    entry.kind
                )));
            }
        }
        Ok(Some(record))
    }

    /// Whose own stream this is, and who wants to know what it tells.
    fn whose(&self, topic: &Topic) -> Option<(Scope, UserId, Arc<dyn Membership>)> {
        let Subject::User(user) = scope::subject(topic) else {
            return None;
        };
        Some((
            scope::scope(topic)?,
            user.parse().ok()?,
            self.membership.upgrade()?,
        ))
    }

    /// A user's entry as it is now. If the user is no longer in the channel, the event tells that
    /// instead.
    async fn channel_added(&self, topic: &Topic, entry: &Entry, record: &mut Record) -> Result<()> {
        #[derive(Serialize)]
        struct Data {
            entry: protocol::entity::Entry,
        }
        let (Subject::User(user), Some(of)) = (scope::subject(topic), scope::scope(topic)) else {
            return Err(Error::internal(
                "a channel was added to something else than a user",
            ));
        };
        let id: ChannelId = parse(&text(&entry.reference)?)?;
        let entries = self
            .services
            .entries(&of, &parse(user)?, std::slice::from_ref(&id), Detail::Full)
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

    /// The participants of these events that are gone by now, as they were last: later events tell
    /// of their removal. Those that went with a deleted channel of the same id are not among them.
    async fn gone(
        &self,
        topic: &Topic,
        entries: &[Entry],
        documents: &[Option<Document>],
    ) -> Result<HashMap<String, Bytes>> {
        let mut wanted = HashSet::new();
        for (entry, document) in entries.iter().zip(documents) {
            if document.is_none()
                && matches!(
                    kind_of(entry)?,
                    EventKind::ParticipantAdded | EventKind::ParticipantUpdated
                )
            {
                wanted.insert(text(&entry.reference)?);
            }
        }
        let mut gone = HashMap::new();
        let mut page = entries.to_vec();
        while gone.len() < wanted.len() && !page.is_empty() {
            for entry in page
                .iter()
                .filter(|entry| entry.kind == EventKind::ParticipantRemoved as u8)
            {
                let participant: protocol::entity::Participant = read(&entry.reference)?;
                let user = participant.user_id.as_str();
                if wanted.contains(user) {
                    gone.insert(user.to_owned(), entry.reference.clone());
                }
            }
            let after = page.last().map(|entry| entry.position).unwrap_or_default();
            page = self
                .services
                .store
                .log(&Partition::new(topic.clone()), after, 1000)
                .await?
                .entries;
        }
        Ok(gone)
    }
}

#[async_trait]
impl fanout::Source for Source {
    fn frame(&self, topic: &Topic, record: &Record, encoding: fanout::Encoding) -> Option<Bytes> {
        let kind = EventKind::of(record.kind)?;
        let channel_id = match scope::subject(topic) {
            Subject::Channel(id) => Some(id),
            _ => None,
        };
        let stamps = EntityStamps {
            number: record.stamps.number,
            seq: record.stamps.seq,
            created_at: record.stamps.created_at,
            edited_at: record.stamps.edited_at,
            deleted_at: record.stamps.deleted_at,
            count: record.count,
            reactions: record.counts.as_deref(),
        };
        let parts = Parts {
            channel_id,
            seq: record.position.seq,
            at: record.position.at,
            stamps,
            body: &record.body,
        };
        match splice::event(kind, &parts).and_then(|payload| framed(&payload, encoding)) {
            Ok(frame) => Some(frame),
            Err(error) => {
                tracing::error!(%topic, event = kind.as_str(), %error, "an event cannot be framed");
                None
            }
        }
    }

    fn gap(
        &self,
        topic: &Topic,
        gap: Gap,
        position: Position,
        encoding: fanout::Encoding,
    ) -> Bytes {
        #[derive(Serialize)]
        struct Event<'a> {
            event: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            channel_id: Option<&'a str>,
            data: GapData,
        }
        let channel_id = match scope::subject(topic) {
            Subject::Channel(id) => Some(id),
            _ => None,
        };
        let data = GapData {
            reason: gap_of(gap),
            seq: position.seq,
            at: position.at,
        };
        let event = Event {
            event: EventKind::ChannelGap.as_str(),
            channel_id,
            data,
        };
        let encoding = encoding_of(encoding);
        frame::message(encoding, &encoding.encode(&event))
    }

    fn class(&self, topic: &Topic, record: &Record) -> Class {
        match EventKind::of(record.kind) {
            // The newest state of each somebody is enough.
            Some(EventKind::PresenceChanged) => Class::Droppable(Some(fingerprint(topic))),
            Some(kind) if kind.may_be_dropped() => Class::Droppable(None),
            _ => Class::Durable,
        }
    }

    fn after_broadcast(&self, _topic: &Topic, record: &Record) {
        if record.is_durable() {
            let passed = self
                .services
                .clock
                .now_ms()
                .saturating_sub(record.position.at);
            self.metrics.delivery.observe(Duration::from_millis(passed));
        }
    }

    fn observes(&self, record: &Record) -> bool {
        record.kind == EventKind::ChannelAdded as u8
            || record.kind == EventKind::ChannelRemoved as u8
    }

    fn before_delivery(&self, topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        #[derive(serde::Deserialize)]
        struct Removed {
            channel_id: ChannelId,
        }
        if record.kind == EventKind::ChannelRemoved as u8
            && let Some((of, user, membership)) = self.whose(topic)
            && let Ok(Removed { channel_id }) = codec::from_msgpack(&record.body)
        {
            membership.removed(of, user, channel_id, outbox);
        }
    }

    fn after_delivery(&self, topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        #[derive(serde::Deserialize)]
        struct Added {
            entry: Place,
        }
        #[derive(serde::Deserialize)]
        struct Place {
            channel_id: ChannelId,
            seq: u64,
            at: u64,
        }
        if record.kind == EventKind::ChannelAdded as u8
            && let Some((of, user, membership)) = self.whose(topic)
            && let Ok(Added { entry }) = codec::from_msgpack(&record.body)
        {
            membership.added(
                of,
                user,
                entry.channel_id,
                Position {
                    seq: entry.seq,
                    at: entry.at,
                },
                outbox,
            );
        }
    }

    fn party(&self, topic: &Topic) -> Party {
        scope::scope(topic).map_or_else(Party::default, |of| Party {
            group: cost::hash(&of),
            member: cost::hash(topic),
        })
    }

    async fn read(
        &self,
        topic: &Topic,
        after: Position,
        limit: PageLimit,
    ) -> Result<Replay, SourceError> {
        // Large reads take turns between tenants.
        let meter = scope::scope(topic).map_or_else(Meter::default, |of| Meter::of(&of, topic));
        let meter = Arc::new(meter);
        meter
            .measure(self.replay(topic, after, limit))
            .await
            .map_err(|e| SourceError(e.to_string()))
    }

    async fn admits(&self, topic: &Topic, subjects: &[Bytes]) -> Result<Vec<bool>, SourceError> {
        let Subject::Channel(_) = scope::subject(topic) else {
            return Ok(vec![true; subjects.len()]);
        };
        let names = subjects
            .iter()
            .map(|subject| String::from_utf8_lossy(subject));
        let keys = std::iter::once((ENTITY, Key::from(ONLY)))
            .chain(names.map(|name| (PARTICIPANTS, Key::from(name))))
            .collect();
        let snapshot = self
            .services
            .snapshot(Partition::new(topic.clone()), keys)
            .await
            .map_err(|e| SourceError(e.to_string()))?;
        let lives = snapshot.documents[0].is_some();
        Ok(snapshot.documents[1..]
            .iter()
            .map(|participant| lives && participant.is_some())
            .collect())
    }

    async fn heads(&self, topics: &[Topic]) -> Vec<Result<Position, SourceError>> {
        let head = |topic: &Topic| {
            let read = store::Read {
                partition: Partition::new(topic.clone()),
                documents: Vec::new(),
                newest: None,
            };
            async move {
                let snapshot = self
                    .services
                    .store
                    .read(vec![read])
                    .await
                    .map_err(|e| SourceError(e.to_string()))?;
                snapshot
                    .first()
                    .map(|snapshot| snapshot.head.position())
                    .ok_or_else(|| SourceError("a head was not told".to_owned()))
            }
        };
        join_all(topics.iter().map(head)).await
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").finish_non_exhaustive()
    }
}

/// The protocol's word for a gap.
pub fn gap_of(gap: Gap) -> protocol::entity::Gap {
    match gap {
        Gap::Trimmed => protocol::entity::Gap::Trimmed,
        Gap::Diverged => protocol::entity::Gap::Diverged,
    }
}

fn encoding_of(encoding: fanout::Encoding) -> Encoding {
    match encoding {
        fanout::Encoding::Binary => Encoding::MessagePack,
        fanout::Encoding::Text => Encoding::Json,
    }
}

fn framed(payload: &[u8], encoding: fanout::Encoding) -> Result<Bytes, codec::DecodeError> {
    Ok(match encoding {
        fanout::Encoding::Binary => frame::message(Encoding::MessagePack, payload),
        fanout::Encoding::Text => frame::message(Encoding::Json, &codec::transcode(payload)?),
    })
}

/// The document that an event is about. Events about none ask for one that is never there.
fn key_of(entry: &Entry) -> Result<(Table, Key)> {
    Ok(match kind_of(entry)? {
        EventKind::MessageCreated | EventKind::MessageUpdated | EventKind::MessageDeleted => {
            (MESSAGES, text(&entry.reference)?.into())
        }
        EventKind::ReactionAdded | EventKind::ReactionRemoved => (
            MESSAGES,
            read::<Reacted>(&entry.reference)?.message_id.shared(),
        ),
        EventKind::ParticipantAdded | EventKind::ParticipantUpdated => {
            (PARTICIPANTS, text(&entry.reference)?.into())
        }
        EventKind::ChannelUpdated | EventKind::UserUpdated => (ENTITY, ONLY.into()),
        _ => (PARTICIPANTS, "".into()),
    })
}

fn kind_of(entry: &Entry) -> Result<EventKind> {
    EventKind::of(entry.kind).ok_or_else(|| {
        Error::internal(format!(
            "the log holds an event of the unknown kind {}",
            entry.kind
        ))
    })
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

fn read<T: serde::de::DeserializeOwned>(reference: &Bytes) -> Result<T> {
    codec::from_msgpack(reference)
        .map_err(|e| Error::internal(format!("a line of the log cannot be read: {e}")))
}

fn text(reference: &Bytes) -> Result<String> {
    String::from_utf8(reference.to_vec())
        .map_err(|e| Error::internal(format!("a line of the log cannot be read: {e}")))
}

fn parse<T: std::str::FromStr>(id: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    id.parse().map_err(Error::internal)
}

fn fingerprint(topic: &Topic) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}
