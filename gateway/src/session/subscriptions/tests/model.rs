//! The model: channels of the store, subscriptions of the hub, and what a client has received.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use fanout::Position;
use protocol::ChannelId;

use super::{SubscribeReason, SubscriptionHandle};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Record {
    Message,
    /// The user was added: an event like any other.
    Joined,
    /// The user was removed: the subscription ends.
    Removed,
}

/// A channel in the store. The record at index `n` has the `seq` `n + 1`.
#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) records: RefCell<Vec<Record>>,
    pub(super) is_participant: Cell<bool>,
    /// Index of a removal that the user's stream has not delivered yet.
    pub(super) half_removed: Cell<Option<usize>>,
    /// Number of failovers that lost records. Positions of earlier epochs have diverged.
    pub(super) epoch: Cell<u64>,
}

impl Channel {
    pub(super) fn head(&self) -> Position {
        Position {
            seq: self.records.borrow().len() as u64,
            at: self.epoch.get(),
        }
    }
}

/// A subscription that reads the records of its channel.
#[derive(Debug, Clone)]
pub(super) struct Subscription {
    pub(super) cursor: Rc<Cell<Position>>,
    pub(super) is_ended: Rc<Cell<bool>>,
    pub(super) is_dropped: Rc<Cell<bool>>,
}

impl SubscriptionHandle for Subscription {
    fn is_ended(&self) -> bool {
        self.is_ended.get()
    }

    fn topic_position(&self) -> Position {
        self.cursor.get()
    }
}

/// The client's position in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientPosition {
    Nothing,
    UpTo(Position),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum StreamNotice {
    Added(usize, Position),
    Removed(usize),
}

/// A change of subscriptions in progress.
#[derive(Debug)]
pub(super) struct Change {
    /// The reason of a step; `None` for a request.
    pub(super) why: Option<SubscribeReason>,
    pub(super) channel: usize,
    /// Where a step continues; a request continues at the entry.
    pub(super) after: Option<Position>,
    /// Position of the subscription that a request replaces, restored if the request fails.
    pub(super) interrupted: Option<Position>,
    /// The entry, once read: `None` if the user is not in the channel.
    pub(super) entry: Option<Option<Position>>,
}

pub(super) fn id(channel: usize) -> ChannelId {
    format!("c{channel}").parse().expect("a valid id")
}

pub(super) fn number(id: &ChannelId) -> usize {
    id.as_str()[1..].parse().expect("an id of the model")
}

impl Subscription {
    pub(super) fn is_live(&self) -> bool {
        !self.is_ended.get() && !self.is_dropped.get()
    }
}

pub(super) fn drop_all(subscriptions: impl IntoIterator<Item = Subscription>) {
    for subscription in subscriptions {
        subscription.is_dropped.set(true);
    }
}
