//! What was found about users, and has to be told if nobody else says otherwise.

use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// What was found about a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// It is on this node, in this stay.
    Came {
        /// The number of the stay.
        stay: u64,
    },
    /// A node has it no more: this one, or one whose lease has ended.
    Went,
}

/// The newest finding about each user that is not settled yet.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    found: Mutex<HashMap<String, Found>>,
    added: Notify,
}

impl Unsettled {
    /// Adds findings, the newest about each.
    pub(super) fn add(&self, found: impl IntoIterator<Item = (String, Found)>) {
        let mut waiting = self.found.lock();
        waiting.extend(found);
        if !waiting.is_empty() {
            self.added.notify_one();
        }
    }

    /// Takes up to `most`. Who came goes first, so that nobody waits for all the users of a node
    /// that died.
    pub(super) fn take(&self, most: usize) -> Vec<(String, Found)> {
        let mut waiting = self.found.lock();
        let mut left = most;
        let mut taken: Vec<_> = waiting
            .extract_if(|_, found| {
                let takes = left > 0 && *found != Found::Went;
                left -= usize::from(takes);
                takes
            })
            .collect();
        taken.extend(waiting.extract_if(|_, _| true).take(left));
        taken
    }

    /// Waits until something was added.
    pub(super) async fn wait(&self) {
        self.added.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_is_settled_before_the_users_of_a_dead_node() {
        let unsettled = Unsettled::default();
        unsettled.add((0..10).map(|i| (format!("dead {i}"), Found::Went)));
        unsettled.add([("ann".to_owned(), Found::Came { stay: 1 })]);
        let first = unsettled.take(4);
        assert_eq!((first.len(), first[0].0.as_str()), (4, "ann"));
        assert_eq!(unsettled.take(100).len(), 7);
        assert!(unsettled.take(100).is_empty());
    }

    #[test]
    fn the_newest_finding_about_a_user_counts() {
        let unsettled = Unsettled::default();
        unsettled.add([("ann".to_owned(), Found::Came { stay: 1 })]);
        unsettled.add([("ann".to_owned(), Found::Went)]);
        assert_eq!(unsettled.take(100), [("ann".to_owned(), Found::Went)]);
    }
}
