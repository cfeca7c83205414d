//! A scripted server on a real socket.
#![allow(unreachable_pub, reason = "a test binary has no public interface")]
#![allow(dead_code, reason = "each test uses a part of it")]

use std::{future::Future, time::Duration};

use futures_util::{SinkExt, StreamExt};
use protocol::{
    CloseCode, Encoding,
    frame::{Request, encode_result},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{Request as Upgrade, Response},
        http::header::SEC_WEBSOCKET_PROTOCOL,
        protocol::CloseFrame,
    },
};

pub const DEADLINE: Duration = Duration::from_secs(10);

/// The server's end of a connection.
pub struct Peer {
    pub stream: WebSocketStream<TcpStream>,
    pub encoding: Encoding,
}

pub struct ReceivedRequest {
    pub id: u32,
    pub method: String,
    pub params: Value,
}

impl Peer {
    pub async fn accept(listener: &TcpListener, encoding: Encoding) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        #[expect(
            clippy::result_large_err,
            reason = "the callback's type is tungstenite's"
        )]
        let stream = accept_hdr_async(stream, |upgrade: &Upgrade, mut response: Response| {
            if let Some(offered) = upgrade.headers().get(SEC_WEBSOCKET_PROTOCOL) {
                response
                    .headers_mut()
                    .insert(SEC_WEBSOCKET_PROTOCOL, offered.clone());
            }
            assert_eq!(upgrade.uri().path(), protocol::WEBSOCKET_PATH);
            Ok(response)
        })
        .await
        .unwrap();
        Self { stream, encoding }
    }

    pub async fn request(&mut self) -> ReceivedRequest {
        let bytes = match self.stream.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            other => panic!("{other:?}"),
        };
        let request = Request::decode(self.encoding, &bytes).unwrap();
        ReceivedRequest {
            id: request.id,
            method: request.method.to_owned(),
            params: request.params().unwrap(),
        }
    }

    pub async fn send(&mut self, bytes: Vec<u8>) {
        let message = match self.encoding {
            Encoding::MessagePack => Message::Binary(bytes.into()),
            Encoding::Json => Message::Text(String::from_utf8(bytes).unwrap().into()),
        };
        self.stream.send(message).await.unwrap();
    }

    pub async fn reply(&mut self, id: u32, result: Value) {
        self.send(encode_result(self.encoding, id, &result)).await;
    }

    pub async fn send_event(&mut self, event: Value) {
        self.send(self.encoding.encode(&event)).await;
    }

    pub async fn close(&mut self, code: CloseCode) {
        let frame = CloseFrame {
            code: code.code().into(),
            reason: code.reason().into(),
        };
        self.stream.close(Some(frame)).await.unwrap();
        while let Some(Ok(_)) = self.stream.next().await {}
    }

    pub async fn accept_session(&mut self) {
        self.accept_session_with_heartbeat(25_000).await;
    }

    pub async fn accept_session_with_heartbeat(&mut self, heartbeat_ms: u64) {
        let request = self.request().await;
        assert_eq!(request.method, "connect");
        self.reply(
            request.id,
            json!({ "session_id": "ses_0000000000000001", "user": { "id": "alice" }, "app_id": "app_0000000000000001", "environment": "test",
                "features": [], "heartbeat_ms": heartbeat_ms, "limits": { "page": 200 }, "user_position": [0, 0], "channels": [], "more": false }),
        )
        .await;
    }
}

pub async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future)
        .await
        .expect("finished before the deadline")
}
