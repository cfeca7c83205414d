//! A user's index of channels: which it may be in. It lies with the user, the truth with each
//! channel.
//!
//! It never misses a channel: adding writes the line first, removing writes the channel first. What
//! the user's sessions are told follows the lines, so that `channel.added` and `channel.removed`
//! take turns, whoever stops half way and whoever goes on:
//!
//! | a line becomes | by whom | and is told |
//! |---|---|---|
//! | pending | who adds, before the channel | |
//! | confirmed | who has seen the user in the channel since | `channel.added` |
//! | pending again | who adds, where it was confirmed and the user is not in the channel: a removal stopped half way | `channel.removed` |
//! | gone | who removed, where it was confirmed | `channel.removed` |
//!
//! Each step requires the version of the line that it was decided by; what was looked up of the
//! channel was looked up after that. A line that is pending belongs to who adds: who removes only
//! gives it another version, so that nobody confirms what was seen before. The lines are counted,
//! so that a user is in so many channels at most (`channels_per_user`); a part of them is for what
//! the user and the app's backend do ([`Additions`]), so that other users cannot use up all. A
//! version is never used again, also not after a line was gone. Lines that did not come true are
//! dropped by readers, once they are old.

#[cfg(test)]
mod tests;

use bytes::Bytes;
use protocol::{ChannelId, EventKind, UserId, entity::Entry};
use serde::{Deserialize, Serialize};
use store::{
    Append, Body, Commit, Control, Counter, Document, Expected, Increment, Mark, Range, Write, cost,
};

use crate::{
    ATTEMPTS, Services,
    credential::Actor,
    document::{PutValue, decode, encode, parse_key},
    entries::{self, Detail},
    error::{Error, Result},
    schema::{CHANNEL_COUNT, CHANNELS, ENTITY, ONLY, Scope},
};

/// After how long a line of the index that did not come true is dropped, in milliseconds.
const PENDING: u64 = 60_000;
/// Lines of an index that are read at once in search of old ones, when a user's limit is reached.
const LINES_PER_REPAIR: usize = 1000;
/// Maximum number of old lines that one request drops.
const REPAIRS_PER_ATTEMPT: usize = 100;
/// Units of store work that going through all channels of a user is charged for, at most. Others
/// may have put the user into most of them.
pub(super) const MAX_INDEX_UNITS: u64 = 200;

/// The part of `channels_per_user` that additions by other users leave free.
const RESERVE_DIVISOR: u64 = 10;

/// Who brings a user into a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Additions {
    /// The user itself or the app's backend: up to the limit.
    Own,
    /// Another user: up to nine tenths of it.
    ByOthers,
}

impl Additions {
    /// Those of an actor who brings in this user.
    pub(super) fn of(actor: &Actor, user: &UserId) -> Self {
        if actor.user().is_none_or(|own| own == user) {
            Self::Own
        } else {
            Self::ByOthers
        }
    }

    /// Returns how many channels the user may be in after it, of `limit`.
    fn max(self, limit: u64) -> u64 {
        match self {
            Self::Own => limit,
            Self::ByOthers => limit - limit / RESERVE_DIVISOR,
        }
    }

    fn refusal(self, user: &UserId, limit: u64) -> Error {
        let mut error = Error::limit_reached("channels_per_user", limit);
        error.body.message = match self {
            Self::Own => format!(
                "user `{user}` is in {limit} channels, which is its limit `channels_per_user`"
            ),
            Self::ByOthers => format!(
                "user `{user}` is in {} of {limit} channels (`channels_per_user`); what is left is for the user itself and for app keys",
                self.max(limit)
            ),
        };
        error
    }
}

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
    /// Whether the request that has it made it: nobody else relies on it unless its version
    /// changes.
    pub is_new: bool,
}

impl Line {
    /// A line as it stands in the store.
    pub fn of(document: &Document) -> Result<Self> {
        let since = document.stamps.created_at.max(document.stamps.edited_at);
        Ok(Self {
            is: decode(document)?,
            version: document.version,
            since,
            is_new: false,
        })
    }

    pub(super) fn is_confirmed(self) -> bool {
        self.is == Indexed::Confirmed
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

/// The ids of all channels that a user may be in: a superset of the truth, in the order of the
/// ids.
pub async fn channel_ids_of(
    services: &Services,
    scope: &Scope,
    user: &UserId,
) -> Result<Vec<ChannelId>> {
    services
        .all_keys(&scope.user(user), CHANNELS)
        .await?
        .iter()
        .map(parse_key)
        .collect()
}

/// Drops old lines of requests that failed: they count towards the user's limit. Reads the
/// index page by page until there is something to drop, and returns whether there was.
async fn drop_old_lines(services: &Services, scope: &Scope, user: &UserId) -> Result<bool> {
    let mut after = None;
    loop {
        let (page, _) = services
            .store
            .page(
                &scope.user(user),
                CHANNELS,
                Range::Keys { after },
                LINES_PER_REPAIR,
            )
            .await?;
        after = page
            .documents
            .last()
            .map(|last| last.key.clone())
            .filter(|_| page.more);
        let mut old = Vec::new();
        for document in page.documents {
            let line = Line::of(&document)?;
            if line.is == Indexed::Pending && is_old(services, &line) {
                old.push(document);
            }
        }
        for old in old.chunks(REPAIRS_PER_ATTEMPT) {
            if drop_lines(services, scope, user, old).await? {
                return Ok(true);
            }
        }
        if after.is_none() {
            return Ok(false);
        }
    }
}

/// Drops those of old lines whose channels the user is not in, and returns whether there were
/// any.
async fn drop_lines(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    old: &[Document],
) -> Result<bool> {
    let ids: Vec<ChannelId> = old
        .iter()
        .map(|document| parse_key(&document.key))
        .collect::<Result<_>>()?;
    let entries = entries::read_entries(services, scope, user, &ids, Detail::Positions).await?;
    let mut has_dropped = false;
    for (document, _) in old.iter().zip(entries).filter(|(_, entry)| entry.is_none()) {
        drop_old_line(services, scope, user, document).await?;
        has_dropped = true;
    }
    Ok(has_dropped)
}

/// Drops an old line of a channel that the user is not in.
pub(super) async fn drop_old_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    document: &Document,
) -> Result<()> {
    let (line, channel) = (Line::of(document)?, parse_key(&document.key)?);
    match line.is {
        _ if !is_old(services, &line) => Ok(()),
        // A removal came no further. Where the line has changed, another request goes on with it.
        Indexed::Confirmed => unindex_line(services, scope, user, &channel, line)
            .await
            .map(drop),
        Indexed::Pending => drop_line(services, scope, user, &channel, line).await,
    }
}

/// Returns whether a line that is not confirmed stands there too long to belong to a request.
pub(super) fn is_old(services: &Services, line: &Line) -> bool {
    line.since < services.clock.now_ms().saturating_sub(PENDING)
}

pub(super) async fn read_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
) -> Result<Option<Line>> {
    let snapshot = services
        .snapshot(scope.user(user), vec![(CHANNELS, channel.shared())])
        .await?;
    snapshot.documents[0].as_ref().map(Line::of).transpose()
}

/// The user's entry of a channel that it is in.
pub(super) async fn read_entry(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
    detail: Detail,
) -> Result<Option<Entry>> {
    let mut entries =
        entries::read_entries(services, scope, user, std::slice::from_ref(channel), detail).await?;
    Ok(entries.pop().flatten())
}

/// Writes a channel into a user's index, before the user is brought in.
pub(super) async fn index_channel(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
    additions: Additions,
) -> Result<Coming> {
    let (mut line, mut has_repaired) = (None, false);
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
        let is_new = line.is_none();
        let most = services.limits.channels_per_user;
        if is_new {
            commit.increment.push(Increment {
                max: (most != 0).then_some(additions.max(most)),
                ..counted(1)
            });
        }
        match services.store.commit(&scope.user(user), commit).await? {
            Ok(outcome) => {
                let version = outcome.written[0].version;
                return Ok(Coming::Ready(Line {
                    is: Indexed::Pending,
                    version,
                    since: outcome.at,
                    is_new,
                }));
            }
            Err(conflict) if conflict.require.contains(&0) => return Ok(Coming::IsNobody),
            Err(conflict) if conflict.require.is_empty() => {
                // Others may have filled the index, and its user is not always the caller.
                let dropping = drop_old_lines(services, scope, user);
                if has_repaired || !cost::at_most(MAX_INDEX_UNITS, dropping).await? {
                    return Err(additions.refusal(user, most));
                }
                has_repaired = true;
            }
            Err(_) => {}
        }
        line = read_line(services, scope, user, channel).await?;
        // If not, a removal has stopped half way.
        if is_confirmed(line)
            && read_entry(services, scope, user, channel, Detail::Positions)
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
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
) -> Result<()> {
    let line = read_line(services, scope, user, channel).await?;
    confirm_channel(services, scope, user, channel, line).await?;
    Ok(())
}

/// Confirms a line that was read before the user was brought in, or that somebody else wrote
/// meanwhile, and tells the user's sessions of the channel. Whoever is not in the channel any
/// more is told nothing. False if the user was deleted meanwhile.
pub(super) async fn confirm_channel(
    services: &Services,
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
        let Some(entry) = read_entry(services, scope, user, channel, Detail::Full).await? else {
            return Ok(true);
        };
        let mut commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Present)
            .require(CHANNELS, channel.shared(), Line::expected(line))
            .put_value(CHANNELS, channel.shared(), &Indexed::Confirmed);
        if line.is_none() {
            // The user is in the channel, whatever the limit says.
            commit.increment.push(counted(1));
        }
        commit.append.push(told(
            EventKind::ChannelAdded,
            channel,
            &Data { entry: &entry },
        ));
        match services.store.commit(&scope.user(user), commit).await? {
            Ok(_) => return Ok(true),
            Err(conflict) if conflict.require.contains(&0) => return Ok(false),
            Err(_) => line = read_line(services, scope, user, channel).await?,
        }
    }
    Err(Error::busy())
}

/// Takes a channel out of the index of a user who was taken out of it, and tells the user's
/// sessions. Whoever is in it again stays.
pub(super) async fn unindex_channel(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let Some(line) = read_line(services, scope, user, channel).await? else {
            return Ok(());
        };
        if read_entry(services, scope, user, channel, Detail::Positions)
            .await?
            .is_some()
            || unindex_line(services, scope, user, channel, line).await?
        {
            return Ok(());
        }
    }
    Err(Error::busy())
}

/// The same for a line that was read before it was looked that the user is not in the channel.
/// False if it has changed.
pub(super) async fn unindex_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
    line: Line,
) -> Result<bool> {
    let mut commit =
        Commit::default().require(CHANNELS, channel.shared(), Expected::Version(line.version));
    commit = match line.is {
        Indexed::Pending => commit.put_value(CHANNELS, channel.shared(), &Indexed::Pending),
        Indexed::Confirmed => commit.delete(CHANNELS, channel.shared()),
    }
    .frees();
    if line.is == Indexed::Confirmed {
        commit.append.push(removed(channel));
        commit.increment.push(counted(-1));
    }
    Ok(services
        .store
        .commit(&scope.user(user), commit)
        .await?
        .is_ok())
}

/// Deletes the index line of a user who could not be added, if this request made it.
pub(super) async fn abandon_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
    line: Line,
) -> Result<()> {
    if line.is_new {
        drop_line(services, scope, user, channel, line).await
    } else {
        Ok(())
    }
}

/// Drops a line that did not come true: nobody was told of it.
pub(super) async fn drop_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
    line: Line,
) -> Result<()> {
    let mut commit = Commit::default()
        .require(CHANNELS, channel.shared(), Expected::Version(line.version))
        .delete(CHANNELS, channel.shared());
    commit.increment.push(counted(-1));
    let commit = commit.frees();
    // On a conflict somebody goes on with it.
    services.store.commit(&scope.user(user), commit).await?.ok();
    Ok(())
}

/// A change of the number of lines in a user's index.
fn counted(by: i64) -> Increment {
    Increment {
        counter: Counter::Partition(CHANNEL_COUNT),
        by,
        max: None,
        max_names: None,
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
