//! The subscribers of a topic, in copy-on-write chunks.
//!
//! A broadcast takes a snapshot by cloning one pointer. A join or a leave while that snapshot lives copies the chunk
//! that it changes and the list of chunks, so its cost does not grow with the subscribers, and nobody waits for anybody.

use std::sync::Arc;

use crate::Outbox;

/// Seats in a chunk: what a join copies at most.
const CHUNK: usize = 64;

/// Where a subscriber stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Registered, not started. `evicted` is the highest `seq` at which its subject was evicted since.
    Joining { evicted: u64 },
    /// Reads the log for itself, by a pump as long as that runs. Evictions up to `head` were known when it was let in. Held, it
    /// waits for what an earlier subscription of its outbox was to be told.
    Behind {
        head: u64,
        is_pumped: bool,
        is_held: bool,
    },
    /// Is told durable records with a `seq` above `after`. Evictions up to there were known.
    Live { after: u64 },
}

#[derive(Debug, Clone)]
pub(super) struct Seat {
    pub(super) outbox: Arc<Outbox>,
    pub(super) standing: Standing,
    generation: u32,
}

/// Names a seat. After the seat was given up it names nothing, also when the slot is taken anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    slot: u32,
    generation: u32,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Chunk {
    seats: Vec<Option<Seat>>,
    taken: usize,
}

/// All seats at one instant.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot(Arc<Vec<Arc<Chunk>>>);

impl Snapshot {
    pub(super) fn iter(&self) -> impl Iterator<Item = (Ticket, &Seat)> {
        self.0.iter().enumerate().flat_map(|(index, chunk)| {
            chunk
                .seats
                .iter()
                .enumerate()
                .filter_map(move |(offset, seat)| {
                    let seat = seat.as_ref()?;
                    Some((
                        Ticket {
                            slot: (index * CHUNK + offset) as u32,
                            generation: seat.generation,
                        },
                        seat,
                    ))
                })
        })
    }
}

/// The seats of one topic.
#[derive(Debug, Default)]
pub(super) struct Seats {
    chunks: Snapshot,
    free: Vec<u32>,
    generation: u32,
    count: usize,
    unsettled: usize,
    encodings: [u32; 2],
}

impl Seats {
    /// How many are taken.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are not live.
    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Which encodings somebody needs.
    pub(super) fn encodings(&self) -> [bool; 2] {
        self.encodings.map(|count| count > 0)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.chunks.clone()
    }

    pub(super) fn take(&mut self, outbox: Arc<Outbox>) -> Ticket {
        let chunks = Arc::make_mut(&mut self.chunks.0);
        let slot = self.free.pop().unwrap_or_else(|| {
            let last = chunks.len().saturating_sub(1);
            if chunks.last().is_none_or(|chunk| chunk.seats.len() == CHUNK) {
                chunks.push(Arc::default());
                return ((chunks.len() - 1) * CHUNK) as u32;
            }
            (last * CHUNK + chunks[last].seats.len()) as u32
        });
        self.generation = self.generation.wrapping_add(1);
        self.encodings[outbox.encoding() as usize] += 1;
        self.count += 1;
        self.unsettled += 1;
        let chunk = Arc::make_mut(&mut chunks[slot as usize / CHUNK]);
        let offset = slot as usize % CHUNK;
        if offset >= chunk.seats.len() {
            // In small steps: most topics have few subscribers, and there are many such topics.
            let room = (offset + 1 + offset / 4).min(CHUNK);
            if room > chunk.seats.capacity() {
                chunk.seats.reserve_exact(room - chunk.seats.len());
            }
            chunk.seats.resize_with(offset + 1, || None);
        }
        chunk.seats[offset] = Some(Seat {
            outbox,
            standing: Standing::Joining { evicted: 0 },
            generation: self.generation,
        });
        chunk.taken += 1;
        Ticket {
            slot,
            generation: self.generation,
        }
    }

    pub(super) fn get(&self, ticket: Ticket) -> Option<&Seat> {
        let chunk = self.chunks.0.get(ticket.slot as usize / CHUNK)?;
        chunk
            .seats
            .get(ticket.slot as usize % CHUNK)?
            .as_ref()
            .filter(|seat| seat.generation == ticket.generation)
    }

    pub(super) fn stand(&mut self, ticket: Ticket, standing: Standing) {
        let Some(before) = self.get(ticket).map(|seat| seat.standing) else {
            return;
        };
        let is_live = |s| matches!(s, Standing::Live { .. });
        self.unsettled += usize::from(!is_live(standing));
        self.unsettled -= usize::from(!is_live(before));
        let chunk = &mut Arc::make_mut(&mut self.chunks.0)[ticket.slot as usize / CHUNK];
        if let Some(seat) = &mut Arc::make_mut(chunk).seats[ticket.slot as usize % CHUNK] {
            seat.standing = standing;
        }
    }

    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Seat> {
        self.get(ticket)?;
        let chunk = &mut Arc::make_mut(&mut self.chunks.0)[ticket.slot as usize / CHUNK];
        let chunk = Arc::make_mut(chunk);
        let seat = chunk.seats[ticket.slot as usize % CHUNK].take()?;
        chunk.taken -= 1;
        self.count -= 1;
        self.unsettled -= usize::from(!matches!(seat.standing, Standing::Live { .. }));
        self.encodings[seat.outbox.encoding() as usize] -= 1;
        if self.count == 0 {
            self.chunks = Snapshot::default();
            self.free = Vec::new();
        } else {
            if chunk.taken == 0 {
                // Its slots stay in the free list; a broadcast passes an empty chunk in no time.
                chunk.seats = Vec::new();
            }
            self.free.push(ticket.slot);
        }
        Some(seat)
    }

    /// After the numbers above `seq` were given anew: whoever had them is told the new ones, and can be evicted by them.
    pub(super) fn lower(&mut self, seq: u64) {
        let lowered = |standing| match standing {
            Standing::Live { after } if after > seq => Some(Standing::Live { after: seq }),
            Standing::Behind {
                head,
                is_pumped,
                is_held,
            } if head > seq => Some(Standing::Behind {
                head: seq,
                is_pumped,
                is_held,
            }),
            _ => None,
        };
        let affected: Vec<_> = self
            .chunks
            .iter()
            .filter_map(|(ticket, seat)| Some((ticket, lowered(seat.standing)?)))
            .collect();
        for (ticket, standing) in affected {
            self.stand(ticket, standing);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Encoding;
    use crate::outbox::{Limits, testing::Pipe};

    fn outbox(encoding: Encoding) -> Arc<Outbox> {
        Outbox::new(
            Pipe::new(0),
            encoding,
            Limits::new(1, Duration::MAX, usize::MAX),
        )
    }

    #[test]
    fn a_seat_takes_thirty_two_bytes() {
        assert_eq!(size_of::<Option<Seat>>(), 32);
    }

    #[test]
    fn a_stale_ticket_names_nothing_when_its_slot_is_taken_anew() {
        let mut seats = Seats::default();
        let stay = seats.take(outbox(Encoding::Binary));
        let stale = seats.take(outbox(Encoding::Text));
        assert!(seats.remove(stale).is_some());
        let fresh = seats.take(outbox(Encoding::Binary));
        assert_eq!(fresh.slot, stale.slot);
        assert!(seats.get(stale).is_none() && seats.remove(stale).is_none());
        seats.stand(stale, Standing::Live { after: 1 });
        assert_eq!(
            seats.get(fresh).map(|s| s.standing),
            Some(Standing::Joining { evicted: 0 })
        );
        assert!(seats.get(stay).is_some());
        assert_eq!(
            (seats.count(), seats.unsettled(), seats.encodings()),
            (2, 2, [true, false])
        );
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let mut seats = Seats::default();
        let tickets: Vec<_> = (0..200)
            .map(|_| seats.take(outbox(Encoding::Binary)))
            .collect();
        let snapshot = seats.snapshot();
        for ticket in &tickets[50..] {
            seats.remove(*ticket);
        }
        for _ in 0..10 {
            seats.take(outbox(Encoding::Text));
        }
        assert_eq!(snapshot.iter().count(), 200);
        assert_eq!(seats.snapshot().iter().count(), 60);
        assert_eq!(seats.count(), 60);
        let found: Vec<_> = snapshot.iter().map(|(ticket, _)| ticket).collect();
        assert_eq!(found, tickets);
    }
}
