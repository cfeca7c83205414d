//! Channels: making, changing, listing, deleting.

mod operations;

use std::time::Duration;

use bytes::Bytes;
use protocol::{
    ChannelId, EventKind, Metadata, Patch, UserId,
    entity::{Channel, ChannelType, Role},
    operation::{
        channel::{CreateChannel, ReplaceChannel, UpdateChannel},
        page::{List, ListPage},
    },
};
use serde::{Deserialize, Serialize};
use store::{Append, Body, Commit, Control, Expected, Key, Range, Read};
use tokio::time::Instant;

use crate::{
    ATTEMPTS, Services,
    channel_state::{self, ChannelState, channel_of},
    check,
    clearing::{self, nobody_left},
    credential::{Actor, Who},
    cursor::{self, ListQuery},
    document::{IfMatch, PutValue, Versioned, check_version, decode, encode, parse_key},
    error::{Error, Result},
    index::{self, Additions, Coming, Line},
    jobs::{self, Step, Task},
    listing::{self, Candidates, Filling},
    memberships::{self, Change},
    participants::{self, admit, count_owners, new_participant},
    permission::Action,
    random,
    schema::{CHANNELS, ENTITY, MADE_BY, ONLY, PARTICIPANTS, PUBLIC_CHANNELS, Scope, TOMBSTONE},
    settling, together, users,
};

/// The most participants that a channel is made with, besides its creator.
const MAX_AT_START: usize = protocol::bounds::INITIAL_PARTICIPANTS;
/// How long a request that makes a channel anew clears what is left of its namesake.
const CLEARED_FIRST: Duration = Duration::from_secs(2);

/// Whether a request made or found a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made {
    /// It is new.
    Now,
    /// It was there.
    Before,
}

/// What a channel that exists already is to a request that makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// What was asked for.
    Is,
    /// The work of an earlier try of the same request: nobody else has this id.
    WasMadeByThis,
    /// Another one, unless the request with these bits made it.
    IsInTheWay(u64),
}

/// Which channels to list.
#[derive(Debug, Clone, Default)]
pub struct ChannelFilter {
    /// Only of this type.
    pub kind: Option<ChannelType>,
    /// Only those that this user is in.
    pub participant: Option<UserId>,
    /// Only these.
    pub ids: Option<Vec<ChannelId>>,
}

/// A line in the app's index of channels.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Indexed {
    #[serde(rename = "type")]
    kind: ChannelType,
}

/// Makes a channel with its first participants. A direct channel that exists is found instead.
pub async fn create_channel(
    services: &Services,
    actor: &Actor,
    body: CreateChannel,
) -> Result<(Versioned<Channel>, Made)> {
    create_channel_as(services, actor, body, random::bits()).await
}

/// The same, with the bits of the id given: by an `Idempotency-Key`, say.
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
    if body.participant_ids.len() > MAX_AT_START {
        return Err(Error::bad_request(format!(
            "a channel is made with at most {MAX_AT_START} participants; add the others later"
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
    make_channel(services, actor, channel, members, found).await
}

/// Returns the channel that a request with these bits made, as it is now, to a caller who may
/// read it.
pub async fn channel_made_by(
    services: &Services,
    actor: &Actor,
    body: &CreateChannel,
    bits: u64,
) -> Result<Versioned<Channel>> {
    let id = new_channel_id(services, actor, body, &first_members(actor, body), bits)?;
    if body.id.is_some() {
        let snapshot = services
            .snapshot(actor.scope.channel(&id), vec![(MADE_BY, ONLY.into())])
            .await?;
        let made_by: Option<u64> = snapshot.documents[0].as_ref().map(decode).transpose()?;
        if made_by != Some(bits) {
            // It was deleted, and another request made one anew under its id.
            return Err(Error::not_found("channel"));
        }
    }
    read_channel(services, actor, &id).await
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

async fn make_channel(
    services: &Services,
    actor: &Actor,
    channel: Channel,
    members: Vec<(UserId, Role)>,
    found: Found,
) -> Result<(Versioned<Channel>, Made)> {
    let (scope, id) = (&actor.scope, channel.id.clone());
    let partition = scope.channel(&id);
    for _ in 0..ATTEMPTS {
        let mut keys = vec![
            (ENTITY, ONLY.into()),
            (TOMBSTONE, ONLY.into()),
            (MADE_BY, ONLY.into()),
        ];
        keys.extend(
            members
                .iter()
                .map(|(user, _)| (PARTICIPANTS, user.shared())),
        );
        let snapshot = services.snapshot(partition.clone(), keys).await?;
        if let Some((existing, version)) = channel_of(&snapshot)? {
            let made_by: Option<u64> = snapshot.documents[2].as_ref().map(decode).transpose()?;
            let is_in_the_way = matches!(found, Found::IsInTheWay(bits) if made_by != Some(bits));
            if is_in_the_way || existing.kind != channel.kind {
                settle_members(services, scope, &members, &id).await?;
                return Err(Error::conflict("a channel with this id exists"));
            }
            if channel.kind == ChannelType::Direct {
                let users: Vec<UserId> = members.iter().map(|(user, _)| user.clone()).collect();
                if users::missing_user(services, scope, &users).await? {
                    return Err(Error::not_found("user"));
                }
                // The id is a hash of the pair: another pair may have it.
                if snapshot.documents[3..].iter().any(Option::is_none) {
                    return Err(Error::conflict(
                        "the id of this direct channel belongs to another channel",
                    ));
                }
            }
            settle_members(services, scope, &members, &id).await?;
            services.confirm(&partition).await?;
            let made = match found {
                Found::Is => Made::Before,
                Found::WasMadeByThis | Found::IsInTheWay(_) => Made::Now,
            };
            return Ok((
                Versioned {
                    value: existing,
                    version,
                },
                made,
            ));
        }
        if snapshot.documents[1].is_some() {
            // Its namesake is still being cleared away. That is finished first, within reason.
            if clearing::clear_channel(services, scope, &id, Instant::now() + CLEARED_FIRST).await?
                == Step::Done
            {
                continue;
            }
            jobs::wake_jobs(services);
            let sentence =
                "a deleted channel of this id is still being cleared away; nothing was done";
            return Err(Error::new(protocol::ErrorCode::Unavailable, sentence).retry_after(1000));
        }
        // Looked at first, so that a wrong id among them leaves no line in the others' indexes.
        let users: Vec<UserId> = members.iter().map(|(user, _)| user.clone()).collect();
        if users::missing_user(services, scope, &users).await? {
            return Err(Error::not_found("user"));
        }
        let indexed = members.iter().map(|(user, _)| {
            index::index_channel(services, scope, user, &id, Additions::of(actor, user))
        });
        let indexed = together::together(indexed).await;
        let (mut lines, mut refused) = (Vec::with_capacity(members.len()), None);
        for ((user, _), coming) in members.iter().zip(indexed) {
            match coming {
                Ok(Coming::Ready(line)) => lines.push((user, line)),
                Ok(Coming::IsIn) => {}
                Ok(Coming::IsNobody) => refused = Some(Error::not_found("user")),
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused {
            // One of them cannot come: nothing is left with the others.
            together::all(
                lines
                    .iter()
                    .map(|(user, line)| index::abandon_line(services, scope, user, &id, *line)),
            )
            .await?;
            return Err(error);
        }
        let lines: Vec<Line> = lines.into_iter().map(|(_, line)| line).collect();
        if lines.len() < members.len() {
            // Somebody has made the channel meanwhile.
            continue;
        }
        list_channel(services, scope, &channel).await?;
        let mut commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Absent)
            .require(TOMBSTONE, ONLY, Expected::Absent);
        for (user, role) in &members {
            commit = admit(
                commit,
                &new_participant(&id, user, *role),
                snapshot.head.number,
            );
        }
        let at = commit.write.len();
        commit = commit.put_value(ENTITY, ONLY, &channel);
        if let Found::IsInTheWay(bits) = found {
            commit = commit.put_value(MADE_BY, ONLY, &bits);
        }
        let owners = members
            .iter()
            .filter(|(_, role)| *role == Role::Owner)
            .count();
        commit = count_owners(commit, &None, owners as i64)?;
        if !members.is_empty() {
            commit
                .increment
                .push(participants::counted(services, members.len() as i64));
        }
        let changes: Vec<Change> = members
            .iter()
            .map(|(user, _)| memberships::change_membership(services, scope, user, &id))
            .collect();
        let Ok(outcome) = services.store.commit(&partition, commit).await? else {
            changes.into_iter().for_each(Change::complete);
            continue;
        };
        let confirming = members.iter().zip(lines).map(|((user, _), line)| {
            index::confirm_channel(services, scope, user, &id, Some(line))
        });
        let confirmed = together::all(confirming).await?;
        for ((user, _), _) in members
            .iter()
            .zip(confirmed)
            .filter(|(_, is_there)| !is_there)
        {
            participants::expel(services, scope, &id, user).await?;
        }
        changes.into_iter().for_each(Change::complete);
        let value = Channel {
            created_at: outcome.written[at].stamps.created_at,
            participant_count: members.len() as u64,
            ..channel
        };
        return Ok((
            Versioned {
                value,
                version: outcome.written[at].version,
            },
            Made::Now,
        ));
    }
    Err(Error::busy())
}

/// Completes what an earlier try has left: it may have come no further than the channel.
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

/// Returns the id of the direct channel of two users: keyed, so that nobody can choose users
/// whose ids meet.
fn direct_id(services: &Services, scope: &Scope, members: &[(UserId, Role)]) -> Result<ChannelId> {
    let mut pair: Vec<&str> = members.iter().map(|(user, _)| user.as_str()).collect();
    if pair.len() != 2 {
        return Err(Error::bad_request(
            "a direct channel has two different users",
        ));
    }
    pair.sort_unstable();
    let environment = scope.environment.to_string();
    let parts = [
        "direct channel 1",
        scope.app.as_str(),
        &environment,
        pair[0],
        pair[1],
    ];
    let hash = services.secret.derive(&parts.map(str::as_bytes));
    let (bits, _) = hash.split_first_chunk().expect("a hash has 32 bytes");
    Ok(ChannelId::from_bits(u64::from_be_bytes(*bits)))
}

/// Writes a channel into the app's indexes. Before the channel: a line without a channel harms
/// nobody.
async fn list_channel(services: &Services, scope: &Scope, channel: &Channel) -> Result<()> {
    let line = Indexed { kind: channel.kind };
    let mut commit = Commit::default().put_value(CHANNELS, channel.id.shared(), &line);
    if matches!(channel.kind, ChannelType::Open | ChannelType::Broadcast) {
        commit = commit.put_value(PUBLIC_CHANNELS, channel.id.shared(), &line);
    }
    services
        .store
        .commit(&scope.index(), commit)
        .await?
        .map_err(|_| Error::busy())?;
    Ok(())
}

/// Reads a channel.
pub async fn read_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
) -> Result<Versioned<Channel>> {
    let state = channel_state::channel_state(services, actor, id, Vec::new()).await?;
    Ok(Versioned {
        value: state.channel,
        version: state.version,
    })
}

/// Changes some of a channel's fields.
pub async fn update_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    patch: UpdateChannel,
    if_match: IfMatch,
) -> Result<Versioned<Channel>> {
    change_channel(services, actor, id, if_match, |channel| {
        let patch = patch.clone();
        patch.name.apply(&mut channel.name);
        patch.description.apply(&mut channel.description);
        patch.icon.apply(&mut channel.icon);
        patch.banner.apply(&mut channel.banner);
        match patch.metadata {
            Patch::Set(metadata) => channel.metadata.merge(metadata.0),
            other => other.apply_or_default(&mut channel.metadata),
        }
        Ok(())
    })
    .await
}

/// Makes a channel under a chosen id, or replaces the fields of the one that is there. App keys
/// only.
pub async fn put_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    body: ReplaceChannel,
    if_match: IfMatch,
) -> Result<(Versioned<Channel>, Made)> {
    if actor.user().is_some() {
        // What may not be seen sounds like what does not exist; the rest is not for users.
        channel_state::channel_state(services, actor, id, Vec::new()).await?;
        return Err(Error::forbidden("only an app key replaces channels"));
    }
    for _ in 0..ATTEMPTS {
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
            Ok(channel) => return Ok((channel, Made::Before)),
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
            Err(error) if error.code() == protocol::ErrorCode::Conflict => {}
            other => return other,
        }
    }
    Err(Error::busy())
}

async fn change_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    if_match: IfMatch,
    change: impl Fn(&mut Channel) -> Result<()>,
) -> Result<Versioned<Channel>> {
    for _ in 0..ATTEMPTS {
        let state = channel_state::channel_state(services, actor, id, Vec::new()).await?;
        state.permit(actor, Action::Update)?;
        check_version(if_match, state.version)?;
        let mut channel = state.channel.clone();
        change(&mut channel)?;
        if channel == state.channel {
            services.confirm(&state.partition).await?;
            return Ok(Versioned {
                value: channel,
                version: state.version,
            });
        }
        check_fields(
            channel.name.as_ref(),
            channel.description.as_ref(),
            &channel.metadata,
        )?;
        check_pictures(
            channel.icon.as_ref(),
            channel.banner.as_ref(),
            Some(&state.channel),
        )?;
        let bare = Channel {
            created_at: 0,
            participant_count: 0,
            ..channel.clone()
        };
        let mut commit = guarded(&state).put_value(ENTITY, ONLY, &bare);
        commit
            .append
            .push(told(EventKind::ChannelUpdated, Control::None, &channel));
        if let Ok(outcome) = services.store.commit(&state.partition, commit).await? {
            return Ok(Versioned {
                value: channel,
                version: outcome.written[0].version,
            });
        }
    }
    Err(Error::busy())
}

/// Deletes a channel: participants receive `channel.deleted`, and nothing of it can be read
/// from then on. A job clears its content.
pub async fn delete_channel(
    services: &Services,
    actor: &Actor,
    id: &ChannelId,
    if_match: IfMatch,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let state = channel_state::channel_state(services, actor, id, Vec::new()).await?;
        state.permit(actor, Action::Delete)?;
        check_version(if_match, state.version)?;
        jobs::note_job(
            services,
            &Task::Channel {
                scope: actor.scope.clone(),
                id: id.clone(),
            },
        )
        .await?;
        let mut commit = guarded(&state)
            .delete(ENTITY, ONLY)
            .put_value(TOMBSTONE, ONLY, &state.channel.kind)
            .frees();
        commit.append.push(told(
            EventKind::ChannelDeleted,
            Control::Close,
            &state.channel,
        ));
        commit.increment.push(nobody_left());
        if services
            .store
            .commit(&state.partition, commit)
            .await?
            .is_ok()
        {
            jobs::wake_jobs(services);
            return Ok(());
        }
    }
    Err(Error::busy())
}

/// Lists channels by id: all of them for an app key; for a user its own, and those that every
/// user may find.
pub async fn list_channels(
    services: &Services,
    actor: &Actor,
    filter: ChannelFilter,
    page: ListPage,
) -> Result<List<Channel>> {
    let limit = listing::page_length(services, page.limit)?;
    let query = filter.query(actor);
    let after: Option<String> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let mut filling = Filling::new(limit, after.map(Key::from));
    while let Some((after, count)) = filling.next() {
        let candidates = candidates(services, actor, &filter, after, count).await?;
        let found = visible_channels(services, actor, &filter, &candidates.ids).await?;
        filling.take(candidates, found);
    }
    let (items, next) = filling.end();
    Ok(List {
        items,
        cursor: next.map(|id| cursor::seal_cursor(services, &query, &*id)),
    })
}

/// The next ids that may be in a list.
///
/// They come from what the caller may see anyway, never from the index of another user: how
/// many channels that user is in must not show in the number of pages or in the time that they
/// take.
async fn candidates(
    services: &Services,
    actor: &Actor,
    filter: &ChannelFilter,
    after: Option<Key>,
    count: usize,
) -> Result<Candidates> {
    if let Some(ids) = &filter.ids {
        let mut ids: Vec<Key> = ids
            .iter()
            .map(ChannelId::shared)
            .filter(|id| after.as_ref().is_none_or(|after| id > after))
            .collect();
        ids.sort();
        ids.dedup();
        let more = ids.len() > count;
        ids.truncate(count);
        return Ok(Candidates { ids, more });
    }
    let (index, scope) = (actor.scope.index(), &actor.scope);
    let sources = match (&filter.participant, &actor.who) {
        (Some(user), Who::App { .. }) => vec![(scope.user(user), CHANNELS)],
        (None, Who::App { .. }) => vec![(index, CHANNELS)],
        (Some(_), Who::User { id, .. }) => vec![(scope.user(id), CHANNELS)],
        (None, Who::User { id, .. }) => {
            vec![(scope.user(id), CHANNELS), (index, PUBLIC_CHANNELS)]
        }
    };
    let (mut ids, mut more, mut end) = (Vec::new(), false, None::<Key>);
    for (partition, table) in sources {
        let (page, _) = services
            .store
            .page(
                &partition,
                table,
                Range::Keys {
                    after: after.clone(),
                },
                count,
            )
            .await?;
        if page.more {
            // Beyond the end of a page that was cut, the other source is not complete either.
            let last = page.documents.last().map(|d| d.key.clone());
            end = match (end, last) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            more = true;
        }
        ids.extend(page.documents.into_iter().map(|d| d.key));
    }
    ids.retain(|id| end.as_ref().is_none_or(|end| id <= end));
    ids.sort();
    ids.dedup();
    Ok(Candidates { ids, more })
}

/// The channels with these ids, `None` for each that the caller may not see or that does not
/// fit the filter.
async fn visible_channels(
    services: &Services,
    actor: &Actor,
    filter: &ChannelFilter,
    ids: &[Key],
) -> Result<Vec<Option<Channel>>> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let caller = actor.user().map_or("", UserId::as_str);
    let asked = filter.participant.as_ref().map_or("", UserId::as_str);
    let read = |id: &ChannelId| Read {
        partition: actor.scope.channel(id),
        documents: vec![
            (ENTITY, ONLY.into()),
            (PARTICIPANTS, caller.into()),
            (PARTICIPANTS, asked.into()),
        ],
        newest: None,
    };
    let ids: Vec<ChannelId> = ids.iter().map(parse_key).collect::<Result<_>>()?;
    let snapshots = services.store.read(ids.iter().map(read).collect()).await?;
    let visible = snapshots.iter().map(|snapshot| {
        let Some((channel, _)) = channel_of(snapshot)? else {
            return Ok(None);
        };
        let is_public = matches!(channel.kind, ChannelType::Open | ChannelType::Broadcast);
        // Who is in a channel only its participants see.
        let shows = |asked: &UserId| actor.user() == Some(asked);
        let is_public = is_public && filter.participant.as_ref().is_none_or(shows);
        let is_visible = actor.user().is_none() || is_public || snapshot.documents[1].is_some();
        let is_asked = filter.participant.is_none() || snapshot.documents[2].is_some();
        let fits = is_visible && is_asked && filter.kind.is_none_or(|kind| kind == channel.kind);
        Ok(fits.then_some(channel))
    });
    visible.collect()
}

impl ChannelFilter {
    /// The list that this filter makes for a caller.
    fn query(&self, actor: &Actor) -> ListQuery {
        let ids = self.ids.as_ref().map(|ids| {
            ids.iter()
                .map(ChannelId::as_str)
                .collect::<Vec<_>>()
                .join(",")
        });
        ListQuery::of_actor(actor, "channels")
            .with(self.kind.map(ChannelType::as_str))
            .with(self.participant.as_ref().map(UserId::as_str))
            .with(ids.as_deref())
    }
}

fn guarded(state: &ChannelState) -> Commit {
    let commit = Commit::default().require(ENTITY, ONLY, Expected::Version(state.version));
    match &state.own {
        Some(place) => commit.require(
            PARTICIPANTS,
            place.participant.user_id.shared(),
            Expected::Version(place.version),
        ),
        None => commit,
    }
}

fn told(kind: EventKind, control: Control, channel: &Channel) -> Append {
    let body: Bytes = encode(channel);
    // The log refers to the channel itself. Of a deleted one it keeps what identifies it, and
    // nothing that somebody wrote.
    let reference = if kind == EventKind::ChannelDeleted {
        encode(&identity(channel))
    } else {
        Bytes::new()
    };
    Append {
        kind: kind as u8,
        reference,
        control,
        body: Body::Bytes(body, None),
    }
}

/// The same channel without its content.
fn identity(channel: &Channel) -> Channel {
    Channel {
        id: channel.id.clone(),
        kind: channel.kind,
        name: None,
        description: None,
        icon: None,
        banner: None,
        creator_id: None,
        metadata: Metadata::default(),
        created_at: 0,
        participant_count: 0,
    }
}

/// Returns the participants that a channel is made with.
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

fn check_fields(
    name: Option<&String>,
    description: Option<&String>,
    metadata: &Metadata,
) -> Result<()> {
    check::line("name", name, check::NAME)?;
    check::lines("description", description, check::TEXT)?;
    Ok(metadata.check()?)
}

/// Checks the URLs of a channel's pictures. `before` is what is stored.
fn check_pictures(
    icon: Option<&String>,
    banner: Option<&String>,
    before: Option<&Channel>,
) -> Result<()> {
    check::url("icon", icon, before.and_then(|before| before.icon.as_ref()))?;
    check::url(
        "banner",
        banner,
        before.and_then(|before| before.banner.as_ref()),
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::sync::Arc;

    use fanout::bus::{Local, conformance::Recorder};
    use protocol::{AppId, ErrorCode, Limits, entity::Environment};
    use store::{Keep, embedded::Embedded};

    use super::*;
    use crate::credential::SecretKey;

    fn pair(a: &str, b: &str) -> Vec<(UserId, Role)> {
        [a, b].map(|id| (id.parse().unwrap(), Role::Owner)).to_vec()
    }

    fn services(folder: &tempfile::TempDir, secret: u8) -> Services {
        let bus = Local::new(Recorder::new());
        let path = folder.path().join(secret.to_string());
        std::fs::create_dir(&path).unwrap();
        let store = Embedded::open(
            &path,
            Keep {
                events: 0,
                bytes: 0,
            },
            bus,
        )
        .unwrap();
        Services::new(
            Arc::new(store),
            Limits::default(),
            SecretKey::new([secret; 32]),
            "node",
        )
    }

    #[tokio::test]
    async fn direct_channel_ids_depend_on_the_secret_key_the_tenant_and_both_users() {
        let folder = tempfile::tempdir().unwrap();
        let (services, others) = (services(&folder, 7), services(&folder, 8));
        let scope = |app, environment| Scope {
            app: AppId::from_bits(app),
            environment,
        };
        let live = scope(1, Environment::Live);
        let id = direct_id(&services, &live, &pair("alice", "bob")).unwrap();
        assert_eq!(
            direct_id(&services, &live, &pair("bob", "alice")).unwrap(),
            id
        );
        assert_ne!(
            direct_id(&others, &live, &pair("alice", "bob")).unwrap(),
            id
        );
        assert_ne!(
            direct_id(&services, &live, &pair("alice", "carol")).unwrap(),
            id
        );
        assert_ne!(
            direct_id(
                &services,
                &scope(1, Environment::Test),
                &pair("alice", "bob")
            )
            .unwrap(),
            id
        );
        assert_ne!(
            direct_id(
                &services,
                &scope(2, Environment::Live),
                &pair("alice", "bob")
            )
            .unwrap(),
            id
        );
    }

    #[tokio::test]
    async fn a_direct_channel_of_another_pair_with_the_same_id_is_a_conflict() {
        let folder = tempfile::tempdir().unwrap();
        let services = services(&folder, 7);
        let scope = Scope {
            app: AppId::from_bits(1),
            environment: Environment::Live,
        };
        let app = Actor {
            scope: scope.clone(),
            who: Who::App {
                key: protocol::KeyId::from_bits(0),
            },
        };
        for name in ["alice", "bob", "carol"] {
            let user = Commit::default().put_value(
                ENTITY,
                ONLY,
                &serde_json::json!({ "id": name, "bot": false, "metadata": {} }),
            );
            services
                .store
                .commit(&scope.user(&name.parse().unwrap()), user)
                .await
                .unwrap()
                .unwrap();
        }
        let channel = |creator: &str| Channel {
            id: direct_id(&services, &scope, &pair("alice", "bob")).unwrap(),
            kind: ChannelType::Direct,
            name: None,
            description: None,
            icon: None,
            banner: None,
            creator_id: Some(creator.parse().unwrap()),
            metadata: Metadata::default(),
            created_at: 0,
            participant_count: 0,
        };
        // As if the hashes of both pairs were the same.
        make_channel(
            &services,
            &app,
            channel("carol"),
            pair("carol", "bob"),
            Found::Is,
        )
        .await
        .unwrap();
        let body = CreateChannel {
            kind: ChannelType::Direct,
            participant_ids: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
            ..empty()
        };
        let error = create_channel(&services, &app, body).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::Conflict);
    }

    fn empty() -> CreateChannel {
        serde_json::from_value(serde_json::json!({ "type": "group" })).unwrap()
    }
}
