//! The requests that a session makes by itself: pings, subscriptions, recoveries and messages.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::{ClientRequest, Machine, Purpose, connection_state::ConnectionState, leaving, renewal};

/// Maximum number of recoveries with a page in flight.
const MAX_RECOVERIES_IN_FLIGHT: usize = 4;

/// Maximum number of messages in flight, over all channels.
const MAX_MESSAGES_IN_FLIGHT: usize = 32;

/// Sends all requests that may be sent now.
pub(super) fn send_requests(machine: &mut Machine, now: Instant) {
    leaving::leave_draining_node(machine, now);
    let ConnectionState::Online(online) = &machine.connection else {
        return;
    };
    if !is_pinging(machine) && online.last_received + online.heartbeat <= now {
        machine.request(Purpose::Ping, now, |_, _| Some(ClientRequest::Ping));
    }
    renewal::continue_renewal(machine, now);
    let ConnectionState::Online(online) = &machine.connection else {
        return;
    };
    if online.is_paused(now) {
        return;
    }
    let page = online.page;
    if !is_subscribing(machine) {
        change_subscriptions(machine, now);
    }
    for id in machine
        .streams
        .due_recoveries(MAX_RECOVERIES_IN_FLIGHT, now)
    {
        machine.request(Purpose::Recovery(id.clone()), now, |machine, request_id| {
            let recovery = machine.streams.get_mut(&id)?.recovery.as_mut()?;
            Some(recovery.request(&id, page, request_id))
        });
    }
    if machine
        .list_recovery
        .as_ref()
        .is_some_and(|list_recovery| !list_recovery.is_in_flight && list_recovery.retry.is_due(now))
    {
        machine.request(Purpose::List, now, |machine, _| {
            Some(machine.list_recovery.as_mut()?.request(page))
        });
    }
    let room = MAX_MESSAGES_IN_FLIGHT.saturating_sub(machine.send_queue.in_flight());
    for id in machine
        .send_queue
        .ready_channels(now)
        .into_iter()
        .take(room)
    {
        machine.request(Purpose::Send(id.clone()), now, |machine, request_id| {
            let message = Box::new(machine.send_queue.start_first(&id, request_id)?);
            Some(ClientRequest::MessageSend {
                channel_id: id,
                message,
            })
        });
    }
}

/// At most one change of subscriptions is in flight, so that the set of subscriptions is known.
fn change_subscriptions(machine: &mut Machine, now: Instant) {
    let leaving = machine.streams.leaving();
    if !leaving.is_empty() {
        machine.request(Purpose::Unsubscribe(leaving.clone()), now, |_, _| {
            Some(ClientRequest::ChannelUnsubscribe(leaving))
        });
        return;
    }
    let batch = machine.streams.next_batch(now);
    if !batch.is_empty() {
        machine.request(
            Purpose::Subscribe(batch.keys().cloned().collect()),
            now,
            |_, _| Some(ClientRequest::ChannelSubscribe(batch)),
        );
    }
}

fn is_subscribing(machine: &Machine) -> bool {
    machine.pending.values().any(|pending| {
        matches!(
            pending.purpose,
            Purpose::Subscribe(_) | Purpose::Unsubscribe(_)
        )
    })
}

pub(super) fn is_pinging(machine: &Machine) -> bool {
    machine
        .pending
        .values()
        .any(|pending| matches!(pending.purpose, Purpose::Ping | Purpose::Clock { .. }))
}

/// The server limits the rate of requests: send none until then.
pub(super) fn pause(machine: &mut Machine, hint: Option<Duration>, now: Instant) {
    let part: f64 = machine.random.random();
    if let ConnectionState::Online(online) = &mut machine.connection {
        let until = now
            + hint
                .unwrap_or(Duration::from_millis(500))
                .mul_f64(1.0 + part);
        online.paused = online.paused.max(Some(until));
    }
}
