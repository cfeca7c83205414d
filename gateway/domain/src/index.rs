//! A user's index of channels: the channels that the user may be in.
//!
//! The index lies in the user's partition; whether the user is in a channel is up to the channel.
//! The index never misses a channel: an addition writes the line before the channel, and a removal
//! writes the channel before the line. `channel.added` and `channel.removed` of the user's stream
//! follow the lines, so they alternate, even if a request is interrupted and another one completes
//! it:
//!
//! | line becomes | written by | event |
//! |---|---|---|
//! | pending | an addition, before the channel | |
//! | confirmed | a request or reader that has seen the user in the channel since | `channel.added` |
//! | pending again | an addition, where the line was confirmed and the user is not in the channel: a removal stopped half way | `channel.removed` |
//! | deleted | a removal, where the line was confirmed | `channel.removed` |
//!
//! Each step requires the version of the line that it was decided by, and the channel was read
//! after that line. A pending line belongs to the addition: a removal only gives it another
//! version, so that an older look at the channel does not confirm it. A version is never used
//! again, also after the line was deleted.
//!
//! The lines are counted against `channels_per_user`; additions by other users leave a part of it
//! free ([`Additions`]). Readers delete pending lines that are old.

pub mod line;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow::{Break, Continue};

use bytes::Bytes;
use protocol::{ChannelId, EventKind, UserId, entity::Entry};
use serde::Serialize;
use store::{
    Append, Commit, Control, Counter, Document, EventBody, Expected, Increment, Mark, Range, cost,
};

use self::line::{Additions, Coming, Indexed, Line};
use crate::{
    Services,
    document::{PutValue, encode, parse_key},
    entries::{self, Detail},
    error::Result,
    retry::{retry, retry_with},
    schema::{CHANNEL_COUNT, CHANNELS, ENTITY, ONLY, Scope},
};

/// Age in milliseconds from which a line that does not match its channel is repaired or deleted.
const OLD_LINE_MS: u64 = 60_000;
/// Lines that are read at once in search of old ones, when a user's limit is reached.
const LINES_PER_REPAIR: usize = 1000;
/// Maximum number of old lines that are compared with their channels at once.
const REPAIRS_PER_ATTEMPT: usize = 100;
/// Units of store work that going through all channels of a user is charged for, at most. Others
/// may have put the user into most of them.
pub(super) const MAX_INDEX_UNITS: u64 = 200;

/// Returns the ids of all channels that a user may be in, in their order: a superset of those that
/// the user is in.
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

/// Deletes old lines of failed requests, which count towards the user's limit. Reads the index page
/// by page until it finds some, and returns whether it did.
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

/// Deletes the lines of channels that the user is not in, and returns whether there were any.
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

/// Deletes an old line of a channel that the user is not in.
pub(super) async fn drop_old_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    document: &Document,
) -> Result<()> {
    let (line, channel) = (Line::of(document)?, parse_key(&document.key)?);
    match line.is {
        _ if !is_old(services, &line) => Ok(()),
        // A removal was interrupted. If the line has changed, another request completes the
        // removal.
        Indexed::Confirmed => unindex_line(services, scope, user, &channel, line)
            .await
            .map(drop),
        Indexed::Pending => drop_line(services, scope, user, &channel, line).await,
    }
}

/// Returns whether a line is too old to belong to a request in progress.
pub(super) fn is_old(services: &Services, line: &Line) -> bool {
    line.since < services.clock.now_ms().saturating_sub(OLD_LINE_MS)
}

pub(super) async fn read_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
) -> Result<Option<Line>> {
    let line = services
        .document(scope.user(user), CHANNELS, channel.shared())
        .await?;
    line.as_ref().map(Line::of).transpose()
}

/// Returns the user's entry of a channel; `None` if the user is not in it.
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

/// Writes the pending line of a channel, before the user is added to it.
///
/// # Errors
/// `limit_reached` where the user is in as many channels as the addition allows.
pub(super) async fn index_channel(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
    additions: Additions,
) -> Result<Coming> {
    retry_with((None, false), |(line, mut has_repaired)| async move {
        let mut commit = Commit::default();
        let user_exists = commit.add_require(ENTITY, ONLY, Expected::Present);
        commit = commit.require(CHANNELS, channel.shared(), Line::expected(line));
        let pending =
            commit.add_marked(CHANNELS, channel.shared(), &Indexed::Pending, Mark::Edited);
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
        match services.commit(&scope.user(user), commit).await? {
            Ok(outcome) => {
                return Ok(Break(Coming::Ready(Line {
                    is: Indexed::Pending,
                    version: outcome.version(pending),
                    since: outcome.at,
                    is_new,
                })));
            }
            Err(conflict) if conflict.failed(user_exists) => return Ok(Break(Coming::IsNobody)),
            Err(conflict) if conflict.is_limit() => {
                // Others may have filled the index, and its user is not always the caller.
                let dropping = drop_old_lines(services, scope, user);
                if has_repaired || !cost::at_most(MAX_INDEX_UNITS, dropping).await? {
                    return Err(additions.refusal(user, most));
                }
                has_repaired = true;
            }
            Err(_) => {}
        }
        let line = read_line(services, scope, user, channel).await?;
        // A confirmed line without the user in the channel: a removal was interrupted.
        if is_confirmed(line)
            && read_entry(services, scope, user, channel, Detail::Positions)
                .await?
                .is_some()
        {
            return Ok(Break(Coming::IsIn));
        }
        Ok(Continue((line, has_repaired)))
    })
    .await
}

/// Confirms the line of a user who is in the channel, unless it is confirmed already.
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

/// Confirms a line that was read before the user was added, or that another request wrote
/// meanwhile, with `channel.added`. Does nothing if the user is not in the channel any more.
/// Returns false if the user was deleted meanwhile.
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
    retry_with(line, |line| async move {
        if is_confirmed(line) {
            return Ok(Break(true));
        }
        let Some(entry) = read_entry(services, scope, user, channel, Detail::Full).await? else {
            return Ok(Break(true));
        };
        let mut commit = Commit::default();
        let user_exists = commit.add_require(ENTITY, ONLY, Expected::Present);
        commit = commit
            .require(CHANNELS, channel.shared(), Line::expected(line))
            .put_value(CHANNELS, channel.shared(), &Indexed::Confirmed);
        if line.is_none() {
            // The user is in the channel already, so no limit applies.
            commit.increment.push(counted(1));
        }
        commit.append.push(told(
            EventKind::ChannelAdded,
            channel,
            &Data { entry: &entry },
        ));
        match services.commit(&scope.user(user), commit).await? {
            Ok(_) => Ok(Break(true)),
            Err(conflict) if conflict.failed(user_exists) => Ok(Break(false)),
            Err(_) => Ok(Continue(read_line(services, scope, user, channel).await?)),
        }
    })
    .await
}

/// Deletes the line of a channel that the user was removed from, with `channel.removed`. Does
/// nothing if the user is in the channel again.
pub(super) async fn unindex_channel(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
) -> Result<()> {
    retry(|| async {
        let Some(line) = read_line(services, scope, user, channel).await? else {
            return Ok(Some(()));
        };
        let is_done = read_entry(services, scope, user, channel, Detail::Positions)
            .await?
            .is_some()
            || unindex_line(services, scope, user, channel, line).await?;
        Ok(is_done.then_some(()))
    })
    .await
}

/// Deletes a line that was read before the channel was found without the user. Returns false if the
/// line has changed since.
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
    Ok(services.commit(&scope.user(user), commit).await?.is_ok())
}

/// Deletes the line of a user who could not be added, if this request wrote it first.
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

/// Deletes a pending line, without an event.
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
    // On a conflict, another request has changed the line and continues.
    services.commit(&scope.user(user), commit).await?.ok();
    Ok(())
}

/// Returns a change of the number of lines in a user's index.
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
        body: EventBody::Bytes(encode(data), None),
    }
}
