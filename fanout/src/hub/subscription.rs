//! The handles of a subscriber.

use std::sync::Arc;

use super::active_topic::ActiveTopic;
use super::broadcaster::{Started, start};
use super::catch_up::CatchUp;
use super::permit::CatchUpPermit;
use super::subscribers::SubscriberId;
use crate::{Position, Topic};

/// A registered subscriber that receives nothing yet. Dropping it unsubscribes.
#[derive(Debug)]
#[must_use = "dropping it unsubscribes"]
pub struct Joining(Subscription);

impl Joining {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self(subscription)
    }

    pub(super) fn confirm(&self) {
        self.0.confirm();
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        self.0.topic()
    }

    /// Starts the stream: each record after `cursor` once and in order, then live records.
    ///
    /// `head` is the topic's position as read after the join was confirmed, together with the
    /// decision that the subject may subscribe. `cursor` is `head`, or the position from which the
    /// subscriber resumes. Both are `Position::default()` for
    /// [`TopicKind::Passing`](super::TopicKind::Passing). Records may be in the outbox before this returns.
    /// Push frames that must precede them first. If the subject was evicted after `head`, the
    /// subscription [is ended](Subscription::is_ended).
    pub fn start(self, cursor: Position, head: Position) -> Subscription {
        self.start_with_permit(cursor, head, &CatchUpPermit::none())
    }

    /// Like [`start`](Self::start), and holds the permit until the subscriber is live or waits for
    /// its reader or for the log.
    pub fn start_with_permit(
        self,
        cursor: Position,
        head: Position,
        permit: &CatchUpPermit,
    ) -> Subscription {
        let Self(subscription) = self;
        let Subscription { active, id } = &subscription;
        if let Started::CatchingUp(outbox) = start(active, *id, cursor, head)
            && let Some(shared) = active.shared()
        {
            let runtime = shared.runtime.clone();
            let (active, permit) = (Arc::clone(active), permit.clone());
            runtime.spawn(
                CatchUp {
                    shared,
                    active,
                    id: *id,
                    outbox,
                    cursor,
                    head,
                    permit,
                    needed: 0,
                }
                .run(),
            );
        }
        subscription
    }
}

/// A subscriber of a topic. Dropping it unsubscribes.
#[derive(Debug)]
#[must_use = "dropping it unsubscribes"]
pub struct Subscription {
    active: Arc<ActiveTopic>,
    id: SubscriberId,
}

impl Subscription {
    pub(super) fn new(active: Arc<ActiveTopic>, id: SubscriberId) -> Self {
        Self { active, id }
    }

    pub(super) fn confirm(&self) {
        self.active.confirm();
    }

    /// The topic.
    pub fn topic(&self) -> &Topic {
        &self.active.topic
    }

    /// Returns the position up to which this node delivered the topic to live subscribers. Records
    /// up to there that end this subscription have ended it.
    pub fn topic_position(&self) -> Position {
        self.active.state.lock().position.unwrap_or_default()
    }

    /// Returns whether the subscription was ended: its subject was evicted, or the topic closed.
    pub fn is_ended(&self) -> bool {
        !self.active.is_subscribed(self.id)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.active.unsubscribe(self.id);
    }
}
