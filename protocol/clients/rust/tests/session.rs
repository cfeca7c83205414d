//! `Session` against a scripted server on a real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod peer;

use std::{future::Future, time::Duration};

use bytes::Bytes;
use client::{Closed, ConnectError, Connector, Events, Frame, RequestError, Session};
use futures_util::StreamExt;
use protocol::{
    CloseCode, Encoding, ErrorBody, ErrorCode,
    frame::encode_error,
    operation::{
        message::{MessageSend, SendMessage},
        session::{Connect, Ping, Pong},
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_tungstenite::tungstenite::Message;

use peer::{Peer, in_time};

fn typing(n: u64) -> Value {
    json!({ "event": "typing", "channel_id": "general", "data": { "user_id": "bob", "typing": true, "n": n } })
}

/// Connects a session, and runs the peer's script on a task.
async fn connected<F, S>(
    encoding: Encoding,
    tune: impl FnOnce(Connector) -> Connector,
    script: S,
) -> (Session, Events, JoinHandle<()>)
where
    S: FnOnce(Peer) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = tune(
        Connector::new(
            &format!("ws://{}", listener.local_addr().unwrap()),
            encoding,
        )
        .unwrap(),
    );
    let params = Connect {
        token: "t".into(),
        ..Connect::default()
    };
    let (client, mut peer) =
        tokio::join!(async { connector.connect(&params).await.unwrap() }, async {
            let mut peer = Peer::accept(&listener, encoding).await;
            peer.accept_session().await;
            peer
        });
    peer.encoding = encoding;
    (client.0, client.1, tokio::spawn(script(peer)))
}

#[tokio::test]
async fn replies_in_any_order_are_matched_in_both_encodings() {
    for encoding in Encoding::ALL {
        let (session, _events, peer) = connected(
            encoding,
            |c| c,
            |mut peer| async move {
                let (first, second) = (peer.request().await, peer.request().await);
                assert_eq!(first.params["text"], "one");
                for request in [second, first] {
                    peer.reply(request.id, json!({ "said": request.params["text"] }))
                        .await;
                }
            },
        )
        .await;
        assert_eq!(session.connected().user.id.as_str(), "alice");
        let one = session
            .begin_request::<_, Value>("message.send", &json!({ "text": "one" }))
            .await
            .unwrap();
        let two = session
            .begin_request::<_, Value>("message.send", &json!({ "text": "two" }))
            .await
            .unwrap();
        assert_eq!(in_time(one.reply()).await, Ok(json!({ "said": "one" })));
        assert_eq!(in_time(two.reply()).await, Ok(json!({ "said": "two" })));
        in_time(peer).await.unwrap();
    }
}

#[tokio::test]
async fn ids_and_fields_are_sent_in_one_map_and_errors_are_returned_complete() {
    for encoding in Encoding::ALL {
        let error = ErrorBody {
            retry_after_ms: Some(20),
            ..ErrorBody::new(ErrorCode::RateLimited, "slower")
        };
        let answer = error.clone();
        let (session, _events, peer) = connected(
            encoding,
            |c| c,
            |mut peer| async move {
                let request = peer.request().await;
                assert_eq!(request.method, "message.send");
                assert_eq!(
                    request.params,
                    json!({ "channel_id": "general", "text": "hi" })
                );
                peer.send(encode_error(encoding, request.id, &answer)).await;
            },
        )
        .await;
        let message = SendMessage {
            text: Some("hi".into()),
            ..SendMessage::default()
        };
        let outcome =
            in_time(session.call::<MessageSend>(&"general".parse().unwrap(), &message)).await;
        assert_eq!(outcome, Err(RequestError::Refused(error)));
        in_time(peer).await.unwrap();
    }
}

#[tokio::test]
async fn events_are_in_order_and_followed_by_the_close_code() {
    for encoding in Encoding::ALL {
        let (session, mut events, peer) = connected(
            encoding,
            |c| c.event_queue(2),
            |mut peer| async move {
                for n in 0..100 {
                    peer.send_event(typing(n)).await;
                }
                peer.close(CloseCode::TooSlow).await;
            },
        )
        .await;
        for n in 0..100 {
            assert_eq!(in_time(events.next()).await.unwrap().data["n"], n);
        }
        assert_eq!(in_time(events.next()).await, None);
        let closed = Closed {
            code: Some(4009),
            reason: "too slow".into(),
        };
        assert_eq!(events.closed(), closed);
        assert_eq!(
            in_time(session.call::<Ping>((), ())).await,
            Err(RequestError::Closed(closed))
        );
        in_time(peer).await.unwrap();
    }
}

#[tokio::test]
async fn full_event_queue_stops_reading_but_not_writing() {
    let (session, mut events, peer) = connected(
        Encoding::MessagePack,
        |c| c.event_queue(1).receive_buffer(4096),
        |mut peer| async move {
            let padding = "x".repeat(10_000);
            let mut sent = 0;
            // Far more than the socket buffers hold, so the server notices that the client does not
            // read.
            while timeout(
                Duration::from_millis(300),
                peer.send_event(json!({ "event": "later", "data": { "padding": padding } })),
            )
            .await
            .is_ok()
            {
                sent += 1;
                assert!(sent < 10_000, "the client still reads");
            }
            assert_eq!(peer.request().await.method, "ping");
        },
    )
    .await;
    let ping = session
        .begin_request::<_, Value>("ping", &json!({}))
        .await
        .unwrap();
    in_time(peer).await.unwrap();
    assert!(in_time(events.next()).await.is_some());
    drop(ping);
}

#[tokio::test]
async fn paused_reading_delays_events_and_replies() {
    let (session, mut events, peer) = connected(
        Encoding::MessagePack,
        |c| c,
        |mut peer| async move {
            let request = peer.request().await;
            peer.send_event(typing(1)).await;
            peer.reply(request.id, json!({ "at": 5 })).await;
            peer.request().await;
        },
    )
    .await;
    session.pause_reading();
    let ping = session
        .begin_request::<_, Value>("ping", &json!({}))
        .await
        .unwrap();
    assert!(
        timeout(Duration::from_millis(100), events.next())
            .await
            .is_err()
    );
    session.resume_reading();
    assert!(in_time(events.next()).await.is_some());
    assert_eq!(in_time(ping.reply()).await, Ok(json!({ "at": 5 })));
    session
        .begin_request::<_, Value>("ping", &json!({}))
        .await
        .unwrap();
    in_time(peer).await.unwrap();
}

#[tokio::test]
async fn request_without_a_reply_times_out_and_the_session_continues() {
    let (session, _events, peer) = connected(
        Encoding::Json,
        |c| c.timeout(Duration::from_millis(200)),
        |mut peer| async move {
            let late = peer.request().await;
            let request = peer.request().await;
            peer.reply(late.id, json!({ "at": 1 })).await;
            peer.reply(request.id, json!({ "at": 2 })).await;
        },
    )
    .await;
    assert_eq!(
        session.call::<Ping>((), ()).await,
        Err(RequestError::Timeout)
    );
    assert_eq!(
        in_time(session.call::<Ping>((), ())).await,
        Ok(Pong { at: 2 })
    );
    in_time(peer).await.unwrap();
}

#[tokio::test]
async fn refused_connect_has_the_error_and_the_close_code() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Connector::new(
        &format!("http://{}", listener.local_addr().unwrap()),
        Encoding::MessagePack,
    )
    .unwrap();
    let params = Connect {
        token: "old".into(),
        ..Connect::default()
    };
    let (outcome, ()) = tokio::join!(in_time(connector.connect(&params)), async {
        let mut peer = Peer::accept(&listener, Encoding::MessagePack).await;
        let request = peer.request().await;
        assert_eq!(request.params["token"], "old");
        peer.send(encode_error(
            Encoding::MessagePack,
            request.id,
            &ErrorBody::new(ErrorCode::Unauthenticated, "expired"),
        ))
        .await;
        peer.close(CloseCode::TokenExpired).await;
    });
    match outcome {
        Err(ConnectError::Refused { error, closed }) => {
            assert_eq!(
                (error.code, closed.close_code()),
                (ErrorCode::Unauthenticated, Some(CloseCode::TokenExpired))
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn raw_frames_are_sent_unchanged() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Connector::new(
        &format!("ws://{}", listener.local_addr().unwrap()),
        Encoding::MessagePack,
    )
    .unwrap();
    let (mut socket, mut peer) = tokio::join!(
        async { connector.open().await.unwrap() },
        Peer::accept(&listener, Encoding::MessagePack)
    );
    socket
        .send(Frame::Binary(Bytes::from_static(&[0xc1])))
        .await
        .unwrap();
    socket
        .send(Frame::Text(Bytes::from_static(b"text")))
        .await
        .unwrap();
    assert_eq!(
        in_time(peer.stream.next()).await.unwrap().unwrap(),
        Message::Binary(Bytes::from_static(&[0xc1]))
    );
    assert_eq!(
        in_time(peer.stream.next()).await.unwrap().unwrap(),
        Message::Text("text".into())
    );
    peer.send(vec![0x80]).await;
    assert_eq!(
        in_time(socket.receive()).await,
        Ok(Frame::Binary(Bytes::from_static(&[0x80])))
    );
    let (closed, ()) = tokio::join!(in_time(socket.receive()), peer.close(CloseCode::BadFrame));
    assert_eq!(closed.unwrap_err().code, Some(4000));

    let (mut socket, mut peer) = tokio::join!(
        async { connector.open().await.unwrap() },
        Peer::accept(&listener, Encoding::MessagePack)
    );
    socket
        .send(Frame::Text(Bytes::from_static(&[0xff, 0xfe])))
        .await
        .unwrap();
    assert!(
        in_time(peer.stream.next()).await.unwrap().is_err(),
        "the peer notices the invalid UTF-8"
    );
}

#[tokio::test]
async fn broken_connection_fails_pending_requests() {
    let (session, mut events, peer) = connected(
        Encoding::MessagePack,
        |c| c,
        |mut peer| async move {
            peer.request().await;
        },
    )
    .await;
    assert!(matches!(
        in_time(session.call::<Ping>((), ())).await,
        Err(RequestError::Closed(Closed { code: None, .. }))
    ));
    assert_eq!(in_time(events.next()).await, None);
    in_time(peer).await.unwrap();
}

#[tokio::test]
async fn session_can_be_closed_aborted_or_dropped() {
    let (session, mut events, peer) = connected(
        Encoding::MessagePack,
        |c| c,
        |mut peer| async move {
            match peer.stream.next().await {
                Some(Ok(Message::Close(Some(frame)))) => assert_eq!(
                    (u16::from(frame.code), frame.reason.as_str()),
                    (3000, "bye")
                ),
                other => panic!("{other:?}"),
            }
            assert!(peer.stream.next().await.is_none());
        },
    )
    .await;
    session.close(3000, "bye").await;
    in_time(peer).await.unwrap();
    assert_eq!(in_time(events.next()).await, None);
    assert_eq!(events.closed().code, Some(3000));

    let (session, mut events, peer) = connected(
        Encoding::MessagePack,
        |c| c,
        |mut peer| async move {
            assert!(
                !matches!(peer.stream.next().await, Some(Ok(_))),
                "no close frame"
            );
        },
    )
    .await;
    session.abort().await;
    in_time(peer).await.unwrap();
    assert_eq!(in_time(events.next()).await, None);

    let (session, events, peer) = connected(
        Encoding::MessagePack,
        |c| c,
        |mut peer| async move {
            match peer.stream.next().await {
                Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1000),
                other => panic!("{other:?}"),
            }
        },
    )
    .await;
    drop((session, events));
    in_time(peer).await.unwrap();
}
