//! Takes the steps of a session's subscriptions outside of requests, after notices of the user's
//! stream and after losses.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};

use chaos_redis::jittered;
use domain::{entries::Detail, settling};
use fanout::Position;
use protocol::{
    ChannelId, Cursor, EventKind,
    entity::{EntryResult, Gap},
    event::GapData,
};
use serde::Serialize;

use super::{
    compare::compare,
    session::{Session, SubscriptionTurn},
    shared::Sessions,
    subscribe::{RequestedChannel, SubscribeRequest, prepare, start},
};
use crate::session::{Next, SubscribeReason, SubscriptionStep};

/// Starts the session's task that takes due steps.
pub fn start_steps(sessions: &Arc<Sessions>, session: &Arc<Session>) {
    tokio::spawn(take_steps(Arc::downgrade(sessions), Arc::clone(session)));
}

async fn take_steps(sessions: Weak<Sessions>, session: Arc<Session>) {
    let _following = StepTask(&session);
    loop {
        let turn = session.turn().await;
        let next = session.state.lock().active.next_steps(Instant::now());
        let Some(sessions) = sessions.upgrade() else {
            return;
        };
        match next {
            Next::Nothing => return,
            Next::At(due) => {
                drop((turn, sessions));
                tokio::select! {
                    () = tokio::time::sleep_until(due.into()) => {}
                    () = session.changed.notified() => {}
                }
            }
            Next::Now(steps) => take(&session, &sessions, turn, steps).await,
        }
    }
}

async fn take(
    session: &Session,
    sessions: &Sessions,
    turn: SubscriptionTurn,
    steps: Vec<SubscriptionStep>,
) {
    let (mut reasons, mut limited, mut comparison) = (HashMap::new(), HashMap::new(), None);
    for step in steps {
        match step {
            SubscriptionStep::Subscribe { id, why, is_retry } => {
                let is_limited = is_retry || why.is_shared();
                let steps = if is_limited {
                    &mut limited
                } else {
                    &mut reasons
                };
                steps.insert(id, why);
            }
            SubscriptionStep::Compare { attempts } => comparison = Some(attempts),
            SubscriptionStep::ReportLimit { id, position } => {
                send_gap(session, &id, Gap::LimitReached, position)
            }
        }
    }
    // Held until the steps are done.
    let is_limited = !limited.is_empty() || comparison.is_some();
    let permit = is_limited.then(|| sessions.step_limiter.try_acquire());
    match &permit {
        None => {}
        Some(Ok(_)) => reasons.extend(limited),
        Some(Err(pause)) => {
            let (mut state, due) = (session.state.lock(), Instant::now() + *pause);
            for (id, why) in &limited {
                state.active.channels.postpone(id, *why, due);
            }
            if comparison.take().is_some() {
                state.active.channels.compare(due);
            }
        }
    }
    if let Some(attempts) = comparison {
        compare(session, sessions, attempts).await;
    }
    if !reasons.is_empty() {
        subscribe_pending(session, sessions, turn, reasons).await;
    }
}

async fn subscribe_pending(
    session: &Session,
    sessions: &Sessions,
    turn: SubscriptionTurn,
    reasons: HashMap<ChannelId, SubscribeReason>,
) {
    let asked = |(id, why): (&ChannelId, &SubscribeReason)| {
        let Position { seq, at } = why.position();
        let cursor = match why {
            SubscribeReason::Listed => Cursor::Now,
            _ => Cursor::After(seq, at),
        };
        RequestedChannel {
            id: id.clone(),
            cursor,
            is_named: true,
            active_at: at,
        }
    };
    let wanted = SubscribeRequest {
        asked: reasons.iter().map(asked).collect(),
        detail: Detail::Positions,
        reserved: 0,
    };
    let (entries, mut starts, _) = match prepare(sessions, session, turn, wanted).await {
        Ok(prepared) => prepared,
        Err(error) => {
            tracing::warn!(session = %session.id, channels = reasons.len(), %error, "cannot subscribe outside of a request, will retry");
            let (mut state, now) = (session.state.lock(), Instant::now());
            for (id, why) in reasons {
                state.active.channels.retry(&id, why, now, jittered);
            }
            return;
        }
    };
    for start in &mut starts.channels {
        start.why = reasons.get(&start.id).copied();
    }
    let mut out = Vec::new();
    for entry in entries {
        match entry {
            EntryResult::Entry(entry) => {
                let id = &entry.channel_id;
                let Some(why) = reasons.get(id) else { continue };
                let missed = why.may_have_missed().then_some(Gap::Trimmed);
                // Locked over the push, so that no gap follows `channel.removed`.
                let state = session.state.lock();
                if let Some(reason) = entry.gap.or(missed)
                    && state.active.channels.is_pending(id, *why)
                {
                    let (seq, at) = (entry.seq, entry.at);
                    send_gap(session, id, reason, Position { seq, at });
                    drop(state);
                    let start = starts.channels.iter_mut().find(|start| start.id == *id);
                    if let Some(start) = start {
                        start.cursor = start.head;
                    }
                }
            }
            EntryResult::Failed(failed) => {
                let id = &failed.channel_id;
                if let Some(why) = reasons.get(id) {
                    let now = Instant::now();
                    session
                        .state
                        .lock()
                        .active
                        .channels
                        .not_found_in_channel(id, *why, now);
                    out.push(id.clone());
                }
            }
        }
    }
    start(session, starts);
    // An interrupted removal is completed; the user's stream then delivers it.
    for id in out {
        let settled =
            settling::settle_membership(&sessions.services, session.scope(), session.user(), &id)
                .await;
        match settled {
            Ok(true) => session.state.lock().active.channels.confirm_removal(&id),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(session = %session.id, channel = %id, %error, "cannot complete an interrupted removal, will retry");
            }
        }
    }
}

fn send_gap(session: &Session, channel_id: &ChannelId, reason: Gap, position: Position) {
    #[derive(Serialize)]
    struct ChannelGapEvent<'a> {
        event: &'static str,
        channel_id: &'a ChannelId,
        data: GapData,
    }
    let Position { seq, at } = position;
    session.send_event(&ChannelGapEvent {
        event: EventKind::ChannelGap.as_str(),
        channel_id,
        data: GapData { reason, seq, at },
    });
}

/// The task that takes a session's steps. After a panic, the next change starts a new one.
struct StepTask<'a>(&'a Session);

impl Drop for StepTask<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.lock().active.steps_failed();
        }
    }
}
