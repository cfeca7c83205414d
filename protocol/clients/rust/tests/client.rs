//! `Client` against a scripted server on a real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod peer;

use std::time::{Duration, Instant};

use client::{Client, Connector, DisconnectCause, Position, SendError, Settings, Update, Updates};
use futures_util::StreamExt;
use protocol::{
    Cursor, Encoding,
    operation::{
        message::SendMessage,
        session::{Ping, Pong, Watch},
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::tungstenite::Message;

use peer::{Peer, in_time};

/// Starts a client, and the listener that it connects to.
async fn client(
    settings: Settings,
    tune: impl FnOnce(Connector) -> Connector,
    encoding: Encoding,
) -> (Client, Updates, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = tune(
        Connector::new(
            &format!("ws://{}", listener.local_addr().unwrap()),
            encoding,
        )
        .unwrap(),
    );
    let (client, updates) =
        Client::start(vec![connector], settings, || async { Ok("t".to_owned()) });
    (client, updates, listener)
}

async fn accepts(listener: &TcpListener, encoding: Encoding) -> Peer {
    let mut peer = in_time(Peer::accept(listener, encoding)).await;
    peer.accept_session().await;
    peer
}

async fn connected(updates: &mut Updates) {
    assert!(matches!(
        in_time(updates.next()).await,
        Some(Update::Connected(_))
    ));
}

fn quick() -> Settings {
    Settings {
        initial_backoff: Duration::from_millis(20),
        ..Settings::default()
    }
}

fn text(text: &str) -> SendMessage {
    SendMessage {
        text: Some(text.into()),
        ..SendMessage::default()
    }
}

#[tokio::test]
async fn reply_and_later_events_are_reported_in_order() {
    for encoding in Encoding::ALL {
        let general = "general".parse().unwrap();
        let settings = Settings {
            watch: Watch::None,
            ..quick()
        };
        let (client, mut updates, listener) = client(settings, |c| c, encoding).await;
        let mut peer = accepts(&listener, encoding).await;
        connected(&mut updates).await;
        client.follow(&general, Cursor::After(3, 3));
        let request = in_time(peer.request()).await;
        assert_eq!(
            (request.method.as_str(), &request.params),
            (
                "channel.subscribe",
                &json!({ "channels": { "general": [3, 3] } })
            )
        );
        // The position is trimmed, and the next event follows the new head. In the other order that
        // would be a hole.
        let entry = json!({ "channel_id": "general", "seq": 90, "at": 90, "number": 0, "read": 0, "gap": "trimmed" });
        peer.reply(request.id, json!({ "channels": [entry] })).await;
        peer.send_event(
            json!({ "event": "later", "channel_id": "general", "seq": 91, "at": 91, "data": {} }),
        )
        .await;
        assert!(matches!(
            in_time(updates.next()).await,
            Some(Update::Joined(_))
        ));
        assert!(matches!(
            in_time(updates.next()).await,
            Some(Update::Gap {
                to: Position { seq: 90, .. },
                ..
            })
        ));
        assert!(
            matches!(in_time(updates.next()).await, Some(Update::Event(event)) if event.seq == Some(91))
        );
        let request = in_time(peer.request()).await;
        assert_eq!(
            (request.method.as_str(), &request.params["changed_after"]),
            ("message.list", &json!(3))
        );
    }
}

#[tokio::test]
async fn session_for_other_requests_is_the_current_one() {
    let (client, mut updates, listener) = client(quick(), |c| c, Encoding::MessagePack).await;
    assert!(client.session().is_none());
    let mut peer = accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
    let session = client.session().unwrap();
    let (at, ()) = tokio::join!(in_time(session.call::<Ping>((), ())), async {
        let request = peer.request().await;
        peer.reply(request.id, json!({ "at": 5 })).await;
    });
    assert_eq!(at, Ok(Pong { at: 5 }));
    drop(peer);
    assert!(matches!(
        in_time(updates.next()).await,
        Some(Update::Away { .. })
    ));
    let _peer = accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
    assert!(in_time(session.call::<Ping>((), ())).await.is_err() && client.session().is_some());
}

#[tokio::test]
async fn frame_that_cannot_be_parsed_ends_the_connection_and_the_client_reconnects() {
    let (_client, mut updates, listener) = client(quick(), |c| c, Encoding::MessagePack).await;
    let mut peer = accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
    peer.send_event(json!({ "event": 7, "data": {} })).await;
    assert!(
        matches!(in_time(updates.next()).await, Some(Update::Away { why: DisconnectCause::Closed(closed), .. }) if closed.reason.contains("cannot be parsed"))
    );
    accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
}

#[tokio::test]
async fn unread_updates_stop_reading_but_not_sending() {
    let settings = Settings {
        outbox: 5,
        ..quick()
    };
    let (client, mut updates, listener) = client(
        settings,
        |c| c.event_queue(1).receive_buffer(4096),
        Encoding::MessagePack,
    )
    .await;
    let mut peer = accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
    let (padding, mut sent) = ("x".repeat(10_000), 0u64);
    let event = |n: u64| json!({ "event": "later", "data": { "n": n, "padding": padding } });
    // Far more than the socket buffers hold, so the server notices that the client does not read.
    while timeout(Duration::from_millis(300), peer.send_event(event(sent)))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 10_000, "the client still reads");
    }
    for n in 0..5 {
        client
            .send(&"general".parse().unwrap(), text(&format!("{n}")))
            .unwrap();
    }
    assert_eq!(
        client.send(&"general".parse().unwrap(), text("6")),
        Err(SendError::Full)
    );
    assert_eq!(in_time(peer.request()).await.params["text"], "0");
    for n in 0..sent {
        match in_time(updates.next()).await {
            Some(Update::Event(event)) => assert_eq!(event.data["n"], Value::from(n)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn dropped_updates_or_close_end_the_connection_with_a_close_frame() {
    for is_dropped in [true, false] {
        let (client, mut updates, listener) = client(quick(), |c| c, Encoding::MessagePack).await;
        let mut peer = accepts(&listener, Encoding::MessagePack).await;
        connected(&mut updates).await;
        client
            .send(&"general".parse().unwrap(), text("not acknowledged"))
            .unwrap();
        in_time(peer.request()).await;
        if is_dropped {
            drop(updates);
        } else {
            client.close();
            assert!(matches!(
                in_time(updates.next()).await,
                Some(Update::Failed { .. })
            ));
            assert!(matches!(
                in_time(updates.next()).await,
                Some(Update::Ended(DisconnectCause::ClosedByApplication))
            ));
            assert!(in_time(updates.next()).await.is_none());
        }
        match in_time(peer.stream.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1000),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            client.send(&"general".parse().unwrap(), text("later")),
            Err(SendError::Ended)
        );
    }
}

#[tokio::test]
async fn silent_node_is_left_after_an_unanswered_ping() {
    let settings = Settings {
        reply_timeout: Duration::from_millis(500),
        ..quick()
    };
    let (client, mut updates, listener) = client(settings, |c| c, Encoding::MessagePack).await;
    let mut peer = in_time(Peer::accept(&listener, Encoding::MessagePack)).await;
    let began = Instant::now();
    peer.accept_session_with_heartbeat(1000).await;
    connected(&mut updates).await;
    // The peer neither reads nor writes, like one behind a failed network.
    let away = in_time(updates.next()).await;
    assert!(
        matches!(
            away,
            Some(Update::Away {
                why: DisconnectCause::Silent,
                ..
            })
        ),
        "{away:?}"
    );
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "the heartbeat and the reply timeout"
    );
    assert!(client.session().is_none());
    // The unanswered ping, and then the end, without a close frame.
    assert_eq!(in_time(peer.request()).await.method, "ping");
    assert!(!matches!(in_time(peer.stream.next()).await, Some(Ok(_))));
    accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
}
