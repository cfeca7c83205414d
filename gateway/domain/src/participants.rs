//! Participants of a channel and their roles.
//!
//! Left out: the users' own indexes of channels ([`index`](crate::index)).

pub mod add;
pub mod lists;
mod operations;
pub mod remove;

use bytes::Bytes;
use protocol::{
    ChannelId, EventKind, ParticipantId, UserId,
    entity::{Participant, Role},
    operation::participant::UpdateParticipant,
};
use store::{
    Append, Body, Commit, Control, Counter, Document, Expected, Increment, Key, Mark, Write,
};

use crate::{
    ATTEMPTS, Services,
    channel_state::{self, ChannelState, Place},
    credential::Actor,
    document::{IfMatch, PutValue, Versioned, check_version, decode, encode},
    error::{Error, Result},
    permission::Action,
    random,
    schema::{ENTITY, ONLY, OWNERS, PARTICIPANT_COUNT, PARTICIPANTS, READS},
};

/// The counter of participants, never beyond its limit.
pub(super) fn counted(services: &Services, by: i64) -> Increment {
    let most = services.limits.participants;
    Increment {
        counter: Counter::Partition(PARTICIPANT_COUNT),
        by,
        max: (most != 0 && by > 0).then_some(most),
        max_names: None,
    }
}

/// Gives a participant another role.
pub async fn update_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    body: UpdateParticipant,
    if_match: IfMatch,
) -> Result<Versioned<Participant>> {
    for _ in 0..ATTEMPTS {
        let (state, target) = participant_state(services, actor, channel_id, user).await?;
        let from = target.participant.role;
        let to = body.role.unwrap_or(from);
        state.permit(actor, Action::ChangeRole { from, to })?;
        check_version(if_match, target.version)?;
        if from == to {
            services.confirm(&state.partition).await?;
            return Ok(Versioned {
                value: target.participant,
                version: target.version,
            });
        }
        let owners = i64::from(to == Role::Owner) - i64::from(from == Role::Owner);
        let participant = Participant {
            role: to,
            ..target.participant
        };
        let mut commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Present)
            .require(
                PARTICIPANTS,
                user.shared(),
                Expected::Version(target.version),
            );
        commit = require_caller(commit, &state, actor);
        commit.write.push(put_participant(&participant));
        if is_last_owner(&state, owners)? && actor.user().is_some() {
            return Err(hand_over());
        }
        commit = count_owners(commit, &state.documents[1], owners)?;
        commit.append.push(Append {
            kind: EventKind::ParticipantUpdated as u8,
            reference: Bytes::copy_from_slice(user.as_str().as_bytes()),
            control: Control::None,
            body: Body::Written(0),
        });
        // Rights are taken away even where the store is full.
        if from.is_above(to) {
            commit = commit.frees();
        }
        if let Ok(outcome) = services.store.commit(&state.partition, commit).await? {
            return Ok(Versioned {
                value: participant,
                version: outcome.written[0].version,
            });
        }
    }
    Err(Error::busy())
}

/// A channel with the place of somebody in it and the count of owners, for somebody who may
/// read both.
async fn participant_state(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
) -> Result<(ChannelState, Place)> {
    let (state, place) = place_in_channel(services, actor, channel_id, user).await?;
    Ok((state, place.ok_or_else(|| Error::not_found("participant"))?))
}

/// The same, without a place if the user is not in the channel.
async fn place_in_channel(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
) -> Result<(ChannelState, Option<Place>)> {
    let keys = vec![(PARTICIPANTS, user.shared()), (OWNERS, Key::from(ONLY))];
    let state = channel_state::channel_state(services, actor, channel_id, keys).await?;
    state.permit(actor, Action::Read)?;
    let place = state.documents[0].as_ref().map(Place::of).transpose()?;
    Ok((state, place))
}

/// A participant that is not stored yet.
pub(super) fn new_participant(channel_id: &ChannelId, user: &UserId, role: Role) -> Participant {
    Participant {
        id: ParticipantId::from_bits(random::bits()),
        channel_id: channel_id.clone(),
        user_id: user.clone(),
        role,
        created_at: 0,
        read: None,
    }
}

/// Adds the writes and the event of a new participant, who has read everything so far.
pub(super) fn admit(mut commit: Commit, participant: &Participant, read: u64) -> Commit {
    let user = participant.user_id.shared();
    commit = commit.require(PARTICIPANTS, user.clone(), Expected::Absent);
    let write = commit.write.len();
    commit.write.push(put_participant(participant));
    commit.append.push(Append {
        kind: EventKind::ParticipantAdded as u8,
        reference: Bytes::copy_from_slice(user.as_bytes()),
        control: Control::None,
        body: Body::Written(write),
    });
    commit.put_value(READS, user, &read)
}

fn put_participant(participant: &Participant) -> Write {
    let bare = Participant {
        created_at: 0,
        read: None,
        ..participant.clone()
    };
    Write::Put {
        table: PARTICIPANTS,
        key: participant.user_id.shared(),
        value: encode(&bare),
        mark: Mark::None,
        event: None,
    }
}

/// Adds the count of owners where it changes; its version keeps two changes apart.
pub(super) fn count_owners(
    commit: Commit,
    document: &Option<Document>,
    change: i64,
) -> Result<Commit> {
    if change == 0 {
        return Ok(commit);
    }
    let owners: i64 = document.as_ref().map(decode).transpose()?.unwrap_or(0);
    let is = document
        .as_ref()
        .map_or(Expected::Absent, |d| Expected::Version(d.version));
    Ok(commit
        .require(OWNERS, ONLY, is)
        .put_value(OWNERS, ONLY, &(owners + change).max(0)))
}

/// Requires that the caller still has the role by which the operation was allowed.
fn require_caller(commit: Commit, state: &ChannelState, actor: &Actor) -> Commit {
    match (actor.user(), &state.own) {
        (Some(user), Some(place))
            if !commit
                .require
                .iter()
                .any(|r| r.table == PARTICIPANTS && r.key == user.shared()) =>
        {
            commit.require(
                PARTICIPANTS,
                user.shared(),
                Expected::Version(place.version),
            )
        }
        _ => commit,
    }
}

/// Whether a change takes the last owner away.
fn is_last_owner(state: &ChannelState, change: i64) -> Result<bool> {
    let owners: i64 = state.documents[1]
        .as_ref()
        .map(decode)
        .transpose()?
        .unwrap_or(0);
    Ok(change < 0 && owners <= 1)
}

fn hand_over() -> Error {
    Error::forbidden("the last owner hands the role over first")
}
