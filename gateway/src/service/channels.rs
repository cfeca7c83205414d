//! Channels: making, changing, listing, deleting.

use bytes::Bytes;
use fanout::record::Control;
use protocol::{
    ChannelId, EventKind, Metadata, Patch, UserId,
    model::{Channel, ChannelType, Role},
    params::{CreateChannel, ReplaceChannel, UpdateChannel},
    results::List,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    ATTEMPTS, Services,
    channel_state::{ChannelState, channel_of},
    check,
    document::{IfMatch, Versioned, check_version, encode},
    entries::parse_key,
    index::Coming,
    participants::{admit, count_owners, new_participant},
    permissions::Operation,
    random,
    scope::{
        CHANNELS, ENTITY, ONLY, PARTICIPANT_COUNT, PARTICIPANTS, PUBLIC_CHANNELS, Scope, TOMBSTONE,
    },
    together,
};
use crate::{
    auth::{Actor, Who},
    error::{Error, Result},
    store::{Append, Body, Commit, Counter, Expected, Increment, Key, Range, Read},
};

/// The most participants that a channel is made with, besides its creator.
const MAX_AT_START: usize = 100;
/// How many pages of an index one request looks through.
const PAGES: usize = 20;
/// How many documents are cleared at once.
const BITE: usize = 500;

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
    /// Another one.
    IsInTheWay,
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

impl Services {
    /// Makes a channel with its first participants. A direct channel that exists is found instead.
    pub async fn create_channel(
        &self,
        actor: &Actor,
        body: CreateChannel,
    ) -> Result<(Versioned<Channel>, Made)> {
        self.create_channel_as(actor, body, random::bits()).await
    }

    /// The same, with the bits of the id given: by an `Idempotency-Key`, say.
    pub async fn create_channel_as(
        &self,
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
            body.icon.as_ref(),
            body.banner.as_ref(),
            &body.metadata,
        )?;
        let creator = actor.user().cloned().or(body.creator_id);
        let mut members: Vec<(UserId, Role)> = Vec::new();
        let users = creator.iter().chain(&body.participant_ids);
        for user in users {
            if members.iter().all(|(other, _)| other != user) {
                let owns = body.kind == ChannelType::Direct || Some(user) == creator.as_ref();
                members.push((user.clone(), if owns { Role::Owner } else { Role::Member }));
            }
        }
        let is_chosen = body.id.is_some();
        let id = match (&body.id, body.kind) {
            (Some(_), ChannelType::Direct) => {
                return Err(Error::bad_request(
                    "a direct channel's id follows from its two users",
                ));
            }
            (None, ChannelType::Direct) => direct_id(&actor.scope, &members)?,
            (Some(id), _) => id.clone(),
            (None, _) => ChannelId::from_bits(bits),
        };
        let most = self.limits.participants;
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
            (_, true) => Found::IsInTheWay,
        };
        self.make_channel(actor, channel, members, found).await
    }

    async fn make_channel(
        &self,
        actor: &Actor,
        channel: Channel,
        members: Vec<(UserId, Role)>,
        found: Found,
    ) -> Result<(Versioned<Channel>, Made)> {
        let (scope, id) = (&actor.scope, channel.id.clone());
        let partition = scope.channel(&id);
        for _ in 0..ATTEMPTS {
            let snapshot = self
                .snapshot(
                    partition.clone(),
                    vec![(ENTITY, ONLY.into()), (TOMBSTONE, ONLY.into())],
                )
                .await?;
            if let Some((existing, version)) = channel_of(&snapshot)? {
                if found == Found::IsInTheWay || existing.kind != channel.kind {
                    return Err(Error::conflict("a channel with this id exists"));
                }
                // An earlier try may have come no further than the channel.
                for (user, _) in &members {
                    self.settle_channel(scope, user, &id).await?;
                }
                self.confirm(&partition).await?;
                let made = if found == Found::Is {
                    Made::Before
                } else {
                    Made::Now
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
                // Its namesake is still being cleared away: that is finished first.
                self.clear_channel(scope, &id).await?;
                continue;
            }
            // Looked at first, so that a wrong id among them leaves no line in the others' indexes.
            let users: Vec<UserId> = members.iter().map(|(user, _)| user.clone()).collect();
            if self.missing_user(scope, &users).await? {
                return Err(Error::not_found("user"));
            }
            let indexed = together::all(
                members
                    .iter()
                    .map(|(user, _)| self.index_channel(scope, user, &id)),
            )
            .await?;
            let mut lines = Vec::with_capacity(members.len());
            for coming in indexed {
                match coming {
                    Coming::Ready(line) => lines.push(line),
                    Coming::IsIn => {}
                    Coming::IsNobody => return Err(Error::not_found("user")),
                }
            }
            if lines.len() < members.len() {
                // Somebody has made the channel meanwhile.
                continue;
            }
            self.list_channel(scope, &channel).await?;
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
            commit = commit.put(ENTITY, ONLY, &channel);
            let owners = members
                .iter()
                .filter(|(_, role)| *role == Role::Owner)
                .count();
            commit = count_owners(commit, &None, owners as i64)?;
            if !members.is_empty() {
                commit.increment.push(self.counted(members.len() as i64));
            }
            let Ok(outcome) = self.store.commit(&partition, commit).await? else {
                continue;
            };
            let confirming = members
                .iter()
                .zip(lines)
                .map(|((user, _), line)| self.confirm_channel(scope, user, &id, Some(line)));
            let confirmed = together::all(confirming).await?;
            for ((user, _), _) in members
                .iter()
                .zip(confirmed)
                .filter(|(_, is_there)| !is_there)
            {
                self.expel(scope, &id, user).await?;
            }
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

    /// Writes a channel into the app's indexes. Before the channel: a line without a channel harms nobody.
    async fn list_channel(&self, scope: &Scope, channel: &Channel) -> Result<()> {
        let line = Indexed { kind: channel.kind };
        let mut commit = Commit::default().put(CHANNELS, channel.id.shared(), &line);
        if matches!(channel.kind, ChannelType::Open | ChannelType::Broadcast) {
            commit = commit.put(PUBLIC_CHANNELS, channel.id.shared(), &line);
        }
        self.store
            .commit(&scope.index(), commit)
            .await?
            .map_err(|_| Error::busy())?;
        Ok(())
    }

    /// Reads a channel.
    pub async fn channel(&self, actor: &Actor, id: &ChannelId) -> Result<Versioned<Channel>> {
        let state = self.channel_state(actor, id, Vec::new()).await?;
        Ok(Versioned {
            value: state.channel,
            version: state.version,
        })
    }

    /// Changes some of a channel's fields.
    pub async fn update_channel(
        &self,
        actor: &Actor,
        id: &ChannelId,
        patch: UpdateChannel,
        if_match: IfMatch,
    ) -> Result<Versioned<Channel>> {
        self.change_channel(actor, id, if_match, |channel| {
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

    /// Makes a channel under a chosen id, or replaces the fields of the one that is there. App keys only.
    pub async fn put_channel(
        &self,
        actor: &Actor,
        id: &ChannelId,
        body: ReplaceChannel,
        if_match: IfMatch,
    ) -> Result<(Versioned<Channel>, Made)> {
        if actor.user().is_some() {
            // What may not be seen sounds like what does not exist; the rest is not for users.
            self.channel_state(actor, id, Vec::new()).await?;
            return Err(Error::forbidden("only an app key replaces channels"));
        }
        for _ in 0..ATTEMPTS {
            let replaced = self
                .change_channel(actor, id, if_match, |channel| {
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
            match self.create_channel(actor, create).await {
                Err(error) if error.code() == protocol::ErrorCode::Conflict => {}
                other => return other,
            }
        }
        Err(Error::busy())
    }

    async fn change_channel(
        &self,
        actor: &Actor,
        id: &ChannelId,
        if_match: IfMatch,
        change: impl Fn(&mut Channel) -> Result<()>,
    ) -> Result<Versioned<Channel>> {
        for _ in 0..ATTEMPTS {
            let state = self.channel_state(actor, id, Vec::new()).await?;
            state.permit(actor, Operation::Update)?;
            check_version(if_match, state.version)?;
            let mut channel = state.channel.clone();
            change(&mut channel)?;
            check_fields(
                channel.name.as_ref(),
                channel.description.as_ref(),
                channel.icon.as_ref(),
                channel.banner.as_ref(),
                &channel.metadata,
            )?;
            let bare = Channel {
                created_at: 0,
                participant_count: 0,
                ..channel.clone()
            };
            let mut commit = guarded(&state).put(ENTITY, ONLY, &bare);
            commit
                .append
                .push(told(EventKind::ChannelUpdated, Control::None, &channel));
            if let Ok(outcome) = self.store.commit(&state.partition, commit).await? {
                return Ok(Versioned {
                    value: channel,
                    version: outcome.written[0].version,
                });
            }
        }
        Err(Error::busy())
    }

    /// Deletes a channel: its end is told and nothing of it can be read from then on; then what it held is cleared away.
    pub async fn delete_channel(
        &self,
        actor: &Actor,
        id: &ChannelId,
        if_match: IfMatch,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let state = self.channel_state(actor, id, Vec::new()).await?;
            state.permit(actor, Operation::Delete)?;
            check_version(if_match, state.version)?;
            // The job stands before the tombstone, so that a node's end in between leaves nothing half cleared.
            self.enqueue_clearing(&state.partition).await?;
            let mut commit =
                guarded(&state)
                    .delete(ENTITY, ONLY)
                    .put(TOMBSTONE, ONLY, &state.channel.kind);
            commit.append.push(told(
                EventKind::ChannelDeleted,
                Control::Close,
                &state.channel,
            ));
            // To zero, whatever it is by now.
            commit.increment.push(Increment {
                counter: Counter::Partition(PARTICIPANT_COUNT),
                by: -(protocol::MAX_INTEGER as i64),
                max: None,
                max_names: None,
            });
            if self.store.commit(&state.partition, commit).await?.is_ok() {
                return self.clear_channel(&actor.scope, id).await;
            }
        }
        Err(Error::busy())
    }

    /// Lists channels by id: all of them for an app key; for a user its own, and those that every user may find.
    pub async fn list_channels(
        &self,
        actor: &Actor,
        filter: ChannelFilter,
        cursor: Option<String>,
        limit: Option<u64>,
    ) -> Result<List<Channel>> {
        let limit = self.page_length(limit)?;
        let mut after: Option<ChannelId> = cursor
            .map(|c| c.parse())
            .transpose()
            .map_err(|_| Error::bad_request("`cursor` is not one that a list gave"))?;
        let mut items = Vec::new();
        for page in 1.. {
            let (ids, more) = self
                .candidates(actor, &filter, after.as_ref(), limit.max(BITE / 10))
                .await?;
            let last = ids.last().cloned();
            for channel in self.visible_channels(actor, &filter, &ids).await? {
                if items.len() == limit {
                    let cursor = items.last().map(|c: &Channel| c.id.to_string());
                    return Ok(List { items, cursor });
                }
                items.push(channel);
            }
            if !more {
                return Ok(List {
                    items,
                    cursor: None,
                });
            }
            if page == PAGES {
                // Few of many fit the filter: the caller goes on from here.
                return Ok(List {
                    items,
                    cursor: last.map(|id| id.to_string()),
                });
            }
            after = last;
        }
        Ok(List {
            items,
            cursor: None,
        })
    }

    /// The next ids that may be in a list, in their order, and whether there are more.
    async fn candidates(
        &self,
        actor: &Actor,
        filter: &ChannelFilter,
        after: Option<&ChannelId>,
        count: usize,
    ) -> Result<(Vec<ChannelId>, bool)> {
        if let Some(ids) = &filter.ids {
            let mut ids: Vec<ChannelId> = ids
                .iter()
                .filter(|id| after.is_none_or(|after| *id > after))
                .cloned()
                .collect();
            ids.sort();
            ids.dedup();
            return Ok((ids, false));
        }
        let (index, scope) = (actor.scope.index(), &actor.scope);
        let sources = match (&filter.participant, &actor.who) {
            (Some(user), _) => vec![(scope.user(user), CHANNELS)],
            (None, Who::App { .. }) => vec![(index, CHANNELS)],
            (None, Who::User { id, .. }) => {
                vec![(scope.user(id), CHANNELS), (index, PUBLIC_CHANNELS)]
            }
        };
        let (mut ids, mut more, mut end) = (Vec::new(), false, None::<Key>);
        for (partition, table) in sources {
            let range = Range::Keys {
                after: after.map(ChannelId::shared),
            };
            let (page, _) = self.store.page(&partition, table, range, count).await?;
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
        Ok((ids.iter().map(parse_key).collect::<Result<_>>()?, more))
    }

    async fn visible_channels(
        &self,
        actor: &Actor,
        filter: &ChannelFilter,
        ids: &[ChannelId],
    ) -> Result<Vec<Channel>> {
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
        let mut channels = Vec::new();
        for snapshot in self.store.read(ids.iter().map(read).collect()).await? {
            let Some((channel, _)) = channel_of(&snapshot)? else {
                continue;
            };
            let is_public = matches!(channel.kind, ChannelType::Open | ChannelType::Broadcast);
            // Who is in a channel only its participants see.
            let shows = |asked: &UserId| actor.user() == Some(asked);
            let is_public = is_public && filter.participant.as_ref().is_none_or(shows);
            let is_visible = actor.user().is_none() || is_public || snapshot.documents[1].is_some();
            let is_asked = filter.participant.is_none() || snapshot.documents[2].is_some();
            if is_visible && is_asked && filter.kind.is_none_or(|kind| kind == channel.kind) {
                channels.push(channel);
            }
        }
        Ok(channels)
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
    // The log refers to the channel itself; only of one that is gone it keeps what it was.
    let reference = if kind == EventKind::ChannelDeleted {
        body.clone()
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

fn check_fields(
    name: Option<&String>,
    description: Option<&String>,
    icon: Option<&String>,
    banner: Option<&String>,
    metadata: &Metadata,
) -> Result<()> {
    check::length("name", name, check::NAME)?;
    check::length("description", description, check::TEXT)?;
    check::length("icon", icon, check::TEXT)?;
    check::length("banner", banner, check::TEXT)?;
    Ok(metadata.check()?)
}

/// The one id of the direct channel of two users.
fn direct_id(scope: &Scope, members: &[(UserId, Role)]) -> Result<ChannelId> {
    let mut pair: Vec<&str> = members.iter().map(|(user, _)| user.as_str()).collect();
    if pair.len() != 2 {
        return Err(Error::bad_request(
            "a direct channel has two different users",
        ));
    }
    pair.sort_unstable();
    let hash = Sha256::digest(format!(
        "direct\0{}\0{}\0{}\0{}",
        scope.app, scope.environment, pair[0], pair[1]
    ));
    let bits = hash
        .iter()
        .take(8)
        .fold(0u64, |bits, byte| (bits << 8) | u64::from(*byte));
    Ok(ChannelId::from_bits(bits))
}
