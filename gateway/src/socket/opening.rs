//! From an upgraded socket to a session: the first request, and the `connect` that it is.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    time::Instant,
};

use fanout::Class;
use protocol::{CloseCode, frame::encode_error};
use tokio::task::coop;

use super::{
    connections::Connections,
    frame,
    incoming::Input,
    refusal::{Ended, Refusal},
    serving::no_room,
    shell::{Event, Shell},
};
use crate::{
    auth::Attempt,
    session::{ConnectRequest, Handshake},
    sessions::{self, Session},
};

/// Maximum number of pings before the first request.
const MAX_SIGNS: usize = 16;

/// Opens a session, or refuses and ends the connection.
pub(super) async fn open(
    mut shell: Shell,
    connections: Arc<Connections>,
    attempt: &mut Attempt,
) -> Result<(Shell, Arc<Session>), Ended> {
    let opened = match first_request(&mut shell, &connections).await {
        Ok(opening) => connect(&shell, &connections, opening, attempt).await,
        Err(ended) => Err(ended),
    };
    match opened {
        Ok(session) => Ok((shell, session)),
        Err(ended) => {
            if let Ended::Refused(refusal) = &ended {
                refuse(shell, &connections, refusal).await;
            }
            Err(ended)
        }
    }
}

async fn first_request(
    shell: &mut Shell,
    connections: &Connections,
) -> Result<ConnectRequest, Ended> {
    let handshake = Handshake::new(shell.encoding, Instant::now());
    let mut timer = Box::pin(tokio::time::sleep_until(handshake.deadline().into()));
    let mut signs = 0;
    loop {
        let event = tokio::select! {
            event = poll_fn(|cx| shell.poll_event(cx, timer.as_mut(), None)) => event,
            () = connections.stop.cancelled() => Event::Due,
        };
        match event {
            Event::Input(Input::Sign) if signs < MAX_SIGNS => signs += 1,
            Event::Input(Input::Sign) => {
                return Err(Refusal::fault(CloseCode::TooManyRequests).into());
            }
            Event::Input(Input::Frame(frame)) => match handshake.frame(&frame) {
                Ok(opening) => return Ok(opening),
                Err(refusal) => return Err(Refusal::from(refusal).into()),
            },
            Event::Input(Input::Wrong(code, reason)) => {
                let refusal = Refusal {
                    reason: reason.into(),
                    ..Refusal::fault(code)
                };
                return Err(refusal.into());
            }
            Event::Input(Input::NoRoom) => {
                let refusal = Refusal {
                    reason: no_room(&connections.sessions.metrics).into(),
                    ..Refusal::fault(CloseCode::TooManyConnections)
                };
                return Err(refusal.into());
            }
            Event::Due if connections.stop.is_cancelled() => {
                return Err(Refusal::choice(CloseCode::GoingAway).into());
            }
            Event::Due if Instant::now() < handshake.deadline() => {
                timer.as_mut().reset(handshake.deadline().into())
            }
            Event::Due => {
                return Err(Refusal::fault(CloseCode::ConnectTimeout).into());
            }
            Event::Input(Input::Gone)
            | Event::Over(_)
            | Event::SubscriptionEnded
            | Event::Steps => {
                return Err(Ended::Gone);
            }
        }
        coop::consume_budget().await;
    }
}

async fn connect(
    shell: &Shell,
    connections: &Arc<Connections>,
    opening: ConnectRequest,
    attempt: &mut Attempt,
) -> Result<Arc<Session>, Ended> {
    let id = opening.id;
    let entering = async {
        let candidate = sessions::check(&connections.sessions, opening, attempt).await?;
        match connections.gate.enter(candidate.party()).await {
            Ok(pass) => Ok((candidate, pass)),
            Err(full) => Err(sessions::turn_away(&connections.sessions, id, full)),
        }
    };
    let entered = tokio::select! {
        entered = entering => entered,
        () = connections.stop.cancelled() => {
            return Err(Refusal::choice(CloseCode::GoingAway).into());
        }
        () = shell.gone() => return Err(Ended::Gone),
    };
    let (candidate, pass) = entered?;
    let connecting = sessions::connect(
        &connections.sessions,
        candidate,
        shell.encoding,
        &shell.outbox,
        pass,
    );
    let mut connecting = std::pin::pin!(connecting);
    let session = poll_fn(|cx| {
        // What the handshake has to say leaves while it goes on; the end of the socket is
        // noticed afterwards.
        let _ = shell.outbox.poll_drive(cx);
        connecting.as_mut().poll(cx)
    })
    .await?;
    Ok(session)
}

/// Answers, closes and ends a connection that gets no session.
pub(super) async fn refuse(shell: Shell, connections: &Connections, refusal: &Refusal) {
    let &Refusal {
        code,
        retry_after_ms,
        ..
    } = refusal;
    if let Some((id, error)) = &refusal.answer {
        let reply = encode_error(shell.encoding, *id, error);
        let _: Result<(), _> = shell
            .outbox
            .push(frame::message(shell.encoding, &reply), Class::Reply);
    }
    shell.outbox.close(
        frame::close_because(code, &refusal.reason, retry_after_ms),
        code.code(),
    );
    connections.sessions.metrics.closed(code);
    match shell.place.is_short() {
        true => shell.part_at_once(),
        false => shell.part().await,
    }
}
