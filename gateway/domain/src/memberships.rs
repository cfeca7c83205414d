//! Changes of membership that stopped between the channel and the user's index: the user is in the
//! channel, or no more, and its sessions have not been told.
//!
//! A node completes those of its own requests. Those of a node that ended are completed by a repeat
//! of the request, by a session of the user that finds itself out of the channel, and by readers of
//! the index.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use protocol::{ChannelId, UserId};
use tokio::sync::Notify;

use super::{ATTEMPTS, Services, entries::Detail, index::Indexed, schema::Scope};
use crate::error::{Error, Result};

/// How many changes a node remembers at most.
const MOST: usize = 10_000;
/// How many it completes at once.
const AT_ONCE: usize = 16;

/// A user and a channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Membership {
    scope: Scope,
    user: UserId,
    channel: ChannelId,
}

/// The changes that a node has still to complete.
#[derive(Debug, Default)]
pub struct Incomplete(Mutex<HashSet<Membership>>);

/// A change under way. Unless it is [complete](Self::complete) when it is dropped, the node
/// completes it later: also where its request was cancelled.
#[derive(Debug)]
pub(super) struct Change {
    incomplete: Arc<Incomplete>,
    jobs: Arc<Notify>,
    membership: Option<Membership>,
}

impl Change {
    /// Nothing is left to do.
    pub(super) fn complete(mut self) {
        self.membership = None;
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if let Some(membership) = self.membership.take() {
            let mut incomplete = self.incomplete.0.lock();
            if incomplete.len() < MOST {
                incomplete.insert(membership);
            } else {
                let Membership { user, channel, .. } = membership;
                tracing::warn!(%user, %channel, "a change of membership waits for a repeat or a reader: the node remembers no more");
            }
            self.jobs.notify_one();
        }
    }
}

impl Services {
    /// Begins a change. To be held from before the commit of the channel.
    pub(super) fn change_membership(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
    ) -> Change {
        Change {
            incomplete: Arc::clone(&self.incomplete),
            jobs: Arc::clone(&self.jobs),
            membership: Some(Membership {
                scope: scope.clone(),
                user: user.clone(),
                channel: channel.clone(),
            }),
        }
    }

    /// Completes the changes that requests of this node left, and returns how many are left.
    pub(super) async fn complete_memberships(&self) -> usize {
        let all = std::mem::take(&mut *self.incomplete.0.lock());
        let completing = all.into_iter().map(|membership| async move {
            let Membership {
                scope,
                user,
                channel,
            } = &membership;
            match self.settle_membership(scope, user, channel).await {
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, %user, %channel, "a change of membership is completed later");
                    self.incomplete.0.lock().insert(membership);
                }
            }
        });
        stream::iter(completing)
            .buffer_unordered(AT_ONCE)
            .collect::<()>()
            .await;
        self.incomplete.0.lock().len()
    }

    /// Brings a user's index in line with a channel, and tells the user's sessions what they have
    /// not been told. Returns whether the user is out of the channel, and its stream tells so.
    pub async fn settle_membership(
        &self,
        scope: &Scope,
        user: &UserId,
        channel: &ChannelId,
    ) -> Result<bool> {
        for _ in 0..ATTEMPTS {
            // The line first: each step requires that it has not changed since.
            let line = self.line(scope, user, channel).await?;
            let is_in = self
                .entry(scope, user, channel, Detail::Positions)
                .await?
                .is_some();
            match line {
                _ if is_in => {
                    let is_there = self.confirm_channel(scope, user, channel, line).await?;
                    if !is_there {
                        self.expel(scope, channel, user).await?;
                    }
                    return Ok(!is_there);
                }
                Some(line) if line.is == Indexed::Confirmed => {
                    if self.unindex_line(scope, user, channel, line).await? {
                        return Ok(true);
                    }
                }
                // An addition that did not come true, or has still to.
                Some(_) => return Ok(false),
                None => return Ok(true),
            }
        }
        Err(Error::busy())
    }
}
