//! A session: sends requests and matches replies to them.

use std::{
    borrow::Borrow,
    collections::HashMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use protocol::{
    Encoding, ErrorBody,
    codec::DecodeError,
    frame::encode_request,
    operation::{CallResult, Operation, encode_call, session::Connected},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::WebSocketStream;

use crate::{Closed, Frame, driver};

/// Number of requests that wait to be written. Further requests wait for room.
const COMMAND_QUEUE: usize = 64;

/// The reason why a request failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum RequestError {
    /// The server answered with an error.
    #[error(transparent)]
    Refused(#[from] ErrorBody),
    /// The connection ended before the reply. The request may have been carried out.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// No reply in time. The request may have been carried out.
    #[error("no reply in time")]
    Timeout,
    /// The reply cannot be parsed.
    #[error("the reply cannot be parsed: {0}")]
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
pub(crate) struct SessionSettings {
    pub(crate) encoding: Encoding,
    pub(crate) timeout: Duration,
    pub(crate) event_queue: usize,
    pub(crate) unawaited: UnawaitedReplies,
}

/// Handling of replies without a waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnawaitedReplies {
    /// They are dropped.
    Drop,
    /// They are queued among the events, in the server's order.
    Queue,
}

/// A command for the driver.
pub(crate) enum SocketCommand {
    Send(Frame),
    Close(u16, String),
    Abort,
}

/// State that the clones of a session share with the driver.
#[derive(Debug)]
pub(crate) struct SharedConnection {
    pub(crate) encoding: Encoding,
    pub(crate) reading: watch::Sender<bool>,
    unawaited: UnawaitedReplies,
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

impl SharedConnection {
    fn register(&self) -> (u32, oneshot::Receiver<Bytes>) {
        let (sender, receiver) = oneshot::channel();
        let mut replies = self.replies.lock();
        let id = replies.next_id();
        // After the end nothing would remove the sender. Dropped here, it makes the receiver fail.
        if self.closed.get().is_none() {
            replies.awaited.insert(id, sender);
        }
        (id, receiver)
    }

    /// Passes a reply to its request. Returns it if it must be queued among the events.
    pub(crate) fn reply(&self, id: u32, frame: Bytes) -> Option<Bytes> {
        match self.replies.lock().awaited.remove(&id) {
            // It fails when the request is not awaited any more.
            Some(sender) => drop(sender.send(frame)),
            None if self.unawaited == UnawaitedReplies::Queue => return Some(frame),
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
            .unwrap_or_else(|| Closed::broken("the client closed the connection"))
    }
}

/// A session on one connection. Clones are the same session. When the last clone and the
/// [`Events`](crate::Events) are dropped, the connection is closed with the code 1000.
#[derive(Clone)]
pub struct Session {
    commands: mpsc::Sender<SocketCommand>,
    shared: Arc<SharedConnection>,
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
    pub(crate) fn start(
        stream: WebSocketStream<TcpStream>,
        settings: SessionSettings,
    ) -> (Self, mpsc::Receiver<Bytes>) {
        let (commands, receiver) = mpsc::channel(COMMAND_QUEUE);
        let (sender, events) = mpsc::channel(settings.event_queue);
        let shared = Arc::new(SharedConnection {
            encoding: settings.encoding,
            reading: watch::Sender::new(true),
            unawaited: settings.unawaited,
            driver: OnceLock::new(),
            closed: OnceLock::new(),
            replies: Mutex::default(),
        });
        let driver = tokio::spawn(driver::run(stream, receiver, sender, shared.clone()));
        let _ = shared.driver.set(driver.abort_handle());
        let session = Self {
            commands,
            shared: shared.clone(),
            timeout: settings.timeout,
            connected: Arc::default(),
        };
        (session, events)
    }

    pub(crate) fn set_connected(&self, connected: Connected) {
        let _ = self.connected.set(connected);
    }

    pub(crate) fn shared(&self) -> &SharedConnection {
        &self.shared
    }

    /// The reply to `connect`.
    pub fn connected(&self) -> &Connected {
        self.connected
            .get()
            .expect("sessions are public only after the reply to connect")
    }

    /// The encoding of frames.
    pub fn encoding(&self) -> Encoding {
        self.shared.encoding
    }

    /// Calls an operation, and waits for its output. Any number of calls may be in flight; replies
    /// may come in any order.
    ///
    /// The path consists of the ids of the operation's target, for example `(&channel_id,
    /// &message_id)`. Pass `()` for a path or an input without fields. An operation that is always
    /// about the caller ignores the path.
    ///
    /// ```no_run
    /// # use client::{RequestError, Session};
    /// # use protocol::{ChannelId, MessageId, operation::{channel::ChannelJoin, message::{EditMessage, MessageEdit}}};
    /// # async fn example(session: Session, channel_id: ChannelId, message_id: MessageId) -> Result<(), RequestError> {
    /// let participant = session.call::<ChannelJoin>(&channel_id, ()).await?;
    /// let message = session.call::<MessageEdit>((&channel_id, &message_id), EditMessage::default()).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn call<O: Operation>(
        &self,
        path: impl Into<O::Path>,
        input: impl Borrow<O::Input>,
    ) -> Result<O::Output, RequestError> {
        self.begin::<O>(path, input).await?.reply().await
    }

    /// Calls an operation without waiting for its output. Requests are sent in the order in which
    /// these calls return, and messages of one channel are numbered in that order. The time limit
    /// starts now.
    pub async fn begin<O: Operation>(
        &self,
        path: impl Into<O::Path>,
        input: impl Borrow<O::Input>,
    ) -> Result<PendingReply<O::Output>, RequestError> {
        let encode = |id| self.encode::<O>(id, &path.into(), input.borrow());
        self.send_request(encode, |encoding, frame| {
            Ok(read_reply(encoding, frame)?.map(|CallResult::<O>(output)| output))
        })
        .await
    }

    /// Sends a request that no declaration describes, for example of a later version, and waits for
    /// its result.
    pub async fn request<P: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<R, RequestError> {
        self.begin_request(method, params).await?.reply().await
    }

    /// [`Session::request`] without waiting for the result.
    pub async fn begin_request<P: Serialize + ?Sized, R: DeserializeOwned>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<PendingReply<R>, RequestError> {
        self.send_request(
            |id| encode_request(self.encoding(), id, method, &params),
            read_reply,
        )
        .await
    }

    async fn send_request<R>(
        &self,
        encode: impl FnOnce(u32) -> Vec<u8>,
        read: ReadReply<R>,
    ) -> Result<PendingReply<R>, RequestError> {
        let deadline = Instant::now() + self.timeout;
        let (id, receiver) = self.shared.register();
        let pending = PendingReply {
            shared: self.shared.clone(),
            id,
            receiver,
            deadline,
            read,
        };
        let sent = self
            .commands
            .send(SocketCommand::Send(Frame::of(self.encoding(), encode(id))));
        match timeout_at(deadline, sent).await {
            Ok(Ok(())) => Ok(pending),
            Ok(Err(_)) => Err(self.shared.closed().into()),
            Err(_) => Err(RequestError::Timeout),
        }
    }

    fn encode<O: Operation>(&self, id: u32, path: &O::Path, input: &O::Input) -> Vec<u8> {
        const {
            assert!(
                O::WEBSOCKET.is_some(),
                "the operation has no method on the WebSocket"
            )
        };
        let path = O::own_path(&self.connected().user.id)
            .is_none()
            .then_some(path);
        encode_call::<O>(self.encoding(), id, path, input)
    }

    /// Encodes a request whose reply is not awaited here. Returns its id, too.
    pub(crate) fn encode_unawaited<O: Operation>(
        &self,
        path: &O::Path,
        input: &O::Input,
    ) -> (u32, Frame) {
        let id = self.shared.replies.lock().next_id();
        (
            id,
            Frame::of(self.encoding(), self.encode::<O>(id, path, input)),
        )
    }

    /// Waits for room for a request. Returns `None` when the connection has ended.
    pub(crate) async fn permit(&self) -> Option<mpsc::Permit<'_, SocketCommand>> {
        self.commands.reserve().await.ok()
    }

    /// Closes the connection without waiting.
    pub(crate) fn close_now(&self) {
        if self
            .commands
            .try_send(SocketCommand::Close(1000, String::new()))
            .is_err()
        {
            self.abort_now();
        }
    }

    /// Drops the connection immediately, even if its socket accepts no more writes.
    pub(crate) fn abort_now(&self) {
        if let Some(driver) = self.shared.driver.get() {
            driver.abort();
        }
    }

    /// Sends a frame unchanged, valid or not.
    pub async fn send_frame(&self, frame: Frame) -> Result<(), Closed> {
        self.commands
            .send(SocketCommand::Send(frame))
            .await
            .map_err(|_| self.shared.closed())
    }

    /// Stops reading the socket, like a client that hangs: events, replies and pings wait until
    /// [`Session::resume_reading`].
    pub fn pause_reading(&self) {
        self.shared.reading.send_replace(false);
    }

    /// Continues reading.
    pub fn resume_reading(&self) {
        self.shared.reading.send_replace(true);
    }

    /// Closes the connection with this code. [`Events::closed`](crate::Events::closed) says how it
    /// ended.
    pub async fn close(&self, code: u16, reason: &str) {
        // It fails when the connection has ended.
        let _ = self
            .commands
            .send(SocketCommand::Close(code, reason.to_owned()))
            .await;
    }

    /// Drops the connection without a close frame, like a network failure.
    pub async fn abort(&self) {
        // It fails when the connection has ended.
        let _ = self.commands.send(SocketCommand::Abort).await;
    }
}

/// A reply that has not arrived yet. If this is dropped, the reply is discarded.
pub struct PendingReply<R> {
    shared: Arc<SharedConnection>,
    id: u32,
    receiver: oneshot::Receiver<Bytes>,
    deadline: Instant,
    read: ReadReply<R>,
}

/// Parses a reply.
type ReadReply<R> = fn(Encoding, &[u8]) -> Result<Result<R, ErrorBody>, DecodeError>;

impl<R> fmt::Debug for PendingReply<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingReply")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl<R> PendingReply<R> {
    /// Waits for the reply.
    pub async fn reply(mut self) -> Result<R, RequestError> {
        let frame = match timeout_at(self.deadline, &mut self.receiver).await {
            Ok(Ok(frame)) => frame,
            Ok(Err(_)) => return Err(self.shared.closed().into()),
            Err(_) => return Err(RequestError::Timeout),
        };
        Ok((self.read)(self.shared.encoding, &frame)??)
    }
}

/// Parses the result or the error of a reply.
pub(crate) fn read_reply<R: DeserializeOwned>(
    encoding: Encoding,
    frame: &[u8],
) -> Result<Result<R, ErrorBody>, DecodeError> {
    #[derive(Deserialize)]
    #[serde(bound = "R: DeserializeOwned")]
    struct ReplyFrame<R> {
        #[serde(default)]
        result: Option<R>,
        #[serde(default)]
        error: Option<ErrorBody>,
    }
    match encoding.decode(frame)? {
        ReplyFrame {
            error: Some(error), ..
        } => Ok(Err(error)),
        ReplyFrame {
            result: Some(result),
            ..
        } => Ok(Ok(result)),
        _ => Err(DecodeError("a reply needs a result or an error".into())),
    }
}

impl<R> Drop for PendingReply<R> {
    fn drop(&mut self) {
        self.shared.replies.lock().awaited.remove(&self.id);
    }
}
