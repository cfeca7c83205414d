//! The gateway's [`fanout::Source`]: encodes frames, reads logs and checks who may subscribe.
//! The hub owns order, gaps and subscribers; [`replay`](crate::replay) converts log entries to
//! records.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    Services,
    online::lease_name,
    schema::{ENTITY, ONLY, PARTICIPANTS, Scope, Subject, scope_of_topic, subject},
};
use fanout::{
    Class, Gap, Outbox, PageLimit, Position, Replay, SourceError, Topic, fair::Party,
    record::Record,
};
use protocol::{
    ChannelId, Encoding, EventKind, UserId, codec,
    event::GapData,
    splice::{self, EntityStamps, SplicedParts},
};
use serde::Serialize;
use store::{
    DocumentKey, Partition,
    cost::{self, Meter},
};

use crate::{metrics::Metrics, replay::replay, socket::frame};

/// Receives membership changes from the own streams of users with a session on this node.
pub trait MembershipListener: Send + Sync + 'static {
    /// Called after `channel.added` was delivered to the session of `outbox`. `position` is that of
    /// the channel's entry in the event.
    fn added(
        &self,
        scope: Scope,
        user: UserId,
        channel: ChannelId,
        position: Position,
        outbox: &Arc<Outbox>,
    );

    /// Called before `channel.removed` is delivered to the session of `outbox`.
    fn removed(&self, scope: Scope, user: UserId, channel: ChannelId, outbox: &Arc<Outbox>);

    /// Called when the session of `outbox` may have missed events of the user's own stream.
    fn lost(&self, scope: Scope, user: UserId, outbox: &Arc<Outbox>);
}

/// The gateway's [`fanout::Source`].
pub struct GatewaySource {
    services: Services,
    metrics: Arc<Metrics>,
    /// Weak, to avoid a cycle: sessions hold the hub, and the hub holds its source.
    membership: Weak<dyn MembershipListener>,
}

impl GatewaySource {
    /// Creates a source. `membership` receives membership changes and losses.
    pub fn new<M: MembershipListener>(
        services: Services,
        metrics: Arc<Metrics>,
        membership: &Arc<M>,
    ) -> Arc<Self> {
        let membership: Weak<dyn MembershipListener> = Arc::<M>::downgrade(membership);
        Arc::new(Self {
            services,
            metrics,
            membership,
        })
    }

    /// If the topic is a user's own stream, returns its scope, its user and the listener.
    fn own_stream(&self, topic: &Topic) -> Option<(Scope, UserId, Arc<dyn MembershipListener>)> {
        let Subject::User(user) = subject(topic) else {
            return None;
        };
        Some((
            scope_of_topic(topic)?,
            user.parse().ok()?,
            self.membership.upgrade()?,
        ))
    }
}

#[async_trait]
impl fanout::Source for GatewaySource {
    fn frame(
        &self,
        topic: &Topic,
        record: &Record,
        encoding: fanout::FrameEncoding,
    ) -> Option<Bytes> {
        let kind = EventKind::of(record.kind)?;
        let channel_id = match subject(topic) {
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
        let parts = SplicedParts {
            channel_id,
            seq: record.position.seq,
            at: record.position.at,
            stamps,
            body: &record.body,
        };
        match splice::event(kind, &parts).and_then(|payload| encode_frame(&payload, encoding)) {
            Ok(frame) => Some(frame),
            Err(error) => {
                tracing::error!(%topic, event = kind.as_str(), %error, "cannot encode an event");
                None
            }
        }
    }

    fn gap(
        &self,
        topic: &Topic,
        gap: Gap,
        position: Position,
        encoding: fanout::FrameEncoding,
    ) -> Bytes {
        #[derive(Serialize)]
        struct Event<'a> {
            event: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            channel_id: Option<&'a str>,
            data: GapData,
        }
        let channel_id = match subject(topic) {
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
            // Only the newest presence of a user matters: it replaces a queued one.
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
            && let Some((of, user, membership)) = self.own_stream(topic)
            && let Ok(Removed { channel_id }) = codec::from_msgpack(&record.body)
        {
            membership.removed(of, user, channel_id, outbox);
        }
    }

    fn after_delivery(&self, topic: &Topic, record: &Record, outbox: &Arc<Outbox>) {
        #[derive(serde::Deserialize)]
        struct Added {
            entry: AddedEntry,
        }
        #[derive(serde::Deserialize)]
        struct AddedEntry {
            channel_id: ChannelId,
            seq: u64,
            at: u64,
        }
        if record.kind == EventKind::ChannelAdded as u8
            && let Some((of, user, membership)) = self.own_stream(topic)
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

    fn observes_loss(&self, topic: &Topic) -> bool {
        matches!(subject(topic), Subject::User(_))
    }

    fn after_loss(&self, topic: &Topic, outbox: &Arc<Outbox>) {
        if let Some((of, user, membership)) = self.own_stream(topic) {
            membership.lost(of, user, outbox);
        }
    }

    fn party(&self, topic: &Topic) -> Party {
        scope_of_topic(topic).map_or_else(Party::default, |of| Party {
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
        // Metered, because large reads take turns between tenants.
        let meter = scope_of_topic(topic).map_or_else(Meter::default, |of| Meter::of(&of, topic));
        let meter = Arc::new(meter);
        meter
            .measure(replay(&self.services, topic, after, limit))
            .await
            .map_err(|e| SourceError(e.to_string()))
    }

    async fn may_subscribe(
        &self,
        topic: &Topic,
        subjects: &[Bytes],
    ) -> Result<Vec<bool>, SourceError> {
        let Subject::Channel(_) = subject(topic) else {
            return Ok(vec![true; subjects.len()]);
        };
        let names = subjects
            .iter()
            .map(|subject| String::from_utf8_lossy(subject));
        let keys = std::iter::once((ENTITY, DocumentKey::from(ONLY)))
            .chain(names.map(|name| (PARTICIPANTS, DocumentKey::from(name))))
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

    async fn are_alive(&self, publishers: &[u64]) -> Result<Vec<bool>, SourceError> {
        let leases: Vec<String> = publishers.iter().copied().map(lease_name).collect();
        let counts = self.services.store.members(&leases).await;
        let counts = counts.map_err(|e| SourceError(e.to_string()))?;
        Ok(counts.into_iter().map(|count| count > 0).collect())
    }

    async fn heads(&self, topics: &[Topic]) -> Vec<Result<Position, SourceError>> {
        let partitions: Vec<Partition> = topics.iter().cloned().map(Partition::new).collect();
        let heads = self.services.store.heads(&partitions).await;
        heads
            .into_iter()
            .map(|head| head.map_err(|e| SourceError(e.to_string())))
            .collect()
    }
}

impl std::fmt::Debug for GatewaySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GatewaySource").finish_non_exhaustive()
    }
}

/// Converts a gap of the hub to the protocol's type.
pub fn gap_of(gap: Gap) -> protocol::entity::Gap {
    match gap {
        Gap::Trimmed => protocol::entity::Gap::Trimmed,
        Gap::Diverged => protocol::entity::Gap::Diverged,
    }
}

fn encoding_of(encoding: fanout::FrameEncoding) -> Encoding {
    match encoding {
        fanout::FrameEncoding::Binary => Encoding::MessagePack,
        fanout::FrameEncoding::Text => Encoding::Json,
    }
}

fn encode_frame(
    payload: &[u8],
    encoding: fanout::FrameEncoding,
) -> Result<Bytes, codec::DecodeError> {
    Ok(match encoding {
        fanout::FrameEncoding::Binary => frame::message(Encoding::MessagePack, payload),
        fanout::FrameEncoding::Text => frame::message(Encoding::Json, &codec::transcode(payload)?),
    })
}

fn fingerprint(topic: &Topic) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    topic.hash(&mut hasher);
    hasher.finish()
}
