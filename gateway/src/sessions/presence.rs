//! Presence: which users of this node are online.
//!
//! A node keeps its users under its own lease in the store. A user is online while the lease of any
//! node lists the user. `presence.changed` with `online: false` is published ten seconds after the
//! user's last session ended, or when the lease of a dead node ends.
//!
//! A node first writes a change under its lease, then asks the store which other nodes have the
//! user, and then publishes. Of two nodes, the one that asks later sees what the other one wrote:
//!
//! - A node that drops a user publishes offline only if no other node has the user.
//! - A node that adds a user publishes online, unless another node [has
//!   published](Online::is_told) it. Two nodes that add the user at once both publish.
//! - The time of an event lies between the write and the question. If one node publishes offline
//!   and another one online, the one that asked later has the later time, and clients keep the
//!   newest.
//!
//! Three loops run side by side, so that publishing never delays the lease: one writes and renews
//! the lease, one sweeps leases that have ended, and one [settles](settle) what the others found,
//! many users at once. A user whose change could not be settled is written and settled again.
//!
//! Owned here: this node's users and their lease. Left out: sessions that watch users
//! (`watching`).

mod settle;
mod unsettled;

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use domain::{
    Services,
    online::Online,
    schema::{Scope, parse_member},
};
use fanout::capacity::ShrinkIfSparse;
use parking_lot::Mutex;
use protocol::UserId;
use store::StoreError;
use tokio::{
    sync::Notify,
    time::{Instant, Interval, MissedTickBehavior},
};

use self::unsettled::{PresenceFinding, Unsettled};

/// Pause after a failed call to the store.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Changes within this time share one write.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum number of members in one write, so that no write delays others for long.
const MEMBERS_PER_WRITE: usize = 4096;

/// Durations of presence.
#[derive(Debug, Clone, Copy)]
pub struct PresenceTiming {
    /// How long a user stays online after the last session ended. Default 10 s.
    pub grace: Duration,
    /// Duration of a node's lease. Default 15 s.
    pub lease: Duration,
    /// Interval at which the lease is renewed and ended leases are swept. Default 5 s.
    pub renewal: Duration,
}

impl Default for PresenceTiming {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            lease: Duration::from_secs(15),
            renewal: Duration::from_secs(5),
        }
    }
}

/// The users of this node.
#[derive(Debug)]
pub struct PresenceTracker {
    services: Services,
    node: String,
    timing: PresenceTiming,
    /// By the user's name among the members of the lease.
    local: DashMap<String, LocalUser>,
    /// In the order in which they end.
    graces: Mutex<VecDeque<Grace>>,
    /// Members whose entry in the lease differs from `local`.
    unwritten: Mutex<HashSet<String>>,
    wake: Notify,
    unsettled: Unsettled,
    next_number: AtomicU64,
    /// The last time at which the lease was acquired again or a write of it failed.
    last_failure: Mutex<Instant>,
}

/// A user with a session on this node, or whose last one ended a moment ago.
#[derive(Debug)]
struct LocalUser {
    sessions: u32,
    /// Number of this stay on the node. A finding about an earlier stay does not apply to it.
    stay: u64,
    /// Number of the newest grace. Earlier ones do not end the stay.
    grace: u64,
    /// Whether it was published that the user is online.
    is_told: bool,
}

impl LocalUser {
    fn online(&self) -> Online {
        if self.is_told {
            Online::told(self.sessions)
        } else {
            Online::untold(self.sessions)
        }
    }
}

/// The time for which a user stays online without a session.
#[derive(Debug)]
struct Grace {
    until: Instant,
    member: String,
    number: u64,
}

impl PresenceTracker {
    /// A node without users. `node` is the name of its lease.
    pub fn new(services: Services, node: impl Into<String>) -> Arc<Self> {
        Self::with(services, node, PresenceTiming::default())
    }

    /// Like [`new`](Self::new), with other durations.
    pub fn with(services: Services, node: impl Into<String>, timing: PresenceTiming) -> Arc<Self> {
        Arc::new(Self {
            services,
            node: node.into(),
            timing,
            local: DashMap::new(),
            graces: Mutex::default(),
            unwritten: Mutex::default(),
            wake: Notify::new(),
            unsettled: Unsettled::default(),
            next_number: AtomicU64::new(1),
            last_failure: Mutex::new(Instant::now()),
        })
    }

    /// Adds a session of the user.
    pub(super) fn session_began(&self, scope: &Scope, user: &UserId) {
        let member = scope.member(user);
        let new = || LocalUser {
            sessions: 0,
            stay: self.take_number(),
            grace: 0,
            is_told: false,
        };
        self.local
            .entry(member.clone())
            .or_insert_with(new)
            .sessions += 1;
        self.rewrite([member]);
    }

    /// Removes a session of the user. The user stays online for the grace.
    pub(super) fn session_ended(&self, scope: &Scope, user: &UserId) {
        let member = scope.member(user);
        {
            let Some(mut here) = self.local.get_mut(&member) else {
                return;
            };
            here.sessions = here.sessions.saturating_sub(1);
            if here.sessions == 0 {
                here.grace = self.take_number();
                let mut graces = self.graces.lock();
                graces.push_back(Grace {
                    until: Instant::now() + self.timing.grace,
                    member: member.clone(),
                    number: here.grace,
                });
            }
        }
        self.rewrite([member]);
    }

    fn take_number(&self) -> u64 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Has members written under the lease again.
    fn rewrite(&self, members: impl IntoIterator<Item = String>) {
        self.unwritten.lock().extend(members);
        self.wake.notify_one();
    }

    /// Removes the users whose grace is over.
    fn end_graces(&self, now: Instant) {
        let ended: Vec<Grace> = {
            let mut graces = self.graces.lock();
            let count = graces.partition_point(|grace| grace.until <= now);
            let ended = graces.drain(..count).collect();
            graces.shrink_if_sparse();
            ended
        };
        if ended.is_empty() {
            return;
        }
        for Grace { member, number, .. } in ended {
            if self
                .local
                .remove_if(&member, |_, here| {
                    here.sessions == 0 && here.grace == number
                })
                .is_some()
            {
                self.rewrite([member]);
            }
        }
        self.local.shrink_if_sparse();
    }

    fn take_unwritten(&self) -> Vec<String> {
        let mut unwritten = self.unwritten.lock();
        let members = unwritten.drain().collect();
        unwritten.shrink_if_sparse();
        members
    }

    /// Writes the changed members under the node's lease and renews it for `ttl`. They are settled
    /// next.
    async fn write(&self, ttl: Duration) -> Result<(), StoreError> {
        let mut batch = Batch {
            presences: self,
            members: self.take_unwritten(),
        };
        if !self.write_lease(ttl, &batch.members).await? {
            *self.last_failure.lock() = Instant::now();
            // The lease had ended, and its users may have been published as offline: add all of
            // them again.
            for mut here in self.local.iter_mut() {
                (here.is_told, here.stay) = (false, self.take_number());
            }
            let all: HashSet<String> = self
                .local
                .iter()
                .map(|here| here.key().clone())
                .chain(batch.members.drain(..))
                .collect();
            batch.members = all.into_iter().collect();
            self.write_lease(ttl, &batch.members).await?;
        }
        let found = std::mem::take(&mut batch.members)
            .into_iter()
            .filter_map(|member| {
                let found = match self.local.get(&member) {
                    Some(user) if user.is_told => return None,
                    Some(user) => PresenceFinding::Online { stay: user.stay },
                    None => PresenceFinding::Offline,
                };
                Some((member, found))
            });
        self.unsettled.add(found);
        Ok(())
    }

    /// Writes the current state of members, and the node itself, which receivers of its digests
    /// count while it is silent. Returns false if the lease had ended.
    async fn write_lease(&self, ttl: Duration, members: &[String]) -> Result<bool, StoreError> {
        let online = |member: &String| {
            self.local
                .get(member)
                .map_or(Online::NOT, |here| here.online())
        };
        let mut rest = members;
        loop {
            let (some, others) = rest.split_at(rest.len().min(MEMBERS_PER_WRITE));
            let values = some
                .iter()
                .map(|member| (member.clone(), online(member).number()))
                .chain([(self.node.clone(), 1)])
                .collect();
            let lived = self.services.store.lease(&self.node, ttl, values).await?;
            if !lived || others.is_empty() {
                return Ok(lived);
            }
            rest = others;
        }
    }

    /// Removes the members of leases that have ended, and settles them like own changes. The store
    /// gives each member to one sweep only.
    async fn sweep(&self) -> Result<(), StoreError> {
        let mut swept = self.services.store.sweep().await?;
        // Nodes whose leases have ended are among their members.
        swept.retain(|member| parse_member(member).is_some());
        if !swept.is_empty() {
            self.rewrite(swept);
        }
        Ok(())
    }

    /// Returns whether an ended lease means a dead node. After an outage of the store the leases of
    /// running nodes have ended, too: they have the duration of a lease to acquire theirs again.
    fn may_sweep(&self) -> bool {
        self.last_failure.lock().elapsed() >= self.timing.lease
    }

    /// Renews the lease, sweeps ended leases and publishes changes, for as long as the node runs.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(
            self.write_periodically(),
            self.sweep_periodically(),
            self.settle_continuously()
        );
    }

    async fn write_periodically(&self) {
        let mut due = interval(self.timing.renewal);
        loop {
            let grace = self.graces.lock().front().map(|grace| grace.until);
            let grace_ends = async {
                match grace {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = due.tick() => {}
                () = self.wake.notified() => {}
                () = grace_ends => {}
            }
            self.end_graces(Instant::now());
            if let Err(error) = self.write(self.timing.lease).await {
                *self.last_failure.lock() = Instant::now();
                tracing::warn!(%error, "cannot renew the node's lease, will retry");
                tokio::time::sleep(RETRY_PAUSE).await;
                self.wake.notify_one();
            }
            tokio::time::sleep(WRITE_INTERVAL).await;
        }
    }

    async fn sweep_periodically(&self) {
        let mut due = interval(self.timing.renewal);
        loop {
            due.tick().await;
            if self.may_sweep()
                && let Err(error) = self.sweep().await
            {
                tracing::warn!(%error, "cannot sweep ended leases, will retry");
            }
        }
    }

    async fn settle_continuously(&self) {
        loop {
            match self.settle().await {
                Ok(true) => {}
                Ok(false) => self.unsettled.wait().await,
                Err(error) => {
                    tracing::warn!(%error, "cannot read whether users are online on other nodes, will retry");
                    tokio::time::sleep(RETRY_PAUSE).await;
                }
            }
        }
    }

    /// Ends presence on a node whose users may go to other nodes. The lease lasts for one more
    /// grace: users who connect to another node by then were never offline, and the others are
    /// swept by another node, at the latest by the next one that starts. Publishes unsettled
    /// changes, for at most `within`.
    ///
    /// [`run`](Self::run) must have ended.
    pub async fn leave(&self, within: Duration) {
        self.finish(self.timing.grace, within).await;
    }

    /// Ends presence on the only node: its users are offline, and the store keeps when they were
    /// last seen. Takes at most `within`.
    ///
    /// [`run`](Self::run) must have ended.
    pub async fn close(&self, within: Duration) {
        let all: Vec<String> = self.local.iter().map(|here| here.key().clone()).collect();
        self.local.clear();
        self.rewrite(all);
        self.finish(self.timing.lease, within).await;
    }

    async fn finish(&self, ttl: Duration, within: Duration) {
        let finish = async {
            self.write(ttl).await?;
            while self.settle().await? {}
            Ok::<_, StoreError>(())
        };
        match tokio::time::timeout(within, finish).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "cannot write the last presence of the node, its lease will end by itself")
            }
            Err(_) => tracing::warn!(
                "the time for publishing who is offline is over, other nodes will publish the rest"
            ),
        }
    }
}

/// Returns an interval that ticks at once, and a whole period after a late tick.
fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Members that are being written or settled. Members that are left when it is dropped, after an
/// error or a cancellation, are written and settled again.
struct Batch<'a> {
    presences: &'a PresenceTracker,
    members: Vec<String>,
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.presences
            .unwritten
            .lock()
            .extend(self.members.drain(..));
    }
}

#[cfg(test)]
mod tests;
