//! A connection from its upgrade to its end.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use protocol::{CloseCode, Encoding};
use tokio::net::TcpStream;
use tracing::Instrument;

use super::{
    connections::Connections,
    opening::{open, refuse},
    refusal::{Ended, Refusal, charge, log},
    serving::{remaining, run},
    shell::Shell,
};
use crate::{
    auth::Attempt,
    limit::{AddressGroup, Counted},
    listen::Socket,
    metrics::Metrics,
    session::Active,
};

/// A socket that was upgraded.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The socket.
    pub socket: TcpStream,
    /// Its place among the node's sockets.
    pub place: Socket,
    /// What was read along with the upgrade request.
    pub ahead: Bytes,
    /// How its frames are encoded.
    pub encoding: Encoding,
    /// Counted against its address until there is a session.
    pub waiting: Counted<AddressGroup>,
    /// Charged unless there is a session.
    pub attempt: Attempt,
}

/// Serves a connection from its upgrade to its end.
pub(super) async fn serve(connections: Arc<Connections>, arrival: Arrival) {
    let Arrival {
        socket,
        place,
        ahead,
        encoding,
        waiting,
        mut attempt,
    } = arrival;
    let shell = Shell::new(&connections, socket, place, ahead, encoding);
    // Boxed, so that what only the handshake needs is not carried along by an idle connection.
    let opened = Box::pin(open(shell, connections.clone(), &mut attempt)).await;
    drop(waiting);
    match opened {
        Ok((mut shell, session)) => {
            drop(attempt);
            shell.incoming.belongs_to(session.tenant());
            let _held = Metrics::hold(&connections.sessions.metrics.sessions);
            let active = Active::new(
                connections.timing,
                remaining(&connections.sessions, &session),
                Instant::now(),
            );
            let span =
                tracing::debug_span!("session", id = %session.id(), app = %session.scope().app);
            if let Some(code) = run(shell, &connections.sessions, session, active)
                .instrument(span)
                .await
                .and_then(CloseCode::of)
            {
                connections.sessions.metrics.closed(code);
            }
        }
        Err(Ended::Gone) => charge(&mut attempt),
        Err(Ended::Refused(refusal)) => {
            if refusal.counts {
                charge(&mut attempt);
            }
            log(&connections.sessions.metrics, &refusal, attempt.address());
        }
    }
}

/// Closes a connection without listening to it.
pub(super) async fn turn_away(
    connections: &Connections,
    mut arrival: Arrival,
    code: CloseCode,
    retry_after_ms: Option<u64>,
) {
    charge(&mut arrival.attempt);
    let shell = Shell::new(
        connections,
        arrival.socket,
        arrival.place,
        arrival.ahead,
        arrival.encoding,
    );
    let refusal = Refusal {
        retry_after_ms,
        ..Refusal::choice(code)
    };
    log(
        &connections.sessions.metrics,
        &refusal,
        arrival.attempt.address(),
    );
    refuse(shell, connections, &refusal).await;
}
