//! A walk through all of a user's channels, page by page, without state on the server.
//!
//! The first phase follows the order of activity. Channels that become active during the walk move
//! to the top, before the walk's position. So the second phase lists, by id, every channel that was
//! active since the walk began. The instant of a channel's last event never goes backwards. So a
//! channel that the user is in throughout either keeps its place until the first phase reaches it,
//! or has an event since the walk began when the first phase ends. Channels that were active in
//! between may be listed twice.
//!
//! Pages may be answered from orders of different ages, by different nodes. The oldest of them
//! counts as the start of the walk. An order of the first phase may show a channel at the top
//! already, while an older one still has it in its old place. So the second phase takes an order
//! that was read after the newest event shown in the first phase: it shows that channel as active.

use protocol::ChannelId;
use serde::{Deserialize, Serialize};

use crate::channel_orders::{ChannelOrder, Ranked, rank};

/// The position of a walk between two pages: the content of its cursor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Walk {
    /// The instant of the oldest order that the first phase has used.
    since: u64,
    /// The instant of the newest event that those orders show.
    newest: u64,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Place {
    /// In the first phase, after this channel.
    Order(u64, ChannelId),
    /// In the second phase, after this channel.
    Ids(Option<ChannelId>),
}

/// A page of a walk that is being filled.
#[derive(Debug)]
pub(super) struct WalkPage<'a> {
    order: &'a ChannelOrder,
    walk: Walk,
    /// Index in the order at which this page began.
    start: usize,
    /// Whether this is the first page of the walk. If so, no other order was used.
    is_first: bool,
    /// The channels left in the first phase.
    recent: &'a [Ranked],
    /// The channels left in the second phase, once it has begun.
    late: Option<std::vec::IntoIter<ChannelId>>,
}

impl Walk {
    /// Returns the oldest instant that the order of the next page may have.
    pub(super) fn not_before(&self) -> u64 {
        match self.place {
            Place::Order(..) => 0,
            Place::Ids(_) => self.newest + 1,
        }
    }
}

impl<'a> WalkPage<'a> {
    /// Continues a walk, or begins one.
    pub(super) fn new(walk: Option<Walk>, order: &'a ChannelOrder) -> Self {
        let all = &order.channels;
        let is_second = matches!(
            walk,
            Some(Walk {
                place: Place::Ids(_),
                ..
            })
        );
        let is_first = walk.is_none();
        let newest_here = all.first().map_or(0, |(at, _)| *at);
        let (walk, start) = match walk {
            None => (
                Walk {
                    since: order.as_of,
                    newest: newest_here,
                    place: Place::Ids(None),
                },
                0,
            ),
            Some(Walk {
                since,
                newest,
                place: Place::Order(at, id),
            }) => {
                let last = (at, id);
                let start = all.partition_point(|ranked| rank(ranked, &last).is_le());
                (
                    Walk {
                        since: since.min(order.as_of),
                        newest: newest.max(newest_here),
                        place: Place::Order(last.0, last.1),
                    },
                    start,
                )
            }
            Some(walk) => (walk, all.len()),
        };
        let mut page = Self {
            order,
            walk,
            start,
            is_first,
            recent: &all[start..],
            late: None,
        };
        page.begin_second_phase(is_second);
        page
    }

    /// Begins the second phase if the first one is over and the order is recent enough. An order
    /// that was requested with [`Walk::not_before`] always is.
    fn begin_second_phase(&mut self, was_asked_for: bool) {
        if !self.recent.is_empty() || self.late.is_some() {
            return;
        }
        let after = match &self.walk.place {
            Place::Ids(after) => after.clone(),
            Place::Order(..) => None,
        };
        self.walk.place = Place::Ids(after.clone());
        if self.order.as_of <= self.walk.newest && !was_asked_for && !self.is_first {
            return;
        }
        // The second phase repeats active channels of earlier pages, not those of this page.
        let before_page = &self.order.channels[..self.start];
        let active = before_page
            .iter()
            .take_while(|(at, _)| *at >= self.walk.since)
            .map(|(_, id)| id);
        let mut late: Vec<ChannelId> = active
            .filter(|id| after.as_ref().is_none_or(|after| *id > after))
            .cloned()
            .collect();
        late.sort_unstable();
        self.late = Some(late.into_iter());
    }

    /// Returns at most `count` next channels; none if the page is over.
    pub(super) fn upcoming(&self, count: usize) -> Vec<ChannelId> {
        match &self.late {
            Some(late) => late.as_slice().iter().take(count).cloned().collect(),
            None => self
                .recent
                .iter()
                .take(count)
                .map(|(_, id)| id.clone())
                .collect(),
        }
    }

    /// Moves past the next channel.
    pub(super) fn pass(&mut self) {
        if let Some(late) = &mut self.late {
            if let Some(id) = late.next() {
                self.walk.place = Place::Ids(Some(id));
            }
        } else if let Some(((at, id), rest)) = self.recent.split_first() {
            self.walk.place = Place::Order(*at, id.clone());
            self.recent = rest;
            self.begin_second_phase(false);
        }
    }

    /// Returns the position of the next page, or `None` if the walk is over.
    pub(super) fn end(self) -> Option<Walk> {
        let is_over = self.late.is_some_and(|late| late.as_slice().is_empty());
        (!is_over).then_some(self.walk)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn id(n: usize) -> ChannelId {
        format!("channel-{n:03}").parse().unwrap()
    }

    /// The channels that a page shows, and the rest of the walk.
    fn page(
        walk: Option<Walk>,
        order: &ChannelOrder,
        limit: usize,
    ) -> (Vec<ChannelId>, Option<Walk>) {
        let (mut page, mut shown) = (WalkPage::new(walk, order), Vec::new());
        while shown.len() < limit
            && let Some(next) = page.upcoming(1).pop()
        {
            shown.push(next);
            page.pass();
        }
        (shown, page.end())
    }

    fn order_of(as_of: u64, channels: &BTreeMap<ChannelId, u64>) -> ChannelOrder {
        ChannelOrder::of(
            as_of,
            channels.iter().map(|(id, at)| (*at, id.clone())).collect(),
        )
    }

    #[test]
    fn a_quiet_walk_shows_each_channel_once_and_has_no_page_too_many() {
        for (count, limit, pages) in [(0, 3, 1), (3, 3, 1), (7, 3, 3), (6, 3, 2)] {
            let order = order_of(1000, &(0..count).map(|n| (id(n), n as u64)).collect());
            let (mut walk, mut found, mut seen) = (None, Vec::new(), 0);
            loop {
                let (shown, next) = page(walk, &order, limit);
                found.extend(shown);
                seen += 1;
                walk = next;
                if walk.is_none() {
                    break;
                }
            }
            assert_eq!(found, (0..count).rev().map(id).collect::<Vec<_>>());
            assert_eq!(seen, pages, "{count}");
        }
    }

    #[test]
    fn a_channel_that_becomes_active_between_two_pages_comes_at_the_end() {
        let mut channels: BTreeMap<_, _> = (0..4).map(|n| (id(n), n as u64)).collect();
        let (shown, walk) = page(None, &order_of(10, &channels), 2);
        assert_eq!(shown, [id(3), id(2)]);
        channels.insert(id(0), 11);
        let (shown, walk) = page(walk, &order_of(12, &channels), 2);
        assert_eq!((shown, walk), (vec![id(1), id(0)], None));
    }

    #[test]
    fn an_order_of_the_same_instant_that_lacks_an_event_does_not_end_the_walk() {
        let mut channels: BTreeMap<_, _> = (0..4).map(|n| (id(n), n as u64)).collect();
        let stale = order_of(10, &channels);
        let (shown, walk) = page(None, &stale, 3);
        assert_eq!(shown, [id(3), id(2), id(1)]);
        // The event has the same instant as both orders.
        channels.insert(id(0), 10);
        let (shown, walk) = page(walk, &order_of(10, &channels), 3);
        assert_eq!(shown, []);
        assert!(
            walk.as_ref().unwrap().not_before() > stale.as_of,
            "the stale order is not taken"
        );
        let (shown, walk) = page(walk, &order_of(11, &channels), 3);
        assert_eq!((shown, walk), (vec![id(0)], None));
    }

    proptest! {
        /// Between pages, channels become active and the user joins and leaves some. Each page is
        /// answered by one of two nodes, whose orders have different ages.
        #[test]
        fn a_walk_shows_every_channel_that_was_there_throughout(
            count in 1usize..40,
            limit in 1usize..6,
            steps in vec((vec(any::<Index>(), 0..12), any::<bool>(), any::<bool>(), any::<Index>()), 0..60),
        ) {
            let mut clock = 1000;
            let mut channels: BTreeMap<ChannelId, u64> = (0..count).map(|n| (id(n), n as u64 % 7)).collect();
            let mut throughout: BTreeSet<ChannelId> = channels.keys().cloned().collect();
            let mut nodes = [order_of(clock, &channels), order_of(clock, &channels)];
            let (mut walk, mut shown) = (None, BTreeSet::new());
            let mut steps = steps.into_iter();
            for pages in 0.. {
                prop_assert!(pages < 3 * count + 70, "the walk does not end");
                let mut node = 0;
                if let Some((active, other, reads, gone)) = steps.next() {
                    node = usize::from(other);
                    for index in active {
                        // Several in one millisecond.
                        clock += u64::from(index.index(2) == 0);
                        channels.insert(id(index.index(count + 5)), clock);
                    }
                    if gone.index(4) == 0 {
                        let gone = id(gone.index(count));
                        channels.remove(&gone);
                        throughout.remove(&gone);
                    }
                    if reads {
                        nodes[node] = order_of(clock, &channels);
                    }
                }
                let not_before = walk.as_ref().map_or(0, Walk::not_before);
                if nodes[node].as_of < not_before {
                    nodes[node] = order_of(clock, &channels);
                }
                let (page, next) = page(walk, &nodes[node], limit);
                prop_assert!(page.len() <= limit);
                shown.extend(page);
                walk = next;
                if walk.is_none() {
                    break;
                }
            }
            prop_assert!(shown.is_superset(&throughout), "{:?} are missing", throughout.difference(&shown).collect::<Vec<_>>());
        }
    }
}
