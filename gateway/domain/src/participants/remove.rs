//! Removes participants from a channel.

use bytes::Bytes;
use protocol::{
    ChannelId, ErrorCode, EventKind, UserId,
    entity::{Participant, Role},
};
use store::{Append, Body, Commit, Control, Expected};

use super::{
    count_owners, counted, hand_over, is_last_owner, participant_state, place_in_channel,
    require_caller,
};
use crate::{
    ATTEMPTS, Services,
    channel_state::{ChannelState, Place},
    credential::{Actor, Who},
    document::{IfMatch, check_version, encode},
    error::{Error, Result},
    index::{self},
    memberships,
    permission::Action,
    schema::{ENTITY, ONLY, PARTICIPANTS, READS, Scope},
};

/// The participants that must remain in a channel after a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remaining {
    /// An owner, while anybody is there.
    AnOwner,
    /// No requirement: the user is being deleted.
    Anybody,
}

/// Lets the caller go.
pub async fn leave_channel(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
) -> Result<()> {
    let Some(user) = actor.user().cloned() else {
        return Err(Error::forbidden(
            "only a user leaves; an app key removes participants",
        ));
    };
    take_out(services, actor, channel_id, &user, None).await
}

/// Removes a participant; with the own id, leaves.
pub async fn remove_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    if_match: IfMatch,
) -> Result<()> {
    take_out(services, actor, channel_id, user, if_match).await
}

async fn take_out(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    if_match: IfMatch,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let leaves = actor.user() == Some(user);
        let (state, target) = match place_in_channel(services, actor, channel_id, user).await {
            // An earlier try may have come no further than the channel: whoever may remove
            // anybody here completes it.
            Ok((state, None)) => {
                if leaves || state.permit(actor, Action::Remove(Role::Member)).is_ok() {
                    index::unindex_channel(services, &actor.scope, user, channel_id).await?;
                }
                return Err(Error::not_found("participant"));
            }
            Err(error)
                if error.code() == ErrorCode::NotFound && (leaves || actor.user().is_none()) =>
            {
                index::unindex_channel(services, &actor.scope, user, channel_id).await?;
                return Err(error);
            }
            Ok((state, Some(target))) => (state, target),
            Err(error) => return Err(error),
        };
        state.permit(
            actor,
            if leaves {
                Action::Leave
            } else {
                Action::Remove(target.participant.role)
            },
        )?;
        check_version(if_match, target.version)?;
        let change = memberships::change_membership(services, &actor.scope, user, channel_id);
        let is_removed = remove_place(services, actor, &state, &target, Remaining::AnOwner).await;
        // A refusal wrote nothing. Whether a commit that failed did is not known.
        match is_removed {
            Ok(true) => {
                index::unindex_channel(services, &actor.scope, user, channel_id).await?;
                change.complete();
                return Ok(());
            }
            Ok(false) => change.complete(),
            Err(error) => return Err(error),
        }
    }
    Err(Error::busy())
}

/// One try to take a participant out of a channel. False on a conflict.
async fn remove_place(
    services: &Services,
    actor: &Actor,
    state: &ChannelState,
    target: &Place,
    remaining: Remaining,
) -> Result<bool> {
    let user = &target.participant.user_id;
    let owners = -i64::from(target.participant.role == Role::Owner);
    let mut commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Present)
        .require(
            PARTICIPANTS,
            user.shared(),
            Expected::Version(target.version),
        );
    commit = require_caller(commit, state, actor);
    let is_last_owner = is_last_owner(state, owners)?;
    commit = count_owners(commit, &state.documents[1], owners)?;
    commit = leave_with(commit, &target.participant);
    let mut counted = counted(services, -1);
    if is_last_owner && actor.user().is_some() && remaining == Remaining::AnOwner {
        if state.channel.participant_count > 1 {
            return Err(hand_over());
        }
        // Nobody may come in meanwhile.
        counted.max = Some(0);
    }
    commit.increment.push(counted);
    Ok(services
        .store
        .commit(&state.partition, commit)
        .await?
        .is_ok())
}

/// Takes a user who is being deleted out of a channel, whatever the channel's rules say.
pub(crate) async fn expel(
    services: &Services,
    scope: &Scope,
    channel_id: &ChannelId,
    user: &UserId,
) -> Result<()> {
    let actor = Actor {
        scope: scope.clone(),
        who: Who::App {
            key: protocol::KeyId::from_bits(0),
        },
    };
    for _ in 0..ATTEMPTS {
        match participant_state(services, &actor, channel_id, user).await {
            Ok((state, target))
                if !remove_place(services, &actor, &state, &target, Remaining::Anybody).await? => {}
            Ok(_) => return index::unindex_channel(services, scope, user, channel_id).await,
            Err(error) if error.code() == ErrorCode::NotFound => {
                return index::unindex_channel(services, scope, user, channel_id).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(Error::busy())
}

/// Adds the writes and the event of a participant who goes. The log keeps it as it was last.
fn leave_with(mut commit: Commit, participant: &Participant) -> Commit {
    let user = participant.user_id.shared();
    let told = encode(participant);
    commit.append.push(Append {
        kind: EventKind::ParticipantRemoved as u8,
        reference: told.clone(),
        control: Control::Evict(Bytes::copy_from_slice(user.as_bytes())),
        body: Body::Bytes(told, None),
    });
    commit
        .delete(PARTICIPANTS, user.clone())
        .delete(READS, user)
        .frees()
}
