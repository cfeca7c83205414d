//! A connection from its upgrade to its end.

use std::sync::Arc;

use bytes::Bytes;
use protocol::{CloseCode, Encoding};
use tokio::net::TcpStream;
use tracing::Instrument;

use super::{
    connections::Connections,
    driver::SocketDriver,
    opening::{open, refuse},
    refusal::{ConnectionRefusal, OpeningError, charge, log},
    serving::run,
};
use crate::{
    auth::Attempt,
    limit::{AddressGroup, Counted},
    listen::SocketPermit,
    metrics::Metrics,
};

/// A connection that was upgraded to WebSocket.
#[derive(Debug)]
pub(super) struct Upgraded {
    /// The socket.
    pub socket: TcpStream,
    /// Its permit of the node's limit of sockets.
    pub permit: SocketPermit,
    /// Bytes that were read along with the upgrade request.
    pub read_ahead: Bytes,
    /// The encoding of its frames.
    pub encoding: Encoding,
    /// Counts against its address until there is a session.
    pub unconnected: Counted<AddressGroup>,
    /// Charged if the connection gets no session.
    pub attempt: Attempt,
}

/// Serves a connection from its upgrade to its end.
pub(super) async fn serve(connections: Arc<Connections>, upgraded: Upgraded) {
    let Upgraded {
        socket,
        permit,
        read_ahead,
        encoding,
        unconnected,
        mut attempt,
    } = upgraded;
    let driver = SocketDriver::new(&connections, socket, permit, read_ahead, encoding);
    // Boxed, so that the state of the handshake does not enlarge the task of an idle connection.
    let opened = Box::pin(open(driver, connections.clone(), &mut attempt)).await;
    drop(unconnected);
    match opened {
        Ok((mut driver, session)) => {
            drop(attempt);
            driver.incoming.belongs_to(session.tenant());
            let _held = Metrics::hold(&connections.sessions.metrics.sessions);
            let span =
                tracing::debug_span!("session", id = %session.id(), app = %session.scope().app);
            if let Some(code) = run(driver, &connections.sessions, session)
                .instrument(span)
                .await
                .and_then(CloseCode::of)
            {
                connections.sessions.metrics.closed(code);
            }
        }
        Err(OpeningError::PeerDisconnected) => charge(&mut attempt),
        Err(OpeningError::Refused(refusal)) => {
            if refusal.counts_against_address {
                charge(&mut attempt);
            }
            log(&connections.sessions.metrics, &refusal, attempt.address());
        }
    }
}

/// Closes a connection without reading from it.
pub(super) async fn refuse_upgraded(
    connections: &Connections,
    mut upgraded: Upgraded,
    code: CloseCode,
    retry_after_ms: Option<u64>,
) {
    charge(&mut upgraded.attempt);
    let driver = SocketDriver::new(
        connections,
        upgraded.socket,
        upgraded.permit,
        upgraded.read_ahead,
        upgraded.encoding,
    );
    let refusal = ConnectionRefusal {
        retry_after_ms,
        ..ConnectionRefusal::by_node(code)
    };
    log(
        &connections.sessions.metrics,
        &refusal,
        upgraded.attempt.address(),
    );
    refuse(driver, connections, &refusal).await;
}
