//! Creates channels. Repeated and concurrent requests for the same channel find it.

#[cfg(test)]
mod tests;

use std::time::Duration;

use protocol::{
    ChannelId, UserId,
    entity::{Channel, ChannelType, Role},
    operation::channel::{CreateChannel, ReplaceChannel},
};
use store::{Commit, Expected, Snapshot};
use tokio::time::Instant;

use super::{change_channel, check_fields, check_pictures, list_channel, read_channel};
use crate::{
    Services,
    channel_state::{self, channel_of},
    clearing,
    credential::Actor,
    document::{IfMatch, PutValue, Versioned, check_version, decode},
    error::{Error, Result},
    index::{
        self,
        line::{Additions, Coming, Line},
    },
    jobs::{self, JobStep},
    memberships::{self, Change},
    participants::{self, admit, count_owners, new_participant},
    random,
    retry::retry,
    schema::{ENTITY, MADE_BY, ONLY, PARTICIPANTS, Scope, TOMBSTONE},
    settling, together, users,
};

/// Maximum number of participants in a request that creates a channel, besides its creator.
const MAX_INITIAL_PARTICIPANTS: usize = protocol::bounds::INITIAL_PARTICIPANTS;

/// Maximum time that a request clears the deleted channel of the same id before it creates a new
/// one.
const MAX_CLEARING_TIME: Duration = Duration::from_secs(2);

/// Whether a request created or found its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// The request created it.
    ByThisCall,
    /// It existed before.
    Earlier,
}

/// The relation of an existing channel to a request that creates one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is the requested channel.
    Is,
    /// An earlier attempt of the same request created it: no other request has this id.
    WasMadeByThis,
    /// Another channel, unless the request with these bits created it.
    IsInTheWay(u64),
}

/// Creates a channel with its first participants, or finds the direct channel that exists.
///
/// # Errors
/// `forbidden` if a user chooses the id, another creator or the type `broadcast`; `bad_request` or
/// `too_large` if the body is not valid; `limit_reached` for too many participants, or channels of
/// one of them; `not_found` if one of them does not exist; `conflict` if another channel has the
/// id; `unavailable` while a deleted channel of the id is being cleared.
pub async fn create_channel(
    services: &Services,
    actor: &Actor,
    body: CreateChannel,
) -> Result<(Versioned<Channel>, Made)> {
    create_channel_as(services, actor, body, random::bits()).await
}

/// Creates a channel with the id that `bits` make, unless the body or its users determine the id.
pub async fn create_channel_as(
    services: &Services,
    actor: &Actor,
    body: CreateChannel,
    bits: u64,
) -> Result<(Versioned<Channel>, Made)> {
    if actor.user().is_some() {
        if body.id.is_some() {
            return Err(Error::forbidden("only an app key chooses a channel's id"));
        }
        if body
            .creator_id
            .as_ref()
            .is_some_and(|creator| Some(creator) != actor.user())
        {
            return Err(Error::forbidden(
                "only an app key makes channels in the name of somebody else",
            ));
        }
        if body.kind == ChannelType::Broadcast {
            return Err(Error::forbidden(
                "broadcast channels are made by an app key",
            ));
        }
    }
    if body.participant_ids.len() > MAX_INITIAL_PARTICIPANTS {
        return Err(Error::bad_request(format!(
            "a channel is made with at most {MAX_INITIAL_PARTICIPANTS} participants; add the others later"
        )));
    }
    check_fields(
        body.name.as_ref(),
        body.description.as_ref(),
        &body.metadata,
    )?;
    check_pictures(body.icon.as_ref(), body.banner.as_ref(), None)?;
    let members = first_members(actor, &body);
    let is_chosen = body.id.is_some();
    let id = new_channel_id(services, actor, &body, &members, bits)?;
    let creator = actor.user().cloned().or(body.creator_id);
    let most = services.limits.participants;
    if most != 0 && members.len() as u64 > most {
        return Err(Error::limit_reached("participants", most));
    }
    let channel = Channel {
        id: id.clone(),
        kind: body.kind,
        name: body.name,
        description: body.description,
        icon: body.icon,
        banner: body.banner,
        creator_id: creator,
        metadata: body.metadata,
        created_at: 0,
        participant_count: 0,
    };
    let found = match (channel.kind, is_chosen) {
        (ChannelType::Direct, _) => Found::Is,
        (_, false) => Found::WasMadeByThis,
        (_, true) => Found::IsInTheWay(bits),
    };
    let new = NewChannel {
        scope: &actor.scope,
        channel,
        members,
        found,
    };
    make_channel(services, actor, new).await
}

/// Returns the current state of the channel that a request with these bits created.
pub async fn channel_made_by(
    services: &Services,
    actor: &Actor,
    body: &CreateChannel,
    bits: u64,
) -> Result<Versioned<Channel>> {
    let id = new_channel_id(services, actor, body, &first_members(actor, body), bits)?;
    if body.id.is_some() {
        let made_by = services
            .document(actor.scope.channel(&id), MADE_BY, ONLY)
            .await?;
        let made_by: Option<u64> = made_by.as_ref().map(decode).transpose()?;
        if made_by != Some(bits) {
            // It was deleted, and another request created a channel with its id.
            return Err(Error::not_found("channel"));
        }
    }
    read_channel(services, actor, &id).await
}

/// Creates a channel with a chosen id, or replaces the fields of the existing one. App keys only.
pub async fn put_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    body: ReplaceChannel,
    if_match: IfMatch,
) -> Result<(Versioned<Channel>, Made)> {
    if actor.user().is_some() {
        // A channel that the user may not see gets the same answer as one that does not exist.
        channel_state::read(services, actor, id).await?;
        return Err(Error::forbidden("only an app key replaces channels"));
    }
    retry(|| async {
        let replaced = change_channel(services, actor, id, if_match, |channel| {
            if channel.kind != body.kind {
                return Err(Error::conflict("a channel's type cannot change"));
            }
            channel.name.clone_from(&body.name);
            channel.description.clone_from(&body.description);
            channel.icon.clone_from(&body.icon);
            channel.banner.clone_from(&body.banner);
            channel.metadata.clone_from(&body.metadata);
            Ok(())
        })
        .await;
        match replaced {
            Ok(channel) => return Ok(Some((channel, Made::Earlier))),
            Err(error) if error.code() != protocol::ErrorCode::NotFound => return Err(error),
            Err(_) => check_version(if_match, 0)?,
        }
        let body = body.clone();
        let create = CreateChannel {
            id: Some(id.clone()),
            kind: body.kind,
            name: body.name,
            description: body.description,
            icon: body.icon,
            banner: body.banner,
            creator_id: None,
            participant_ids: Vec::new(),
            metadata: body.metadata,
        };
        match create_channel(services, actor, create).await {
            Err(error) if error.code() == protocol::ErrorCode::Conflict => Ok(None),
            other => other.map(Some),
        }
    })
    .await
}

fn new_channel_id(
    services: &Services,
    actor: &Actor,
    body: &CreateChannel,
    members: &[(UserId, Role)],
    bits: u64,
) -> Result<ChannelId> {
    match (&body.id, body.kind) {
        (Some(_), ChannelType::Direct) => Err(Error::bad_request(
            "a direct channel's id follows from its two users",
        )),
        (None, ChannelType::Direct) => direct_id(services, &actor.scope, members),
        (Some(id), _) => Ok(id.clone()),
        (None, _) => Ok(ChannelId::from_bits(bits)),
    }
}

/// A channel that is being created, with its first participants.
struct NewChannel<'a> {
    scope: &'a Scope,
    channel: Channel,
    members: Vec<(UserId, Role)>,
    found: Found,
}

async fn make_channel(
    services: &Services,
    actor: &Actor,
    new: NewChannel<'_>,
) -> Result<(Versioned<Channel>, Made)> {
    let partition = new.scope.channel(&new.channel.id);
    retry(|| async {
        let mut keys = vec![
            (ENTITY, ONLY.into()),
            (TOMBSTONE, ONLY.into()),
            (MADE_BY, ONLY.into()),
        ];
        let members = new.members.iter().map(|(user, _)| user.shared());
        keys.extend(members.map(|user| (PARTICIPANTS, user)));
        let snapshot = services.snapshot(partition.clone(), keys).await?;
        if let Some((channel, version)) = channel_of(&snapshot)? {
            let existing = Versioned {
                value: channel,
                version,
            };
            return new.find(services, &snapshot, existing).await.map(Some);
        }
        let [_, tombstone, ..] = &snapshot.documents[..] else {
            return Err(Error::internal("a read answered too few documents"));
        };
        if tombstone.is_some() {
            new.clear_namesake(services).await?;
            return Ok(None);
        }
        // Checked first, so that a wrong id leaves no lines in the indexes of the others.
        new.check_members(services).await?;
        let Some(lines) = new.index_members(services, actor).await? else {
            return Ok(None);
        };
        list_channel(services, new.scope, &new.channel).await?;
        let created = new.commit(services, snapshot.head.number, lines).await?;
        Ok(created.map(|channel| (channel, Made::ByThisCall)))
    })
    .await
}

impl NewChannel<'_> {
    /// Answers with the channel that exists under the id, if it is the requested one.
    async fn find(
        &self,
        services: &Services,
        snapshot: &Snapshot,
        existing: Versioned<Channel>,
    ) -> Result<(Versioned<Channel>, Made)> {
        let (scope, id) = (self.scope, &self.channel.id);
        let [_, _, made_by, participants @ ..] = &snapshot.documents[..] else {
            return Err(Error::internal("a read answered too few documents"));
        };
        let made_by: Option<u64> = made_by.as_ref().map(decode).transpose()?;
        let is_in_the_way = matches!(self.found, Found::IsInTheWay(bits) if made_by != Some(bits));
        if is_in_the_way || existing.value.kind != self.channel.kind {
            settle_members(services, scope, &self.members, id).await?;
            return Err(Error::conflict("a channel with this id exists"));
        }
        if self.channel.kind == ChannelType::Direct {
            self.check_members(services).await?;
            // The id is a hash of the pair: another pair may have it.
            if participants.iter().any(Option::is_none) {
                return Err(Error::conflict(
                    "the id of this direct channel belongs to another channel",
                ));
            }
        }
        settle_members(services, scope, &self.members, id).await?;
        services.confirm(&scope.channel(id)).await?;
        let made = match self.found {
            Found::Is => Made::Earlier,
            Found::WasMadeByThis | Found::IsInTheWay(_) => Made::ByThisCall,
        };
        Ok((existing, made))
    }

    /// Finishes clearing the deleted channel of the same id, within [`MAX_CLEARING_TIME`].
    ///
    /// # Errors
    /// `unavailable` if that is not enough.
    async fn clear_namesake(&self, services: &Services) -> Result<()> {
        let until = Instant::now() + MAX_CLEARING_TIME;
        let cleared =
            clearing::clear_channel(services, self.scope, &self.channel.id, until).await?;
        if cleared == JobStep::Done {
            return Ok(());
        }
        jobs::wake_jobs(services);
        let sentence = "a deleted channel of this id is still being cleared away; nothing was done";
        Err(Error::new(protocol::ErrorCode::Unavailable, sentence).retry_after(1000))
    }

    /// Fails with `not_found` unless all first participants are users of the app.
    async fn check_members(&self, services: &Services) -> Result<()> {
        let users: Vec<UserId> = self.members.iter().map(|(user, _)| user.clone()).collect();
        if users::lists::is_any_missing(services, self.scope, &users).await? {
            return Err(Error::not_found("user"));
        }
        Ok(())
    }

    /// Writes the pending lines of the first participants. Returns `None` if one of them is in the
    /// channel: another request has created it meanwhile.
    async fn index_members(&self, services: &Services, actor: &Actor) -> Result<Option<Vec<Line>>> {
        let (scope, id) = (self.scope, &self.channel.id);
        let indexed = self.members.iter().map(|(user, _)| {
            index::index_channel(services, scope, user, id, Additions::of(actor, user))
        });
        let indexed = together::run(indexed).await;
        let (mut lines, mut refused) = (Vec::with_capacity(self.members.len()), None);
        for ((user, _), coming) in self.members.iter().zip(indexed) {
            match coming {
                Ok(Coming::Ready(line)) => lines.push((user, line)),
                Ok(Coming::IsIn) => {}
                Ok(Coming::IsNobody) => refused = Some(Error::not_found("user")),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            // One of them cannot be added: the others keep no line.
            let abandoning = lines
                .iter()
                .map(|(user, line)| index::abandon_line(services, scope, user, id, *line));
            together::all(abandoning).await?;
            return Err(error);
        }
        let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
        Ok((lines.len() == self.members.len()).then_some(lines))
    }

    /// Creates the channel and confirms the lines of its participants. Returns `None` on a
    /// conflict.
    async fn commit(
        &self,
        services: &Services,
        newest: u64,
        lines: Vec<Line>,
    ) -> Result<Option<Versioned<Channel>>> {
        let (scope, id) = (self.scope, &self.channel.id);
        let mut commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Absent)
            .require(TOMBSTONE, ONLY, Expected::Absent);
        for (user, role) in &self.members {
            (commit, _) = admit(commit, &new_participant(id, user, *role), newest);
        }
        let entity = commit.add_value(ENTITY, ONLY, &self.channel);
        if let Found::IsInTheWay(bits) = self.found {
            commit = commit.put_value(MADE_BY, ONLY, &bits);
        }
        let owners = self
            .members
            .iter()
            .filter(|(_, role)| *role == Role::Owner)
            .count();
        commit = count_owners(commit, None, owners as i64)?;
        if !self.members.is_empty() {
            commit
                .increment
                .push(participants::counted(services, self.members.len() as i64));
        }
        let changes: Vec<Change> = self
            .members
            .iter()
            .map(|(user, _)| memberships::change_membership(services, scope, user, id))
            .collect();
        let Ok(outcome) = services.commit(&scope.channel(id), commit).await? else {
            changes.into_iter().for_each(Change::complete);
            return Ok(None);
        };
        let confirming =
            self.members.iter().zip(lines).map(|((user, _), line)| {
                index::confirm_channel(services, scope, user, id, Some(line))
            });
        let confirmed = together::all(confirming).await?;
        for ((user, _), is_there) in self.members.iter().zip(confirmed) {
            if !is_there {
                participants::remove::remove_deleted_user(services, scope, id, user).await?;
            }
        }
        changes.into_iter().for_each(Change::complete);
        Ok(Some(Versioned {
            value: Channel {
                created_at: outcome.stamps(entity).created_at,
                participant_count: self.members.len() as u64,
                ..self.channel.clone()
            },
            version: outcome.version(entity),
        }))
    }
}

/// Completes the memberships that an earlier attempt left incomplete after it created the channel.
async fn settle_members(
    services: &Services,
    scope: &Scope,
    members: &[(UserId, Role)],
    id: &ChannelId,
) -> Result<()> {
    for (user, _) in members {
        settling::settle_membership(services, scope, user, id).await?;
    }
    Ok(())
}

/// Returns the id of the direct channel of two users. It is a keyed hash, so that nobody can choose
/// users whose ids collide.
fn direct_id(services: &Services, scope: &Scope, members: &[(UserId, Role)]) -> Result<ChannelId> {
    let [(a, _), (b, _)] = members else {
        return Err(Error::bad_request(
            "a direct channel has two different users",
        ));
    };
    let mut pair = [a.as_str(), b.as_str()];
    pair.sort_unstable();
    let [first, second] = pair;
    let environment = scope.environment.to_string();
    let parts = [
        "direct channel 1",
        scope.app.as_str(),
        &environment,
        first,
        second,
    ];
    let hash = services.secret.derive(&parts.map(str::as_bytes));
    let (bits, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    Ok(ChannelId::from_bits(u64::from_be_bytes(*bits)))
}

/// Returns the first participants of a channel.
fn first_members(actor: &Actor, body: &CreateChannel) -> Vec<(UserId, Role)> {
    let creator = actor.user().or(body.creator_id.as_ref());
    let mut members: Vec<(UserId, Role)> = Vec::new();
    for user in creator.into_iter().chain(&body.participant_ids) {
        if members.iter().all(|(other, _)| other != user) {
            let owns = body.kind == ChannelType::Direct || Some(user) == creator;
            members.push((user.clone(), if owns { Role::Owner } else { Role::Member }));
        }
    }
    members
}
