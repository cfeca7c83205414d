//! The way of a subscriber from behind to live: it reads the log from its own cursor, as fast as its outbox drains.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::batch::{Rendered, Telling};
use super::feed::{CatchUp, Feed};
use super::seats::Ticket;
use super::subscription::Errand;
use super::{Hub, backoff};
use crate::outbox::ENTRY;
use crate::record::{Control, Record};
use crate::sync::{sleep, timeout};
use crate::{Class, Continuity, Gap, Outbox, Position, Replay, SourceError, jittered};

/// How long a reader may stall before it is looked whether it is still subscribed.
const STALL: Duration = Duration::from_secs(30);

/// The first wait of who has everything that the log has for the topic, which hears of it by the bus; each is twice the one before,
/// so many times.
const MOMENT: Duration = Duration::from_millis(2);
const LONGEST: u32 = 10;

/// After so many waits, and again after as many, the topic itself looks into the log.
const REMINDED: u32 = 5;

/// So often who is ahead of its topic looks whether that has come, before it reads the log.
const LOOKS: u32 = 4;

/// One subscriber that is behind.
pub(super) struct Pump {
    pub(super) hub: Arc<Hub>,
    pub(super) feed: Arc<Feed>,
    pub(super) ticket: Ticket,
    pub(super) outbox: Arc<Outbox>,
    pub(super) cursor: Position,
    /// The head at which the subscriber was let in: evictions up to there were known.
    pub(super) head: Position,
    /// What is held meanwhile.
    pub(super) errand: Errand,
}

/// Tells the feed of the pump's end also where that is a panic: others would wait for it.
impl Drop for Pump {
    fn drop(&mut self) {
        // A model checker unwinds whoever is still at work at the end of a check, and others with a lock in their hands.
        if std::thread::panicking() && !cfg!(shuttle) {
            self.feed.pump_ended(self.ticket);
        }
    }
}

/// The subscription is over.
struct Ended;

impl Pump {
    /// Runs until the subscriber is live or gone.
    pub(super) async fn run(mut self) {
        self.catch_up().await;
        self.feed.pump_ended(self.ticket);
    }

    async fn catch_up(&mut self) {
        let (mut vain, mut ahead, mut is_late) = (0, 0, false);
        let outbox = Arc::clone(&self.outbox);
        loop {
            let mut turn = Some(outbox.turn().await);
            if self.drained(self.half()).await.is_err() {
                return;
            }
            let mut is_end = false;
            let told = match self.feed.catch_up(self.ticket, self.cursor) {
                CatchUp::Live | CatchUp::Ended => return,
                CatchUp::Recent(records) => self.tell(records).await,
                CatchUp::Wait => Ok(0),
                // What it has is on its way to the topic, by all experience.
                CatchUp::Ahead if ahead < LOOKS => {
                    ahead += 1;
                    is_end = true;
                    Ok(0)
                }
                read @ (CatchUp::Read | CatchUp::Ahead) => {
                    // While a part of the log is away, the connection's other topics go on.
                    let slow = || turn = turn.take().filter(|_| is_late);
                    let told = match self.hub.read(&self.feed.topic, self.cursor, slow).await {
                        // It is there, and only late, so it is waited for from now on. What it says is read again when it may be
                        // told: pages that wait for that would have no bound.
                        Ok(_) if turn.is_none() => {
                            is_late = true;
                            continue;
                        }
                        Ok(page) => self.tell_page(page, &mut is_end).await,
                        Err(error) => Err(error),
                    };
                    match told {
                        Ok(told) => {
                            if matches!(read, CatchUp::Ahead) {
                                ahead = 0;
                            }
                            told
                        }
                        Err(error) => {
                            is_late = false;
                            tracing::debug!(topic = %self.feed.topic, %error, "a subscriber waits for the log");
                            Ok(0)
                        }
                    }
                }
            };
            drop(turn);
            match told {
                Err(Ended) => return,
                Ok(0) => {
                    self.errand.give_back();
                    // Where the log ends the topic follows in a moment, and is reminded if it does not.
                    if is_end && vain > 0 && vain % REMINDED == 0 {
                        self.feed.check();
                    }
                    sleep(if is_end {
                        jittered(MOMENT * (1 << vain.min(LONGEST)))
                    } else {
                        backoff(vain)
                    })
                    .await;
                    vain += 1;
                }
                Ok(_) => vain = 0,
            }
        }
    }

    /// Tells a page. Returns how much was told; `is_end` becomes whether the log ended there.
    async fn tell_page(
        &mut self,
        page: Replay,
        is_end: &mut bool,
    ) -> Result<Result<usize, Ended>, SourceError> {
        let Replay {
            records,
            head,
            continuity,
        } = page;
        let Continuity::Broken(gap) = continuity else {
            let told = self.tell(records).await;
            *is_end = self.cursor == head;
            if *is_end && head.seq < self.head.seq {
                // The store went back to where this one stands.
                self.head = head;
                self.feed.admit(self.ticket, head);
            }
            return Ok(told);
        };
        if gap == Gap::Diverged || head.seq > self.head.seq {
            let subject = Bytes::copy_from_slice(self.outbox.subject());
            if !self
                .hub
                .strangers(&self.feed.topic, vec![subject])
                .await?
                .is_empty()
            {
                self.feed.leave(self.ticket);
                return Ok(Err(Ended));
            }
            self.head = head;
            self.feed.admit(self.ticket, head);
        }
        let frame = self
            .hub
            .source
            .gap(&self.feed.topic, gap, head, self.outbox.encoding());
        self.hub.count_gap();
        self.cursor = head;
        Ok(self.push(frame).await.map(|()| 1))
    }

    /// Tells records up to one that ends the subscription, and moves the cursor along. Returns how many records that were.
    async fn tell(&mut self, mut records: Vec<Record>) -> Result<usize, Ended> {
        let subject = self.outbox.subject();
        let ends = |record: &Record| {
            let ends = match &record.control {
                Control::Evict(evicted) => evicted == subject,
                Control::Close => true,
                Control::None | Control::Except(_) => false,
            };
            ends && record.position.seq > self.head.seq
        };
        let end = records.iter().position(ends);
        if let Some(end) = end {
            // A close is told, an eviction is not.
            records.truncate(end + usize::from(records[end].control == Control::Close));
        }
        let (count, last) = (records.len(), records.last().map(|record| record.position));
        records.retain(
            |record| !matches!(&record.control, Control::Except(excepted) if excepted == subject),
        );
        let rendered = Rendered::records(
            &records,
            &self.feed.topic,
            &*self.hub.source,
            self.outbox.encoding(),
            self.outbox.limits().bytes / 4,
        );
        let telling = Telling {
            topic: &self.feed.topic,
            source: &*self.hub.source,
            records: &records,
            outbox: &self.outbox,
        };
        for piece in rendered.pieces() {
            telling.begin(piece.followed.iter());
            self.push(piece.bytes.clone()).await?;
            self.hub.count_deliveries(piece.frames());
            telling.end(piece.followed.iter());
        }
        self.cursor = last.unwrap_or(self.cursor);
        if end.is_some() {
            self.feed.leave(self.ticket);
            return Err(Ended);
        }
        Ok(count)
    }

    async fn push(&self, frame: Bytes) -> Result<(), Ended> {
        // What is larger than the other half waits until nothing else does.
        let most = if frame.len() + ENTRY > self.half() {
            1
        } else {
            self.half()
        };
        self.drained(most).await?;
        if !self.feed.is_seated(self.ticket) {
            return Err(Ended);
        }
        self.outbox
            .push_of(&self.feed.topic, frame, Class::Durable)
            .map_err(|_| Ended)
    }

    /// What live records leave to those who catch up.
    fn half(&self) -> usize {
        (self.outbox.limits().bytes / 2).max(1)
    }

    async fn drained(&self, below: usize) -> Result<(), Ended> {
        if self.outbox.queued_bytes() >= below {
            // From here on it is the reader who takes its time.
            self.errand.give_back();
        }
        loop {
            match timeout(STALL, self.outbox.drained_below(below)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) => return Err(Ended),
                Err(_) if self.feed.is_seated(self.ticket) => {}
                Err(_) => return Err(Ended),
            }
        }
    }
}
