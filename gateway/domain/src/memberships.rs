//! Changes of membership that stopped between the channel and the user's index: the user was added
//! to the channel or removed from it, and the user's sessions have not received the event.
//!
//! A node [completes](crate::settling) the changes of its own requests. The changes of a node that
//! ended are completed by a repeated request, by a session of the user whose subscription ended, or
//! by a reader of the index.

use std::{collections::HashSet, sync::Arc};

use parking_lot::Mutex;
use protocol::{ChannelId, UserId};
use tokio::sync::Notify;

use crate::{Services, schema::Scope};

/// Maximum number of changes that a node remembers.
const MAX_CHANGES: usize = 10_000;

/// A user and a channel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Membership {
    pub(super) scope: Scope,
    pub(super) user: UserId,
    pub(super) channel: ChannelId,
}

/// The changes that this node has to complete.
#[derive(Debug, Default)]
pub struct Incomplete(Mutex<HashSet<Membership>>);

impl Incomplete {
    /// Takes all changes.
    pub(super) fn take(&self) -> HashSet<Membership> {
        std::mem::take(&mut self.0.lock())
    }

    /// Puts back a change that could not be completed.
    pub(super) fn put_back(&self, membership: Membership) {
        self.0.lock().insert(membership);
    }

    /// Returns the number of changes.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// A change in progress. The node completes it later unless it is [complete](Self::complete) when
/// it is dropped, even if its request was cancelled.
#[derive(Debug)]
pub(super) struct Change {
    incomplete: Arc<Incomplete>,
    jobs: Arc<Notify>,
    membership: Option<Membership>,
}

impl Change {
    /// Ends the change: nothing is left to do.
    pub(super) fn complete(mut self) {
        self.membership = None;
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        if let Some(membership) = self.membership.take() {
            let mut incomplete = self.incomplete.0.lock();
            if incomplete.len() < MAX_CHANGES {
                incomplete.insert(membership);
            } else {
                let Membership { user, channel, .. } = membership;
                tracing::warn!(%user, %channel, "too many unfinished changes of membership: this one waits for a repeated request or a reader");
            }
            self.jobs.notify_one();
        }
    }
}

/// Begins a change, before the commit of the channel.
pub(super) fn change_membership(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
) -> Change {
    Change {
        incomplete: Arc::clone(&services.incomplete),
        jobs: Arc::clone(&services.jobs),
        membership: Some(Membership {
            scope: scope.clone(),
            user: user.clone(),
            channel: channel.clone(),
        }),
    }
}
