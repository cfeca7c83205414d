//! Removes participants from a channel.

use bytes::Bytes;
use protocol::{
    ChannelId, ErrorCode, EventKind, UserId,
    entity::{Participant, Role},
};
use store::{Append, Commit, Control, Document, EventBody};

use super::{
    MembershipState, count_owners, counted, hand_over, is_last_owner, read_membership,
    require_target,
};
use crate::{
    Services,
    channel_state::{ChannelState, Place},
    credential::{Actor, Who},
    document::{IfMatch, check_version, encode},
    error::{Error, Result},
    index, memberships,
    permission::Action,
    retry::{retry, retry_in_turns},
    schema::{PARTICIPANTS, READS, Scope},
};

/// The participants that must remain in a channel after a removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remaining {
    /// An owner, unless the channel becomes empty.
    AnOwner,
    /// No requirement: the user is being deleted.
    Anybody,
}

/// Removes the caller from a channel. Users only.
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
    remove(services, actor, channel_id, &user, None).await
}

/// Removes a participant. A user who removes itself leaves.
///
/// # Errors
/// `not_found` if the channel does not exist or is hidden from the caller, or the user is not in
/// it; `forbidden` if the caller may not remove the user, or is the last owner;
/// `precondition_failed` if `if_match` does not hold.
pub async fn remove_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    if_match: IfMatch,
) -> Result<()> {
    remove(services, actor, channel_id, user, if_match).await
}

async fn remove(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    if_match: IfMatch,
) -> Result<()> {
    retry_in_turns(
        &services.members,
        &actor.scope.channel(channel_id),
        || async {
            let leaves = actor.user() == Some(user);
            let found = match read_membership(services, actor, channel_id, user).await {
                Ok(found) => found,
                Err(error)
                    if error.code() == ErrorCode::NotFound
                        && (leaves || actor.user().is_none()) =>
                {
                    index::unindex_channel(services, &actor.scope, user, channel_id).await?;
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            let MembershipState {
                state,
                place,
                owner_count,
            } = found;
            let Some(target) = place else {
                // An earlier attempt may have stopped after the channel. A caller who may remove
                // participants completes it.
                if leaves || state.permit(actor, Action::Remove(Role::Member)).is_ok() {
                    index::unindex_channel(services, &actor.scope, user, channel_id).await?;
                }
                return Err(Error::not_found("participant"));
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
            let removal = Removal {
                state: &state,
                target: &target,
                owner_count: owner_count.as_ref(),
                remaining: Remaining::AnOwner,
            };
            // After an error it is unknown whether the commit was made: the change stays incomplete.
            let is_removed = removal.commit(services, actor).await?;
            if is_removed {
                index::unindex_channel(services, &actor.scope, user, channel_id).await?;
            }
            change.complete();
            Ok(is_removed.then_some(()))
        },
    )
    .await
}

/// A removal of a participant, with the documents that were read for it.
struct Removal<'a> {
    state: &'a ChannelState,
    target: &'a Place,
    owner_count: Option<&'a Document>,
    remaining: Remaining,
}

impl Removal<'_> {
    /// Makes the commit. Returns false on a conflict.
    async fn commit(&self, services: &Services, actor: &Actor) -> Result<bool> {
        let Self { state, target, .. } = self;
        let owners = -i64::from(target.participant.role == Role::Owner);
        let mut commit = require_target(state, actor, target);
        commit = count_owners(commit, self.owner_count, owners)?;
        commit = leave_with(commit, &target.participant);
        let mut counted = counted(services, -1);
        if is_last_owner(self.owner_count, owners)?
            && actor.user().is_some()
            && self.remaining == Remaining::AnOwner
        {
            if state.channel.participant_count > 1 {
                return Err(hand_over());
            }
            // Conflicts if somebody joins meanwhile.
            counted.max = Some(0);
        }
        commit.increment.push(counted);
        Ok(services.commit(&state.partition, commit).await?.is_ok())
    }
}

/// Removes a user who is being deleted from a channel, regardless of the channel's rules.
pub(crate) async fn remove_deleted_user(
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
    retry(|| async {
        let found = match read_membership(services, &actor, channel_id, user).await {
            Ok(found) => found,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(Some(())),
            Err(error) => return Err(error),
        };
        let Some(target) = &found.place else {
            return Ok(Some(()));
        };
        let removal = Removal {
            state: &found.state,
            target,
            owner_count: found.owner_count.as_ref(),
            remaining: Remaining::Anybody,
        };
        Ok(removal.commit(services, &actor).await?.then_some(()))
    })
    .await?;
    index::unindex_channel(services, scope, user, channel_id).await
}

/// Adds the writes and the event of a removed participant. The log keeps its last state.
fn leave_with(mut commit: Commit, participant: &Participant) -> Commit {
    let user = participant.user_id.shared();
    let told = encode(participant);
    commit.append.push(Append {
        kind: EventKind::ParticipantRemoved as u8,
        reference: told.clone(),
        control: Control::Evict(Bytes::copy_from_slice(user.as_bytes())),
        body: EventBody::Bytes(told, None),
    });
    commit
        .delete(PARTICIPANTS, user.clone())
        .delete(READS, user)
        .frees()
}
