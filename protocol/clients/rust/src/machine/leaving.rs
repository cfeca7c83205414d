//! The ends of a session that the client decides on.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::{DisconnectCause, Machine, MachineAction, connection_state::ConnectionState};
use crate::Reconnect;

/// The node drains: the client leaves it at a random instant of the drain window.
pub(super) fn node_draining(machine: &mut Machine, within: Duration, now: Instant) {
    let part: f64 = machine.random.random();
    if let ConnectionState::Online(online) = &mut machine.connection {
        online.leave_at.get_or_insert(now + within.mul_f64(part));
    }
}

pub(super) fn leave_draining_node(machine: &mut Machine, now: Instant) {
    if let ConnectionState::Online(online) = &machine.connection
        && online.leave_at.is_some_and(|at| at <= now)
    {
        machine.actions.push_back(MachineAction::Leave);
        machine.next_address();
        machine.disconnect(DisconnectCause::Draining, Reconnect::AtOnce, None, now);
    }
}

/// The user's own stream has a gap: the client reconnects with its own position, and the server
/// sends the changes.
pub(super) fn reconnect_after_own_gap(machine: &mut Machine, now: Instant) {
    machine.actions.push_back(MachineAction::Leave);
    machine.disconnect(DisconnectCause::UserStreamGap, Reconnect::AtOnce, None, now);
}

pub(super) fn cut_silent_session(machine: &mut Machine, now: Instant) {
    machine.actions.push_back(MachineAction::Cut);
    machine.next_address();
    machine.disconnect(DisconnectCause::Silent, Reconnect::AfterBackoff, None, now);
}
