//! Reactions: counters of a message, so that concurrent ones do not conflict, and a document with
//! the reactions of each user.

mod operations;

use bytes::Bytes;
use protocol::{ChannelId, EventKind, MessageId, UserId, operation::reaction::Count};
use serde::{Deserialize, Serialize};
use store::{Append, Commit, Counter, EventBody, Expected, Increment, Write};

use crate::{
    Services,
    credential::Actor,
    document::{PutValue, decode, encode},
    emoji,
    error::{Error, Result},
    messages::{self, reaction_key},
    permission::Action,
    retry::retry,
    schema::{ENTITY, MESSAGES, ONLY, REACTIONS, TOMBSTONE},
};

/// A reaction as the log keeps it, without the current count.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Reacted {
    /// The message.
    pub message_id: MessageId,
    /// Number of the message.
    pub number: u64,
    /// The reaction.
    pub emoji: String,
    /// The user who gave it.
    pub user_id: UserId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
}

/// Adds a reaction. Does nothing if the user has given it.
///
/// # Errors
/// `not_found` if the message does not exist, was deleted, or is hidden from the caller, or the
/// user does not exist; `forbidden` if the caller may not react; `bad_request` if the reaction is
/// not valid; `limit_reached` if the message has too many different reactions.
pub async fn add_reaction(
    services: &Services,
    actor: &Actor,
    channel: &ChannelId,
    message: &MessageId,
    emoji: &str,
    user: Option<UserId>,
) -> Result<Count> {
    react(services, actor, channel, message, emoji, user, Change::Add).await
}

/// Removes a reaction. Does nothing if the user has not given it.
pub async fn remove_reaction(
    services: &Services,
    actor: &Actor,
    channel: &ChannelId,
    message: &MessageId,
    emoji: &str,
    user: Option<UserId>,
) -> Result<Count> {
    react(
        services,
        actor,
        channel,
        message,
        emoji,
        user,
        Change::Remove,
    )
    .await
}

async fn react(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    message_id: &MessageId,
    emoji: &str,
    in_name_of: Option<UserId>,
    change: Change,
) -> Result<Count> {
    let emoji = emoji::identity(emoji)?;
    let user = reacting_user(services, actor, in_name_of, change).await?;
    retry(|| async {
        let (state, message) =
            messages::message_state(services, actor, channel_id, message_id).await?;
        state.permit(actor, Action::React)?;
        if message.stamps.deleted_at != 0 {
            return Err(Error::not_found("message"));
        }
        let key = reaction_key(message.stamps.number, &user);
        let own = services
            .document(state.partition.clone(), REACTIONS, key.clone())
            .await?;
        let mut given: Vec<String> = own.as_ref().map(decode).transpose()?.unwrap_or_default();
        let has = given.contains(&emoji);
        if has == (change == Change::Add) {
            services.confirm(&state.partition).await?;
            let count = message
                .counts
                .iter()
                .find(|(name, _)| *name == emoji)
                .map_or(0, |(_, n)| *n);
            return Ok(Some(Count { count }));
        }
        let commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Present)
            // Only edits and deletions change its version: reactions of others do not conflict.
            .require(
                MESSAGES,
                message.key.clone(),
                Expected::Version(message.version),
            )
            .require(REACTIONS, key.clone(), Expected::unchanged(own.as_ref()));
        let mut commit = state.require_caller(commit);
        let (kind, by) = match change {
            Change::Add => {
                given.push(emoji.clone());
                (EventKind::ReactionAdded, 1)
            }
            Change::Remove => {
                given.retain(|other| *other != emoji);
                commit = commit.frees();
                (EventKind::ReactionRemoved, -1)
            }
        };
        commit = if given.is_empty() {
            commit.delete(REACTIONS, key)
        } else {
            commit.put_value(REACTIONS, key, &given)
        };
        commit.write.push(Write::Touch {
            table: MESSAGES,
            key: message.key.clone(),
            event: commit.next_event(),
        });
        let most = services.limits.reactions;
        let counter = commit.add_increment(Increment {
            counter: Counter::Document {
                table: MESSAGES,
                key: message.key.clone(),
                name: emoji.as_str().into(),
            },
            by,
            max: None,
            max_names: (change == Change::Add && most != 0).then_some(most),
        });
        let reacted = Reacted {
            message_id: message_id.clone(),
            number: message.stamps.number,
            emoji: emoji.clone(),
            user_id: user.clone(),
        };
        let told: Bytes = encode(&reacted);
        commit.append.push(Append {
            kind: kind as u8,
            reference: told.clone(),
            control: store::Control::None,
            body: EventBody::Bytes(told, Some(counter)),
        });
        match services.commit(&state.partition, commit).await? {
            Ok(outcome) => {
                return Ok(Some(Count {
                    count: outcome.count(counter),
                }));
            }
            Err(conflict) if conflict.is_limit() => {
                return Err(Error::limit_reached("reactions", most));
            }
            Err(_) => {}
        }
        Ok(None)
    })
    .await
}

/// Returns the user whose reaction it is. A deleted user's reaction can be removed.
async fn reacting_user(
    services: &Services,
    actor: &Actor,
    in_name_of: Option<UserId>,
    change: Change,
) -> Result<UserId> {
    let otherwise = "only an app key may react in the name of somebody else";
    let user = actor
        .acts_for(in_name_of.as_ref(), "sender_id", otherwise)?
        .clone();
    if actor.user().is_some() {
        return Ok(user);
    }
    let keys = [(ENTITY, ONLY.into()), (TOMBSTONE, ONLY.into())];
    let [entity, tombstone] = services.documents(actor.scope.user(&user), keys).await?;
    if entity.is_some() || tombstone.is_some() && change == Change::Remove {
        Ok(user)
    } else {
        Err(Error::not_found("user: `sender_id`"))
    }
}
