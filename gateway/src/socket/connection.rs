//! The shell around a session: the only reader of its socket, and the one that drives its outbox.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    net::Shutdown,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use domain::error::without_value;
use fanout::{Class, Outbox, outbox::Reason};
use futures_util::FutureExt;
use protocol::{
    CloseCode, Encoding, ErrorBody, EventKind, codec::DecodeError, event::ExpiringData,
    frame::encode_error,
};
use serde::Serialize;
use tokio::{net::TcpStream, task::coop, time::Sleep};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    frame,
    incoming::{self, Incoming, Input},
    wire::Wire,
};
use crate::{
    auth::Attempt,
    limit::{AddressGroup, Counted, Gate, Room},
    listen::Socket,
    log::Seldom,
    metrics::{self, Metrics},
    session::{self, Action, Active, Handshake, Opening, Timing, Verdict},
    sessions::{self, Refused, Session, Sessions},
};

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
    /// What the messages that are not whole yet may hold together.
    pub incoming: Arc<Room>,
}

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

/// How a connection ended before there was a session.
#[derive(Debug)]
enum Ended {
    /// The node closed it.
    Refused(Refusal),
    /// The peer was gone before that, which counts against the address.
    Gone,
}

/// Why the node closes a connection that has no session.
#[derive(Debug)]
struct Refusal {
    code: CloseCode,
    /// The reason in the close frame.
    reason: Cow<'static, str>,
    /// The reply to its request, if it could be read that far.
    answer: Option<(u32, ErrorBody)>,
    retry_after_ms: Option<u64>,
    /// Whether it counts against the address.
    counts: bool,
}

impl Refusal {
    /// The peer's own fault.
    fn fault(code: CloseCode) -> Self {
        Self {
            code,
            reason: code.reason().into(),
            answer: None,
            retry_after_ms: None,
            counts: true,
        }
    }

    /// The node's choice.
    fn choice(code: CloseCode) -> Self {
        Self {
            counts: false,
            ..Self::fault(code)
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let Refused {
            id,
            error,
            close,
            reason,
            counts,
        } = refused;
        let retry_after_ms = error.retry_after_ms;
        Self {
            code: close,
            reason,
            answer: Some((id, error)),
            retry_after_ms,
            counts,
        }
    }
}

impl From<session::Refusal> for Refusal {
    fn from(refusal: session::Refusal) -> Self {
        Self {
            answer: refusal.answer,
            reason: refusal.reason,
            ..Self::fault(refusal.close)
        }
    }
}

static REFUSALS: Seldom = Seldom::new(10);

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
    let opened = Box::pin(shell.open(connections.clone(), &mut attempt)).await;
    drop(waiting);
    match opened {
        Ok((shell, session)) => {
            drop(attempt);
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

/// Counts a connection without a session against its address, which is refused at its next upgrade
/// if it has no token left.
fn charge(attempt: &mut Attempt) {
    let _: Result<(), _> = attempt.charge();
}

/// Counts a message that is given up since there is no room for it. Returns why its connection is
/// closed.
fn no_room(metrics: &Metrics) -> &'static str {
    metrics.limit_hit("incoming_total_bytes");
    "too many unfinished messages on this node"
}

fn log(metrics: &Metrics, refusal: &Refusal, address: AddressGroup) {
    match refusal.code {
        CloseCode::TokenRefused | CloseCode::TokenExpired => {
            metrics.refused(metrics::Refusal::Token)
        }
        CloseCode::TooManyConnections => metrics.refused(metrics::Refusal::Limit),
        CloseCode::GoingAway => metrics.refused(metrics::Refusal::NotReady),
        _ => metrics.refused(metrics::Refusal::Protocol),
    }
    if let Some(held_back) = REFUSALS.pass(Instant::now()) {
        let error = refusal
            .answer
            .as_ref()
            .map_or(&*refusal.reason, |(_, error)| &error.message);
        tracing::info!(%address, code = refusal.code.code(), error, held_back, "connection refused before a session");
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
    shell.refuse(connections, refusal).await;
}

impl Shell {
    fn new(
        connections: &Connections,
        socket: TcpStream,
        place: Socket,
        ahead: Bytes,
        encoding: Encoding,
    ) -> Self {
        let socket = Arc::new(socket);
        let frames = match encoding {
            Encoding::MessagePack => fanout::Encoding::Binary,
            Encoding::Json => fanout::Encoding::Text,
        };
        let outbox = Outbox::new(socket.clone(), frames, connections.outboxes.clone());
        let max_bytes = (connections.frame_bytes != 0).then_some(connections.frame_bytes);
        let wire = Wire::new(
            socket.clone(),
            ahead,
            outbox.clone(),
            incoming::bounds(max_bytes),
            &connections.incoming,
        );
        let incoming = Incoming::new(wire, encoding, connections.outboxes.age);
        Self {
            socket,
            place,
            outbox,
            incoming,
            encoding,
        }
    }
}

struct Shell {
    socket: Arc<TcpStream>,
    place: Socket,
    outbox: Arc<Outbox>,
    incoming: Incoming,
    encoding: Encoding,
}

/// What the shell wakes up for.
enum Event {
    Input(Input),
    Over(Reason),
    Due,
    /// The hub ended a subscription of the session.
    SubscriptionEnded,
    /// Subscriptions outside of requests are to be begun.
    Steps,
}

impl Shell {
    async fn open(
        mut self,
        connections: Arc<Connections>,
        attempt: &mut Attempt,
    ) -> Result<(Self, Arc<Session>), Ended> {
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
                        .refuse(&connections, Refusal::fault(CloseCode::TooManyRequests))
                        .await);
                }
                Event::Input(Input::Frame(frame)) => match handshake.frame(&frame) {
                    Ok(opening) => break opening,
                    Err(refusal) => return Err(self.refuse(&connections, refusal.into()).await),
                },
                Event::Input(Input::Wrong(code, reason)) => {
                    let refusal = Refusal {
                        reason: reason.into(),
                        ..Refusal::fault(code)
                    };
                    return Err(self.refuse(&connections, refusal).await);
                }
                Event::Input(Input::NoRoom) => {
                    let refusal = Refusal {
                        reason: no_room(&connections.sessions.metrics).into(),
                        ..Refusal::fault(CloseCode::TooManyConnections)
                    };
                    return Err(self.refuse(&connections, refusal).await);
                }
                Event::Due if connections.stop.is_cancelled() => {
                    return Err(self
                        .refuse(&connections, Refusal::choice(CloseCode::GoingAway))
                        .await);
                }
                Event::Due if Instant::now() < handshake.deadline() => {
                    timer.as_mut().reset(handshake.deadline().into())
                }
                Event::Due => {
                    return Err(self
                        .refuse(&connections, Refusal::fault(CloseCode::ConnectTimeout))
                        .await);
                }
                Event::Input(Input::Gone)
                | Event::Over(_)
                | Event::SubscriptionEnded
                | Event::Steps => {
                    return Err(Ended::Gone);
                }
            }
            coop::consume_budget().await;
        };
        self.connect(connections, opening, attempt).await
    }

    async fn connect(
        self,
        connections: Arc<Connections>,
        opening: Opening,
        attempt: &mut Attempt,
    ) -> Result<(Self, Arc<Session>), Ended> {
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
                return Err(self.refuse(&connections, Refusal::choice(CloseCode::GoingAway)).await);
            }
            () = self.gone() => return Err(Ended::Gone),
        };
        let (candidate, pass) = match entered {
            Ok(entered) => entered,
            Err(refused) => return Err(self.refuse(&connections, refused.into()).await),
        };
        let connecting = sessions::connect(
            &connections.sessions,
            candidate,
            self.encoding,
            &self.outbox,
            pass,
        );
        let outcome = {
            let mut connecting = std::pin::pin!(connecting);
            let outbox = self.outbox.clone();
            poll_fn(|cx| {
                // What the handshake has to say leaves while it goes on; the end of the socket is
                // noticed afterwards.
                let _ = outbox.poll_drive(cx);
                connecting.as_mut().poll(cx)
            })
            .await
        };
        match outcome {
            Ok(session) => Ok((self, session)),
            Err(refused) => Err(self.refuse(&connections, refused.into()).await),
        }
    }

    /// Returns when the peer is gone, as far as that can be known without reading what it sent.
    async fn gone(&self) {
        loop {
            match self.socket.peek(&mut [0]).await {
                Ok(0) => return,
                // Requests that come early are read after the `connect`, and hide what follows
                // them.
                Ok(_) => std::future::pending().await,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    async fn refuse(self, connections: &Connections, refusal: Refusal) -> Ended {
        let Refusal {
            code,
            retry_after_ms,
            ..
        } = refusal;
        if let Some((id, error)) = &refusal.answer {
            let reply = encode_error(self.encoding, *id, error);
            let _: Result<(), _> = self
                .outbox
                .push(frame::message(self.encoding, &reply), Class::Reply);
        }
        self.outbox.close(
            frame::close_because(code, &refusal.reason, retry_after_ms),
            code.code(),
        );
        connections.sessions.metrics.closed(code);
        match self.place.is_short() {
            true => self.part_at_once(),
            false => self.part().await,
        }
        Ended::Refused(refusal)
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
                    if let Err(end) = self.take(input, sessions, &session, &mut active, now) {
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
                    let _: Result<(), _> = self.outbox.check(now);
                    if self
                        .incoming
                        .deadline()
                        .is_some_and(|deadline| now >= deadline)
                    {
                        session.close_because(
                            CloseCode::TooSlow,
                            "a message did not come whole in time",
                        );
                    }
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
                Event::SubscriptionEnded => session.doubt_ended(),
                Event::Steps => sessions::follow(sessions, &session),
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

    /// Takes what came in. An error ends the connection, with a code and a reason unless the peer
    /// is gone.
    fn take(
        &self,
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

    fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
        mut timer: Pin<&mut Sleep>,
        session: Option<&Arc<Session>>,
    ) -> Poll<Event> {
        if let Poll::Ready(reason) = self.outbox.poll_drive(cx) {
            return Poll::Ready(Event::Over(reason));
        }
        // Closed, but its reader does not take the rest: it has the time of the parting for that,
        // and no more.
        if let Some(reason) = self.outbox.end_reason() {
            return Poll::Ready(Event::Over(reason));
        }
        if self.outbox.queued_bytes() > 0 && timer.deadline() > (Instant::now() + AGING).into() {
            timer.as_mut().reset((Instant::now() + AGING).into());
        }
        // Compared before anything is read: a flood of frames uses up the budget of the task, and a
        // timer polled behind it never fires.
        if tokio::time::Instant::now() >= timer.deadline()
            || session.is_some_and(|session| session.is_refreshed(cx))
        {
            return Poll::Ready(Event::Due);
        }
        if session.is_some() && self.outbox.take_ended_subscription() {
            return Poll::Ready(Event::SubscriptionEnded);
        }
        if session.is_some_and(|session| session.has_steps()) {
            return Poll::Ready(Event::Steps);
        }
        if session.is_none_or(|session| session.flow().has_room(cx)) {
            if let Poll::Ready(input) = self.incoming.poll_next(cx, Instant::now()) {
                return Poll::Ready(Event::Input(input));
            }
        } else {
            self.incoming.pause();
        }
        // Before there is a session, its `connect` has a deadline of its own.
        if session.is_some()
            && let Some(deadline) = self.incoming.deadline()
            && timer.deadline() > deadline.into()
        {
            timer.as_mut().reset(deadline.into());
        }
        timer.poll(cx).map(|()| Event::Due)
    }

    /// Ends the connection with what one write takes: its socket is needed.
    fn part_at_once(self) {
        let _ = self.outbox.drive().now_or_never();
        let _: std::io::Result<()> =
            socket2::SockRef::from(&*self.socket).shutdown(Shutdown::Write);
        self.outbox.fail(Reason::Broken);
    }

    /// Lets the close frame arrive: what the peer still sends is read and thrown away, since
    /// closing a socket with unread bytes would reset it and might take the close frame along.
    async fn part(self) {
        let parting = async {
            // Closed before this, it ends once the close frame is written, whatever the reason that
            // it gives.
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
