//! Findings about users that are not settled yet.

use std::collections::HashMap;

use fanout::capacity::ShrinkIfSparse;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// A node's finding about a user, which is not published yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PresenceFinding {
    /// The user is on this node, in this stay.
    Online {
        /// Number of the stay.
        stay: u64,
    },
    /// The user left this node, or the lease of its node has ended.
    Offline,
}

/// The newest finding about each user that is not settled yet.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    found: Mutex<HashMap<String, PresenceFinding>>,
    added: Notify,
}

impl Unsettled {
    /// Adds findings. A newer one replaces an older one about the same user.
    pub(super) fn add(&self, found: impl IntoIterator<Item = (String, PresenceFinding)>) {
        let mut waiting = self.found.lock();
        waiting.extend(found);
        if !waiting.is_empty() {
            self.added.notify_one();
        }
    }

    /// Takes up to `max` findings, online ones first, so that the users of a dead node do not delay
    /// them.
    pub(super) fn take(&self, max: usize) -> Vec<(String, PresenceFinding)> {
        let mut waiting = self.found.lock();
        let mut left = max;
        let mut taken: Vec<_> = waiting
            .extract_if(|_, found| {
                let takes = left > 0 && *found != PresenceFinding::Offline;
                left -= usize::from(takes);
                takes
            })
            .collect();
        taken.extend(waiting.extract_if(|_, _| true).take(left));
        waiting.shrink_if_sparse();
        taken
    }

    /// Waits until findings are added.
    pub(super) async fn wait(&self) {
        self.added.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_who_came_online_are_settled_before_the_users_of_a_dead_node() {
        let unsettled = Unsettled::default();
        unsettled.add((0..10).map(|i| (format!("dead {i}"), PresenceFinding::Offline)));
        unsettled.add([("ann".to_owned(), PresenceFinding::Online { stay: 1 })]);
        let first = unsettled.take(4);
        assert_eq!((first.len(), first[0].0.as_str()), (4, "ann"));
        assert_eq!(unsettled.take(100).len(), 7);
        assert!(unsettled.take(100).is_empty());
    }

    #[test]
    fn newest_finding_about_a_user_is_kept() {
        let unsettled = Unsettled::default();
        unsettled.add([("ann".to_owned(), PresenceFinding::Online { stay: 1 })]);
        unsettled.add([("ann".to_owned(), PresenceFinding::Offline)]);
        assert_eq!(
            unsettled.take(100),
            [("ann".to_owned(), PresenceFinding::Offline)]
        );
    }
}
