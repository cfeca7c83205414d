//! A user's index of channels: which it may be in. It lies with the user, the truth with each channel.
//!
//! It never misses a channel: adding writes the line first, removing writes the channel first. What the user's sessions are told
//! follows the lines, so that `channel.added` and `channel.removed` take turns, whoever stops half way and whoever goes on:
//!
//! | a line becomes | by whom | and is told |
//! |---|---|---|
//! | pending | who adds, before the channel | |
//! | confirmed | who has seen the user in the channel since | `channel.added` |
//! | pending again | who adds, where it was confirmed and the user is not in the channel: a removal stopped half way | `channel.removed` |
//! | gone | who removed, where it was confirmed | `channel.removed` |
//!
//! Each step requires the version of the line that it was decided by; what was looked up of the channel was looked up after that.
//! A line that is pending belongs to who adds: who removes only gives it another version, so that nobody confirms what was seen before.
//! A version is never used again, also not after a line was gone. Lines that did not come true are dropped by readers, once they are old.

use bytes::Bytes;
use fanout::record::Control;
use protocol::{ChannelId, EventKind, UserId, model::Entry};
use serde::{Deserialize, Serialize};

use super::{
    ATTEMPTS, Services,
    document::{decode, encode},
    entries::{Detail, parse_key},
    scope::{CHANNELS, ENTITY, ONLY, PARTICIPANTS, Scope},
};
use crate::{
    error::{Error, Result},
    store::{Append, Body, Commit, Document, Expected, Mark, Read, Write},
};

/// After how long a line of the index that did not come true is dropped, in milliseconds.
const PENDING: u64 = 60_000;

/// A line of the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Indexed {
    /// Written before the channel; the channel tells whether it came to be.
    Pending,
    /// Written after the channel.
    Confirmed,
}

/// A line as it was read.
#[derive(Debug, Clone, Copy)]
pub struct Line {
    /// What it says.
    pub is: Indexed,
    /// The version of its document.
    pub version: u64,
    /// When it was made, or last taken over by who adds: milliseconds since the Unix epoch.
    pub since: u64,
}

impl Line {
    /// A line as it stands in the store.
    pub fn of(document: &Document) -> Result<Self> {
        let since = document.stamps.created_at.max(document.stamps.edited_at);
        Ok(Self {
            is: decode(document)?,
            version: document.version,
            since,
        })
    }

    fn expected(line: Option<Self>) -> Expected {
        line.map_or(Expected::Absent, |line| Expected::Version(line.version))
    }
}

/// What stands in a user's index before it is brought into a channel.
#[derive(Debug, Clone, Copy)]
pub(super) enum Coming {
    /// The line, pending.
    Ready(Line),
    /// Somebody else has brought the user in meanwhile.
    IsIn,
    /// There is no such user.
    IsNobody,
}

impl Services {
    /// The ids of all channels that a user may be in: a superset of the truth, in the order of the ids.
    pub async fn channel_ids_of(&self, scope: &Scope, user: &UserId) -> Result<Vec<ChannelId>> {
        self.all_keys(&scope.user(user), CHANNELS)
            .await?
            .iter()
            .map(parse_key)
            .collect()
    }

    /// The channels that a user is in, with the instant of their last event, last active first. Lines of the index that
    /// are not true are dropped on the way, once they are old.
    pub async fn by_activity(&self, scope: &Scope, user: &UserId) -> Result<Vec<(u64, ChannelId)>> {
        let lines = self.all_documents(&scope.user(user), CHANNELS).await?;
        let (mut order, mut untrue) = (Vec::with_capacity(lines.len()), Vec::new());
        for some in lines.chunks(1000) {
            let ids: Vec<ChannelId> = some
                .iter()
                .map(|line| parse_key(&line.key))
                .collect::<Result<_>>()?;
            let read = |id| Read {
                partition: scope.channel(id),
                documents: vec![(PARTICIPANTS, user.shared())],
                newest: None,
            };
            let snapshots = self.store.read(ids.iter().map(read).collect()).await?;
            for ((line, id), snapshot) in some.iter().zip(ids).zip(snapshots) {
                match &snapshot.documents[0] {
                    Some(_) => order.push((snapshot.head.at, id)),
                    None => untrue.push(line),
                }
            }
        }
        let old = self.clock.now_ms().saturating_sub(PENDING);
        for document in untrue {
            let (line, id) = (Line::of(document)?, parse_key(&document.key)?);
            match line.is {
                _ if line.since >= old => {}
                // Somebody removed the user and came no further. Where the line has changed, somebody goes on with it.
                Indexed::Confirmed => drop(self.unindex_line(scope, user, &id, line).await?),
                Indexed::Pending => self.drop_line(scope, user, &id, line).await?,
            }
        }
        order.sort_by(|(a, x), (b, y)| b.cmp(a).then_with(|| x.cmp(y)));
        Ok(order)
    }

    async fn line(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
    ) -> Result<Option<Line>> {
        let snapshot = self
            .snapshot(scope.user(user), vec![(CHANNELS, channel.shared())])
            .await?;
        snapshot.documents[0].as_ref().map(Line::of).transpose()
    }

    /// The user's entry of a channel that it is in.
    async fn entry(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
        detail: Detail,
    ) -> Result<Option<Entry>> {
        let mut entries = self
            .entries(scope, user, std::slice::from_ref(channel), detail)
            .await?;
        Ok(entries.pop().flatten())
    }

    /// Writes a channel into a user's index, before the user is brought in.
    pub(super) async fn index_channel(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
    ) -> Result<Coming> {
        let mut line: Option<Line> = None;
        for _ in 0..ATTEMPTS {
            let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Present);
            commit = commit.require(CHANNELS, channel.shared(), Line::expected(line));
            commit.write.push(Write::Put {
                table: CHANNELS,
                key: channel.shared(),
                value: encode(&Indexed::Pending),
                mark: Mark::Edited,
                event: None,
            });
            if is_confirmed(line) {
                commit.append.push(removed(channel));
            }
            match self.store.commit(&scope.user(user), commit).await? {
                Ok(outcome) => {
                    return Ok(Coming::Ready(Line {
                        is: Indexed::Pending,
                        version: outcome.written[0].version,
                        since: outcome.at,
                    }));
                }
                Err(conflict) if conflict.require.contains(&0) => return Ok(Coming::IsNobody),
                Err(_) => {}
            }
            line = self.line(scope, user, channel).await?;
            // If not, a removal has stopped half way.
            if is_confirmed(line)
                && self
                    .entry(scope, user, channel, Detail::Positions)
                    .await?
                    .is_some()
            {
                return Ok(Coming::IsIn);
            }
        }
        Err(Error::busy())
    }

    /// Confirms the line of a user who is in the channel, should that still be to be done.
    pub(super) async fn settle_channel(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
    ) -> Result<()> {
        let line = self.line(scope, user, channel).await?;
        self.confirm_channel(scope, user, channel, line).await?;
        Ok(())
    }

    /// Confirms a line that was read before the user was brought in, or that somebody else wrote meanwhile, and tells the user's
    /// sessions of the channel. Whoever is not in the channel any more is told nothing. False if the user was deleted meanwhile.
    pub(super) async fn confirm_channel(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
        line: Option<Line>,
    ) -> Result<bool> {
        #[derive(Serialize)]
        struct Data<'a> {
            entry: &'a Entry,
        }
        let mut line = line;
        for _ in 0..ATTEMPTS {
            if is_confirmed(line) {
                return Ok(true);
            }
            let Some(entry) = self.entry(scope, user, channel, Detail::Full).await? else {
                return Ok(true);
            };
            let mut commit = Commit::default()
                .require(ENTITY, ONLY, Expected::Present)
                .require(CHANNELS, channel.shared(), Line::expected(line))
                .put(CHANNELS, channel.shared(), &Indexed::Confirmed);
            commit.append.push(told(
                EventKind::ChannelAdded,
                channel,
                &Data { entry: &entry },
            ));
            match self.store.commit(&scope.user(user), commit).await? {
                Ok(_) => return Ok(true),
                Err(conflict) if conflict.require.contains(&0) => return Ok(false),
                Err(_) => line = self.line(scope, user, channel).await?,
            }
        }
        Err(Error::busy())
    }

    /// Takes a channel out of the index of a user who was taken out of it, and tells the user's sessions. Whoever is in it again stays.
    pub(super) async fn unindex_channel(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
    ) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Some(line) = self.line(scope, user, channel).await? else {
                return Ok(());
            };
            if self
                .entry(scope, user, channel, Detail::Positions)
                .await?
                .is_some()
                || self.unindex_line(scope, user, channel, line).await?
            {
                return Ok(());
            }
        }
        Err(Error::busy())
    }

    /// The same for a line that was read before it was looked that the user is not in the channel. False if it has changed.
    pub(super) async fn unindex_line(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
        line: Line,
    ) -> Result<bool> {
        let mut commit =
            Commit::default().require(CHANNELS, channel.shared(), Expected::Version(line.version));
        commit = match line.is {
            Indexed::Pending => commit.put(CHANNELS, channel.shared(), &Indexed::Pending),
            Indexed::Confirmed => commit.delete(CHANNELS, channel.shared()),
        };
        if line.is == Indexed::Confirmed {
            commit.append.push(removed(channel));
        }
        Ok(self.store.commit(&scope.user(user), commit).await?.is_ok())
    }

    /// Drops a line that did not come true: nobody was told of it.
    pub(super) async fn drop_line(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
        line: Line,
    ) -> Result<()> {
        let commit = Commit::default()
            .require(CHANNELS, channel.shared(), Expected::Version(line.version))
            .delete(CHANNELS, channel.shared());
        // On a conflict somebody goes on with it.
        self.store.commit(&scope.user(user), commit).await?.ok();
        Ok(())
    }
}

fn is_confirmed(line: Option<Line>) -> bool {
    line.is_some_and(|line| line.is == Indexed::Confirmed)
}

fn removed(channel: &ChannelId) -> Append {
    #[derive(Serialize)]
    struct Data<'a> {
        channel_id: &'a ChannelId,
    }
    told(
        EventKind::ChannelRemoved,
        channel,
        &Data {
            channel_id: channel,
        },
    )
}

/// An event of the user's own stream about a channel.
fn told<T: Serialize>(kind: EventKind, channel: &ChannelId, data: &T) -> Append {
    Append {
        kind: kind as u8,
        reference: Bytes::copy_from_slice(channel.as_str().as_bytes()),
        control: Control::None,
        body: Body::Bytes(encode(data), None),
    }
}
