//! The shell around a session: the only reader of its socket, and the one that drives its outbox.

use std::{
    future::{Future, poll_fn},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use fanout::{Class, Outbox, outbox::Reason};
use futures_util::StreamExt;
use protocol::{CloseCode, Encoding, EventKind, event::ExpiringData};
use serde::Serialize;
use tokio::{net::TcpStream, time::Sleep};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error as WsError, Message, error::ProtocolError, protocol::Role, protocol::WebSocketConfig,
    },
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{frame, upgrade::Waiting, wire::Wire};
use crate::{
    limit::Gate,
    metrics::Metrics,
    session::{Action, Active, Handshake, Opening, Timing, Verdict},
    sessions::{Session, Sessions},
};

/// How much tungstenite reads at once. It allocates this for each connection, and zeroes it at each read.
const READ_BUFFER: usize = 2 * 1024;
/// How long a connection may take to end after its close frame was queued.
const PARTING: Duration = Duration::from_secs(2);
/// How often the age of what waits for a slow reader is looked at.
const AGING: Duration = Duration::from_secs(1);
/// How many pings a connection may send before its `connect`.
const MAX_SIGNS: usize = 16;
/// How much a peer may still send after the close frame, in bytes.
const PARTING_BYTES: usize = 1024 * 1024;

/// What all connections share.
#[derive(Debug)]
pub struct Connections {
    /// Where sessions live.
    pub sessions: Arc<Sessions>,
    /// Who comes in, and when.
    pub gate: Arc<Gate>,
    /// The bounds of outboxes.
    pub outboxes: Arc<fanout::outbox::Limits>,
    /// Of sessions.
    pub timing: Timing,
    /// Cancelled when the node goes away.
    pub stop: CancellationToken,
    /// The largest frame that is read; 0 means no limit.
    pub frame_bytes: usize,
}

/// A socket that was upgraded.
#[derive(Debug)]
pub(super) struct Arrival {
    /// The socket.
    pub socket: TcpStream,
    /// What was read along with the upgrade request.
    pub ahead: Bytes,
    /// How its frames are encoded.
    pub encoding: Encoding,
    /// Held until there is a session.
    pub waiting: Waiting,
}

/// How a connection came to its end before there was a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It had a session.
    Served,
    /// It never had one. `true` if that counts against its address.
    Refused(bool),
}

type WebSocket = WebSocketStream<Wire>;

/// Serves a connection from its upgrade to its end.
pub(super) async fn serve(connections: Arc<Connections>, arrival: Arrival) -> Ended {
    let (shell, waiting) = Shell::new(&connections, arrival).await;
    // Boxed, so that what only the handshake needs is not carried along by an idle connection.
    let opened = Box::pin(shell.open(connections.clone())).await;
    drop(waiting);
    match opened {
        Ok((shell, session)) => {
            let _held = Metrics::hold(&connections.sessions.metrics.sessions);
            let active = Active::new(
                connections.timing,
                remaining(&connections.sessions, &session),
                Instant::now(),
            );
            let span =
                tracing::debug_span!("session", id = %session.id(), app = %session.scope().app);
            if let Some(code) = shell
                .run(&connections.sessions, session, active)
                .instrument(span)
                .await
                .and_then(CloseCode::of)
            {
                connections.sessions.metrics.closed(code);
            }
            Ended::Served
        }
        Err(ended) => ended,
    }
}

/// Closes a connection without listening to it.
pub(super) async fn turn_away(
    connections: &Connections,
    arrival: Arrival,
    code: CloseCode,
    retry_after_ms: Option<u64>,
) {
    let (shell, _waiting) = Shell::new(connections, arrival).await;
    shell
        .refuse(connections, None, code, retry_after_ms, false)
        .await;
}

impl Shell {
    async fn new(connections: &Connections, arrival: Arrival) -> (Self, Waiting) {
        let socket = Arc::new(arrival.socket);
        let encoding = match arrival.encoding {
            Encoding::MessagePack => fanout::Encoding::Binary,
            Encoding::Json => fanout::Encoding::Text,
        };
        let outbox = Outbox::new(socket.clone(), encoding, connections.outboxes.clone());
        let wire = Wire::new(socket.clone(), arrival.ahead, outbox.clone());
        let most = (connections.frame_bytes != 0).then_some(connections.frame_bytes);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(most)
            .max_frame_size(most);
        let websocket = WebSocketStream::from_raw_socket(wire, Role::Server, Some(config)).await;
        (
            Self {
                socket,
                outbox,
                websocket,
                encoding: arrival.encoding,
            },
            arrival.waiting,
        )
    }
}

struct Shell {
    socket: Arc<TcpStream>,
    outbox: Arc<Outbox>,
    websocket: WebSocket,
    encoding: Encoding,
}

/// What comes in.
enum Input {
    Frame(Bytes),
    /// A ping or pong: a sign of life.
    Sign,
    Wrong(CloseCode),
    Gone,
}

/// What the shell wakes up for.
enum Event {
    Input(Input),
    Over(Reason),
    Due,
}

impl Shell {
    async fn open(mut self, connections: Arc<Connections>) -> Result<(Self, Arc<Session>), Ended> {
        let handshake = Handshake::new(self.encoding, Instant::now());
        let mut timer = Box::pin(tokio::time::sleep_until(handshake.deadline().into()));
        let mut signs = 0;
        let opening = loop {
            let event = tokio::select! {
                event = poll_fn(|cx| self.poll_event(cx, timer.as_mut(), None)) => event,
                () = connections.stop.cancelled() => Event::Due,
            };
            match event {
                Event::Input(Input::Sign) if signs < MAX_SIGNS => signs += 1,
                Event::Input(Input::Sign) => {
                    return Err(self
                        .refuse(&connections, None, CloseCode::TooManyRequests, None, true)
                        .await);
                }
                Event::Input(Input::Frame(frame)) => match handshake.frame(&frame) {
                    Ok(opening) => break opening,
                    Err(refusal) => {
                        let reply = refusal.answer.map(|(id, error)| {
                            protocol::frame::encode_error(self.encoding, id, &error)
                        });
                        return Err(self
                            .refuse(&connections, reply, refusal.close, None, true)
                            .await);
                    }
                },
                Event::Input(Input::Wrong(code)) => {
                    return Err(self.refuse(&connections, None, code, None, true).await);
                }
                Event::Due if connections.stop.is_cancelled() => {
                    return Err(self
                        .refuse(&connections, None, CloseCode::GoingAway, None, false)
                        .await);
                }
                Event::Due if Instant::now() < handshake.deadline() => {
                    timer.as_mut().reset(handshake.deadline().into())
                }
                Event::Due => {
                    return Err(self
                        .refuse(&connections, None, CloseCode::ConnectTimeout, None, true)
                        .await);
                }
                Event::Input(Input::Gone) | Event::Over(_) => return Err(Ended::Refused(true)),
            }
        };
        self.connect(connections, opening).await
    }

    async fn connect(
        self,
        connections: Arc<Connections>,
        opening: Opening,
    ) -> Result<(Self, Arc<Session>), Ended> {
        let pass = tokio::select! {
            pass = connections.gate.enter() => pass,
            () = connections.stop.cancelled() => {
                return Err(self.refuse(&connections, None, CloseCode::GoingAway, None, false).await);
            }
            () = self.gone() => return Err(Ended::Refused(false)),
        };
        let pass = match pass {
            Ok(pass) => pass,
            Err(full) => {
                let refused = connections
                    .sessions
                    .turn_away(&opening, self.encoding, full);
                return Err(self
                    .refuse(
                        &connections,
                        Some(refused.reply),
                        refused.close,
                        refused.retry_after_ms,
                        false,
                    )
                    .await);
            }
        };
        let connecting = connections
            .sessions
            .connect(opening, self.encoding, &self.outbox, pass);
        let outcome = {
            let mut connecting = std::pin::pin!(connecting);
            let outbox = self.outbox.clone();
            poll_fn(|cx| {
                // What the handshake has to say leaves while it goes on; the end of the socket is noticed afterwards.
                let _ = outbox.poll_drive(cx);
                connecting.as_mut().poll(cx)
            })
            .await
        };
        match outcome {
            Ok(session) => Ok((self, session)),
            Err(refused) => {
                let counts = refused.is_unauthenticated;
                Err(self
                    .refuse(
                        &connections,
                        Some(refused.reply),
                        refused.close,
                        refused.retry_after_ms,
                        counts,
                    )
                    .await)
            }
        }
    }

    /// Returns when the peer is gone, as far as that can be known without reading what it sent.
    async fn gone(&self) {
        loop {
            match self.socket.peek(&mut [0]).await {
                Ok(0) => return,
                // Requests that come early are read after the `connect`, and hide what follows them.
                Ok(_) => std::future::pending().await,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    async fn refuse(
        self,
        connections: &Connections,
        reply: Option<Vec<u8>>,
        code: CloseCode,
        retry_after_ms: Option<u64>,
        counts: bool,
    ) -> Ended {
        if let Some(reply) = reply {
            let _: Result<(), _> = self
                .outbox
                .push(frame::message(self.encoding, &reply), Class::Reply);
        }
        self.outbox
            .close(frame::close(code, retry_after_ms), code.code());
        connections.sessions.metrics.closed(code);
        self.part().await;
        Ended::Refused(counts)
    }

    /// Serves a session until it ends. The close code, if it ended with one.
    async fn run(
        mut self,
        sessions: &Arc<Sessions>,
        session: Arc<Session>,
        mut active: Active,
    ) -> Option<u16> {
        let mut timer = Box::pin(tokio::time::sleep_until(active.due().into()));
        let mut expires_at = session.expires_at();
        let code = loop {
            match poll_fn(|cx| self.poll_event(cx, timer.as_mut(), Some(&session))).await {
                Event::Input(input) => {
                    let now = Instant::now();
                    active.heard(now);
                    if let Err(code) = self.take(input, &session, &mut active, now) {
                        match code {
                            Some(code) => session.close(code, None),
                            None => break None,
                        }
                    }
                }
                Event::Due => {
                    let now = Instant::now();
                    if session.expires_at() != expires_at {
                        expires_at = session.expires_at();
                        active.refreshed(remaining(sessions, &session), now);
                    }
                    let _: Result<(), _> = self.outbox.check(now);
                    while let Some(action) = active.tick(now) {
                        match action {
                            Action::Ping => drop(self.outbox.push(frame::ping(), Class::Control)),
                            Action::WarnOfExpiry => session.tell(&expiring(&session)),
                            Action::Close(code) => {
                                session.close(code, None);
                                break;
                            }
                        }
                    }
                    timer.as_mut().reset(active.due().into());
                }
                Event::Over(Reason::TooSlow(_)) => {
                    self.outbox.close(
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
            Some(_) => self.part().await,
            // Whoever waits for room in it learns that there will be none.
            None => self.outbox.fail(Reason::Broken),
        }
        code
    }

    /// Takes what came in. An error ends the connection, with a code unless the peer is gone.
    fn take(
        &self,
        input: Input,
        session: &Arc<Session>,
        active: &mut Active,
        now: Instant,
    ) -> Result<(), Option<CloseCode>> {
        match input {
            // Pings are answered, and so are paced like requests.
            Input::Sign => match active.request(now) {
                Verdict::Close(code) => Err(Some(code)),
                Verdict::Serve | Verdict::Refuse { .. } => Ok(()),
            },
            Input::Gone => Err(None),
            Input::Wrong(code) => Err(Some(code)),
            Input::Frame(frame) => match active.request(now) {
                Verdict::Serve => session.request(&frame).map_err(Some),
                Verdict::Refuse { retry_after_ms } => {
                    session.refuse(&frame, retry_after_ms).map_err(Some)
                }
                Verdict::Close(code) => Err(Some(code)),
            },
        }
    }

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        session: Option<&Arc<Session>>,
    ) -> Poll<Event> {
        if let Poll::Ready(reason) = self.outbox.poll_drive(cx) {
            return Poll::Ready(Event::Over(reason));
        }
        // Closed, but its reader does not take the rest: it has the time of the parting for that, and no more.
        if let Some(reason) = self.outbox.is_over() {
            return Poll::Ready(Event::Over(reason));
        }
        if self.outbox.queued_bytes() > 0 && timer.deadline() > (Instant::now() + AGING).into() {
            timer.as_mut().reset((Instant::now() + AGING).into());
        }
        if session.is_none_or(|session| session.flow().has_room(cx))
            && let Poll::Ready(message) = self.websocket.poll_next_unpin(cx)
        {
            return Poll::Ready(Event::Input(self.input(message)));
        }
        if session.is_some_and(|session| session.is_refreshed(cx)) {
            return Poll::Ready(Event::Due);
        }
        timer.poll(cx).map(|()| Event::Due)
    }

    fn input(&self, message: Option<Result<Message, WsError>>) -> Input {
        match (message, self.encoding) {
            (Some(Ok(Message::Binary(frame))), Encoding::MessagePack) => Input::Frame(frame),
            (Some(Ok(Message::Text(text))), Encoding::Json) => Input::Frame(text.into()),
            (Some(Ok(Message::Binary(_) | Message::Text(_))), _) => {
                Input::Wrong(CloseCode::BadFrame)
            }
            // After a close frame tungstenite answers it at the next poll, and then there is nothing more.
            (
                Some(Ok(
                    Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_),
                )),
                _,
            ) => Input::Sign,
            (None, _) => Input::Gone,
            (Some(Err(WsError::Capacity(_))), _) => Input::Wrong(CloseCode::FrameTooLarge),
            (Some(Err(WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake))), _) => {
                Input::Gone
            }
            (Some(Err(WsError::Utf8(_) | WsError::Protocol(_))), _) => {
                Input::Wrong(CloseCode::BadFrame)
            }
            (Some(Err(_)), _) => Input::Gone,
        }
    }

    /// Lets the close frame arrive: what the peer still sends is read and thrown away, since closing a socket with
    /// unread bytes would reset it and might take the close frame along.
    async fn part(self) {
        let parting = async {
            // Closed before this, it ends once the close frame is written, whatever the reason that it gives.
            self.outbox.drive().await;
            let _: std::io::Result<()> =
                socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write);
            let (mut buffer, mut left) = ([0u8; 4096], PARTING_BYTES);
            while self.socket.readable().await.is_ok() {
                match self.socket.try_read(&mut buffer) {
                    Ok(0) => return,
                    Ok(read) if read < left => left -= read,
                    Ok(_) => return,
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        let _: Result<(), _> = tokio::time::timeout(PARTING, Box::pin(parting)).await;
        self.outbox.fail(Reason::Broken);
    }
}

/// How long a session's token lasts from now on.
fn remaining(sessions: &Sessions, session: &Session) -> Duration {
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
