//! Participants: who is in a channel, and as what.
//!
//! Left out: the users' own indexes of channels, and what their sessions are told of them
//! ([`index`]).

mod operations;

use bytes::Bytes;
use protocol::{
    ChannelId, ErrorCode, EventKind, ParticipantId, UserId,
    entity::{Participant, Role},
    operation::{
        batch::Item,
        page::{List, ListPage},
        participant::{AddParticipant, ParticipantBatch, ParticipantBatchItem, UpdateParticipant},
    },
};
use store::{
    Append, Body, Commit, Control, Counter, Document, Expected, Increment, Key, Mark, Range, Write,
};

use crate::{
    ATTEMPTS, Services,
    channel_state::{self, ChannelState, Place},
    credential::{Actor, Who},
    cursor::{self, ListQuery},
    document::{IfMatch, PutValue, Versioned, check_version, decode, encode},
    error::{Error, Result},
    index::{self, Additions, Coming},
    listing, memberships,
    permission::Action,
    random,
    schema::{ENTITY, ONLY, OWNERS, PARTICIPANT_COUNT, PARTICIPANTS, READS, Scope},
    strict, together,
};

/// The most items of a batch.
pub const BATCH: usize = protocol::bounds::BATCH_ITEMS;

/// Whether a request added or found a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    Now,
    /// It was there, and stays as it was.
    Before,
}

/// Brings a user into a channel.
pub async fn add_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    body: AddParticipant,
) -> Result<(Versioned<Participant>, Added)> {
    let role = body.role.unwrap_or(Role::Member);
    // Who adds itself as a member joins.
    let joins = actor.user() == Some(&body.user_id) && role == Role::Member;
    let operation = if joins {
        Action::Join
    } else {
        Action::Add(role)
    };
    bring_in(services, actor, channel_id, &body.user_id, role, operation).await
}

/// Lets the caller come in.
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
    let (participant, _) = bring_in(
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

/// Brings up to 100 users into a channel, each on its own.
pub async fn add_participants(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    items: Vec<Item<AddParticipant>>,
) -> Result<ParticipantBatch> {
    if actor.user().is_some() {
        return Err(Error::forbidden("batches are for app keys"));
    }
    if items.len() > BATCH {
        return Err(Error::bad_request(format!(
            "a batch has at most {BATCH} items"
        )));
    }
    channel_state::channel_state(services, actor, channel_id, Vec::new()).await?;
    let add = |item| async move {
        let add =
            async { add_participant(services, actor, channel_id, strict::read_item(&item)?).await };
        match add.await {
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
    let items = together::together(items.into_iter().map(add)).await;
    Ok(ParticipantBatch { items })
}

async fn bring_in(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
    role: Role,
    action: Action,
) -> Result<(Versioned<Participant>, Added)> {
    for _ in 0..ATTEMPTS {
        let keys = vec![(PARTICIPANTS, user.shared()), (OWNERS, Key::from(ONLY))];
        let state = channel_state::channel_state(services, actor, channel_id, keys).await?;
        state.permit(actor, action)?;
        if let Some(document) = &state.documents[0] {
            let place = Place::of(document)?;
            // An earlier try may have come no further than the channel.
            index::settle_channel(services, &actor.scope, user, channel_id).await?;
            services.confirm(&state.partition).await?;
            return Ok((
                Versioned {
                    value: place.participant,
                    version: place.version,
                },
                Added::Before,
            ));
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
            Coming::IsIn => continue,
            Coming::IsNobody => return Err(Error::not_found("user")),
        };
        let participant = new_participant(channel_id, user, role);
        let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Present);
        commit = require_caller(commit, &state, actor);
        commit = admit(commit, &participant, state.head.number);
        commit = count_owners(commit, &state.documents[1], i64::from(role == Role::Owner))?;
        commit.increment.push(counted(services, 1));
        let change = memberships::change_membership(services, &actor.scope, user, channel_id);
        match services.store.commit(&state.partition, commit).await? {
            Ok(outcome) => {
                let is_there =
                    index::confirm_channel(services, &actor.scope, user, channel_id, Some(line))
                        .await?;
                if !is_there {
                    expel(services, &actor.scope, channel_id, user).await?;
                }
                change.complete();
                if !is_there {
                    return Err(Error::not_found("user"));
                }
                let written = outcome.written[0];
                let value = Participant {
                    created_at: written.stamps.created_at,
                    ..participant
                };
                return Ok((
                    Versioned {
                        value,
                        version: written.version,
                    },
                    Added::Now,
                ));
            }
            Err(conflict) if conflict.require.is_empty() => {
                change.complete();
                index::abandon_line(services, &actor.scope, user, channel_id, line).await?;
                return Err(Error::limit_reached(
                    "participants",
                    services.limits.participants,
                ));
            }
            Err(_) => change.complete(),
        }
    }
    Err(Error::busy())
}

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
pub(super) async fn expel(
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

/// Reads one participant.
pub async fn read_participant(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    user: &UserId,
) -> Result<Versioned<Participant>> {
    let (state, place) = participant_state(services, actor, channel_id, user).await?;
    let snapshot = services
        .snapshot(state.partition, vec![(READS, user.shared())])
        .await?;
    let read = snapshot.documents[0]
        .as_ref()
        .map(decode)
        .transpose()?
        .unwrap_or(0);
    Ok(Versioned {
        value: Participant {
            read: Some(read),
            ..place.participant
        },
        version: place.version,
    })
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

/// Lists a channel's participants with their read positions, by user id.
pub async fn list_participants(
    services: &Services,
    actor: &Actor,
    channel_id: &ChannelId,
    page: ListPage,
) -> Result<List<Participant>> {
    let state = channel_state::channel_state(services, actor, channel_id, Vec::new()).await?;
    state.permit(actor, Action::Read)?;
    let limit = listing::page_length(services, page.limit)?;
    let query = ListQuery::of_actor(actor, "participants").with(Some(channel_id.as_str()));
    let after: Option<String> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let range = Range::Keys {
        after: after.map(Key::from),
    };
    let (page, _) = services
        .store
        .page(&state.partition, PARTICIPANTS, range, limit)
        .await?;
    let keys = page
        .documents
        .iter()
        .map(|d| (READS, d.key.clone()))
        .collect();
    let reads = services.snapshot(state.partition, keys).await?.documents;
    let cursor = page
        .documents
        .last()
        .filter(|_| page.more)
        .map(|last| cursor::seal_cursor(services, &query, &*last.key));
    let items = page.documents.iter().zip(reads).map(|(document, read)| {
        let place = Place::of(document)?;
        let read = read.as_ref().map(decode).transpose()?.unwrap_or(0);
        Ok(Participant {
            read: Some(read),
            ..place.participant
        })
    });
    Ok(List {
        items: items.collect::<Result<_>>()?,
        cursor,
    })
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

/// What a channel must be left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Remaining {
    /// An owner, while anybody is there.
    AnOwner,
    /// Whatever there is: the user is being deleted.
    Anybody,
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
