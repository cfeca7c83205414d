//! The task of a connection: it alone touches the socket. Reading and writing do not wait for each other.

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
    session::{Command, Link},
};

/// How long the other side has to answer a close frame, or to end the connection after its own.
const GOODBYE: Duration = Duration::from_secs(1);

/// Ends the link also when the task is cancelled with its runtime, so that nobody waits for ever.
struct Ending(Arc<Link>, Option<Closed>);

impl Drop for Ending {
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
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<Bytes>,
    link: Arc<Link>,
) {
    // Bound before the arguments are dropped: the link has its end when the queue of events has.
    let events = events;
    let mut ending = Ending(link.clone(), None);
    let (sink, source) = stream.split();
    let closed = tokio::select! {
        closed = read(source, &events, &link) => closed,
        closed = write(sink, commands) => closed,
    };
    ending.1 = Some(closed);
}

/// Reads until the connection ends. A queue that is full stops the reading, and nothing else.
async fn read(
    mut source: SplitStream<WebSocketStream<TcpStream>>,
    events: &mpsc::Sender<Bytes>,
    link: &Link,
) -> Closed {
    let mut reading = link.reading.subscribe();
    loop {
        if reading.wait_for(|reading| *reading).await.is_err() {
            return Closed::broken("nobody is left");
        }
        let message = tokio::select! {
            message = source.next() => message,
            _ = reading.changed() => continue,
        };
        let frame: Bytes = match (message, link.encoding) {
            (Some(Ok(Message::Binary(bytes))), Encoding::MessagePack) => bytes,
            (Some(Ok(Message::Text(text))), Encoding::Json) => text.into(),
            (Some(Ok(Message::Binary(_) | Message::Text(_))), _) => {
                return Closed::broken("a frame of another encoding came");
            }
            (Some(Ok(Message::Close(frame))), _) => {
                answer_close(&mut source).await;
                return Closed::by_server(frame);
            }
            (Some(Ok(_)), _) => continue,
            (Some(Err(error)), _) => return Closed::broken(error.to_string()),
            (None, _) => return Closed::broken("the connection was cut"),
        };
        match ServerFrame::head(link.encoding, &frame) {
            Ok(Head::Reply(id)) => {
                if let Some(frame) = link.reply(id, frame) {
                    drop(events.send(frame).await);
                }
            }
            // An error means that nobody wants events.
            Ok(Head::Event) => drop(events.send(frame).await),
            Err(error) => return Closed::broken(format!("a frame cannot be read: {error}")),
        }
    }
}

/// Reading on sends the answer to a close frame, and waits for the server to end the connection.
pub(crate) async fn answer_close<T, E>(source: &mut (impl Stream<Item = Result<T, E>> + Unpin)) {
    // A server that takes longer is not waited for.
    let _ = timeout(GOODBYE, async {
        while let Some(Ok(_)) = source.next().await {}
    })
    .await;
}

/// Writes until the connection ends; what waits leaves in one write.
async fn write(
    mut sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    mut commands: mpsc::Receiver<Command>,
) -> Closed {
    loop {
        let next = match commands.try_recv() {
            Ok(command) => Some(command),
            Err(_) if sink.flush().await.is_err() => break,
            Err(_) => commands.recv().await,
        };
        let (code, reason) = match next {
            Some(Command::Send(frame)) => match sink.feed(frame.into_message()).await {
                Ok(()) => continue,
                Err(_) => break,
            },
            Some(Command::Abort) => return Closed::broken("the client cut it"),
            Some(Command::Close(code, reason)) => (code, reason),
            None => (1000, String::new()),
        };
        // An error means that the connection ended already.
        let _ = sink
            .send(Message::Close(Some(CloseFrame {
                code: code.into(),
                reason: reason.into(),
            })))
            .await;
        break;
    }
    // The reader sees how it ends, and knows better why a write failed.
    let _ = timeout(GOODBYE, pending::<()>()).await;
    Closed::broken("the connection was closed")
}
