//! Read positions and the counts of unread messages.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{
    ChannelId, EventKind, UserId,
    event::ReadData,
    operation::{
        read::{MarkRead, ReadMark, ReadResult, ReadUnmark, UnmarkRead},
        user::{Unread, UserUnread},
    },
};
use serde::Serialize;
use store::{Commit, Control, Expected, Range, cost};

use crate::{
    Services,
    channel_order::{CHANNELS_PER_READ, LIST_PATIENCE},
    channel_state,
    credential::Actor,
    document::{PutValue, decode, encode, parse_key},
    entries::{self, Detail},
    error::{Error, Result},
    index::MAX_INDEX_UNITS,
    perform::{Call, Done, Perform},
    permission::Action,
    retry::retry,
    schema::{CHANNELS, ENTITY, ONLY, PARTICIPANTS, READS, Scope},
    users,
};

/// The data of a passing event, with its channel.
#[derive(Debug, Serialize)]
pub(super) struct InChannel<'a, T> {
    pub(super) channel_id: &'a ChannelId,
    pub(super) data: T,
}

impl Perform for ReadMark {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            mark_read(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for ReadUnmark {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            unmark_read(
                services,
                call.caller.actor()?,
                &call.path.channel_id,
                call.input,
            )
            .await?,
        ))
    }
}

impl Perform for UserUnread {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            count_unread(services, call.caller.actor()?, &call.path.user_id).await?,
        ))
    }
}

/// A change of a read position.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// Forwards only, to this number.
    Mark(u64),
    /// To this number, also backwards.
    Set(u64),
}

impl Change {
    /// Returns the position after the change of `current`, in a channel whose newest message is
    /// `newest`.
    fn apply(self, current: u64, newest: u64) -> u64 {
        match self {
            Self::Mark(number) => number.min(newest).max(current),
            Self::Set(number) => number.min(newest),
        }
    }
}

/// Returns the user whose read position the caller moves.
fn reader<'a>(actor: &'a Actor, named: Option<&'a UserId>) -> Result<&'a UserId> {
    let otherwise = "only an app key moves the read position of somebody else";
    actor.acts_for(named, "user_id", otherwise)
}

/// Moves a read position forwards, at most to the channel's newest message.
pub async fn mark_read(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    input: MarkRead,
) -> Result<ReadResult> {
    let user = reader(actor, input.user_id.as_ref())?;
    change_read(
        services,
        actor,
        channel_id,
        user,
        Change::Mark(input.number),
    )
    .await
}

/// Moves a read position to just before the message with this number, also backwards.
pub async fn unmark_read(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    input: UnmarkRead,
) -> Result<ReadResult> {
    let user = reader(actor, input.user_id.as_ref())?;
    let Some(last_read) = input.number.checked_sub(1) else {
        return Err(Error::bad_request("`number` is at least 1"));
    };
    change_read(services, actor, channel_id, user, Change::Set(last_read)).await
}

async fn change_read(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    change: Change,
) -> Result<ReadResult> {
    retry(|| async {
        let (state, [participant, document]) = channel_state::read_with(
            services,
            actor,
            channel_id,
            [(PARTICIPANTS, user.shared()), (READS, user.shared())],
        )
        .await?;
        state.permit(actor, Action::MarkRead)?;
        let participant = participant.ok_or_else(|| Error::not_found("participant: `user_id`"))?;
        let before: u64 = document.as_ref().map(decode).transpose()?.unwrap_or(0);
        let read = change.apply(before, state.head.number);
        if read == before {
            services.confirm(&state.partition).await?;
            return Ok(Some(ReadResult { read }));
        }
        let mut commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Present)
            .require(
                PARTICIPANTS,
                user.shared(),
                Expected::Version(participant.version),
            )
            .require(READS, user.shared(), Expected::unchanged(document.as_ref()));
        let position = commit.add_value(READS, user.shared(), &read);
        if let Ok(outcome) = services.commit(&state.partition, commit).await? {
            let data = ReadData {
                user_id: user.clone(),
                number: read,
                back: read < before,
                // Events of concurrent changes may overtake each other.
                version: Some(outcome.version(position)),
            };
            let told = InChannel { channel_id, data };
            // The user's own sessions receive it on the user's stream, whether or not they are
            // subscribed to the channel.
            publish(
                services,
                &actor.scope.user(user).topic(),
                EventKind::ReadMarked,
                Control::None,
                &told,
            )
            .await;
            if services
                .limits
                .is_small_audience(state.channel.participant_count)
            {
                let others = Control::Except(Bytes::copy_from_slice(user.as_str().as_bytes()));
                publish(
                    services,
                    &state.partition.topic(),
                    EventKind::ReadMarked,
                    others,
                    &told,
                )
                .await;
            }
            return Ok(Some(ReadResult { read }));
        }
        Ok(None)
    })
    .await
}

/// Publishes a passing event. Passing events may be lost, so an error of the store is only logged.
pub async fn publish<T: Serialize>(
    services: &Services,
    topic: &store::Topic,
    kind: EventKind,
    control: Control,
    event: &T,
) {
    if let Err(error) = try_publish(services, topic, kind, control, event).await {
        tracing::warn!(%error, event = kind.as_str(), "cannot publish a passing event");
    }
}

/// Publishes a passing event, for callers that retry.
///
/// # Errors
/// Those of [`Store::publish`](store::Store::publish).
pub async fn try_publish<T: Serialize>(
    services: &Services,
    topic: &store::Topic,
    kind: EventKind,
    control: Control,
    event: &T,
) -> std::result::Result<(), store::StoreError> {
    let record = store::Record::passing(kind as u8, control, encode(event));
    services.store.publish(topic, record.encode()).await
}

/// Counts the messages that a user has not read, by channel.
pub async fn count_unread(services: &Services, actor: &Actor, user: &UserId) -> Result<Unread> {
    users::permit_user(services, actor, user).await?;
    cost::at_most(
        MAX_INDEX_UNITS,
        count_all_unread(services, &actor.scope, user),
    )
    .await
}

async fn count_all_unread(services: &Services, scope: &Scope, user: &UserId) -> Result<Unread> {
    let own = scope.user(user);
    let (mut channels, mut after, mut turn) = (BTreeMap::new(), None, None);
    loop {
        let (page, _) = services
            .store
            .page(&own, CHANNELS, Range::Keys { after }, CHANNELS_PER_READ)
            .await?;
        let ids: Vec<ChannelId> = page
            .documents
            .iter()
            .map(|line| parse_key(&line.key))
            .collect::<Result<_>>()?;
        for entry in entries::read_entries(services, scope, user, &ids, Detail::Positions)
            .await?
            .into_iter()
            .flatten()
        {
            if entry.number > entry.read {
                channels.insert(entry.channel_id, entry.number - entry.read);
            }
        }
        if !page.more {
            return Ok(Unread {
                unread: channels.values().sum(),
                channels,
            });
        }
        after = ids.last().map(ChannelId::shared);
        if turn.is_none() {
            turn = Some(services.orders.turn(scope, user, LIST_PATIENCE).await?);
        }
        tokio::task::yield_now().await;
    }
}
