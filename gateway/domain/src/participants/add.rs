//! Adds participants to a channel.

use protocol::{
    ChannelId, UserId,
    entity::{Participant, Role},
    operation::{
        batch::Item,
        participant::{AddParticipant, ParticipantBatch, ParticipantBatchItem},
    },
};
use store::{Commit, DocumentKey, Expected};

use super::{admit, count_owners, counted, new_participant, remove};
use crate::{
    Services,
    channel_state::{self, Place},
    credential::Actor,
    document::Versioned,
    error::{Error, Result},
    index::{
        self,
        line::{Additions, Coming},
    },
    memberships,
    permission::Action,
    retry::retry_in_turns,
    schema::{ENTITY, ONLY, OWNERS, PARTICIPANTS},
    strict, together,
};

/// Maximum number of items of a batch.
pub const BATCH: usize = protocol::bounds::BATCH_ITEMS;

/// Whether a request added or found a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The request added it.
    Now,
    /// It existed before and did not change.
    Before,
}

/// Adds a user to a channel.
///
/// # Errors
/// `not_found` if the channel does not exist or is hidden from the caller, or the user does not
/// exist; `forbidden` if the caller may not add the user; `limit_reached` if the channel has too
/// many participants, or the user too many channels.
pub async fn add_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    body: AddParticipant,
) -> Result<(Versioned<Participant>, Added)> {
    let role = body.role.unwrap_or(Role::Member);
    // Adding oneself as a member is joining.
    let joins = actor.user() == Some(&body.user_id) && role == Role::Member;
    let operation = if joins {
        Action::Join
    } else {
        Action::Add(role)
    };
    add(services, actor, channel_id, &body.user_id, role, operation).await
}

/// Adds the caller to a channel as a member. Users only.
pub async fn join_channel(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
) -> Result<Participant> {
    let Some(user) = actor.user() else {
        return Err(Error::forbidden(
            "only a user joins; an app key adds participants",
        ));
    };
    let (participant, _) = add(
        services,
        actor,
        channel_id,
        user,
        Role::Member,
        Action::Join,
    )
    .await?;
    Ok(participant.value)
}

/// Adds up to 100 users to a channel, each independently. App keys only.
pub async fn add_participants(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    items: Vec<Item<AddParticipant>>,
) -> Result<ParticipantBatch> {
    actor.require_backend("batches are for app keys")?;
    if items.len() > BATCH {
        return Err(Error::bad_request(format!(
            "a batch has at most {BATCH} items"
        )));
    }
    channel_state::read(services, actor, channel_id).await?;
    let add_item = |item| async move {
        let adding = async {
            let body: AddParticipant = strict::read_item(&item)?;
            add_participant(services, actor, channel_id, body).await
        };
        match adding.await {
            Ok((participant, added)) => ParticipantBatchItem {
                status: if added == Added::Now { 201 } else { 200 },
                participant: Some(participant.value),
                error: None,
            },
            Err(error) => ParticipantBatchItem {
                status: error.code().status(),
                participant: None,
                error: Some(error.body),
            },
        }
    };
    let items = together::run(items.into_iter().map(add_item)).await;
    Ok(ParticipantBatch { items })
}

async fn add(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    role: Role,
    action: Action,
) -> Result<(Versioned<Participant>, Added)> {
    retry_in_turns(
        &services.members,
        &actor.scope.channel(channel_id),
        || async {
            let keys = [
                (PARTICIPANTS, user.shared()),
                (OWNERS, DocumentKey::from(ONLY)),
            ];
            let (state, [there, owner_count]) =
                channel_state::read_with(services, actor, channel_id, keys).await?;
            state.permit(actor, action)?;
            if let Some(document) = &there {
                let place = Place::of(document)?;
                // An earlier attempt may have stopped after the channel.
                index::settle_channel(services, &actor.scope, user, channel_id).await?;
                services.confirm(&state.partition).await?;
                return Ok(Some((
                    Versioned {
                        value: place.participant,
                        version: place.version,
                    },
                    Added::Before,
                )));
            }
            let line = match index::index_channel(
                services,
                &actor.scope,
                user,
                channel_id,
                Additions::of(actor, user),
            )
            .await?
            {
                Coming::Ready(line) => line,
                Coming::IsIn => return Ok(None),
                Coming::IsNobody => return Err(Error::not_found("user")),
            };
            let participant = new_participant(channel_id, user, role);
            let commit = Commit::default().require(ENTITY, ONLY, Expected::Present);
            let commit = state.require_caller(commit);
            let (commit, entity) = admit(commit, &participant, state.head.number);
            let new_owners = i64::from(role == Role::Owner);
            let mut commit = count_owners(commit, owner_count.as_ref(), new_owners)?;
            commit.increment.push(counted(services, 1));
            let change = memberships::change_membership(services, &actor.scope, user, channel_id);
            match services.commit(&state.partition, commit).await? {
                Ok(outcome) => {
                    let is_there = index::confirm_channel(
                        services,
                        &actor.scope,
                        user,
                        channel_id,
                        Some(line),
                    )
                    .await?;
                    if !is_there {
                        remove::remove_deleted_user(services, &actor.scope, channel_id, user)
                            .await?;
                    }
                    change.complete();
                    if !is_there {
                        return Err(Error::not_found("user"));
                    }
                    let value = Participant {
                        created_at: outcome.stamps(entity).created_at,
                        ..participant
                    };
                    Ok(Some((
                        Versioned {
                            value,
                            version: outcome.version(entity),
                        },
                        Added::Now,
                    )))
                }
                Err(conflict) if conflict.is_limit() => {
                    change.complete();
                    index::abandon_line(services, &actor.scope, user, channel_id, line).await?;
                    Err(Error::limit_reached(
                        "participants",
                        services.limits.participants,
                    ))
                }
                Err(_) => {
                    change.complete();
                    Ok(None)
                }
            }
        },
    )
    .await
}
