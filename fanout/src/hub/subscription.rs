//! A subscriber's own end: registered, then started; dropping it leaves.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use super::feed::{Feed, Start};
use super::pump::Pump;
use super::seats::Ticket;
use crate::{Position, Topic};

/// A registered subscriber that is not told anything yet. Dropping it leaves.
#[derive(Debug)]
#[must_use = "dropping it leaves the topic"]
pub struct Joining(Subscription);

impl Joining {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self(subscription)
    }

    /// Notes that the bus has confirmed the topic.
    pub(super) fn confirm(&self) {
        self.0.confirm();
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        self.0.topic()
    }

    /// Starts the stream: what stands after `cursor`, each once and in order, and then what happens.
    ///
    /// `head` is the topic's position as read, together with whatever decided that the subject may listen, after the join was confirmed;
    /// `cursor` equals it, or is another position from which the subscriber resumes. Both are `Position::default()` for [`Kind::Passing`](super::Kind::Passing).
    /// What is told may be in the outbox before this returns: whatever must come first is pushed first.
    /// If the subject was evicted after `head` meanwhile, the subscription [is ended](Subscription::is_ended).
    pub fn start(self, cursor: Position, head: Position) -> Subscription {
        self.start_during(cursor, head, &Errand::none())
    }

    /// The same; the errand goes on until what stands after `cursor` was told, or has to wait for its reader or for the log.
    pub fn start_during(self, cursor: Position, head: Position, errand: &Errand) -> Subscription {
        let Self(subscription) = self;
        let Subscription { feed, ticket } = &subscription;
        if let Start::Behind(outbox) = feed.start(*ticket, cursor, head)
            && let Some(hub) = feed.hub()
        {
            let runtime = hub.runtime.clone();
            runtime.spawn(
                Pump {
                    hub,
                    feed: Arc::clone(feed),
                    ticket: *ticket,
                    outbox,
                    cursor,
                    head,
                    errand: errand.clone(),
                }
                .run(),
            );
        }
        subscription
    }
}

/// Something that is held while a subscriber is brought up to date, and that is work of this node: given back when all streams that
/// were started during it are live, or as soon as one of them waits for somebody else.
#[derive(Clone)]
pub struct Errand(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl Errand {
    /// Holds this.
    pub fn holding(held: impl Any + Send) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(held)))))
    }

    fn none() -> Self {
        Self(Arc::default())
    }

    /// Gives it back before the end.
    pub(super) fn give_back(&self) {
        let held = self.0.lock().take();
        drop(held);
    }
}

impl fmt::Debug for Errand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Errand").finish_non_exhaustive()
    }
}

/// A subscriber of a topic. Dropping it leaves.
#[derive(Debug)]
#[must_use = "dropping it leaves the topic"]
pub struct Subscription {
    feed: Arc<Feed>,
    ticket: Ticket,
}

impl Subscription {
    pub(super) fn new(feed: Arc<Feed>, ticket: Ticket) -> Self {
        Self { feed, ticket }
    }

    pub(super) fn confirm(&self) {
        self.feed.confirm();
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.feed.topic
    }

    /// Up to where the topic has told its live subscribers on this node. What ended a subscription before that has ended it by now.
    pub fn told(&self) -> Position {
        self.feed.state.lock().position.unwrap_or_default()
    }

    /// Whether it ended by itself: its subject was evicted, or the topic closed.
    pub fn is_ended(&self) -> bool {
        !self.feed.is_seated(self.ticket)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.feed.leave(self.ticket);
    }
}
