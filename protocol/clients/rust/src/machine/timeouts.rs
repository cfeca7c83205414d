//! Requests without a reply in time.

use std::time::Instant;

use super::{
    Machine, connection_state::ConnectionState, leaving, replies, subscriptions::no_reply_error,
};

/// Handles requests without a reply in time. If nothing was received since, the session is
/// given up, else the request.
pub(super) fn check_timeouts(machine: &mut Machine, now: Instant) {
    // While updates wait for the application the socket is not read, and silence means nothing.
    if let ConnectionState::Online(online) = &mut machine.connection
        && !machine.updates.is_empty()
    {
        online.last_received = now;
    }
    while let ConnectionState::Online(online) = &machine.connection
        && let Some(first) = machine.pending.first_entry()
        && first.get().at + machine.settings.reply_timeout <= now
    {
        let pending = first.remove();
        if online.last_received <= pending.at {
            leaving::cut_silent_session(machine, now);
        } else {
            replies::handle_error(machine, pending.purpose, no_reply_error(), now);
        }
    }
}
