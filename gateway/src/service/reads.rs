//! Read positions: how far a user has read, and what that leaves unread.

use std::collections::BTreeMap;

use bytes::Bytes;
use fanout::record::Control;
use protocol::{
    ChannelId, EventKind, UserId,
    event::ReadData,
    results::{ReadResult, Unread},
};
use serde::Serialize;

use super::{
    ATTEMPTS, Services,
    document::{decode, encode},
    permissions::Operation,
    scope::{ENTITY, ONLY, PARTICIPANTS, READS},
};
use crate::{
    auth::Actor,
    error::{Error, Result},
    store::{Commit, Expected},
};

/// A passing event with its channel.
#[derive(Debug, Serialize)]
pub(super) struct InChannel<'a, T> {
    pub(super) channel_id: &'a ChannelId,
    pub(super) data: T,
}

impl Services {
    /// Moves the caller's read position forwards, at most to the channel's newest message.
    pub async fn mark_read(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        number: u64,
    ) -> Result<ReadResult> {
        let Some(user) = actor.user() else {
            return Err(Error::forbidden("only a user has a read position"));
        };
        for _ in 0..ATTEMPTS {
            let state = self
                .channel_state(actor, channel_id, vec![(READS, user.shared())])
                .await?;
            state.permit(actor, Operation::MarkRead)?;
            let document = state.documents[0].as_ref();
            let before: u64 = document.map(decode).transpose()?.unwrap_or(0);
            let read = number.min(state.head.number);
            if read <= before {
                self.confirm(&state.partition).await?;
                return Ok(ReadResult { read: before });
            }
            let place = state.own.as_ref().map_or(0, |p| p.version);
            let commit = Commit::default()
                .require(ENTITY, ONLY, Expected::Present)
                .require(PARTICIPANTS, user.shared(), Expected::Version(place))
                .require(
                    READS,
                    user.shared(),
                    document.map_or(Expected::Absent, |d| Expected::Version(d.version)),
                )
                .put(READS, user.shared(), &read);
            if self.store.commit(&state.partition, commit).await?.is_ok() {
                let data = ReadData {
                    user_id: user.clone(),
                    number: read,
                };
                let told = InChannel { channel_id, data };
                // The own sessions hear it on the user's stream, subscribed to the channel or not; the others in the channel.
                self.tell(
                    &actor.scope.user(user).topic(),
                    EventKind::ReadMarked,
                    Control::None,
                    &told,
                )
                .await;
                let audience = self.limits.read_audience;
                if audience == 0 || state.channel.participant_count <= audience {
                    let others = Control::Except(Bytes::copy_from_slice(user.as_str().as_bytes()));
                    self.tell(
                        &state.partition.topic(),
                        EventKind::ReadMarked,
                        others,
                        &told,
                    )
                    .await;
                }
                return Ok(ReadResult { read });
            }
        }
        Err(Error::busy())
    }

    /// Publishes a passing event. It may get lost like any passing event: the store's trouble is only logged.
    pub async fn tell<T: Serialize>(
        &self,
        topic: &fanout::Topic,
        kind: EventKind,
        control: Control,
        event: &T,
    ) {
        if let Err(error) = self.try_tell(topic, kind, control, event).await {
            tracing::warn!(%error, event = kind.as_str(), "a passing event was not told");
        }
    }

    /// The same, for whoever tries again.
    ///
    /// # Errors
    /// The store did not take it.
    pub async fn try_tell<T: Serialize>(
        &self,
        topic: &fanout::Topic,
        kind: EventKind,
        control: Control,
        event: &T,
    ) -> std::result::Result<(), crate::store::StoreError> {
        let record = fanout::record::Record::passing(kind as u8, control, encode(event));
        self.store.publish(topic, record.encode()).await
    }

    /// How many messages a user has not read, by channel.
    pub async fn unread(&self, actor: &Actor, user: &UserId) -> Result<Unread> {
        self.permit_user(actor, user).await?;
        let mut channels = BTreeMap::new();
        let ids = self.channel_ids_of(&actor.scope, user).await?;
        for some in ids.chunks(super::entries::BATCH) {
            for (id, entry) in some.iter().zip(
                self.entries(&actor.scope, user, some, super::entries::Detail::Positions)
                    .await?,
            ) {
                if let Some(entry) = entry.filter(|e| e.number > e.read) {
                    channels.insert(id.clone(), entry.number - entry.read);
                }
            }
        }
        Ok(Unread {
            unread: channels.values().sum(),
            channels,
        })
    }
}
