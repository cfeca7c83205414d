//! A session under simulated time, against a model of its timers, its drain, and its tasks.

use std::collections::VecDeque;

use fanout::Position;
use proptest::prelude::*;
use protocol::ChannelId;

use super::*;
use crate::session::{DrainSchedule, SubscriptionStep};

const TIMING: SessionTiming = SessionTiming {
    heartbeat: Duration::from_secs(25),
    requests_per_second: 50,
};
const EXPIRY_WARNING: Duration = Duration::from_secs(60);
const CHANNELS: usize = 3;

#[derive(Debug)]
struct Subscription;

impl SubscriptionHandle for Subscription {
    fn is_ended(&self) -> bool {
        false
    }

    fn topic_position(&self) -> Position {
        Position::default()
    }
}

#[derive(Debug, Clone)]
enum Act {
    Receive,
    Request(u8),
    Refresh(u64),
    /// The node begins to drain so many sessions within the milliseconds.
    Drain {
        sessions: usize,
        index: usize,
        window: u64,
    },
    /// The user is added to a channel, or removed.
    Added(usize),
    Removed(usize),
    /// The task of the steps takes those that are due.
    TakeSteps,
    /// The task of the steps panics.
    FailSteps,
    Send(usize),
    /// The commit in flight of a channel is done.
    Commit(usize),
    /// The peer disconnects.
    Leave,
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => Just(Act::Receive),
        6 => (1..150u8).prop_map(Act::Request),
        3 => (0..300_000u64).prop_map(Act::Refresh),
        1 => (1..5_000usize, 0..5_000usize, 0..20_000u64).prop_map(|(sessions, index, window)| {
            Act::Drain { sessions, index: index % sessions, window }
        }),
        3 => (0..CHANNELS).prop_map(Act::Added),
        2 => (0..CHANNELS).prop_map(Act::Removed),
        6 => Just(Act::TakeSteps),
        1 => Just(Act::FailSteps),
        6 => (0..CHANNELS).prop_map(Act::Send),
        6 => (0..CHANNELS).prop_map(Act::Commit),
        6 => (0..2_000u64).prop_map(Act::Pass),
        6 => (0..40_000u64).prop_map(Act::Pass),
    ]
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn id(channel: usize) -> ChannelId {
    format!("c{channel}").parse().expect("a valid id")
}

/// What is expected of the session.
struct Model {
    now: Instant,
    start: Instant,
    received: Instant,
    pings: u32,
    token_from: Instant,
    expires: Instant,
    is_warned: bool,
    served: u64,
    refused: Option<Instant>,
    /// The begin of the drain, its hint, and the session's end.
    drain: Option<(Instant, u64, Instant)>,
    is_told: bool,
    /// Whether the task of the steps runs.
    takes_steps: bool,
    /// Sends by channel: those that wait, if a commit is in flight.
    sends: HashMap<usize, VecDeque<u32>>,
    sent: u32,
}

struct World {
    machine: Active<Subscription, u32>,
    model: Model,
}

impl World {
    fn new(life: u64) -> Self {
        let start = Instant::now();
        let channels = Subscriptions::new(true, 0);
        let mut machine = Active::new(TIMING, millis(life), channels, start);
        machine.opened(start);
        Self {
            machine,
            model: Model {
                now: start,
                start,
                received: start,
                pings: 0,
                token_from: start,
                expires: start + millis(life),
                is_warned: false,
                served: 0,
                refused: None,
                drain: None,
                is_told: false,
                takes_steps: false,
                sends: HashMap::new(),
                sent: 0,
            },
        }
    }

    /// Returns whether the session goes on.
    fn act(&mut self, act: Act) -> Result<bool, TestCaseError> {
        let (machine, model) = (&mut self.machine, &mut self.model);
        let now = model.now;
        match act {
            Act::Receive => {
                machine.received(now);
                (model.received, model.pings) = (now, 0);
            }
            Act::Refresh(life) => {
                machine.refreshed(millis(life), now);
                (model.token_from, model.expires) = (now, now + millis(life));
                model.is_warned = false;
            }
            Act::Request(times) => {
                for _ in 0..times {
                    if !self.request()? {
                        return Ok(false);
                    }
                }
            }
            Act::Drain {
                sessions,
                index,
                window,
            } => {
                let schedule = DrainSchedule::new(sessions, millis(window), now);
                let drain = schedule.place(index);
                let hint = (5 * sessions as u64).min(window);
                let end = now + millis(hint) / sessions as u32 * index as u32;
                model.drain.get_or_insert((now, hint, end));
                machine.drain(drain);
            }
            Act::Added(n) => machine.change(|channels| {
                channels.added(id(n), Position { seq: 1, at: 1 }, now);
            }),
            Act::Removed(n) => {
                machine.change(|channels| channels.removed(id(n)));
            }
            Act::TakeSteps if model.takes_steps => self.take_steps(),
            Act::FailSteps if model.takes_steps => {
                machine.steps_failed();
                // The next notice starts the task again.
                model.takes_steps = false;
                machine.change(|channels| channels.added(id(0), Position { seq: 1, at: 1 }, now));
            }
            Act::TakeSteps | Act::FailSteps => {}
            Act::Send(n) => {
                let is_first = machine.sends.push(&id(n), model.sent, now);
                prop_assert_eq!(is_first, !model.sends.contains_key(&n));
                model.sends.entry(n).or_default().push_back(model.sent);
                model.sent += 1;
            }
            Act::Commit(n) => match machine.sends.next(&id(n)) {
                Some(batch) => {
                    let queue = model.sends.get_mut(&n).expect("a send was queued");
                    let expected: Vec<_> = queue.drain(..batch.sends.len()).collect();
                    prop_assert_eq!(batch.sends, expected);
                }
                None => prop_assert!(model.sends.remove(&n).is_none_or(|left| left.is_empty())),
            },
            Act::Leave => {
                machine.close();
                return Ok(false);
            }
            Act::Pass(ms) => return self.pass(now + millis(ms)),
        }
        self.pass(now)
    }

    fn request(&mut self) -> Result<bool, TestCaseError> {
        let model = &mut self.model;
        let now = model.now;
        match self.machine.request(now) {
            RequestVerdict::Serve => model.served += 1,
            RequestVerdict::Refuse { retry_after_ms } => {
                prop_assert!(retry_after_ms > 0);
                model.refused.get_or_insert(now);
            }
            RequestVerdict::Close(code) => {
                prop_assert_eq!(code, CloseCode::TooManyRequests);
                let first = model.refused;
                prop_assert!(first.is_some_and(|first| now - first >= Duration::from_secs(10)));
                return Ok(false);
            }
        }
        let allowed = u128::from(TIMING.requests_per_second)
            * (2000 + now.duration_since(model.start).as_millis());
        prop_assert!(u128::from(model.served) * 1000 <= allowed);
        Ok(true)
    }

    fn take_steps(&mut self) {
        let now = self.model.now;
        match self.machine.next_steps(now) {
            Next::Nothing => self.model.takes_steps = false,
            Next::At(_) => {}
            Next::Now(steps) => {
                for step in steps {
                    if let SubscriptionStep::Subscribe { id, why, .. } = step {
                        self.machine.channels.start(id, Some(why), || Subscription);
                    }
                }
            }
        }
    }

    /// Advances time, and takes every action when it is due.
    fn pass(&mut self, until: Instant) -> Result<bool, TestCaseError> {
        loop {
            while let Some(action) = self.machine.tick(self.model.now) {
                if !self.model.takes(action)? {
                    return Ok(false);
                }
            }
            let model = &mut self.model;
            if self.machine.channels.has_steps() {
                prop_assert!(model.takes_steps, "nobody takes the steps");
            }
            let due = self.machine.due();
            prop_assert!(due > model.now, "an action was due and was not taken");
            if due > until {
                model.now = until;
                break;
            }
            model.now = due;
        }
        self.model.missed_nothing()?;
        Ok(true)
    }

    fn is_over(&mut self) -> Result<(), TestCaseError> {
        let later = self.model.now + Duration::from_secs(1_000);
        let schedule = DrainSchedule::new(1, Duration::ZERO, self.model.now);
        self.machine.drain(schedule.place(0));
        let action = self.machine.tick(later);
        let is_of_steps = matches!(
            action,
            None | Some(SessionAction::StartSteps | SessionAction::WakeSteps)
        );
        prop_assert!(is_of_steps, "{action:?} after the end");
        self.machine.close();
        prop_assert!(!self.machine.channels.has_steps());
        let started = self
            .machine
            .channels
            .start(id(0), None, || panic!("a subscription after the end"));
        prop_assert!(started.is_none());
        Ok(())
    }
}

impl Model {
    /// Checks an action. Returns whether the session goes on.
    fn takes(&mut self, action: SessionAction) -> Result<bool, TestCaseError> {
        let now = self.now;
        match action {
            SessionAction::Ping => {
                self.pings += 1;
                prop_assert_eq!(now, self.received + TIMING.heartbeat * self.pings);
                prop_assert!(self.pings <= 2);
            }
            SessionAction::WarnOfExpiry => {
                prop_assert!(!self.is_warned);
                let due = self.expires.checked_sub(EXPIRY_WARNING);
                prop_assert_eq!(now, due.unwrap_or(self.token_from).max(self.token_from));
                self.is_warned = true;
            }
            SessionAction::AnnounceDrain { reconnect_after_ms } => {
                prop_assert!(!self.is_told);
                self.is_told = true;
                let (begin, hint, _) = self.drain.expect("the node drains");
                prop_assert_eq!((now, reconnect_after_ms), (begin, hint));
            }
            SessionAction::StartSteps => {
                prop_assert!(!self.takes_steps, "two tasks take the steps");
                self.takes_steps = true;
            }
            SessionAction::WakeSteps => prop_assert!(self.takes_steps),
            SessionAction::Close(code) => {
                let expected = match code {
                    CloseCode::TokenExpired => self.expires,
                    CloseCode::HeartbeatLost => self.received + TIMING.heartbeat * 3,
                    CloseCode::GoingAway => self.drain.expect("the node drains").2,
                    other => panic!("{other:?}"),
                };
                prop_assert_eq!(now, expected);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn missed_nothing(&self) -> Result<(), TestCaseError> {
        let now = self.now;
        prop_assert!(now < self.expires && now < self.received + TIMING.heartbeat * 3);
        prop_assert!(self.is_warned || now + EXPIRY_WARNING < self.expires);
        prop_assert!(self.drain.is_none_or(|(.., end)| self.is_told && now < end));
        Ok(())
    }
}

proptest! {
    #[test]
    fn session_acts_and_ends_for_the_right_reason_at_the_right_time(
        life in 0..300_000u64,
        acts in proptest::collection::vec(act(), 0..80),
    ) {
        let mut world = World::new(life);
        for act in acts.into_iter().chain([Act::Leave]) {
            if !world.act(act)? {
                break;
            }
        }
        world.is_over()?;
    }
}
