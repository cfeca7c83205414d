//! Presence: which users of this node are online, told to whoever watches them.
//!
//! A node keeps its users under its own lease in the store. A user is online while any node has it;
//! offline is told ten seconds after its last session ended, or when its node's lease has ended.
//!
//! What changed is first written under the own lease, then the store is asked who else has the
//! user, and only then something is told. So of two nodes the one that asks later sees what the
//! other wrote:
//!
//! - A node that lets a user go tells offline only if nobody else has it by then.
//! - A node that takes a user in tells online unless another one [has made sure](Online::is_told)
//!   that it is known. Two that do so at once both tell: better twice than never.
//! - What is told bears the time between the write and the question. So if one tells offline and
//!   another one online, the one that asked later bears the later time, and the newest word wins.
//!
//! Three loops run beside each other, so that the lease never waits for what has to be told: one
//! writes and renews, one looks for nodes whose lease has ended, and one settles what either of
//! them found, many users at once. What is not settled because the store could not be reached, or
//! because the work was cancelled, is written and settled again.
//!
//! Owned here: this node's users and their lease. Left out: sessions that watch, and what they read
//! (`watching`).

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
    document::PutValue,
    online::Online,
    reads,
    schema::{ENTITY, ONLY, SEEN, Scope, parse_member},
    together::together,
};
use fanout::record::Control;
use parking_lot::Mutex;
use protocol::{EventKind, UserId, event::PresenceData};
use serde::Serialize;
use store::{Commit, Expected, StoreError};
use tokio::{
    sync::Notify,
    time::{Instant, Interval, MissedTickBehavior},
};

use self::unsettled::{Found, Unsettled};

/// After a failure, for this long nothing is tried.
const RETRY: Duration = Duration::from_secs(1);
/// The changes of this time share one write.
const GATHERING: Duration = Duration::from_millis(20);
/// How many members are written with one call, so that no call holds up the store.
const WRITTEN: usize = 4096;
/// How many users are settled with one question.
const SETTLED: usize = 512;

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// After its last session ended, a user is online for this much longer: 10 s.
    pub grace: Duration,
    /// How long a node's lease lasts: 15 s.
    pub lease: Duration,
    /// How often it is renewed, and dead nodes are looked for: 5 s.
    pub renewal: Duration,
}

impl Default for Timing {
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
pub struct Presences {
    services: Services,
    node: String,
    timing: Timing,
    here: DashMap<String, Here>,
    /// In the order in which they end.
    graces: Mutex<VecDeque<Grace>>,
    /// Whom the lease does not show as `here` does.
    changed: Mutex<HashSet<String>>,
    wake: Notify,
    unsettled: Unsettled,
    numbers: AtomicU64,
    /// When the lease was last taken anew, or could not be written.
    trouble: Mutex<Instant>,
}

/// A user of this node.
#[derive(Debug)]
struct Here {
    sessions: u32,
    /// Which stay this is: what was found out about an earlier one says nothing of it.
    stay: u64,
    /// Which grace began last: only that one ends the stay.
    grace: u64,
    is_told: bool,
}

impl Here {
    fn online(&self) -> Online {
        if self.is_told {
            Online::told(self.sessions)
        } else {
            Online::untold(self.sessions)
        }
    }
}

#[derive(Debug)]
struct Grace {
    until: Instant,
    member: String,
    number: u64,
}

#[derive(Serialize)]
struct Told<'a> {
    data: &'a PresenceData,
}

impl Presences {
    /// Nobody is here yet. The node's name is that of its lease.
    pub fn new(services: Services, node: impl Into<String>) -> Arc<Self> {
        Self::with(services, node, Timing::default())
    }

    /// The same with other times.
    pub fn with(services: Services, node: impl Into<String>, timing: Timing) -> Arc<Self> {
        Arc::new(Self {
            services,
            node: node.into(),
            timing,
            here: DashMap::new(),
            graces: Mutex::default(),
            changed: Mutex::default(),
            wake: Notify::new(),
            unsettled: Unsettled::default(),
            numbers: AtomicU64::new(1),
            trouble: Mutex::new(Instant::now()),
        })
    }

    /// A session of this user began here.
    pub(super) fn came(&self, scope: &Scope, user: &UserId) {
        let member = scope.member(user);
        let new = || Here {
            sessions: 0,
            stay: self.number(),
            grace: 0,
            is_told: false,
        };
        self.here.entry(member.clone()).or_insert_with(new).sessions += 1;
        self.change([member]);
    }

    /// A session of this user ended here.
    pub(super) fn went(&self, scope: &Scope, user: &UserId) {
        let member = scope.member(user);
        {
            let Some(mut here) = self.here.get_mut(&member) else {
                return;
            };
            here.sessions = here.sessions.saturating_sub(1);
            if here.sessions == 0 {
                here.grace = self.number();
                let mut graces = self.graces.lock();
                graces.push_back(Grace {
                    until: Instant::now() + self.timing.grace,
                    member: member.clone(),
                    number: here.grace,
                });
            }
        }
        self.change([member]);
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    fn change(&self, members: impl IntoIterator<Item = String>) {
        self.changed.lock().extend(members);
        self.wake.notify_one();
    }

    /// Lets those go whose grace is over.
    fn end_graces(&self, now: Instant) {
        let ended: Vec<Grace> = {
            let mut graces = self.graces.lock();
            let count = graces.partition_point(|grace| grace.until <= now);
            graces.drain(..count).collect()
        };
        for Grace { member, number, .. } in ended {
            if self
                .here
                .remove_if(&member, |_, here| {
                    here.sessions == 0 && here.grace == number
                })
                .is_some()
            {
                self.change([member]);
            }
        }
    }

    /// Writes under the node's lease what changed, and renews it for `ttl`. What was written is
    /// unsettled then.
    async fn write(&self, ttl: Duration) -> Result<(), StoreError> {
        let mut changed = Changed {
            presences: self,
            members: self.changed.lock().drain().collect(),
        };
        if !self.lease(ttl, &changed.members).await? {
            *self.trouble.lock() = Instant::now();
            // The lease had ended, and what it held may have been told offline: all of them come
            // anew.
            for mut here in self.here.iter_mut() {
                (here.is_told, here.stay) = (false, self.number());
            }
            let all: HashSet<String> = self
                .here
                .iter()
                .map(|here| here.key().clone())
                .chain(changed.members.drain(..))
                .collect();
            changed.members = all.into_iter().collect();
            self.lease(ttl, &changed.members).await?;
        }
        let found = std::mem::take(&mut changed.members)
            .into_iter()
            .filter_map(|member| {
                let found = match self.here.get(&member) {
                    Some(here) if here.is_told => return None,
                    Some(here) => Found::Came { stay: here.stay },
                    None => Found::Went,
                };
                Some((member, found))
            });
        self.unsettled.add(found);
        Ok(())
    }

    /// Writes how members are now. False if the lease had ended.
    async fn lease(&self, ttl: Duration, members: &[String]) -> Result<bool, StoreError> {
        let online = |member: &String| {
            self.here
                .get(member)
                .map_or(Online::NOT, |here| here.online())
        };
        let mut rest = members;
        loop {
            let (some, others) = rest.split_at(rest.len().min(WRITTEN));
            let values = some
                .iter()
                .map(|member| (member.clone(), online(member).number()))
                .collect();
            let lived = self.services.store.lease(&self.node, ttl, values).await?;
            if !lived || others.is_empty() {
                return Ok(lived);
            }
            rest = others;
        }
    }

    /// Takes away what nodes left whose lease has ended. It is settled like what changed here: who
    /// is told to one sweep is told to no other.
    async fn sweep(&self) -> Result<(), StoreError> {
        let swept = self.services.store.sweep().await?;
        if !swept.is_empty() {
            self.change(swept);
        }
        Ok(())
    }

    /// Whether a lease that has ended is that of a dead node. Where the store was away those of
    /// nodes that live have ended, too: they get the time of one lease to take theirs anew.
    fn is_sure(&self) -> bool {
        self.trouble.lock().elapsed() >= self.timing.lease
    }

    /// Tells of some of what is unsettled; false if there is nothing.
    async fn settle(&self) -> Result<bool, StoreError> {
        let batch = self.unsettled.take(SETTLED);
        if batch.is_empty() {
            return Ok(false);
        }
        let (members, found): (Vec<String>, Vec<Found>) = batch.into_iter().unzip();
        let mut changed = Changed {
            presences: self,
            members,
        };
        let at = self.services.clock.now_ms();
        let online = self.services.store.members(&changed.members).await?;
        let each = changed.members.iter().zip(found).zip(online);
        let settled =
            together(each.map(|((member, found), online)| {
                self.settle_one(member, found, online.into(), at)
            }))
            .await;
        // Those that nobody could be told of are settled again with what changes next.
        let mut settled = settled.into_iter();
        changed.members.retain(|member| match settled.next() {
            Some(Err(error)) => {
                tracing::warn!(%error, member, "who came or went was not told");
                true
            }
            _ => false,
        });
        Ok(true)
    }

    async fn settle_one(
        &self,
        member: &str,
        found: Found,
        online: Online,
        at: u64,
    ) -> Result<(), StoreError> {
        let Some((scope, user)) = parse_member(member) else {
            return Ok(());
        };
        match found {
            Found::Came { stay } => {
                let is_untold = self
                    .here
                    .get(member)
                    .is_some_and(|here| here.stay == stay && !here.is_told);
                // Whoever is not online by now has gone again, and that is settled by itself.
                if !is_untold || !online.is_online() {
                    return Ok(());
                }
                if !online.is_told() {
                    self.tell(
                        &scope,
                        PresenceData {
                            user_id: user,
                            online: true,
                            last_seen: None,
                            at,
                        },
                    )
                    .await?;
                }
                let is_it = match self.here.get_mut(member) {
                    Some(mut here) if here.stay == stay => {
                        here.is_told = true;
                        true
                    }
                    _ => false,
                };
                if is_it {
                    self.change([member.to_owned()]);
                }
                Ok(())
            }
            Found::Went if online.is_online() => Ok(()),
            Found::Went => {
                let seen = Commit::default()
                    .require(ENTITY, ONLY, Expected::Present)
                    .put_value(SEEN, ONLY, &at);
                // A conflict is a user that is deleted.
                let _kept = self.services.store.commit(&scope.user(&user), seen).await?;
                self.tell(
                    &scope,
                    PresenceData {
                        user_id: user,
                        online: false,
                        last_seen: Some(at),
                        at,
                    },
                )
                .await
            }
        }
    }

    async fn tell(&self, scope: &Scope, data: PresenceData) -> Result<(), StoreError> {
        let topic = scope.presence(&data.user_id);
        reads::try_tell(
            &self.services,
            &topic,
            EventKind::PresenceChanged,
            Control::None,
            &Told { data: &data },
        )
        .await
    }

    /// Keeps the lease, looks for nodes whose lease has ended, and tells who came and went. Runs
    /// for as long as the node does.
    pub async fn keep(self: Arc<Self>) {
        tokio::join!(
            self.keep_writing(),
            self.keep_sweeping(),
            self.keep_settling()
        );
    }

    async fn keep_writing(&self) {
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
                *self.trouble.lock() = Instant::now();
                tracing::warn!(%error, "the node's lease was not renewed");
                tokio::time::sleep(RETRY).await;
                self.wake.notify_one();
            }
            tokio::time::sleep(GATHERING).await;
        }
    }

    async fn keep_sweeping(&self) {
        let mut due = interval(self.timing.renewal);
        loop {
            due.tick().await;
            if self.is_sure()
                && let Err(error) = self.sweep().await
            {
                tracing::warn!(%error, "dead nodes could not be looked for");
            }
        }
    }

    async fn keep_settling(&self) {
        loop {
            match self.settle().await {
                Ok(true) => {}
                Ok(false) => self.unsettled.wait().await,
                Err(error) => {
                    tracing::warn!(%error, "whether users are online elsewhere is not known");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// The node ends, and others may go on: its users have one more grace, for which the lease
    /// still lasts. Who comes to another node by then was never offline; the others are swept,
    /// noted and told by whichever node notices first, at the latest by the next one that starts.
    /// What was to be told before is told now, as far as `within` suffices.
    ///
    /// [`keep`](Self::keep) must have ended.
    pub async fn leave(&self, within: Duration) {
        self.finish(self.timing.grace, within).await;
    }

    /// The node ends, and no other one goes on: its users are offline, and when they were last seen
    /// is kept now, as far as `within` suffices.
    ///
    /// [`keep`](Self::keep) must have ended.
    pub async fn close(&self, within: Duration) {
        let all: Vec<String> = self.here.iter().map(|here| here.key().clone()).collect();
        self.here.clear();
        self.change(all);
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
            Ok(Err(error)) => tracing::warn!(%error, "the node's lease ends by itself"),
            Err(_) => tracing::warn!("not everybody could be told in time who is offline"),
        }
    }
}

/// Ticks at once, and after a late tick no sooner than usual.
fn interval(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Members at work. Those that are left when it is dropped, by an error or because the work was
/// cancelled, have to be written and settled again.
struct Changed<'a> {
    presences: &'a Presences,
    members: Vec<String>,
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        self.presences.changed.lock().extend(self.members.drain(..));
    }
}

#[cfg(test)]
mod tests;
