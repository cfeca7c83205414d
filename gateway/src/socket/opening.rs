//! Opens a session on an upgraded connection: reads the first request and serves it as `connect`.

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
    driver::{DriverEvent, SocketDriver},
    frame,
    incoming::Input,
    refusal::{ConnectionRefusal, OpeningError},
    serving::no_room,
};
use crate::{
    auth::Attempt,
    session::{ConnectRequest, Handshake},
    sessions::{self, Session},
};

/// Maximum number of control frames before the first request.
const MAX_CONTROL_FRAMES: usize = 16;

/// Opens a session, or refuses and closes the connection.
pub(super) async fn open(
    mut driver: SocketDriver,
    connections: Arc<Connections>,
    attempt: &mut Attempt,
) -> Result<(SocketDriver, Arc<Session>), OpeningError> {
    let opened = match first_request(&mut driver, &connections).await {
        Ok(opening) => connect(&driver, &connections, opening, attempt).await,
        Err(ended) => Err(ended),
    };
    match opened {
        Ok(session) => Ok((driver, session)),
        Err(ended) => {
            if let OpeningError::Refused(refusal) = &ended {
                refuse(driver, &connections, refusal).await;
            }
            Err(ended)
        }
    }
}

async fn first_request(
    driver: &mut SocketDriver,
    connections: &Connections,
) -> Result<ConnectRequest, OpeningError> {
    let handshake = Handshake::new(driver.encoding, Instant::now());
    let mut timer = Box::pin(tokio::time::sleep_until(handshake.deadline().into()));
    let mut control_frames = 0;
    loop {
        let event = tokio::select! {
            event = poll_fn(|cx| driver.poll_event(cx, timer.as_mut(), None)) => event,
            () = connections.stop.cancelled() => DriverEvent::Due,
        };
        match event {
            DriverEvent::Input(Input::Control) if control_frames < MAX_CONTROL_FRAMES => {
                control_frames += 1
            }
            DriverEvent::Input(Input::Control) => {
                return Err(ConnectionRefusal::by_peer(CloseCode::TooManyRequests).into());
            }
            DriverEvent::Input(Input::Frame(frame)) => match handshake.frame(&frame) {
                Ok(opening) => return Ok(opening),
                Err(refusal) => return Err(ConnectionRefusal::from(refusal).into()),
            },
            DriverEvent::Input(Input::Invalid(code, reason)) => {
                let refusal = ConnectionRefusal {
                    reason: reason.into(),
                    ..ConnectionRefusal::by_peer(code)
                };
                return Err(refusal.into());
            }
            DriverEvent::Input(Input::NoRoom) => {
                let refusal = ConnectionRefusal {
                    reason: no_room(&connections.sessions.metrics).into(),
                    ..ConnectionRefusal::by_peer(CloseCode::TooManyConnections)
                };
                return Err(refusal.into());
            }
            DriverEvent::Due if connections.stop.is_cancelled() => {
                return Err(ConnectionRefusal::by_node(CloseCode::GoingAway).into());
            }
            DriverEvent::Due if Instant::now() < handshake.deadline() => {
                timer.as_mut().reset(handshake.deadline().into())
            }
            DriverEvent::Due => {
                return Err(ConnectionRefusal::by_peer(CloseCode::ConnectTimeout).into());
            }
            DriverEvent::Input(Input::Gone)
            | DriverEvent::Over(_)
            | DriverEvent::SubscriptionEnded => {
                return Err(OpeningError::PeerDisconnected);
            }
        }
        coop::consume_budget().await;
    }
}

async fn connect(
    driver: &SocketDriver,
    connections: &Arc<Connections>,
    opening: ConnectRequest,
    attempt: &mut Attempt,
) -> Result<Arc<Session>, OpeningError> {
    let id = opening.id;
    let entering = async {
        let candidate = sessions::check(&connections.sessions, opening, attempt).await?;
        match connections.gate.enter(candidate.party()).await {
            Ok(pass) => Ok((candidate, pass)),
            Err(full) => Err(sessions::gate_refusal(&connections.sessions, id, full)),
        }
    };
    let entered = tokio::select! {
        entered = entering => entered,
        () = connections.stop.cancelled() => {
            return Err(ConnectionRefusal::by_node(CloseCode::GoingAway).into());
        }
        () = driver.gone() => return Err(OpeningError::PeerDisconnected),
    };
    let (candidate, pass) = entered?;
    let connecting = sessions::connect(
        &connections.sessions,
        candidate,
        driver.encoding,
        &driver.outbox,
        pass,
    );
    let mut connecting = std::pin::pin!(connecting);
    let session = poll_fn(|cx| {
        // Frames of the handshake are written while it runs. The end of the socket is noticed
        // afterwards.
        let _ = driver.outbox.poll_drive(cx);
        connecting.as_mut().poll(cx)
    })
    .await?;
    Ok(session)
}

/// Answers the request of a connection that gets no session, and closes the connection.
pub(super) async fn refuse(
    driver: SocketDriver,
    connections: &Connections,
    refusal: &ConnectionRefusal,
) {
    let &ConnectionRefusal {
        code,
        retry_after_ms,
        ..
    } = refusal;
    if let Some((id, error)) = &refusal.answer {
        let reply = encode_error(driver.encoding, *id, error);
        let _: Result<(), _> = driver
            .outbox
            .push(frame::message(driver.encoding, &reply), Class::Reply);
    }
    driver.outbox.close(
        frame::close_because(code, &refusal.reason, retry_after_ms),
        code.code(),
    );
    connections.sessions.metrics.closed(code);
    match driver.permit.is_scarce() {
        true => driver.close_at_once(),
        false => driver.close_gracefully().await,
    }
}
