//! The task of a connection with a session.

use std::{borrow::Cow, future::poll_fn, sync::Arc, time::Instant};

use domain::error::without_value;
use fanout::{Class, outbox::Reason};
use protocol::{CloseCode, EventKind, codec::DecodeError, event::ExpiringData};
use serde::Serialize;
use tokio::task::coop;

use super::{
    driver::{DriverEvent, SocketDriver},
    frame,
    incoming::Input,
};
use crate::{
    limit::request_bytes,
    metrics::Metrics,
    session::{RequestVerdict, SessionAction},
    sessions::{self, Session, Sessions},
};

/// Serves a session until it ends. Returns the close code, if it ended with one.
pub(super) async fn run(
    mut driver: SocketDriver,
    sessions: &Arc<Sessions>,
    session: Arc<Session>,
) -> Option<u16> {
    let mut timer = Box::pin(tokio::time::sleep_until(session.due().into()));
    let code = loop {
        match poll_fn(|cx| driver.poll_event(cx, timer.as_mut(), Some(&session))).await {
            DriverEvent::Input(input) => {
                let now = Instant::now();
                session.received(now);
                if let Err(end) = take(input, sessions, &session, now) {
                    match end {
                        Some((code, reason)) => session.close_because(code, &reason),
                        None => break None,
                    }
                }
                // A read may contain hundreds of frames. Each is charged to the task's budget, so
                // that other tasks run.
                coop::consume_budget().await;
            }
            DriverEvent::Due => {
                let now = Instant::now();
                let _: Result<(), _> = driver.outbox.check(now);
                if driver
                    .incoming
                    .deadline()
                    .is_some_and(|deadline| now >= deadline)
                {
                    session
                        .close_because(CloseCode::TooSlow, "a message was not completed in time");
                }
                while let Some(action) = session.tick(now) {
                    match action {
                        SessionAction::Ping => {
                            let _: Result<(), _> =
                                driver.outbox.push(frame::ping(), Class::Control);
                        }
                        SessionAction::WarnOfExpiry => session.send_event(&expiring(&session)),
                        SessionAction::AnnounceDrain { reconnect_after_ms } => {
                            session.announce_drain(reconnect_after_ms)
                        }
                        SessionAction::StartSteps => sessions::start_steps(sessions, &session),
                        SessionAction::WakeSteps => session.wake_steps(),
                        SessionAction::Close(code) => session.close(code, None),
                    }
                }
                timer.as_mut().reset(session.due().into());
            }
            DriverEvent::SubscriptionEnded => session.recover_ended(),
            DriverEvent::Over(Reason::TooSlow(_)) => {
                driver.outbox.close(
                    frame::close(CloseCode::TooSlow, None),
                    CloseCode::TooSlow.code(),
                );
                break Some(CloseCode::TooSlow.code());
            }
            DriverEvent::Over(Reason::Closed(code)) => break Some(code),
            DriverEvent::Over(Reason::Broken) => break None,
        }
    };
    sessions.leave(&session);
    drop(session);
    match code {
        Some(_) => driver.close_gracefully().await,
        // Wakes tasks that wait for room in the outbox.
        None => driver.outbox.fail(Reason::Broken),
    }
    code
}

/// Handles an input. An error ends the connection, with a code and a reason unless the peer
/// disconnected.
fn take(
    input: Input,
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
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
        // Pings cause answers, so they are limited like requests.
        Input::Control => match session.request(now) {
            RequestVerdict::Close(code) => Err(plain(code)),
            RequestVerdict::Serve | RequestVerdict::Refuse { .. } => Ok(()),
        },
        Input::Gone => Err(None),
        Input::Invalid(code, reason) => Err(Some((code, reason.into()))),
        Input::NoRoom => {
            let reason = no_room(&sessions.metrics);
            Err(Some((CloseCode::TooManyConnections, reason.into())))
        }
        Input::Frame(frame) => match session.request(now) {
            RequestVerdict::Serve => sessions::request(sessions, session, &frame).map_err(unread),
            RequestVerdict::Refuse { retry_after_ms } => {
                sessions::refuse(sessions, session, &frame, retry_after_ms).map_err(unread)
            }
            RequestVerdict::Close(code) => Err(plain(code)),
        },
    }
}

/// Counts a message that the node has no room for. Returns the reason for which its connection is
/// closed.
pub(super) fn no_room(metrics: &Metrics) -> &'static str {
    metrics.limit_hit(request_bytes::LIMIT);
    "too many requests on this node"
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
