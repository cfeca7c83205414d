//! State of a session from its `connect` to its end.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use protocol::{CloseCode, UserId};

use super::{
    drain::Drain,
    lifetime::Lifetime,
    pace::{Pace, Paced},
    sends::Sends,
    subscriptions::{Next, SubscriptionHandle, Subscriptions},
    watched::Watched,
};

/// Settings of a session.
#[derive(Debug, Clone, Copy)]
pub struct SessionTiming {
    /// Silence after which the client is pinged.
    pub heartbeat: Duration,
    /// Rate limit of requests; 0 means no limit.
    pub requests_per_second: u64,
}

/// A session: how long it lasts, the rate of its requests, its subscriptions and its sends.
///
/// The connection's task calls [`tick`](Self::tick) when it is [`due`](Self::due), and after each
/// change by another task.
#[derive(Debug)]
pub struct Active<S, T> {
    lifetime: Lifetime,
    pace: Pace,
    steps: Steps,
    /// Its subscriptions to channels. Use [`change`](Self::change) for changes that cause steps.
    pub channels: Subscriptions<S>,
    /// The users whose presence it watches.
    pub watched: Watched<S>,
    /// Its sends in flight.
    pub sends: Sends<T>,
}

/// The task that takes the steps of the subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Steps {
    /// Whether the subscriptions have changed since the task looked at them.
    are_due: bool,
    is_running: bool,
}

/// An action for the connection's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionAction {
    /// Send a ping.
    Ping,
    /// Send `token.expiring`.
    WarnOfExpiry,
    /// Send `server.draining`.
    AnnounceDrain {
        /// Time within which the client reconnects.
        reconnect_after_ms: u64,
    },
    /// Start a task that takes the steps of the subscriptions:
    /// [`next_steps`](Active::next_steps) until there are none.
    StartSteps,
    /// Wake that task.
    WakeSteps,
    /// Close the connection. No action follows.
    Close(CloseCode),
}

/// How a request is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestVerdict {
    /// It is served.
    Serve,
    /// It is answered with `rate_limited`.
    Refuse {
        /// Milliseconds until the next request is allowed.
        retry_after_ms: u64,
    },
    /// The connection is closed.
    Close(CloseCode),
}

/// What an ended session leaves, to be dropped outside of locks.
#[derive(Debug)]
pub struct Remains<S> {
    /// Its subscriptions to channels.
    pub channels: Vec<S>,
    /// Its subscriptions to the presence of users.
    pub watched: HashMap<UserId, S>,
}

impl<S: SubscriptionHandle, T> Active<S, T> {
    /// Creates the state of a session whose token expires in `expires_in`.
    pub fn new(
        timing: SessionTiming,
        expires_in: Duration,
        channels: Subscriptions<S>,
        now: Instant,
    ) -> Self {
        Self {
            lifetime: Lifetime::new(timing.heartbeat, expires_in, now),
            pace: Pace::new(timing.requests_per_second, now),
            steps: Steps {
                are_due: false,
                is_running: false,
            },
            channels,
            watched: Watched::default(),
            sends: Sends::default(),
        }
    }

    /// Opens the session after its `connect` was answered. Returns the subscriptions that have
    /// ended meanwhile, to be dropped outside of locks.
    pub fn opened(&mut self, now: Instant) -> Vec<S> {
        self.lifetime.received(now);
        self.change(|channels| channels.opened(now))
    }

    /// Records that any frame was received.
    pub fn received(&mut self, now: Instant) {
        self.lifetime.received(now);
    }

    /// Records a request, and returns how it is treated.
    pub fn request(&mut self, now: Instant) -> RequestVerdict {
        match self.pace.request(now) {
            Paced::Served => RequestVerdict::Serve,
            Paced::Refused { retry_after_ms } => RequestVerdict::Refuse { retry_after_ms },
            Paced::Exceeded => {
                self.lifetime.close();
                RequestVerdict::Close(CloseCode::TooManyRequests)
            }
        }
    }

    /// Replaces the token by one that expires in `expires_in`.
    pub fn refreshed(&mut self, expires_in: Duration, now: Instant) {
        self.lifetime.refreshed(expires_in, now);
    }

    /// Begins to drain, unless it has begun.
    pub fn drain(&mut self, drain: Drain) {
        self.lifetime.drain(drain);
    }

    /// Changes the subscriptions. The next [`tick`](Self::tick) begins the resulting steps.
    pub fn change<R>(&mut self, change: impl FnOnce(&mut Subscriptions<S>) -> R) -> R {
        let result = change(&mut self.channels);
        self.steps.are_due |= self.channels.has_steps();
        result
    }

    /// Returns the next action that is due. Call it until it returns `None`.
    pub fn tick(&mut self, now: Instant) -> Option<SessionAction> {
        let action = self.lifetime.tick(now);
        if matches!(action, Some(SessionAction::Close(_))) {
            self.lifetime.close();
        }
        action.or_else(|| {
            if !std::mem::take(&mut self.steps.are_due) {
                return None;
            }
            match std::mem::replace(&mut self.steps.is_running, true) {
                true => Some(SessionAction::WakeSteps),
                false => Some(SessionAction::StartSteps),
            }
        })
    }

    /// Returns when [`tick`](Self::tick) has to be called next.
    pub fn due(&self) -> Instant {
        self.lifetime.due()
    }

    /// Returns the next steps of the subscriptions. The task that takes them ends if there are
    /// none.
    pub fn next_steps(&mut self, now: Instant) -> Next {
        let next = self.channels.next(now);
        self.steps.is_running = next != Next::Nothing;
        next
    }

    /// Records that the task that takes steps has failed. The next change starts it again.
    pub fn steps_failed(&mut self) {
        self.steps.is_running = false;
    }

    /// Ends the session.
    pub fn close(&mut self) -> Remains<S> {
        self.lifetime.close();
        Remains {
            channels: self.channels.close(),
            watched: self.watched.close(),
        }
    }
}
