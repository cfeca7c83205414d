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
    Append, Commit, Control, Counter, Document, DocumentKey, EventBody, Expected, Increment,
    WriteSlot,
};

use crate::{
    Services,
    channel_state::{self, ChannelState, Place},
    credential::Actor,
    document::{IfMatch, PutValue, Versioned, check_version, decode},
    error::{Error, Result},
    permission::Action,
    random,
    retry::retry_in_turns,
    schema::{ENTITY, ONLY, OWNERS, PARTICIPANT_COUNT, PARTICIPANTS, READS},
};

/// Returns a change of the number of participants, bounded by its limit.
pub(super) fn counted(services: &Services, by: i64) -> Increment {
    let most = services.limits.participants;
    Increment {
        counter: Counter::Partition(PARTICIPANT_COUNT),
        by,
        max: (most != 0 && by > 0).then_some(most),
        max_names: None,
    }
}

/// Changes a participant's role.
///
/// # Errors
/// `not_found` if the channel does not exist or is hidden from the caller, or the user is not in
/// it; `forbidden` if the caller may not change the role, or is the last owner;
/// `precondition_failed` if `if_match` does not hold.
pub async fn update_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    body: UpdateParticipant,
    if_match: IfMatch,
) -> Result<Versioned<Participant>> {
    retry_in_turns(
        &services.members,
        &actor.scope.channel(channel_id),
        || async {
            let MembershipState {
                state,
                place,
                owner_count,
            } = read_membership(services, actor, channel_id, user).await?;
            let target = place.ok_or_else(|| Error::not_found("participant"))?;
            let from = target.participant.role;
            let to = body.role.unwrap_or(from);
            state.permit(actor, Action::ChangeRole { from, to })?;
            check_version(if_match, target.version)?;
            if from == to {
                services.confirm(&state.partition).await?;
                return Ok(Some(Versioned {
                    value: target.participant,
                    version: target.version,
                }));
            }
            let owners = i64::from(to == Role::Owner) - i64::from(from == Role::Owner);
            let mut commit = require_target(&state, actor, &target);
            let participant = Participant {
                role: to,
                ..target.participant
            };
            let entity = put_participant(&mut commit, &participant);
            if is_last_owner(owner_count.as_ref(), owners)? && actor.user().is_some() {
                return Err(hand_over());
            }
            commit = count_owners(commit, owner_count.as_ref(), owners)?;
            commit.append.push(Append {
                kind: EventKind::ParticipantUpdated as u8,
                reference: Bytes::copy_from_slice(user.as_str().as_bytes()),
                control: Control::None,
                body: EventBody::Written(entity),
            });
            // Rights can be revoked while the store is full.
            if from.is_above(to) {
                commit = commit.frees();
            }
            let committed = services.commit(&state.partition, commit).await?;
            Ok(committed.ok().map(|outcome| Versioned {
                value: participant,
                version: outcome.version(entity),
            }))
        },
    )
    .await
}

/// A channel and a user in it, read at one instant.
struct MembershipState {
    state: ChannelState,
    /// The user's place, if the user is in the channel.
    place: Option<Place>,
    /// The document that counts the channel's owners.
    owner_count: Option<Document>,
}

/// Reads a channel and a user's place in it.
///
/// # Errors
/// `not_found` or `forbidden` if the caller may not read the channel.
async fn read_membership(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
) -> Result<MembershipState> {
    let keys = [
        (PARTICIPANTS, user.shared()),
        (OWNERS, DocumentKey::from(ONLY)),
    ];
    let (state, [place, owner_count]) =
        channel_state::read_with(services, actor, channel_id, keys).await?;
    state.permit(actor, Action::Read)?;
    Ok(MembershipState {
        place: place.as_ref().map(Place::of).transpose()?,
        state,
        owner_count,
    })
}

/// Returns a participant that is not stored yet.
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

/// Adds the writes and the event of a new participant, who has read everything up to the message
/// number `read`.
pub(super) fn admit(
    mut commit: Commit,
    participant: &Participant,
    read: u64,
) -> (Commit, WriteSlot) {
    let user = participant.user_id.shared();
    commit = commit.require(PARTICIPANTS, user.clone(), Expected::Absent);
    let entity = put_participant(&mut commit, participant);
    commit.append.push(Append {
        kind: EventKind::ParticipantAdded as u8,
        reference: Bytes::copy_from_slice(user.as_bytes()),
        control: Control::None,
        body: EventBody::Written(entity),
    });
    (commit.put_value(READS, user, &read), entity)
}

fn put_participant(commit: &mut Commit, participant: &Participant) -> WriteSlot {
    let bare = Participant {
        created_at: 0,
        read: None,
        ..participant.clone()
    };
    commit.add_value(PARTICIPANTS, participant.user_id.shared(), &bare)
}

/// Adds a change of the number of owners to a commit. Requires that the number has not changed
/// since it was read.
pub(super) fn count_owners(
    commit: Commit,
    owner_count: Option<&Document>,
    change: i64,
) -> Result<Commit> {
    if change == 0 {
        return Ok(commit);
    }
    let owners = owners_of(owner_count)? + change;
    Ok(commit
        .require(OWNERS, ONLY, Expected::unchanged(owner_count))
        .put_value(OWNERS, ONLY, &owners.max(0)))
}

/// Begins a commit that changes a participant. Requires that the participant and the caller have
/// not changed since they were read.
fn require_target(state: &ChannelState, actor: &Actor, target: &Place) -> Commit {
    let user = &target.participant.user_id;
    let commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Present)
        .require(
            PARTICIPANTS,
            user.shared(),
            Expected::Version(target.version),
        );
    if actor.user() == Some(user) {
        return commit;
    }
    state.require_caller(commit)
}

/// Returns whether a change of the number of owners removes the last one.
fn is_last_owner(owner_count: Option<&Document>, change: i64) -> Result<bool> {
    Ok(change < 0 && owners_of(owner_count)? <= 1)
}

fn owners_of(owner_count: Option<&Document>) -> Result<i64> {
    Ok(owner_count.map(decode).transpose()?.unwrap_or(0))
}

fn hand_over() -> Error {
    Error::forbidden("the last owner hands the role over first")
}
