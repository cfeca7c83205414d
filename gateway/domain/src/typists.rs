//! The users that typed on this node recently. Bounds how often typing events are published.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use dashmap::{DashMap, Entry};
use protocol::UserId;
use store::Topic;

/// Minimum time between two equal events of one user in one channel.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of remembered pairs of user and channel. Beyond it no events of new ones are
/// published.
const CAPACITY: usize = 100_000;

/// The users that typed on this node within the last second.
#[derive(Debug, Default)]
pub struct Typists {
    recent: DashMap<(Topic, UserId), Typed>,
    /// When entries were last pruned, in milliseconds of the node's clock.
    pruned_ms: AtomicU64,
}

/// The last event of a user in a channel.
#[derive(Debug, Clone, Copy)]
struct Typed {
    at: Duration,
    typing: bool,
}

impl Typed {
    fn is_recent(self, now: Duration) -> bool {
        now.saturating_sub(self.at) < MIN_INTERVAL
    }
}

impl Typists {
    /// Returns whether to publish the event: a start at most once a second, and an end only after a
    /// published start.
    pub(super) fn admit(&self, topic: &Topic, user: &UserId, typing: bool, now: Duration) -> bool {
        let is_full = self.recent.len() >= CAPACITY && !self.prune(now);
        match self.recent.entry((topic.clone(), user.clone())) {
            Entry::Occupied(mut entry) => {
                let last = entry.get_mut();
                let ends = last.typing && !typing;
                if last.is_recent(now) && !ends {
                    return false;
                }
                // The end of typing does not delay the interval to the next start.
                *last = Typed {
                    at: if ends { last.at } else { now },
                    typing,
                };
                true
            }
            Entry::Vacant(_) if is_full => false,
            Entry::Vacant(entry) => {
                entry.insert(Typed { at: now, typing });
                true
            }
        }
    }

    /// Removes entries that delay nothing, at most once a second. Returns whether there is room.
    fn prune(&self, now: Duration) -> bool {
        let now_ms = now.as_millis() as u64;
        let before = self.pruned_ms.load(Ordering::Relaxed);
        let is_due = before == 0 || now_ms >= before + 1000;
        if is_due
            && self
                .pruned_ms
                .compare_exchange(before, now_ms.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.recent.retain(|_, typed| typed.is_recent(now));
        }
        self.recent.len() < CAPACITY
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn a_start_is_told_once_a_second_and_its_end_at_once() {
        let (typists, topic, user) = (
            Typists::default(),
            Topic::from("c:general"),
            "alice".parse::<UserId>().unwrap(),
        );
        let admit = |typing, at| typists.admit(&topic, &user, typing, MS(at));
        assert!(admit(true, 5000));
        assert!(!admit(true, 5999));
        assert!(admit(true, 6000));
        assert!(admit(false, 6001));
        assert!(!admit(false, 6002));
        assert!(
            !admit(true, 6999),
            "a flood of starts and ends is two events a second"
        );
        assert!(admit(true, 7000));
        let other = "bob".parse().unwrap();
        assert!(typists.admit(&topic, &other, true, MS(7000)));
        assert!(typists.admit(&Topic::from("c:random"), &user, true, MS(7000)));
    }

    #[test]
    fn a_flood_of_users_is_remembered_up_to_a_bound() {
        let (typists, topic) = (Typists::default(), Topic::from("c:general"));
        let admitted = |at| {
            let users =
                (0..CAPACITY + 10).map(|number| format!("user{number}").parse::<UserId>().unwrap());
            users
                .filter(|user| typists.admit(&topic, user, true, MS(at)))
                .count()
        };
        assert_eq!(admitted(5000), CAPACITY);
        assert!(typists.recent.len() <= CAPACITY);
        assert!(
            typists.admit(&topic, &"somebody".parse().unwrap(), true, MS(6000)),
            "room comes back"
        );
        assert_eq!(typists.recent.len(), 1);
    }
}
