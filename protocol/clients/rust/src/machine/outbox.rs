//! Messages on their way, in the order sent: per channel one under way, the others behind it.
//!
//! One, and not several: were the first refused for now and the second stored, the order would be lost.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use protocol::{ChannelId, MessageId, params::SendMessage};

use super::{Ticket, retry::Retry};

/// How often a message is sent again that the server answers with `internal`.
const DEFECTS: u32 = 5;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) id: MessageId,
    pub(super) message: SendMessage,
    /// Whether it was sent before: it may be stored.
    pub(super) was_sent: bool,
}

/// The messages of a channel.
#[derive(Debug)]
struct Lane {
    letters: VecDeque<Letter>,
    under_way: Option<Ticket>,
    retry: Retry,
    defects: u32,
}

#[derive(Debug)]
pub(super) struct Outbox {
    lanes: BTreeMap<ChannelId, Lane>,
    held: usize,
    most: usize,
}

impl Outbox {
    pub(super) fn new(most: usize) -> Self {
        Self {
            lanes: BTreeMap::new(),
            held: 0,
            most,
        }
    }

    /// Takes a message; false if there is no room.
    pub(super) fn push(&mut self, channel: ChannelId, id: MessageId, message: SendMessage) -> bool {
        if self.held >= self.most {
            return false;
        }
        self.held += 1;
        let empty = || Lane {
            letters: VecDeque::new(),
            under_way: None,
            retry: Retry::default(),
            defects: 0,
        };
        self.lanes
            .entry(channel)
            .or_insert_with(empty)
            .letters
            .push_back(Letter {
                id,
                message,
                was_sent: false,
            });
        true
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn under_way(&self) -> usize {
        self.lanes
            .values()
            .filter(|lane| lane.under_way.is_some())
            .count()
    }

    /// Channels whose first message may be sent now.
    pub(super) fn ready(&self, now: Instant) -> Vec<ChannelId> {
        let is_ready = |lane: &&Lane| lane.under_way.is_none() && lane.retry.is_due(now);
        self.lanes
            .iter()
            .filter(|(_, lane)| is_ready(lane))
            .map(|(channel, _)| channel.clone())
            .collect()
    }

    /// When a channel's first message may be sent that may not be sent now.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.lanes
            .values()
            .filter_map(|lane| lane.retry.due())
            .filter(|at| *at > now)
            .min()
    }

    /// The first message of a channel goes out.
    pub(super) fn begin(&mut self, channel: &ChannelId, ticket: Ticket) -> Option<SendMessage> {
        let lane = self.lanes.get_mut(channel)?;
        let first = lane.letters.front_mut()?;
        first.was_sent = true;
        lane.under_way = Some(ticket);
        Some(SendMessage {
            message_id: Some(first.id.clone()),
            ..first.message.clone()
        })
    }

    /// The first message of a channel has its fate.
    pub(super) fn settle(&mut self, channel: &ChannelId) -> Option<Letter> {
        let lane = self.lanes.get_mut(channel)?;
        let letter = lane.letters.pop_front()?;
        self.held -= 1;
        (lane.under_way, lane.retry, lane.defects) = (None, Retry::default(), 0);
        if lane.letters.is_empty() {
            self.lanes.remove(channel);
        }
        Some(letter)
    }

    /// The first message of a channel is to be sent again. None if the channel has none.
    pub(super) fn again(&mut self, channel: &ChannelId) -> Option<&mut Retry> {
        let lane = self.lanes.get_mut(channel)?;
        lane.under_way = None;
        Some(&mut lane.retry)
    }

    /// Counts a defect of the server; false if there were too many with this message.
    pub(super) fn bears(&mut self, channel: &ChannelId) -> bool {
        self.lanes.get_mut(channel).is_some_and(|lane| {
            lane.defects += 1;
            lane.defects < DEFECTS
        })
    }

    /// The session ended: what was under way is to be sent again on the next one, at once.
    pub(super) fn disconnected(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.under_way = None;
            lane.retry = Retry::default();
        }
    }

    /// Everything that has no fate yet.
    pub(super) fn drain(&mut self) -> Vec<(ChannelId, Letter)> {
        self.held = 0;
        let lanes = std::mem::take(&mut self.lanes);
        lanes
            .into_iter()
            .flat_map(|(channel, lane)| {
                lane.letters
                    .into_iter()
                    .map(move |letter| (channel.clone(), letter))
            })
            .collect()
    }
}
