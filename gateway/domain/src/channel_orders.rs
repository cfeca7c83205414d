//! The orders of users' channels that a node keeps, and the turns in which it reads them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use protocol::{ChannelId, UserId};
use store::Position;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{
    error::{Error, Result},
    schema::Scope,
    turns::{Turn, Turns},
};

/// Maximum number of concurrent reads of many channels on a node; each app has one of them at a
/// time.
const READS_AT_ONCE: usize = 2;
/// Hint for a request whose turn did not come in time, in milliseconds.
const RETRY_AFTER_MS: u64 = 2_000;
/// Bytes of all orders that a node keeps.
const CACHE_BYTES: usize = 32 << 20;

/// A channel with the instant of its last event.
pub type Ranked = (u64, ChannelId);

/// A user's channels, last active first.
#[derive(Debug, Clone)]
pub struct ChannelOrder {
    /// An instant before the first channel was read, by the store's clock. Older events are
    /// included.
    pub(super) as_of: u64,
    /// By instant descending, then by id.
    pub(super) channels: Vec<Ranked>,
    /// Position of the user's own stream before the index was read.
    pub(super) position: Position,
    /// When it was read, on the node's steady clock, and for how long it is used.
    pub(super) read_at: Duration,
    pub(super) reuse: Duration,
}

/// Sorts by instant descending, then by id.
pub(super) fn rank(a: &Ranked, b: &Ranked) -> std::cmp::Ordering {
    b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1))
}

impl ChannelOrder {
    #[cfg(test)]
    pub(super) fn of(as_of: u64, mut channels: Vec<Ranked>) -> Self {
        channels.sort_by(rank);
        let nowhere = Position { seq: 0, at: 0 };
        Self {
            as_of,
            channels,
            position: nowhere,
            read_at: Duration::ZERO,
            reuse: Duration::ZERO,
        }
    }

    /// Returns its approximate size in bytes.
    fn bytes(&self) -> usize {
        // The text of an id has a header of two counts.
        self.channels
            .iter()
            .map(|(_, id)| size_of::<Ranked>() + 16 + id.as_str().len())
            .sum::<usize>()
            + size_of::<Self>()
    }

    /// Returns the order with `ranked` instead of the channels `without`.
    pub(super) fn with(
        &self,
        without: &BTreeSet<ChannelId>,
        ranked: Vec<Ranked>,
        position: Position,
    ) -> Self {
        let mut channels: Vec<Ranked> = self
            .channels
            .iter()
            .filter(|(_, id)| !without.contains(id))
            .cloned()
            .collect();
        channels.extend(ranked);
        channels.sort_by(rank);
        Self {
            channels,
            position,
            ..*self
        }
    }
}

/// A user and its tenant.
pub(super) type ScopedUser = (Scope, UserId);

/// The orders that a node keeps, and the turns in which it reads them.
#[derive(Debug)]
pub struct ChannelOrders {
    kept: Mutex<Kept>,
    users: Turns<ScopedUser>,
    apps: Turns<Scope>,
    node: Semaphore,
}

/// Orders by user. The least recently used ones are evicted first.
#[derive(Debug, Default)]
struct Kept {
    orders: HashMap<ScopedUser, (Arc<ChannelOrder>, u64)>,
    by_use: BTreeMap<u64, ScopedUser>,
    uses: u64,
    bytes: usize,
}

/// The turn of a request that reads many channels.
#[derive(Debug)]
pub(super) struct ReadTurn<'a> {
    _user: Turn<'a, ScopedUser>,
    _app: Turn<'a, Scope>,
    _node: Option<SemaphorePermit<'a>>,
}

impl Default for ChannelOrders {
    fn default() -> Self {
        Self {
            kept: Mutex::default(),
            users: Turns::default(),
            apps: Turns::default(),
            node: Semaphore::new(READS_AT_ONCE),
        }
    }
}

impl ChannelOrders {
    pub(super) fn get(&self, key: &ScopedUser) -> Option<Arc<ChannelOrder>> {
        self.kept.lock().get(key)
    }

    pub(super) fn keep(&self, key: ScopedUser, order: Arc<ChannelOrder>) {
        self.kept.lock().insert(key, order, CACHE_BYTES);
    }

    /// Waits until it is this request's turn to read many channels of a user.
    pub(super) async fn turn(
        &self,
        scope: &Scope,
        user: &UserId,
        patience: Duration,
    ) -> Result<ReadTurn<'_>> {
        let waiting = async {
            let of_user = self.users.take((scope.clone(), user.clone())).await;
            let of_app = self.apps.take(scope.clone()).await;
            ReadTurn {
                _user: of_user,
                _app: of_app,
                _node: self.node.acquire().await.ok(),
            }
        };
        timeout(patience, waiting).await.map_err(|_| {
            let sentence = "too many requests read the channels of users who are in many";
            Error::new(protocol::ErrorCode::RateLimited, sentence).retry_after(RETRY_AFTER_MS)
        })
    }
}

impl Kept {
    fn get(&mut self, key: &ScopedUser) -> Option<Arc<ChannelOrder>> {
        let (order, used) = self.orders.get_mut(key)?;
        self.uses += 1;
        self.by_use.remove(used);
        self.by_use.insert(self.uses, key.clone());
        *used = self.uses;
        Some(Arc::clone(order))
    }

    fn insert(&mut self, key: ScopedUser, order: Arc<ChannelOrder>, most_bytes: usize) {
        if let Some((before, _)) = self.orders.get(&key)
            && (before.as_of, before.position.seq) > (order.as_of, order.position.seq)
        {
            return;
        }
        self.remove(&key);
        self.bytes += order.bytes();
        self.uses += 1;
        self.by_use.insert(self.uses, key.clone());
        self.orders.insert(key, (order, self.uses));
        while self.bytes > most_bytes
            && self.orders.len() > 1
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &ScopedUser) {
        if let Some((order, used)) = self.orders.remove(key) {
            self.by_use.remove(&used);
            self.bytes -= order.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use protocol::entity::Environment;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(4);

    fn key(n: usize) -> ScopedUser {
        (
            Scope {
                app: "app_0000000000000001".parse().unwrap(),
                environment: Environment::Live,
            },
            format!("user-{n}").parse().unwrap(),
        )
    }

    fn order(channels: usize, as_of: u64) -> Arc<ChannelOrder> {
        let channel = |n| (n as u64, format!("channel-{n}").parse().unwrap());
        Arc::new(ChannelOrder::of(
            as_of,
            (0..channels).map(channel).collect(),
        ))
    }

    #[test]
    fn kept_orders_are_bounded_in_bytes_and_the_least_recently_used_goes() {
        let (mut kept, each) = (Kept::default(), order(100, 1).bytes());
        for n in 0..3 {
            kept.insert(key(n), order(100, 1), 3 * each);
        }
        assert!(kept.get(&key(0)).is_some());
        kept.insert(key(3), order(100, 1), 3 * each);
        assert!(
            kept.get(&key(1)).is_none() && kept.get(&key(0)).is_some() && kept.bytes == 3 * each
        );
        kept.insert(key(4), order(10_000, 1), 3 * each);
        assert!(
            kept.get(&key(4)).is_some() && kept.orders.len() == 1 && kept.by_use.len() == 1,
            "one that is too large is alone"
        );
        kept.insert(key(4), order(1, 0), 3 * each);
        assert_eq!(
            kept.get(&key(4)).unwrap().channels.len(),
            10_000,
            "an older one does not replace it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_app_that_reads_much_leaves_a_place_for_others() {
        let orders = ChannelOrders::default();
        let (one, other) = (
            key(0).0,
            Scope {
                environment: Environment::Test,
                ..key(0).0
            },
        );
        let _held = orders.turn(&one, &key(0).1, PATIENCE).await.unwrap();
        assert!(
            timeout(
                Duration::from_secs(1),
                orders.turn(&one, &key(1).1, PATIENCE)
            )
            .await
            .is_err()
        );
        orders.turn(&other, &key(0).1, PATIENCE).await.unwrap();
        let refused = orders.turn(&one, &key(1).1, PATIENCE).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.body.retry_after_ms),
            (protocol::ErrorCode::RateLimited, Some(RETRY_AFTER_MS))
        );
    }
}
