//! Records what a node commits, and makes its digests.

use std::collections::{HashMap, HashSet};
use std::fmt;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Digest, DigestLine, HOLD, REPEATS, SETTLE_AFTER, bucket_topic, topic_hash};
use crate::capacity::ShrinkIfSparse;
use crate::sync::Mutex;
use crate::{Position, Topic};

/// Maximum number of topics with recent commits, and of uncertain topics. If there are more,
/// receivers doubt the positions of all topics.
const MAX_TOPICS: usize = 65_536;

/// Maximum lines of one record on the bus: 24 KB.
const LINES_PER_PART: usize = 1_024;

/// Records the commits of a node for its digests.
pub struct DigestRecorder {
    state: Mutex<State>,
}

/// A topic with a commit whose answer was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UncertainCommit {
    /// The topic.
    pub topic: Topic,
    /// When the last such commit failed.
    failed_at: Instant,
}

struct State {
    publisher: u64,
    round: u64,
    commits: HashMap<u64, RecentCommit>,
    uncertain: HashMap<Topic, Instant>,
    /// Number of rounds to come that are incomplete.
    incomplete_rounds: u64,
}

/// The newest commit to a topic.
struct RecentCommit {
    position: Position,
    at: Instant,
    /// Number of rounds that had it.
    rounds: u64,
}

impl DigestRecorder {
    /// Creates a recorder. `publisher` is random for each start of a node.
    pub fn new(publisher: u64) -> Self {
        Self {
            state: Mutex::new(State {
                publisher,
                round: 0,
                commits: HashMap::new(),
                uncertain: HashMap::new(),
                incomplete_rounds: 0,
            }),
        }
    }

    /// Records a commit. `position` is that of its last event.
    pub fn committed(&self, topic: &str, position: Position, now: Instant) {
        self.state.lock().committed(topic, position, now);
    }

    /// Records that the answer to a commit was lost.
    pub fn uncertain(&self, topic: &Topic, now: Instant) {
        let state = &mut *self.state.lock();
        if state.uncertain.len() >= MAX_TOPICS && !state.uncertain.contains_key(topic) {
            state.incomplete_rounds = REPEATS;
        } else {
            state.uncertain.insert(topic.clone(), now);
        }
    }

    /// Returns some topics whose uncertain commits can no longer run. [`settle`](Self::settle) them
    /// with a head that is read after this call.
    pub fn unsettled(&self, limit: usize, now: Instant) -> Vec<UncertainCommit> {
        let state = self.state.lock();
        let due = state
            .uncertain
            .iter()
            .filter(|(_, failed_at)| now.saturating_duration_since(**failed_at) >= SETTLE_AFTER);
        due.take(limit)
            .map(|(topic, failed_at)| UncertainCommit {
                topic: topic.clone(),
                failed_at: *failed_at,
            })
            .collect()
    }

    /// Replaces an uncertain commit by the head of its topic.
    pub fn settle(&self, commit: &UncertainCommit, head: Position, now: Instant) {
        let mut state = self.state.lock();
        if state.uncertain.get(&commit.topic) == Some(&commit.failed_at) {
            state.uncertain.remove(&commit.topic);
            if head.seq > 0 {
                state.committed(&commit.topic, head, now);
            }
        }
    }

    /// Returns the records of the next round, and the topic on which to publish them in order.
    pub fn next_round(&self, now: Instant) -> (Topic, Vec<Bytes>) {
        self.state.lock().next_round(now, false)
    }

    /// Returns the records of the last round, when the node commits nothing more.
    pub fn last_round(&self, now: Instant) -> (Topic, Vec<Bytes>) {
        self.state.lock().next_round(now, true)
    }
}

impl State {
    fn committed(&mut self, topic: &str, position: Position, now: Instant) {
        let topic = topic_hash(topic);
        if self.commits.len() >= MAX_TOPICS && !self.commits.contains_key(&topic) {
            self.incomplete_rounds = REPEATS;
            return;
        }
        let commit = RecentCommit {
            position,
            at: now,
            rounds: 0,
        };
        let recent = self
            .commits
            .entry(topic)
            .or_insert(RecentCommit { ..commit });
        // The time first: another history after a failover may use lower numbers.
        if (position.at, position.seq) > (recent.position.at, recent.position.seq) {
            *recent = RecentCommit { ..commit };
        }
    }

    fn next_round(&mut self, now: Instant, is_last: bool) -> (Topic, Vec<Bytes>) {
        self.round += 1;
        let uncertain: HashSet<u64> = self
            .uncertain
            .keys()
            .map(|topic| topic_hash(topic))
            .collect();
        let mut lines: Vec<DigestLine> = uncertain
            .into_iter()
            .map(|topic| DigestLine {
                topic,
                position: None,
            })
            .collect();
        self.commits.retain(|topic, commit| {
            if is_last || now.saturating_duration_since(commit.at) >= HOLD {
                commit.rounds += 1;
                lines.push(DigestLine {
                    topic: *topic,
                    position: Some(commit.position),
                });
            }
            commit.rounds < REPEATS
        });
        self.commits.shrink_if_sparse();
        let parts = lines.len().div_ceil(LINES_PER_PART).max(1);
        let digest = |part: usize| Digest {
            publisher: self.publisher,
            round: self.round,
            part: u16::try_from(part).expect("the number of topics is bounded"),
            parts: u16::try_from(parts).expect("the number of topics is bounded"),
            // Receivers have to wait for an uncertain commit as for those of a dead node.
            is_last: is_last && self.uncertain.is_empty(),
            is_incomplete: self.incomplete_rounds > 0,
            lines: lines
                .chunks(LINES_PER_PART)
                .nth(part)
                .unwrap_or_default()
                .to_vec(),
        };
        let records = (0..parts).map(|part| digest(part).encode()).collect();
        self.incomplete_rounds = self.incomplete_rounds.saturating_sub(1);
        (bucket_topic(self.round), records)
    }
}

impl fmt::Debug for DigestRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestRecorder").finish_non_exhaustive()
    }
}
