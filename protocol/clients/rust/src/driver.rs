//! The task of a connection, which owns the socket. Reading and writing do not block each other.

use std::{future::pending, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{
    SinkExt, Stream, StreamExt,
    stream::{SplitSink, SplitStream},
};
use protocol::{
    Encoding,
    frame::{Head, ServerFrame},
};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::CloseFrame},
};

use crate::{
    Closed,
    session::{SharedConnection, SocketCommand},
};

/// Time that the server has to answer a close frame, or to close the connection after its own.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Records the end of the connection, even if the task is cancelled, so that pending requests fail.
struct EndGuard(Arc<SharedConnection>, Option<Closed>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.end(
            self.1
                .take()
                .unwrap_or_else(|| Closed::broken("the client's task ended")),
        );
    }
}

pub(crate) async fn run(
    stream: WebSocketStream<TcpStream>,
    commands: mpsc::Receiver<SocketCommand>,
    events: mpsc::Sender<Bytes>,
    shared: Arc<SharedConnection>,
) {
    // Bound before the arguments, to be dropped after them: the end is recorded before the queue of
    // events closes.
    let events = events;
    let mut end_guard = EndGuard(shared.clone(), None);
    let (sink, source) = stream.split();
    let closed = tokio::select! {
        closed = read(source, &events, &shared) => closed,
        closed = write(sink, commands) => closed,
    };
    end_guard.1 = Some(closed);
}

/// Reads until the connection ends. While the queue of events is full it does not read.
async fn read(
    mut source: SplitStream<WebSocketStream<TcpStream>>,
    events: &mpsc::Sender<Bytes>,
    shared: &SharedConnection,
) -> Closed {
    let mut reading = shared.reading.subscribe();
    loop {
        if reading.wait_for(|reading| *reading).await.is_err() {
            return Closed::broken("all handles were dropped");
        }
        let message = tokio::select! {
            message = source.next() => message,
            _ = reading.changed() => continue,
        };
        let frame: Bytes = match (message, shared.encoding) {
            (Some(Ok(Message::Binary(bytes))), Encoding::MessagePack) => bytes,
            (Some(Ok(Message::Text(text))), Encoding::Json) => text.into(),
            (Some(Ok(Message::Binary(_) | Message::Text(_))), _) => {
                return Closed::broken("a frame in another encoding was received");
            }
            (Some(Ok(Message::Close(frame))), _) => {
                answer_close(&mut source).await;
                return Closed::by_server(frame);
            }
            (Some(Ok(_)), _) => continue,
            (Some(Err(error)), _) => return Closed::broken(error.to_string()),
            (None, _) => return Closed::broken("the connection was closed without a close frame"),
        };
        match ServerFrame::head(shared.encoding, &frame) {
            Ok(Head::Reply(id)) => {
                if let Some(frame) = shared.reply(id, frame) {
                    drop(events.send(frame).await);
                }
            }
            // It fails when the application has dropped its events.
            Ok(Head::Event) => drop(events.send(frame).await),
            Err(error) => return Closed::broken(format!("a frame cannot be parsed: {error}")),
        }
    }
}

/// Reads on, which sends the answer to a close frame, until the server closes the connection.
pub(crate) async fn answer_close<T, E>(source: &mut (impl Stream<Item = Result<T, E>> + Unpin)) {
    // After the timeout the connection is dropped.
    let _ = timeout(CLOSE_TIMEOUT, async {
        while let Some(Ok(_)) = source.next().await {}
    })
    .await;
}

/// Writes until the connection ends. Frames that are queued are written together.
async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    mut commands: mpsc::Receiver<SocketCommand>,
) -> Closed {
    loop {
        let next = match commands.try_recv() {
            Ok(command) => Some(command),
            Err(_) if sink.flush().await.is_err() => break,
            Err(_) => commands.recv().await,
        };
        let (code, reason) = match next {
            Some(SocketCommand::Send(frame)) => match sink.feed(frame.into_message()).await {
                Ok(()) => continue,
                Err(_) => break,
            },
            Some(SocketCommand::Abort) => {
                return Closed::broken("the client aborted the connection");
            }
            Some(SocketCommand::Close(code, reason)) => (code, reason),
            None => (1000, String::new()),
        };
        // It fails when the connection has ended.
        let _ = sink
            .send(Message::Close(Some(CloseFrame {
                code: code.into(),
                reason: reason.into(),
            })))
            .await;
        break;
    }
    // The reader receives the server's close frame, which says more than a failed write.
    let _ = timeout(CLOSE_TIMEOUT, pending::<()>()).await;
    Closed::broken("the connection was closed")
}
