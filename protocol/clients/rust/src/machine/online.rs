//! What a session asks for by itself: subscriptions, what gaps left open, messages; and when it is given up.

use std::time::{Duration, Instant};

use protocol::ChannelId;
use rand::RngExt;

use super::{Action, Ask, Machine, What, Why, link::Link, replies::unanswered, streams::State};
use crate::Reconnect;

/// Channels that are read after gaps at the same time: a server that answers slowly is not asked faster for it.
const READS: usize = 4;

/// Messages under way at the same time, over all channels.
const SENDS: usize = 32;

impl Machine {
    /// Asks for whatever may be asked for now.
    pub(super) fn pump(&mut self, now: Instant) {
        self.leaves(now);
        let Link::Online(online) = &self.link else {
            return;
        };
        if !self.is_pinging() && online.heard + online.heartbeat <= now {
            self.ask(What::Ping, now, |_, _| Some(Ask::Ping));
        }
        self.renew(now);
        let Link::Online(online) = &self.link else {
            return;
        };
        if online.is_paused(now) {
            return;
        }
        let page = online.page;
        if !self.is_subscribing() {
            self.change_subscriptions(now);
        }
        for id in self.streams.to_read(READS, now) {
            self.ask(What::Repair(id.clone()), now, |machine, ticket| {
                let repair = machine.streams.get_mut(&id)?.repair.as_mut()?;
                Some(repair.ask(&id, page, ticket))
            });
        }
        if self
            .listing
            .as_ref()
            .is_some_and(|listing| !listing.is_under_way && listing.retry.is_due(now))
        {
            self.ask(What::List, now, |machine, _| {
                Some(machine.listing.as_mut()?.ask(page))
            });
        }
        let room = SENDS.saturating_sub(self.outbox.under_way());
        for id in self.outbox.ready(now).into_iter().take(room) {
            self.ask(What::Send(id.clone()), now, |machine, ticket| {
                let message = Box::new(machine.outbox.begin(&id, ticket)?);
                Some(Ask::MessageSend {
                    channel_id: id,
                    message,
                })
            });
        }
    }

    /// One change of subscriptions is under way at a time, so that the session's set is known.
    fn change_subscriptions(&mut self, now: Instant) {
        let leaving = self.streams.leaving();
        if !leaving.is_empty() {
            self.ask(What::Unsubscribe(leaving.clone()), now, |_, _| {
                Some(Ask::ChannelUnsubscribe(leaving))
            });
            return;
        }
        let batch = self.streams.batch(now);
        if !batch.is_empty() {
            self.ask(
                What::Subscribe(batch.keys().cloned().collect()),
                now,
                |_, _| Some(Ask::ChannelSubscribe(batch)),
            );
        }
    }

    fn is_subscribing(&self) -> bool {
        self.asked
            .values()
            .any(|asked| matches!(asked.what, What::Subscribe(_) | What::Unsubscribe(_)))
    }

    pub(super) fn is_pinging(&self) -> bool {
        self.asked
            .values()
            .any(|asked| matches!(asked.what, What::Ping | What::Clock { .. }))
    }

    /// Gives up what was not answered in time: the session, if nothing was heard since, else the request.
    pub(super) fn overdue(&mut self, now: Instant) {
        // As long as updates wait for the application the socket is not read, and silence says nothing.
        if let Link::Online(online) = &mut self.link
            && !self.updates.is_empty()
        {
            online.heard = now;
        }
        while let Link::Online(online) = &self.link
            && let Some(first) = self.asked.first_entry()
            && first.get().at + self.settings.patience <= now
        {
            let asked = first.remove();
            if online.heard <= asked.at {
                self.cuts(now);
            } else {
                self.refused(asked.what, unanswered(), now);
            }
        }
    }

    /// The node ends: the client goes at a time that it draws, unless it is sent away before.
    pub(super) fn node_drains(&mut self, within: Duration, now: Instant) {
        let part: f64 = self.random.random();
        if let Link::Online(online) = &mut self.link {
            online.leave_at.get_or_insert(now + within.mul_f64(part));
        }
    }

    fn leaves(&mut self, now: Instant) {
        if let Link::Online(online) = &self.link
            && online.leave_at.is_some_and(|at| at <= now)
        {
            self.actions.push_back(Action::Leave);
            self.next_address();
            self.away(Why::Draining, Reconnect::AtOnce, None, now);
        }
    }

    /// The client goes and comes back with its own position, and is told what changed.
    pub(super) fn misses(&mut self, now: Instant) {
        self.actions.push_back(Action::Leave);
        self.away(Why::Missed, Reconnect::AtOnce, None, now);
    }

    fn cuts(&mut self, now: Instant) {
        self.actions.push_back(Action::Cut);
        self.next_address();
        self.away(Why::Silent, Reconnect::AfterBackoff, None, now);
    }

    /// The session asked too fast: nothing is asked for so long.
    pub(super) fn pauses(&mut self, hint: Option<Duration>, now: Instant) {
        let part: f64 = self.random.random();
        if let Link::Online(online) = &mut self.link {
            let until = now
                + hint
                    .unwrap_or(Duration::from_millis(500))
                    .mul_f64(1.0 + part);
            online.paused = online.paused.max(Some(until));
        }
    }

    /// A subscription ended on purpose.
    pub(super) fn unsubscribed(&mut self, ids: Vec<ChannelId>) {
        for id in ids {
            match self.streams.state(&id) {
                Some(State::Leaving { is_wanted: true }) => self.streams.enter(&id, State::Apart),
                Some(State::Leaving { is_wanted: false }) => self.streams.remove(&id),
                _ => {}
            }
        }
    }
}
