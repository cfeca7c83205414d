//! The subscribers of a topic, in copy-on-write chunks.
//!
//! A broadcast takes a snapshot by cloning one pointer. A change while a snapshot exists copies one
//! chunk and the list of chunks, so it costs the same in a topic with many subscribers, and neither
//! waits for the other.

use std::sync::Arc;

use crate::Outbox;

const SUBSCRIBERS_PER_CHUNK: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubscriberState {
    /// Registered, not started. `evicted` is the highest `seq` of an eviction of its subject since.
    Joining { evicted: u64 },
    /// Reads the log. Evictions up to `head` were known when it was admitted. It is held while
    /// frames for an earlier subscription of its outbox may still be pushed.
    CatchingUp {
        head: u64,
        has_task: bool,
        is_held: bool,
    },
    /// Receives durable records with a `seq` above `after`. Evictions up to there were known when
    /// it was admitted.
    Live { after: u64 },
}

#[derive(Debug, Clone)]
pub(super) struct Subscriber {
    pub(super) outbox: Arc<Outbox>,
    pub(super) state: SubscriberState,
    generation: u32,
}

/// Identifies a subscriber of a topic. Never valid again after the subscriber was removed, even if
/// its slot is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubscriberId {
    slot: u32,
    generation: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    subscribers: Vec<Option<Subscriber>>,
    occupied: usize,
}

/// All subscribers at one instant.
#[derive(Debug, Clone, Default)]
pub(super) struct SubscriberSnapshot(Arc<Vec<Arc<Chunk>>>);

impl SubscriberSnapshot {
    pub(super) fn iter(&self) -> impl Iterator<Item = (SubscriberId, &Subscriber)> {
        self.0.iter().enumerate().flat_map(|(index, chunk)| {
            chunk
                .subscribers
                .iter()
                .enumerate()
                .filter_map(move |(offset, subscriber)| {
                    let subscriber = subscriber.as_ref()?;
                    Some((
                        SubscriberId {
                            slot: (index * SUBSCRIBERS_PER_CHUNK + offset) as u32,
                            generation: subscriber.generation,
                        },
                        subscriber,
                    ))
                })
        })
    }
}

/// The subscribers of one topic.
#[derive(Debug, Default)]
pub(super) struct Subscribers {
    chunks: SubscriberSnapshot,
    free: Vec<u32>,
    generation: u32,
    count: usize,
    not_live: usize,
    encodings: [u32; 2],
}

impl Subscribers {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns the number of subscribers that are not live.
    pub(super) fn not_live(&self) -> usize {
        self.not_live
    }

    /// Returns for each encoding whether a subscriber uses it.
    pub(super) fn encodings(&self) -> [bool; 2] {
        self.encodings.map(|count| count > 0)
    }

    pub(super) fn snapshot(&self) -> SubscriberSnapshot {
        self.chunks.clone()
    }

    pub(super) fn insert(&mut self, outbox: Arc<Outbox>) -> SubscriberId {
        let chunks = Arc::make_mut(&mut self.chunks.0);
        let slot = self.free.pop().unwrap_or_else(|| {
            let last = chunks.len().saturating_sub(1);
            if chunks
                .last()
                .is_none_or(|chunk| chunk.subscribers.len() == SUBSCRIBERS_PER_CHUNK)
            {
                chunks.push(Arc::default());
                return ((chunks.len() - 1) * SUBSCRIBERS_PER_CHUNK) as u32;
            }
            (last * SUBSCRIBERS_PER_CHUNK + chunks[last].subscribers.len()) as u32
        });
        self.generation = self.generation.wrapping_add(1);
        self.encodings[outbox.encoding() as usize] += 1;
        self.count += 1;
        self.not_live += 1;
        let chunk = Arc::make_mut(&mut chunks[slot as usize / SUBSCRIBERS_PER_CHUNK]);
        let offset = slot as usize % SUBSCRIBERS_PER_CHUNK;
        if offset >= chunk.subscribers.len() {
            // Grow in small steps: there are many topics with few subscribers.
            let capacity = (offset + 1 + offset / 4).min(SUBSCRIBERS_PER_CHUNK);
            if capacity > chunk.subscribers.capacity() {
                chunk
                    .subscribers
                    .reserve_exact(capacity - chunk.subscribers.len());
            }
            chunk.subscribers.resize_with(offset + 1, || None);
        }
        chunk.subscribers[offset] = Some(Subscriber {
            outbox,
            state: SubscriberState::Joining { evicted: 0 },
            generation: self.generation,
        });
        chunk.occupied += 1;
        SubscriberId {
            slot,
            generation: self.generation,
        }
    }

    pub(super) fn get(&self, id: SubscriberId) -> Option<&Subscriber> {
        let chunk = self
            .chunks
            .0
            .get(id.slot as usize / SUBSCRIBERS_PER_CHUNK)?;
        chunk
            .subscribers
            .get(id.slot as usize % SUBSCRIBERS_PER_CHUNK)?
            .as_ref()
            .filter(|subscriber| subscriber.generation == id.generation)
    }

    pub(super) fn set_state(&mut self, id: SubscriberId, state: SubscriberState) {
        let Some(before) = self.get(id).map(|subscriber| subscriber.state) else {
            return;
        };
        let is_live = |s| matches!(s, SubscriberState::Live { .. });
        self.not_live += usize::from(!is_live(state));
        self.not_live -= usize::from(!is_live(before));
        let chunk =
            &mut Arc::make_mut(&mut self.chunks.0)[id.slot as usize / SUBSCRIBERS_PER_CHUNK];
        if let Some(subscriber) =
            &mut Arc::make_mut(chunk).subscribers[id.slot as usize % SUBSCRIBERS_PER_CHUNK]
        {
            subscriber.state = state;
        }
    }

    pub(super) fn remove(&mut self, id: SubscriberId) -> Option<Subscriber> {
        self.get(id)?;
        let chunk =
            &mut Arc::make_mut(&mut self.chunks.0)[id.slot as usize / SUBSCRIBERS_PER_CHUNK];
        let chunk = Arc::make_mut(chunk);
        let subscriber = chunk.subscribers[id.slot as usize % SUBSCRIBERS_PER_CHUNK].take()?;
        chunk.occupied -= 1;
        self.count -= 1;
        self.not_live -= usize::from(!matches!(subscriber.state, SubscriberState::Live { .. }));
        self.encodings[subscriber.outbox.encoding() as usize] -= 1;
        if self.count == 0 {
            self.chunks = SubscriberSnapshot::default();
            self.free = Vec::new();
        } else {
            if chunk.occupied == 0 {
                // Its slots stay in the free list.
                chunk.subscribers = Vec::new();
            }
            self.free.push(id.slot);
        }
        Some(subscriber)
    }

    /// Lowers what subscribers have received to `seq`, after the store reused the numbers above it:
    /// they receive the new records with these numbers and can be evicted by them.
    pub(super) fn lower(&mut self, seq: u64) {
        let lowered = |state| match state {
            SubscriberState::Live { after } if after > seq => {
                Some(SubscriberState::Live { after: seq })
            }
            SubscriberState::CatchingUp {
                head,
                has_task,
                is_held,
            } if head > seq => Some(SubscriberState::CatchingUp {
                head: seq,
                has_task,
                is_held,
            }),
            _ => None,
        };
        let affected: Vec<_> = self
            .chunks
            .iter()
            .filter_map(|(id, subscriber)| Some((id, lowered(subscriber.state)?)))
            .collect();
        for (id, state) in affected {
            self.set_state(id, state);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::FrameEncoding;
    use crate::outbox::{OutboxLimits, testing::Pipe};

    fn outbox(encoding: FrameEncoding) -> Arc<Outbox> {
        Outbox::new(
            Pipe::new(0),
            encoding,
            OutboxLimits::new(1, Duration::MAX, usize::MAX),
        )
    }

    #[test]
    fn subscriber_takes_thirty_two_bytes() {
        assert_eq!(size_of::<Option<Subscriber>>(), 32);
    }

    #[test]
    fn id_of_removed_subscriber_is_invalid_after_its_slot_is_reused() {
        let mut subscribers = Subscribers::default();
        let kept = subscribers.insert(outbox(FrameEncoding::Binary));
        let stale = subscribers.insert(outbox(FrameEncoding::Text));
        assert!(subscribers.remove(stale).is_some());
        let new = subscribers.insert(outbox(FrameEncoding::Binary));
        assert_eq!(new.slot, stale.slot);
        assert!(subscribers.get(stale).is_none() && subscribers.remove(stale).is_none());
        subscribers.set_state(stale, SubscriberState::Live { after: 1 });
        assert_eq!(
            subscribers.get(new).map(|s| s.state),
            Some(SubscriberState::Joining { evicted: 0 })
        );
        assert!(subscribers.get(kept).is_some());
        assert_eq!(
            (
                subscribers.count(),
                subscribers.not_live(),
                subscribers.encodings()
            ),
            (2, 2, [true, false])
        );
    }

    #[test]
    fn snapshot_does_not_change() {
        let mut subscribers = Subscribers::default();
        let ids: Vec<_> = (0..200)
            .map(|_| subscribers.insert(outbox(FrameEncoding::Binary)))
            .collect();
        let snapshot = subscribers.snapshot();
        for id in &ids[50..] {
            subscribers.remove(*id);
        }
        for _ in 0..10 {
            subscribers.insert(outbox(FrameEncoding::Text));
        }
        assert_eq!(snapshot.iter().count(), 200);
        assert_eq!(subscribers.snapshot().iter().count(), 60);
        assert_eq!(subscribers.count(), 60);
        let found: Vec<_> = snapshot.iter().map(|(id, _)| id).collect();
        assert_eq!(found, ids);
    }
}
