//! A session: requests out, replies matched to them.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    Encoding, ErrorBody, Method,
    codec::DecodeError,
    frame::encode_request,
    results::{Connected, Empty},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::WebSocketStream;

use crate::{Closed, Events, Frame, driver};

/// Requests that are not written yet; the next one waits.
const COMMANDS: usize = 64;

/// Why a request has no result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The server answered with an error.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// The connection ended first: whether the request was carried out is unknown.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// No reply came in time: whether the request was carried out is unknown.
    #[error("no reply in time")]
    Timeout,
    /// The reply is not what it should be.
    #[error("the reply cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
}

impl RequestError {
    /// The server's error, if it answered with one.
    pub fn refusal(&self) -> Option<&ErrorBody> {
        match self {
            Self::Refused(error) => Some(error),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) encoding: Encoding,
    pub(crate) timeout: Duration,
    pub(crate) event_queue: usize,
    pub(crate) unawaited: Unawaited,
}

/// What becomes of a reply that nobody awaits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unawaited {
    /// It is dropped.
    Dropped,
    /// It is queued among the events, where the server sent it.
    Queued,
}

/// What the driver is told to do.
pub(crate) enum Command {
    Send(Frame),
    Close(u16, String),
    Abort,
}

/// What sessions and the driver of their connection share.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) encoding: Encoding,
    pub(crate) reading: watch::Sender<bool>,
    unawaited: Unawaited,
    driver: OnceLock<AbortHandle>,
    closed: OnceLock<Closed>,
    replies: Mutex<Replies>,
}

#[derive(Debug, Default)]
struct Replies {
    last_id: u32,
    awaited: HashMap<u32, oneshot::Sender<Bytes>>,
}

impl Replies {
    fn next_id(&mut self) -> u32 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if !self.awaited.contains_key(&self.last_id) {
                return self.last_id;
            }
        }
    }
}

impl Link {
    fn register(&self) -> (u32, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        let mut replies = self.replies.lock();
        let id = replies.next_id();
        // Once the connection ended nobody would take the sender out again; dropped here, the receiver learns of it.
        if self.closed.get().is_none() {
            replies.awaited.insert(id, sender);
        }
        (id, receiver)
    }

    /// Hands a reply to whoever awaits it. Given back, it is to be queued.
    pub(crate) fn reply(&self, id: u32, frame: Bytes) -> Option<Bytes> {
        match self.replies.lock().awaited.remove(&id) {
            // An error means that it is awaited no longer.
            Some(sender) => drop(sender.send(frame)),
            None if self.unawaited == Unawaited::Queued => return Some(frame),
            None => {}
        }
        None
    }

    pub(crate) fn end(&self, closed: Closed) {
        let mut replies = self.replies.lock();
        let _ = self.closed.set(closed);
        replies.awaited.clear();
    }

    pub(crate) fn closed(&self) -> Closed {
        self.closed
            .get()
            .cloned()
            .unwrap_or_else(|| Closed::broken("the client ended it"))
    }
}

/// A connection's session. Clones are the same session. The connection is closed (1000) when the last clone and the
/// [`Events`] are dropped.
#[derive(Clone)]
pub struct Session {
    commands: mpsc::Sender<Command>,
    link: Arc<Link>,
    timeout: Duration,
    connected: Arc<OnceLock<Connected>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.connected.get().map(|c| &c.session_id))
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn start(stream: WebSocketStream<TcpStream>, settings: Settings) -> (Self, Events) {
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let (sender, events) = mpsc::channel(settings.event_queue);
        let link = Arc::new(Link {
            encoding: settings.encoding,
            reading: watch::Sender::new(true),
            unawaited: settings.unawaited,
            driver: OnceLock::new(),
            closed: OnceLock::new(),
            replies: Mutex::default(),
        });
        let driver = tokio::spawn(driver::run(stream, receiver, sender, link.clone()));
        let _ = link.driver.set(driver.abort_handle());
        let session = Self {
            commands,
            link: link.clone(),
            timeout: settings.timeout,
            connected: Arc::default(),
        };
        (session.clone(), Events::new(session, events))
    }

    pub(crate) fn set_connected(&self, connected: Connected) {
        let _ = self.connected.set(connected);
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// What `connect` was answered with.
    pub fn connected(&self) -> &Connected {
        self.connected
            .get()
            .expect("sessions are handed out after connect was answered")
    }

    /// How frames are encoded.
    pub fn encoding(&self) -> Encoding {
        self.link.encoding
    }

    /// Asks, and waits for the reply. Any number of requests may be under way; their replies come in any order.
    pub async fn request<P: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        method: Method,
        params: &P,
    ) -> Result<R, RequestError> {
        self.begin(method, params).await?.reply().await
    }

    /// Asks, and leaves the reply for later. Requests leave in the order in which this returns.
    ///
    /// The time for the reply counts from here.
    pub async fn begin<P: Serialize + ?Sized>(
        &self,
        method: Method,
        params: &P,
    ) -> Result<PendingReply, RequestError> {
        let deadline = Instant::now() + self.timeout;
        let (id, receiver) = self.link.register();
        let pending = PendingReply {
            link: self.link.clone(),
            id,
            receiver,
            deadline,
        };
        let bytes = encode_request(self.link.encoding, id, method.as_str(), &params);
        let sent = self
            .commands
            .send(Command::Send(Frame::of(self.link.encoding, bytes)));
        match timeout_at(deadline, sent).await {
            Ok(Ok(())) => Ok(pending),
            Ok(Err(_)) => Err(self.link.closed().into()),
            Err(_) => Err(RequestError::Timeout),
        }
    }

    /// A frame for a request whose reply nobody awaits, and its id.
    pub(crate) fn number<P: Serialize + ?Sized>(&self, method: Method, params: &P) -> (u32, Frame) {
        let id = self.link.replies.lock().next_id();
        (
            id,
            Frame::of(
                self.link.encoding,
                encode_request(self.link.encoding, id, method.as_str(), &params),
            ),
        )
    }

    /// A place for one more request, once there is one; none once the connection ended.
    pub(crate) async fn room(&self) -> Option<mpsc::Permit<'_, Command>> {
        self.commands.reserve().await.ok()
    }

    /// Closes the connection without waiting for anything.
    pub(crate) fn hang_up(&self) {
        if self
            .commands
            .try_send(Command::Close(1000, String::new()))
            .is_err()
        {
            self.cut();
        }
    }

    /// Ends the connection at once, even if its socket takes nothing any more.
    pub(crate) fn cut(&self) {
        if let Some(driver) = self.link.driver.get() {
            driver.abort();
        }
    }

    /// Asks for something that is answered with `{}`.
    pub(crate) async fn tell<P: Serialize + ?Sized>(
        &self,
        method: Method,
        params: &P,
    ) -> Result<(), RequestError> {
        self.request::<_, Empty>(method, params).await.map(drop)
    }

    /// Sends a frame as it is, whether a server can make something of it or not.
    pub async fn send_frame(&self, frame: Frame) -> Result<(), Closed> {
        self.commands
            .send(Command::Send(frame))
            .await
            .map_err(|_| self.link.closed())
    }

    /// Stops reading the socket, as a client does that hangs: no event, reply or ping is seen until [`Session::resume_reading`].
    pub fn pause_reading(&self) {
        self.link.reading.send_replace(false);
    }

    /// Reads on.
    pub fn resume_reading(&self) {
        self.link.reading.send_replace(true);
    }

    /// Closes the connection with this code; [`Events::closed`] tells when and how it ended.
    pub async fn close(&self, code: u16, reason: &str) {
        // An error means that it is closed already.
        let _ = self
            .commands
            .send(Command::Close(code, reason.to_owned()))
            .await;
    }

    /// Cuts the connection without a word, as a lost network does.
    pub async fn abort(&self) {
        // An error means that it is closed already.
        let _ = self.commands.send(Command::Abort).await;
    }
}

/// A reply that is on its way. Dropped, the reply is dropped too when it comes.
#[derive(Debug)]
pub struct PendingReply {
    link: Arc<Link>,
    id: u32,
    receiver: oneshot::Receiver<Bytes>,
    deadline: Instant,
}

impl PendingReply {
    /// Waits for it.
    pub async fn reply<R: DeserializeOwned>(mut self) -> Result<R, RequestError> {
        let frame = match timeout_at(self.deadline, &mut self.receiver).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Err(self.link.closed().into()),
            Err(_) => return Err(RequestError::Timeout),
        };
        Ok(read_reply(self.link.encoding, &frame)??)
    }
}

/// Reads a reply's result, or its error.
pub(crate) fn read_reply<R: DeserializeOwned>(
    encoding: Encoding,
    frame: &[u8],
) -> Result<Result<R, ErrorBody>, DecodeError> {
    #[derive(Deserialize)]
    #[serde(bound = "R: DeserializeOwned")]
    struct Reply<R> {
        #[serde(default)]
        result: Option<R>,
        #[serde(default)]
        error: Option<ErrorBody>,
    }
    match encoding.decode(frame)? {
        Reply {
            error: Some(error), ..
        } => Ok(Err(error)),
        Reply {
            result: Some(result),
            ..
        } => Ok(Ok(result)),
        _ => Err(DecodeError("a reply has a result or an error".into())),
    }
}

impl Drop for PendingReply {
    fn drop(&mut self) {
        self.link.replies.lock().awaited.remove(&self.id);
    }
}
