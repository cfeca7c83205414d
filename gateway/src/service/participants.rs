//! Participants: who is in a channel, and as what.
//!
//! Left out: the users' own indexes of channels, and what their sessions are told of them ([`index`](super::index)).

use bytes::Bytes;
use fanout::record::Control;
use protocol::{
    ChannelId, ErrorCode, EventKind, ParticipantId, UserId,
    model::{Participant, Role},
    params::{AddParticipant, UpdateParticipant},
    results::{List, ParticipantBatch, ParticipantBatchItem},
};

use super::{
    ATTEMPTS, Services,
    channel_state::{ChannelState, Place},
    document::{IfMatch, Versioned, check_version, decode, encode},
    entries::parse_key,
    index::Coming,
    permissions::Operation,
    random,
    scope::{ENTITY, ONLY, OWNERS, PARTICIPANT_COUNT, PARTICIPANTS, READS, Scope},
    together,
};
use crate::{
    auth::{Actor, Who},
    error::{Error, Result},
    store::{
        Append, Body, Commit, Counter, Document, Expected, Increment, Key, Mark, Range, Write,
    },
};

/// The most items of a batch.
pub const BATCH: usize = 100;

/// Whether a request added or found a participant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    Now,
    /// It was there, and stays as it was.
    Before,
}

impl Services {
    /// Brings a user into a channel.
    pub async fn add_participant(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        body: AddParticipant,
    ) -> Result<(Versioned<Participant>, Added)> {
        let role = body.role.unwrap_or(Role::Member);
        // Who adds itself as a member joins.
        let joins = actor.user() == Some(&body.user_id) && role == Role::Member;
        let operation = if joins {
            Operation::Join
        } else {
            Operation::Add(role)
        };
        self.bring_in(actor, channel_id, &body.user_id, role, operation)
            .await
    }

    /// Lets the caller come in.
    pub async fn join_channel(&self, actor: &Actor, channel_id: &ChannelId) -> Result<Participant> {
        let Some(user) = actor.user() else {
            return Err(Error::forbidden(
                "only a user joins; an app key adds participants",
            ));
        };
        let (participant, _) = self
            .bring_in(actor, channel_id, user, Role::Member, Operation::Join)
            .await?;
        Ok(participant.value)
    }

    /// Brings up to 100 users into a channel, each on its own.
    pub async fn add_participants(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        items: Vec<AddParticipant>,
    ) -> Result<ParticipantBatch> {
        if actor.user().is_some() {
            return Err(Error::forbidden("batches are for app keys"));
        }
        if items.len() > BATCH {
            return Err(Error::bad_request(format!(
                "a batch has at most {BATCH} items"
            )));
        }
        self.channel_state(actor, channel_id, Vec::new()).await?;
        let add = |item| async move {
            match self.add_participant(actor, channel_id, item).await {
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
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        user: &UserId,
        role: Role,
        operation: Operation,
    ) -> Result<(Versioned<Participant>, Added)> {
        for _ in 0..ATTEMPTS {
            let keys = vec![(PARTICIPANTS, user.shared()), (OWNERS, Key::from(ONLY))];
            let state = self.channel_state(actor, channel_id, keys).await?;
            state.permit(actor, operation)?;
            if let Some(document) = &state.documents[0] {
                let place = Place::of(document)?;
                // An earlier try may have come no further than the channel.
                self.settle_channel(&actor.scope, user, channel_id).await?;
                self.confirm(&state.partition).await?;
                return Ok((
                    Versioned {
                        value: place.participant,
                        version: place.version,
                    },
                    Added::Before,
                ));
            }
            let line = match self.index_channel(&actor.scope, user, channel_id).await? {
                Coming::Ready(line) => line,
                Coming::IsIn => continue,
                Coming::IsNobody => return Err(Error::not_found("user")),
            };
            let participant = new_participant(channel_id, user, role);
            let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Present);
            commit = require_caller(commit, &state, actor);
            commit = admit(commit, &participant, state.head.number);
            commit = count_owners(commit, &state.documents[1], i64::from(role == Role::Owner))?;
            commit.increment.push(self.counted(1));
            match self.store.commit(&state.partition, commit).await? {
                Ok(outcome) => {
                    if !self
                        .confirm_channel(&actor.scope, user, channel_id, Some(line))
                        .await?
                    {
                        self.expel(&actor.scope, channel_id, user).await?;
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
                    return Err(Error::limit_reached(
                        "participants",
                        self.limits.participants,
                    ));
                }
                Err(_) => {}
            }
        }
        Err(Error::busy())
    }

    /// The counter of participants, never beyond its limit.
    pub(super) fn counted(&self, by: i64) -> Increment {
        let most = self.limits.participants;
        Increment {
            counter: Counter::Partition(PARTICIPANT_COUNT),
            by,
            max: (most != 0 && by > 0).then_some(most),
            max_names: None,
        }
    }

    /// Gives a participant another role.
    pub async fn update_participant(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        user: &UserId,
        body: UpdateParticipant,
        if_match: IfMatch,
    ) -> Result<Versioned<Participant>> {
        for _ in 0..ATTEMPTS {
            let (state, target) = self.participant_state(actor, channel_id, user).await?;
            let from = target.participant.role;
            let to = body.role.unwrap_or(from);
            state.permit(actor, Operation::ChangeRole { from, to })?;
            check_version(if_match, target.version)?;
            if from == to {
                self.confirm(&state.partition).await?;
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
            if let Ok(outcome) = self.store.commit(&state.partition, commit).await? {
                return Ok(Versioned {
                    value: participant,
                    version: outcome.written[0].version,
                });
            }
        }
        Err(Error::busy())
    }

    /// Lets the caller go.
    pub async fn leave_channel(&self, actor: &Actor, channel_id: &ChannelId) -> Result<()> {
        let Some(user) = actor.user().cloned() else {
            return Err(Error::forbidden(
                "only a user leaves; an app key removes participants",
            ));
        };
        self.take_out(actor, channel_id, &user, None).await
    }

    /// Removes a participant; with the own id, leaves.
    pub async fn remove_participant(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        user: &UserId,
        if_match: IfMatch,
    ) -> Result<()> {
        self.take_out(actor, channel_id, user, if_match).await
    }

    async fn take_out(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        user: &UserId,
        if_match: IfMatch,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let leaves = actor.user() == Some(user);
            let (state, target) = match self.participant_state(actor, channel_id, user).await {
                Err(error)
                    if error.code() == ErrorCode::NotFound
                        && (leaves || actor.user().is_none()) =>
                {
                    // An earlier try may have come no further than the channel.
                    self.unindex_channel(&actor.scope, user, channel_id).await?;
                    return Err(error);
                }
                found => found?,
            };
            state.permit(
                actor,
                if leaves {
                    Operation::Leave
                } else {
                    Operation::Remove(target.participant.role)
                },
            )?;
            check_version(if_match, target.version)?;
            if self
                .remove_place(actor, &state, &target, Remaining::AnOwner)
                .await?
            {
                return self.unindex_channel(&actor.scope, user, channel_id).await;
            }
        }
        Err(Error::busy())
    }

    /// One try to take a participant out of a channel. False on a conflict.
    async fn remove_place(
        &self,
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
        let mut counted = self.counted(-1);
        if is_last_owner && actor.user().is_some() && remaining == Remaining::AnOwner {
            if state.channel.participant_count > 1 {
                return Err(hand_over());
            }
            // Nobody may come in meanwhile.
            counted.max = Some(0);
        }
        commit.increment.push(counted);
        Ok(self.store.commit(&state.partition, commit).await?.is_ok())
    }

    /// Takes a user who is being deleted out of a channel, whatever the channel's rules say.
    pub(super) async fn expel(
        &self,
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
            match self.participant_state(&actor, channel_id, user).await {
                Ok((state, target))
                    if !self
                        .remove_place(&actor, &state, &target, Remaining::Anybody)
                        .await? => {}
                Ok(_) => return self.unindex_channel(scope, user, channel_id).await,
                Err(error) if error.code() == ErrorCode::NotFound => {
                    return self.unindex_channel(scope, user, channel_id).await;
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::busy())
    }

    /// Reads one participant.
    pub async fn participant(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        user: &UserId,
    ) -> Result<Versioned<Participant>> {
        let (state, place) = self.participant_state(actor, channel_id, user).await?;
        let snapshot = self
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

    /// A channel with the place of somebody in it and the count of owners, for somebody who may read both.
    async fn participant_state(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        user: &UserId,
    ) -> Result<(ChannelState, Place)> {
        let keys = vec![(PARTICIPANTS, user.shared()), (OWNERS, Key::from(ONLY))];
        let state = self.channel_state(actor, channel_id, keys).await?;
        state.permit(actor, Operation::Read)?;
        match &state.documents[0] {
            Some(document) => {
                let place = Place::of(document)?;
                Ok((state, place))
            }
            None => Err(Error::not_found("participant")),
        }
    }

    /// Lists a channel's participants with their read positions, by user id.
    pub async fn list_participants(
        &self,
        actor: &Actor,
        channel_id: &ChannelId,
        cursor: Option<String>,
        limit: Option<u64>,
    ) -> Result<List<Participant>> {
        let state = self.channel_state(actor, channel_id, Vec::new()).await?;
        state.permit(actor, Operation::Read)?;
        let after = cursor
            .map(|c| c.parse::<UserId>().map(|id| id.shared()))
            .transpose();
        let after =
            after.map_err(|_| Error::bad_request("`cursor` is not one that a list gave"))?;
        let (page, _) = self
            .store
            .page(
                &state.partition,
                PARTICIPANTS,
                Range::Keys { after },
                self.page_length(limit)?,
            )
            .await?;
        let keys = page
            .documents
            .iter()
            .map(|d| (READS, d.key.clone()))
            .collect();
        let reads = self.snapshot(state.partition, keys).await?.documents;
        let cursor = page
            .documents
            .last()
            .filter(|_| page.more)
            .map(|d| d.key.to_string());
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

    /// The users of a channel after a key, for jobs.
    pub(super) async fn participant_ids(
        &self,
        scope: &Scope,
        channel_id: &ChannelId,
        limit: usize,
    ) -> Result<Vec<UserId>> {
        let (page, _) = self
            .store
            .page(
                &scope.channel(channel_id),
                PARTICIPANTS,
                Range::Keys { after: None },
                limit,
            )
            .await?;
        page.documents.iter().map(|d| parse_key(&d.key)).collect()
    }
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
    commit.put(READS, user, &read)
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
        .put(OWNERS, ONLY, &(owners + change).max(0)))
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
