//! The requests that a session makes by itself: pings, subscriptions, recoveries and messages; and
//! when a request or the session times out.

use std::time::{Duration, Instant};

use protocol::ChannelId;
use rand::RngExt;

use super::{
    ClientRequest, Machine, MachineAction, Purpose, Why, channel_streams::SubscriptionState,
    connection_state::ConnectionState, replies::no_reply_error,
};
use crate::Reconnect;

/// Maximum number of recoveries with a page in flight.
const MAX_RECOVERIES_IN_FLIGHT: usize = 4;

/// Maximum number of messages in flight, over all channels.
const MAX_MESSAGES_IN_FLIGHT: usize = 32;

impl Machine {
    /// Sends all requests that may be sent now.
    pub(super) fn send_requests(&mut self, now: Instant) {
        self.leave_draining_node(now);
        let ConnectionState::Online(online) = &self.connection else {
            return;
        };
        if !self.is_pinging() && online.last_received + online.heartbeat <= now {
            self.request(Purpose::Ping, now, |_, _| Some(ClientRequest::Ping));
        }
        self.continue_renewal(now);
        let ConnectionState::Online(online) = &self.connection else {
            return;
        };
        if online.is_paused(now) {
            return;
        }
        let page = online.page;
        if !self.is_subscribing() {
            self.change_subscriptions(now);
        }
        for id in self.streams.due_recoveries(MAX_RECOVERIES_IN_FLIGHT, now) {
            self.request(Purpose::Recovery(id.clone()), now, |machine, request_id| {
                let recovery = machine.streams.get_mut(&id)?.recovery.as_mut()?;
                Some(recovery.request(&id, page, request_id))
            });
        }
        if self.list_recovery.as_ref().is_some_and(|list_recovery| {
            !list_recovery.is_in_flight && list_recovery.retry.is_due(now)
        }) {
            self.request(Purpose::List, now, |machine, _| {
                Some(machine.list_recovery.as_mut()?.request(page))
            });
        }
        let room = MAX_MESSAGES_IN_FLIGHT.saturating_sub(self.send_queue.in_flight());
        for id in self.send_queue.ready_channels(now).into_iter().take(room) {
            self.request(Purpose::Send(id.clone()), now, |machine, request_id| {
                let message = Box::new(machine.send_queue.start_first(&id, request_id)?);
                Some(ClientRequest::MessageSend {
                    channel_id: id,
                    message,
                })
            });
        }
    }

    /// At most one change of subscriptions is in flight, so that the set of subscriptions is known.
    fn change_subscriptions(&mut self, now: Instant) {
        let leaving = self.streams.leaving();
        if !leaving.is_empty() {
            self.request(Purpose::Unsubscribe(leaving.clone()), now, |_, _| {
                Some(ClientRequest::ChannelUnsubscribe(leaving))
            });
            return;
        }
        let batch = self.streams.next_batch(now);
        if !batch.is_empty() {
            self.request(
                Purpose::Subscribe(batch.keys().cloned().collect()),
                now,
                |_, _| Some(ClientRequest::ChannelSubscribe(batch)),
            );
        }
    }

    fn is_subscribing(&self) -> bool {
        self.pending.values().any(|pending| {
            matches!(
                pending.purpose,
                Purpose::Subscribe(_) | Purpose::Unsubscribe(_)
            )
        })
    }

    pub(super) fn is_pinging(&self) -> bool {
        self.pending
            .values()
            .any(|pending| matches!(pending.purpose, Purpose::Ping | Purpose::Clock { .. }))
    }

    /// Handles requests without a reply in time. If nothing was received since, the session is
    /// given up, else the request.
    pub(super) fn check_timeouts(&mut self, now: Instant) {
        // While updates wait for the application the socket is not read, and silence means nothing.
        if let ConnectionState::Online(online) = &mut self.connection
            && !self.updates.is_empty()
        {
            online.last_received = now;
        }
        while let ConnectionState::Online(online) = &self.connection
            && let Some(first) = self.pending.first_entry()
            && first.get().at + self.settings.reply_timeout <= now
        {
            let pending = first.remove();
            if online.last_received <= pending.at {
                self.cut_silent_session(now);
            } else {
                self.handle_error(pending.purpose, no_reply_error(), now);
            }
        }
    }

    /// The node drains: the client leaves it at a random instant of the drain window.
    pub(super) fn node_draining(&mut self, within: Duration, now: Instant) {
        let part: f64 = self.random.random();
        if let ConnectionState::Online(online) = &mut self.connection {
            online.leave_at.get_or_insert(now + within.mul_f64(part));
        }
    }

    fn leave_draining_node(&mut self, now: Instant) {
        if let ConnectionState::Online(online) = &self.connection
            && online.leave_at.is_some_and(|at| at <= now)
        {
            self.actions.push_back(MachineAction::Leave);
            self.next_address();
            self.disconnect(Why::Draining, Reconnect::AtOnce, None, now);
        }
    }

    /// The user's own stream has a gap: the client reconnects with its own position, and learns
    /// what changed.
    pub(super) fn reconnect_after_own_gap(&mut self, now: Instant) {
        self.actions.push_back(MachineAction::Leave);
        self.disconnect(Why::Missed, Reconnect::AtOnce, None, now);
    }

    fn cut_silent_session(&mut self, now: Instant) {
        self.actions.push_back(MachineAction::Cut);
        self.next_address();
        self.disconnect(Why::Silent, Reconnect::AfterBackoff, None, now);
    }

    /// The server limits the rate of requests: send none until then.
    pub(super) fn pause(&mut self, hint: Option<Duration>, now: Instant) {
        let part: f64 = self.random.random();
        if let ConnectionState::Online(online) = &mut self.connection {
            let until = now
                + hint
                    .unwrap_or(Duration::from_millis(500))
                    .mul_f64(1.0 + part);
            online.paused = online.paused.max(Some(until));
        }
    }

    /// Channels were unsubscribed from.
    pub(super) fn unsubscribed(&mut self, ids: Vec<ChannelId>) {
        for id in ids {
            match self.streams.state(&id) {
                Some(SubscriptionState::Leaving { is_wanted: true }) => {
                    self.streams.set_state(&id, SubscriptionState::Unsubscribed)
                }
                Some(SubscriptionState::Leaving { is_wanted: false }) => self.streams.remove(&id),
                _ => {}
            }
        }
    }
}
