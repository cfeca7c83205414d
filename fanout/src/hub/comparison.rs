//! Notices records that the bus lost without a sign: compares positions with the digests of all
//! nodes, and positions in doubt with the heads of their logs.
//!
//! In doubt are the topics of lines that do not agree, all topics after missing digests, and those
//! whose subscription the bus lost. Besides, every position is compared once in
//! [`HubConfig::compare_period`](super::HubConfig::compare_period). Many heads are read in pieces,
//! between which the commands of others get their turn, those of busy topics first.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::Hub;
use super::active_topic::{ActiveTopic, ComparedTopics};
use super::broadcaster;
use super::shared::backoff;
use crate::digest::{Digest, DigestLine, DigestReceiver, Doubt, bucket_topics};
use crate::sync::atomic::Ordering;
use crate::sync::{sleep, timeout};
use crate::{SourceError, Topic};

const HEADS_PER_REQUEST: usize = 128;
const MAX_CONCURRENT_REQUESTS: usize = 16;

/// Pause between two requests.
const REQUEST_PAUSE: Duration = Duration::from_millis(25);

/// Period at which digests that have arrived are handled.
const DIGEST_PERIOD: Duration = Duration::from_millis(250);

/// Period at which some of all topics are compared.
const BACKSTOP_PERIOD: Duration = Duration::from_secs(1);

/// Maximum time of a check whether silent nodes live. Digests wait meanwhile.
const LIFE_CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Compares positions as long as the hub lives.
pub(super) async fn run(hub: Weak<Hub>) {
    let Some((has_digests, period)) = hub.upgrade().map(|hub| {
        let config = &hub.shared.config;
        (config.has_digests, config.compare_period)
    }) else {
        return;
    };
    let mut receiver = None;
    if has_digests {
        receiver = join_digests(&hub).await;
    }
    let mut backstop = Backstop::new(period, Instant::now());
    let (mut attempts, mut retry_at) = (0, None);
    loop {
        let tick = match receiver {
            Some(_) => DIGEST_PERIOD,
            None => BACKSTOP_PERIOD,
        };
        let Some(this) = hub.upgrade() else { return };
        let is_notified = timeout(tick.min(period), this.listener.suspects.notified())
            .await
            .is_ok();
        let now = Instant::now();
        let mut is_due = is_notified || retry_at.is_some_and(|at| at <= now);
        if let Some(receiver) = &mut receiver {
            is_due |= this.handle_digests(receiver, now);
            is_due |= this.forget_dead_publishers(receiver, now).await;
        }
        if is_due {
            let suspects = this.topics_to_compare(ComparedTopics::Suspects, |_| true);
            match this.compare(ComparedTopics::Suspects, suspects).await {
                Ok(()) => (attempts, retry_at) = (0, None),
                Err(error) => {
                    tracing::warn!(%error, attempts, "cannot read log heads after records may have been missed, will retry");
                    retry_at = Some(Instant::now() + backoff(attempts));
                    attempts += 1;
                }
            }
        }
        if let Some(phases) = backstop.due(now) {
            let topics =
                this.topics_to_compare(ComparedTopics::All, |active| phases.contains(active.hash));
            if let Err(error) = this.compare(ComparedTopics::All, topics).await {
                tracing::debug!(%error, "cannot read log heads, will retry");
                retry_at.get_or_insert(now);
            }
        }
    }
}

/// Joins the topics of digests, however long it takes.
async fn join_digests(hub: &Weak<Hub>) -> Option<DigestReceiver> {
    let mut attempts = 0;
    loop {
        let bus = Arc::clone(&hub.upgrade()?.bus);
        match bus.join(&bucket_topics()).await {
            Ok(()) => break,
            Err(error) => {
                tracing::debug!(%error, "cannot join the topics of digests, will retry");
                sleep(backoff(attempts)).await;
                attempts += 1;
            }
        }
    }
    if attempts > 0 {
        let hub = hub.upgrade()?;
        hub.doubt_all_topics();
        hub.listener.suspects.notify_one();
    }
    Some(DigestReceiver::new(Instant::now()))
}

impl Hub {
    fn doubt_all_topics(&self) {
        for active in self.listener.topics.all() {
            active.mark_suspect();
        }
    }

    /// Marks topics as suspect by the digests that have arrived. Returns whether there are any.
    fn handle_digests(&self, receiver: &mut DigestReceiver, now: Instant) -> bool {
        let received = std::mem::take(&mut *self.listener.digests.lock());
        let mut doubt = Doubt::None;
        let mut lines: HashMap<u64, Vec<DigestLine>> = HashMap::new();
        for bytes in received {
            match Digest::decode(bytes) {
                Ok(digest) => {
                    if receiver.receive(&digest, now) == Doubt::AllTopics {
                        doubt = Doubt::AllTopics;
                    }
                    for line in digest.lines {
                        lines.entry(line.topic).or_default().push(line);
                    }
                }
                Err(error) => {
                    self.listener.malformed.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(%error, "dropped a malformed digest from the bus");
                    doubt = Doubt::AllTopics;
                }
            }
        }
        if receiver.tick(now) == Doubt::AllTopics {
            doubt = Doubt::AllTopics;
        }
        if doubt == Doubt::AllTopics {
            tracing::debug!("digests of a node are missing, all positions are compared");
            self.doubt_all_topics();
            return true;
        }
        if lines.is_empty() {
            return false;
        }
        let mut is_any_suspect = false;
        for active in self.listener.topics.all() {
            for line in lines.get(&active.hash).into_iter().flatten() {
                is_any_suspect |= active.check_line(line);
            }
        }
        is_any_suspect
    }

    /// Forgets silent nodes that have died. Marks all topics as suspect if there is one, and returns
    /// whether.
    pub(super) async fn forget_dead_publishers(
        &self,
        receiver: &mut DigestReceiver,
        now: Instant,
    ) -> bool {
        let silent = receiver.silent_publishers(now);
        if silent.is_empty() {
            return false;
        }
        // After a failure the nodes are asked for again.
        let checked = timeout(LIFE_CHECK_TIMEOUT, self.shared.source.are_alive(&silent)).await;
        let Ok(Ok(alive)) = checked else {
            tracing::debug!("cannot read whether silent nodes live, will retry");
            return false;
        };
        let mut doubt = Doubt::None;
        for (publisher, _) in silent.into_iter().zip(alive).filter(|(_, alive)| !alive) {
            if receiver.forget(publisher) == Doubt::AllTopics {
                doubt = Doubt::AllTopics;
            }
        }
        if doubt == Doubt::None {
            return false;
        }
        tracing::debug!("a silent node has died, all positions are compared");
        self.doubt_all_topics();
        true
    }

    /// Returns topics whose positions are to be compared, busy ones first.
    fn topics_to_compare(
        &self,
        which: ComparedTopics,
        is_selected: impl Fn(&ActiveTopic) -> bool,
    ) -> Vec<Arc<ActiveTopic>> {
        let mut topics: Vec<(bool, Arc<ActiveTopic>)> = self
            .listener
            .topics
            .all()
            .into_iter()
            .filter(|active| is_selected(active))
            .filter_map(|active| Some((active.is_compared(which)?, active)))
            .collect();
        topics.sort_by_key(|(is_busy, _)| !is_busy);
        topics.into_iter().map(|(_, active)| active).collect()
    }

    /// Compares positions with the heads of the logs, and starts recoveries where they differ.
    async fn compare(
        &self,
        which: ComparedTopics,
        topics: Vec<Arc<ActiveTopic>>,
    ) -> Result<(), SourceError> {
        let requests: Vec<_> = topics
            .chunks(HEADS_PER_REQUEST)
            .map(<[_]>::to_vec)
            .enumerate()
            .collect();
        // Concurrently, so that a request that waits for an unavailable part of the store does not
        // delay the others.
        let failures = stream::iter(requests)
            .then(|(index, topics)| async move {
                if index > 0 {
                    sleep(REQUEST_PAUSE).await;
                }
                topics
            })
            .map(|topics| self.compare_in_one_request(which, topics))
            .buffer_unordered(MAX_CONCURRENT_REQUESTS);
        let mut failures = std::pin::pin!(failures);
        let mut result = Ok(());
        while let Some(failure) = failures.next().await {
            if let Some(error) = failure {
                result = Err(error);
            }
        }
        result
    }

    async fn compare_in_one_request(
        &self,
        which: ComparedTopics,
        topics: Vec<Arc<ActiveTopic>>,
    ) -> Option<SourceError> {
        let compared: Vec<_> = topics
            .iter()
            .filter_map(|active| Some((active, active.position_to_compare(which)?)))
            .collect();
        let names: Vec<Topic> = compared
            .iter()
            .map(|(active, _)| Arc::clone(&active.topic))
            .collect();
        let heads = self.shared.source.heads(&names).await;
        let mut failure = None;
        for ((active, compared), head) in compared.into_iter().zip(heads) {
            match head {
                Ok(head) => {
                    broadcaster::compare(active, compared.position, head);
                    if compared.is_loss_reported {
                        broadcaster::report_loss(active, &*self.shared.source);
                    }
                }
                Err(error) => {
                    if compared.is_loss_reported {
                        active.mark_loss();
                    } else {
                        active.mark_suspect();
                    }
                    failure = Some(error);
                }
            }
        }
        failure
    }
}

/// Spreads the comparison of all topics over a period: each topic has a phase, which is its hash.
struct Backstop {
    period: Duration,
    started: Instant,
    /// Time since the start up to which topics were compared.
    compared: Duration,
}

/// The topics whose phase is in this interval of a period.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Phases {
    from: f64,
    to: f64,
}

impl Phases {
    fn contains(self, hash: u64) -> bool {
        let phase = hash as f64 / u64::MAX as f64;
        // The interval may reach into the next period.
        (self.from..self.to).contains(&phase) || (self.from..self.to).contains(&(phase + 1.0))
    }
}

impl Backstop {
    fn new(period: Duration, now: Instant) -> Self {
        Self {
            period,
            started: now,
            compared: Duration::ZERO,
        }
    }

    /// Returns the topics whose turn came since the last call.
    fn due(&mut self, now: Instant) -> Option<Phases> {
        let elapsed = now.saturating_duration_since(self.started);
        let passed = elapsed.saturating_sub(self.compared);
        if passed < BACKSTOP_PERIOD.min(self.period) {
            return None;
        }
        let period = self.period.as_secs_f64();
        let from = (self.compared.as_secs_f64() / period).fract();
        self.compared = elapsed;
        Some(Phases {
            from,
            to: from + passed.as_secs_f64() / period,
        })
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_compared_once_in_a_period() {
        let start = Instant::now();
        let period = Duration::from_secs(300);
        let mut backstop = Backstop::new(period, start);
        let hashes: Vec<u64> = (0..1_000u64)
            .map(|n| crate::digest::topic_hash(&format!("c:{n}")))
            .collect();
        let mut counts = vec![0; hashes.len()];
        let mut largest: usize = 0;
        // Uneven ticks over three periods.
        let mut now = start;
        for millis in [1_250, 1_750].repeat(300) {
            now += Duration::from_millis(millis);
            let Some(phases) = backstop.due(now) else {
                continue;
            };
            let mut size = 0;
            for (hash, count) in hashes.iter().zip(&mut counts) {
                if phases.contains(*hash) {
                    (*count, size) = (*count + 1, size + 1);
                }
            }
            largest = largest.max(size);
        }
        assert!(counts.iter().all(|count| *count == 3), "{counts:?}");
        assert!(largest < 20, "{largest} in one piece");
    }
}
