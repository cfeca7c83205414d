//! The client that comes back, against a small server made by hand: what its task does with sockets.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod peer;

use std::time::{Duration, Instant};

use client::{Client, Connector, Position, SendError, Settings, Update, Updates, Why};
use futures_util::StreamExt;
use protocol::{
    Encoding,
    params::{Cursor, SendMessage, Watch},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::tungstenite::Message;

use peer::{Peer, in_time};

/// A client, and where it connects to.
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
    peer.connects().await;
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
        first_wait: Duration::from_millis(20),
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
async fn a_reply_and_the_events_behind_it_are_told_in_the_order_of_the_socket() {
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
        let asked = in_time(peer.asked()).await;
        assert_eq!(
            (asked.method.as_str(), &asked.params),
            (
                "channel.subscribe",
                &json!({ "channels": { "general": [3, 3] } })
            )
        );
        // The position is too old, and the next event stands behind the head that is told: the other way round it were a hole.
        let entry = json!({ "channel_id": "general", "seq": 90, "at": 90, "number": 0, "read": 0, "gap": "trimmed" });
        peer.answers(asked.id, json!({ "channels": [entry] })).await;
        peer.tells(
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
        let asked = in_time(peer.asked()).await;
        assert_eq!(
            (asked.method.as_str(), &asked.params["changed_after"]),
            ("message.list", &json!(3))
        );
    }
}

#[tokio::test]
async fn a_session_for_other_requests_is_the_one_of_the_moment() {
    let (client, mut updates, listener) = client(quick(), |c| c, Encoding::MessagePack).await;
    assert!(client.session().is_none());
    let mut peer = accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
    let session = client.session().unwrap();
    let (at, ()) = tokio::join!(in_time(session.ping()), async {
        let asked = peer.asked().await;
        peer.answers(asked.id, json!({ "at": 5 })).await;
    });
    assert_eq!(at, Ok(5));
    drop(peer);
    assert!(matches!(
        in_time(updates.next()).await,
        Some(Update::Away { .. })
    ));
    let _peer = accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
    assert!(in_time(session.ping()).await.is_err() && client.session().is_some());
}

#[tokio::test]
async fn a_frame_that_cannot_be_read_ends_the_connection_and_the_client_comes_back() {
    let (_client, mut updates, listener) = client(quick(), |c| c, Encoding::MessagePack).await;
    let mut peer = accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
    peer.tells(json!({ "event": 7, "data": {} })).await;
    assert!(
        matches!(in_time(updates.next()).await, Some(Update::Away { why: Why::Closed(closed), .. }) if closed.reason.contains("cannot be read"))
    );
    accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
}

#[tokio::test]
async fn updates_that_are_not_taken_stop_the_reading_and_nothing_else() {
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
    // Far more than what the system's buffers take; the server notices that nobody reads.
    while timeout(Duration::from_millis(300), peer.tells(event(sent)))
        .await
        .is_ok()
    {
        sent += 1;
        assert!(sent < 10_000, "the client reads on");
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
    assert_eq!(in_time(peer.asked()).await.params["text"], "0");
    for n in 0..sent {
        match in_time(updates.next()).await {
            Some(Update::Event(event)) => assert_eq!(event.data["n"], Value::from(n)),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn dropped_updates_or_a_call_end_the_connection_with_a_farewell() {
    for is_dropped in [true, false] {
        let (client, mut updates, listener) = client(quick(), |c| c, Encoding::MessagePack).await;
        let mut peer = accepts(&listener, Encoding::MessagePack).await;
        connected(&mut updates).await;
        client
            .send(&"general".parse().unwrap(), text("in vain"))
            .unwrap();
        in_time(peer.asked()).await;
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
                Some(Update::Over(Why::Asked))
            ));
            assert!(in_time(updates.next()).await.is_none());
        }
        match in_time(peer.stream.next()).await {
            Some(Ok(Message::Close(Some(frame)))) => assert_eq!(u16::from(frame.code), 1000),
            other => panic!("{other:?}"),
        }
        assert_eq!(
            client.send(&"general".parse().unwrap(), text("later")),
            Err(SendError::Over)
        );
    }
}

#[tokio::test]
async fn a_node_that_falls_silent_is_left_after_a_ping_in_vain() {
    let settings = Settings {
        patience: Duration::from_millis(500),
        ..quick()
    };
    let (client, mut updates, listener) = client(settings, |c| c, Encoding::MessagePack).await;
    let mut peer = in_time(Peer::accept(&listener, Encoding::MessagePack)).await;
    let began = Instant::now();
    peer.connects_with(1000).await;
    connected(&mut updates).await;
    // The peer neither reads nor writes, as one behind a lost network does.
    let away = in_time(updates.next()).await;
    assert!(
        matches!(
            away,
            Some(Update::Away {
                why: Why::Silent,
                ..
            })
        ),
        "{away:?}"
    );
    assert!(
        began.elapsed() >= Duration::from_millis(1500),
        "the heartbeat and the patience"
    );
    assert!(client.session().is_none());
    // The ping that was not answered, and then the end, without a farewell.
    assert_eq!(in_time(peer.asked()).await.method, "ping");
    assert!(!matches!(in_time(peer.stream.next()).await, Some(Ok(_))));
    accepts(&listener, Encoding::MessagePack).await;
    connected(&mut updates).await;
}
