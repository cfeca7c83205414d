//! Receives the digests of all nodes, and notices when some are missing.

use std::collections::HashMap;

use tokio::time::Instant;

use super::{Digest, INTERVAL, LIFE_CHECK_AFTER, REPEATS, SILENCE};

/// Maximum number of nodes that are followed. Digests of others put all topics in doubt.
const MAX_PUBLISHERS: usize = 4_096;

/// Whether positions may be behind the log though no line of a digest says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Doubt {
    /// The lines received so far tell everything.
    None,
    /// The positions of all topics are in doubt.
    AllTopics,
}

/// Follows the rounds of each node.
#[derive(Debug)]
pub struct DigestReceiver {
    listening_since: Instant,
    publishers: HashMap<u64, Publisher>,
}

/// A node that publishes digests.
#[derive(Debug)]
struct Publisher {
    /// The newest round of which all parts arrived, or before which none is needed.
    complete_round: u64,
    /// The round of the newest part, and the number of its parts that arrived.
    current: (u64, u16),
    heard_at: Instant,
    /// When a round was complete, or all topics were in doubt, for the last time.
    certain_at: Instant,
    /// When [`DigestReceiver::silent_publishers`] named it for the last time since it was heard.
    checked_at: Option<Instant>,
}

impl Publisher {
    fn doubt(&mut self, now: Instant) -> Doubt {
        self.certain_at = now;
        Doubt::AllTopics
    }
}

impl DigestReceiver {
    /// Creates a receiver on a bus that has just confirmed the topics of digests.
    pub fn new(now: Instant) -> Self {
        Self {
            listening_since: now,
            publishers: HashMap::new(),
        }
    }

    /// Takes a digest, besides its lines.
    pub fn receive(&mut self, digest: &Digest, now: Instant) -> Doubt {
        let mut doubt = Doubt::None;
        if digest.is_incomplete {
            doubt = Doubt::AllTopics;
        }
        let is_known = self.publishers.contains_key(&digest.publisher);
        if !is_known && self.publishers.len() >= MAX_PUBLISHERS {
            return Doubt::AllTopics;
        }
        // Of a node that is heard for the first time, the rounds since this one listens are needed.
        let listening = now.saturating_duration_since(self.listening_since);
        let missed_rounds = listening.as_secs() / INTERVAL.as_secs();
        let earlier_rounds = u32::try_from(digest.round.min(1 + missed_rounds)).unwrap_or(u32::MAX);
        let publisher = self
            .publishers
            .entry(digest.publisher)
            .or_insert_with(|| Publisher {
                complete_round: digest.round.saturating_sub(1 + missed_rounds),
                current: (digest.round, 0),
                heard_at: now,
                certain_at: now
                    .checked_sub(INTERVAL.saturating_mul(earlier_rounds))
                    .unwrap_or(now),
                checked_at: None,
            });
        if digest.round > publisher.current.0 {
            publisher.current = (digest.round, 0);
        }
        if digest.round > publisher.complete_round + REPEATS {
            doubt = publisher.doubt(now);
            publisher.complete_round = digest.round - 1;
        }
        (publisher.heard_at, publisher.checked_at) = (now, None);
        if digest.round == publisher.current.0 {
            publisher.current.1 += 1;
            if publisher.current.1 == digest.parts {
                publisher.complete_round = publisher.complete_round.max(digest.round);
                publisher.certain_at = now;
                if digest.is_last {
                    self.publishers.remove(&digest.publisher);
                }
            }
        }
        doubt
    }

    /// Notices nodes without a complete round. While a node is silent, all topics are in doubt again
    /// in every [`SILENCE`]: it may go on committing, and the last commits of a dead node may run
    /// late.
    pub fn tick(&mut self, now: Instant) -> Doubt {
        let mut doubt = Doubt::None;
        for publisher in self.publishers.values_mut() {
            if now.saturating_duration_since(publisher.certain_at) >= SILENCE {
                doubt = publisher.doubt(now);
            }
        }
        doubt
    }

    /// Returns the nodes that have been silent for [`LIFE_CHECK_AFTER`], each of them once in
    /// [`SILENCE`]. Those whose lease has ended are to be [forgotten](Self::forget).
    pub fn silent_publishers(&mut self, now: Instant) -> Vec<u64> {
        let mut silent = Vec::new();
        for (id, publisher) in &mut self.publishers {
            let is_silent = now.saturating_duration_since(publisher.heard_at) >= LIFE_CHECK_AFTER;
            let is_due = publisher
                .checked_at
                .is_none_or(|at| now.saturating_duration_since(at) >= SILENCE);
            if is_silent && is_due {
                publisher.checked_at = Some(now);
                silent.push(*id);
            }
        }
        silent
    }

    /// Forgets a dead node. All topics are in doubt for the last time: its last commits may have run
    /// after it was heard.
    pub fn forget(&mut self, publisher: u64) -> Doubt {
        match self.publishers.remove(&publisher) {
            Some(_) => Doubt::AllTopics,
            None => Doubt::None,
        }
    }
}
