//! The task of a connection that has a session.

use std::{
    borrow::Cow,
    future::poll_fn,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::error::without_value;
use fanout::{Class, outbox::Reason};
use protocol::{CloseCode, EventKind, codec::DecodeError, event::ExpiringData};
use serde::Serialize;
use tokio::task::coop;

use super::{
    frame,
    incoming::Input,
    shell::{Event, Shell},
};
use crate::{
    limit::request_bytes,
    metrics::Metrics,
    session::{Action, Active, Verdict},
    sessions::{self, Session, Sessions},
};

/// Serves a session until it ends. The close code, if it ended with one.
pub(super) async fn run(
    mut shell: Shell,
    sessions: &Arc<Sessions>,
    session: Arc<Session>,
    mut active: Active,
) -> Option<u16> {
    let mut timer = Box::pin(tokio::time::sleep_until(active.due().into()));
    let mut expires_at = session.expires_at();
    let code = loop {
        match poll_fn(|cx| shell.poll_event(cx, timer.as_mut(), Some(&session))).await {
            Event::Input(input) => {
                let now = Instant::now();
                active.received(now);
                if let Err(end) = take(input, sessions, &session, &mut active, now) {
                    match end {
                        Some((code, reason)) => session.close_because(code, &reason),
                        None => break None,
                    }
                }
                // A read may bring hundreds of frames: each is charged to the task's budget, so
                // that others have their turn.
                coop::consume_budget().await;
            }
            Event::Due => {
                let now = Instant::now();
                if session.expires_at() != expires_at {
                    expires_at = session.expires_at();
                    active.refreshed(remaining(sessions, &session), now);
                }
                let _: Result<(), _> = shell.outbox.check(now);
                if shell
                    .incoming
                    .deadline()
                    .is_some_and(|deadline| now >= deadline)
                {
                    session
                        .close_because(CloseCode::TooSlow, "a message did not come whole in time");
                }
                while let Some(action) = active.tick(now) {
                    match action {
                        Action::Ping => drop(shell.outbox.push(frame::ping(), Class::Control)),
                        Action::WarnOfExpiry => session.tell(&expiring(&session)),
                        Action::Close(code) => {
                            session.close(code, None);
                            break;
                        }
                    }
                }
                timer.as_mut().reset(active.due().into());
            }
            Event::SubscriptionEnded => session.recover_ended(),
            Event::Steps => sessions::follow(sessions, &session),
            Event::Over(Reason::TooSlow(_)) => {
                shell.outbox.close(
                    frame::close(CloseCode::TooSlow, None),
                    CloseCode::TooSlow.code(),
                );
                break Some(CloseCode::TooSlow.code());
            }
            Event::Over(Reason::Closed(code)) => break Some(code),
            Event::Over(Reason::Broken) => break None,
        }
    };
    sessions.leave(&session);
    drop(session);
    match code {
        Some(_) => shell.part().await,
        // Whoever waits for room in it learns that there will be none.
        None => shell.outbox.fail(Reason::Broken),
    }
    code
}

/// Takes what came in. An error ends the connection, with a code and a reason unless the peer
/// is gone.
fn take(
    input: Input,
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    active: &mut Active,
    now: Instant,
) -> Result<(), Option<(CloseCode, Cow<'static, str>)>> {
    let plain = |code: CloseCode| Some((code, code.reason().into()));
    let unread = |error: DecodeError| {
        Some((
            CloseCode::BadFrame,
            without_value(&error.to_string()).into_owned().into(),
        ))
    };
    match input {
        // Pings are answered, and so are paced like requests.
        Input::Sign => match active.request(now) {
            Verdict::Close(code) => Err(plain(code)),
            Verdict::Serve | Verdict::Refuse { .. } => Ok(()),
        },
        Input::Gone => Err(None),
        Input::Wrong(code, reason) => Err(Some((code, reason.into()))),
        Input::NoRoom => {
            let reason = no_room(&sessions.metrics);
            Err(Some((CloseCode::TooManyConnections, reason.into())))
        }
        Input::Frame(frame) => match active.request(now) {
            Verdict::Serve => sessions::request(sessions, session, &frame).map_err(unread),
            Verdict::Refuse { retry_after_ms } => {
                sessions::refuse(sessions, session, &frame, retry_after_ms).map_err(unread)
            }
            Verdict::Close(code) => Err(plain(code)),
        },
    }
}

/// Counts a message that is given up since there is no room for it. Returns why its connection is
/// closed.
pub(super) fn no_room(metrics: &Metrics) -> &'static str {
    metrics.limit_hit(request_bytes::LIMIT);
    "too many requests on this node"
}

/// How long a session's token lasts from now on.
pub(super) fn remaining(sessions: &Sessions, session: &Session) -> Duration {
    Duration::from_millis(
        session
            .expires_at()
            .saturating_sub(sessions.services.clock.now_ms()),
    )
}

#[derive(Serialize)]
struct Expiring {
    event: &'static str,
    data: ExpiringData,
}

fn expiring(session: &Session) -> Expiring {
    Expiring {
        event: EventKind::TokenExpiring.as_str(),
        data: ExpiringData {
            expires_at: session.expires_at(),
        },
    }
}
