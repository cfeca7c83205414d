//! Connections before authentication, and the log lines about
//! them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use domain::credential::token::sign;
use protocol::{
    Encoding,
    entity::TokenKey,
    frame::encode_request,
    operation::message::{MessageSend, SendMessage},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use crate::{
    process::{Chaos, Shop, admin_key},
    story::until,
    wire::{ANSWER, Outcome, Raw, TEXT, frame, http},
};

/// A node in a process of its own, and an app on it.
struct Edge {
    node: Chaos,
    shop: Shop,
    folder: tempfile::TempDir,
}

impl Edge {
    async fn with(flags: &[&str]) -> Self {
        Self::by(&[], flags).await
    }

    /// Does the same by a program that executes it.
    async fn by(starter: &[&str], flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (node, address) = Chaos::node_by(
            starter,
            folder.path(),
            &[&["--demo", "off"], flags].concat(),
        )
        .await;
        let shop = Shop::open(address, &admin_key(folder.path())).await;
        shop.group("general", &["alice"]).await;
        Self { node, shop, folder }
    }

    fn address(&self) -> SocketAddr {
        self.shop.address
    }

    /// Returns a token of alice's that expires after this time.
    async fn token(&self, seconds: u64) -> String {
        let owner = self.shop.http(&self.shop.organization_key);
        let keys = format!(
            "/v1/organizations/{}/apps/{}/token-keys",
            self.shop.organization, self.shop.app
        );
        let key: TokenKey = owner
            .post(
                &keys,
                &json!({ "environment": "live", "algorithm": "HS256" }),
            )
            .await
            .unwrap();
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        sign(
            &key.id,
            key.secret.as_ref().unwrap().as_bytes(),
            &"alice".parse().unwrap(),
            now,
            now + seconds,
        )
    }

    /// Floods a connection with these bytes until it is closed, and returns how and after what
    /// time.
    async fn flood(&self, mut raw: Raw, bytes: &[u8]) -> (Outcome, Duration) {
        let began = Instant::now();
        let many = bytes.repeat(64 * 1024 / bytes.len() + 1);
        (raw.floods(&many).await, began.elapsed())
    }
}

/// Returns the lines of a node's log that contain this text.
fn lines(node: &Chaos, what: &str) -> usize {
    node.log()
        .lines()
        .filter(|line| line.contains(what))
        .count()
}

#[tokio::test]
async fn a_message_of_endless_empty_fragments_closes_with_4010() {
    let edge = Edge::with(&["--limit", "requests_per_second=0"]).await;
    let begins = frame(false, TEXT, b"");
    for connected in [false, true] {
        let mut raw = match connected {
            false => Raw::open(edge.address(), Encoding::Json).await,
            true => Raw::session(edge.address(), Encoding::Json, &edge.token(60).await).await,
        };
        raw.bytes(&begins).await;
        let (outcome, took) = edge.flood(raw, &frame(false, 0, b"")).await;
        assert_eq!(outcome, Outcome::Closed(4010), "connected: {connected}");
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
}

#[tokio::test]
async fn a_message_in_reasonable_fragments_is_read() {
    let edge = Edge::with(&[]).await;
    let mut raw = Raw::session(edge.address(), Encoding::Json, &edge.token(60).await).await;
    let request = encode_request(
        Encoding::Json,
        7,
        "ping",
        &json!({ "x": "x".repeat(60_000) }),
    );
    let mut fragments = request.chunks(1024).peekable();
    let mut opcode = TEXT;
    while let Some(fragment) = fragments.next() {
        raw.bytes(&frame(fragments.peek().is_none(), opcode, fragment))
            .await;
        opcode = 0;
    }
    assert_eq!(raw.outcome().await, Outcome::Reply(7, None));
}

#[tokio::test]
async fn a_token_ends_in_the_midst_of_a_flood() {
    let edge = Edge::with(&[
        "--limit",
        "requests_per_second=0",
        "--limit",
        "outbox_bytes=0",
        "--limit",
        "outbox_seconds=0",
    ])
    .await;
    let request = encode_request(Encoding::Json, 7, "ping", &json!({}));
    let floods = [
        ("pings", frame(true, 9, b"")),
        ("pongs", frame(true, 10, b"")),
        ("requests", frame(true, TEXT, &request)),
    ];
    for (what, bytes) in floods {
        let raw = Raw::session(edge.address(), Encoding::Json, &edge.token(3).await).await;
        let (outcome, took) = edge.flood(raw, &bytes).await;
        assert_eq!(outcome, Outcome::Closed(4003), "{what}");
        assert!(took < Duration::from_secs(6), "{what}: {took:?}");
    }
}

#[tokio::test]
async fn refused_connections_are_logged_with_their_reason() {
    let edge = Edge::with(&[
        "--limit",
        "unauthenticated_per_ip=1",
        "--allowed-origins",
        "https://app.example.com",
    ])
    .await;
    let upgrade = |more: &str| {
        format!(
            "GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    };
    assert_eq!(
        http(
            edge.address(),
            upgrade("Origin: https://evil.example\r\n").as_bytes()
        )
        .await,
        Some(403)
    );
    assert_eq!(
        http(
            edge.address(),
            upgrade("Origin: https://\u{e9}vil.example\r\n").as_bytes()
        )
        .await,
        Some(403),
        "not ASCII"
    );
    until("the origin is logged", || async {
        lines(&edge.node, "evil.example") == 1
    })
    .await;
    assert!(edge.node.log().contains("127.0.0.1"));
    for _ in 0..2 {
        let mut raw = Raw::open(edge.address(), Encoding::Json).await;
        raw.message(&encode_request(
            Encoding::Json,
            1,
            "connect",
            &json!({ "token": "nonsense" }),
        ))
        .await;
        assert_eq!(
            raw.outcome().await,
            Outcome::Reply(1, Some("unauthenticated".into()))
        );
        assert_eq!(raw.outcome().await, Outcome::Closed(4002));
    }
    until("the tokens are logged", || async {
        lines(&edge.node, "code=4002") == 2
    })
    .await;
    until("the limit is logged", || async {
        http(edge.address(), upgrade("").as_bytes()).await;
        lines(&edge.node, "unauthenticated_per_ip") > 0
    })
    .await;
    assert!(!edge.node.log().contains("nonsense"));
}

#[tokio::test]
async fn untrusted_proxy_causes_one_warning() {
    let edge = Edge::with(&[]).await;
    for client in 1..5 {
        let request = format!(
            "GET /v1/users HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.{client}\r\n\r\n"
        );
        assert_eq!(http(edge.address(), request.as_bytes()).await, Some(401));
    }
    assert_eq!(
        lines(&edge.node, "--trusted-proxies"),
        1,
        "{}",
        edge.node.log()
    );
}

/// A program that executes the node with a limit of open files.
fn with_open_files(command: &'static str) -> [&'static str; 3] {
    ["sh", "-c", command]
}

/// Connects from another address of this machine, with a small receive buffer.
async fn connects_from(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    socket.connect(to).await.unwrap()
}

/// Returns the status of a request on a connection, or `None` if it is closed.
async fn status(stream: &mut TcpStream, path: &str) -> Option<u16> {
    let _: std::io::Result<()> = stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
        .await;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
        if !matches!(
            timeout(ANSWER, stream.read_buf(&mut answer))
                .await
                .expect("an answer or the end"),
            Ok(1..)
        ) {
            return None;
        }
    }
    String::from_utf8_lossy(answer.get(9..12)?).parse().ok()
}

#[tokio::test]
async fn clients_that_do_not_read_are_closed_and_leave_room_for_others_meanwhile() {
    let edge = Edge::by(&with_open_files("ulimit -n 512; exec \"$0\" \"$@\""), &[]).await;
    let requests = "GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(200);
    let mut stalled = Vec::new();
    for _ in 0..150 {
        let mut stream = connects_from("127.0.0.1", edge.address()).await;
        let _: std::io::Result<()> = stream.write_all(requests.as_bytes()).await;
        stalled.push(stream);
    }
    let began = Instant::now();
    assert_eq!(
        status(
            &mut connects_from("127.0.0.2", edge.address()).await,
            "/healthz"
        )
        .await,
        Some(200)
    );
    assert!(began.elapsed() < Duration::from_secs(5));
    let refused = status(
        &mut connects_from("127.0.0.1", edge.address()).await,
        "/healthz",
    )
    .await;
    assert!(
        matches!(refused, Some(503) | None),
        "an address has a quarter of the sockets: {refused:?}"
    );
    until("those who do not read are closed", || async {
        status(
            &mut connects_from("127.0.0.1", edge.address()).await,
            "/healthz",
        )
        .await
            == Some(200)
    })
    .await;
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{:?}",
        began.elapsed()
    );
    drop(stalled);
}

#[tokio::test]
async fn client_that_closes_its_side_after_a_request_gets_the_answer() {
    let edge = Edge::by(&[], &[]).await;
    let mut stream = TcpStream::connect(edge.address()).await.unwrap();
    let key = format!("authorization: Bearer {}", admin_key(edge.folder.path()));
    let body = r#"{"name":"Acme","email":"it@acme.example"}"#;
    // The store takes longer than the end of the stream.
    let request = format!(
        "POST /v1/organizations HTTP/1.1\r\nhost: x\r\n{key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(ANSWER, stream.read_to_string(&mut answer))
        .await
        .expect("the answer and the end")
        .unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test]
async fn sockets_run_out_before_descriptors_do() {
    let limit = [
        "--ops-listen",
        "127.0.0.1:0",
        "--limit",
        "unauthenticated_per_ip=0",
    ];
    let edge = Edge::by(
        &with_open_files("ulimit -n 128; exec \"$0\" \"$@\""),
        &limit,
    )
    .await;
    let operations = edge.node.says("Operations").await;
    let operations: SocketAddr = operations
        .split("http://")
        .nth(1)
        .unwrap()
        .split('/')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let (alice, _events) = edge.shop.connects("alice", Encoding::MessagePack).await;
    let mut held = Vec::new();
    for address in 2..12 {
        // Each address has a quarter of the sockets.
        for _ in 0..16 {
            held.push(connects_from(&format!("127.0.0.{address}"), edge.address()).await);
        }
    }
    until("the node is full", || async {
        lines(&edge.node, "limit=\"sockets\"") > 0
    })
    .await;
    // Sessions are served, the store works, and operators can connect.
    let body = SendMessage {
        text: Some("still here".into()),
        ..SendMessage::default()
    };
    alice
        .call::<MessageSend>(&"general".parse().unwrap(), &body)
        .await
        .unwrap();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(
            status(&mut connects_from("127.0.0.1", operations).await, path).await,
            Some(200),
            "{path}"
        );
    }
    assert_eq!(lines(&edge.node, "cannot accept"), 0, "{}", edge.node.log());
    drop(held);
    until("there is room again", || async {
        status(
            &mut connects_from("127.0.0.1", edge.address()).await,
            "/healthz",
        )
        .await
            == Some(200)
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_kept_for_longer_than_headers_may_take() {
    let edge = Edge::with(&["--http-idle", "7s"]).await;
    let mut kept = connects_from("127.0.0.1", edge.address()).await;
    assert_eq!(status(&mut kept, "/healthz").await, Some(200));
    let mut dripping = connects_from("127.0.0.1", edge.address()).await;
    let began = Instant::now();
    // This pause is the tested condition: longer than the 5 s for headers, and shorter than the 7 s
    // of an idle connection.
    let drips = async {
        while dripping.write_all(b"G").await.is_ok() && began.elapsed() < Duration::from_secs(9) {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        began.elapsed()
    };
    let rests = tokio::time::sleep(Duration::from_secs(6));
    let (dripped, ()) = tokio::join!(drips, rests);
    assert!(
        (5..8).contains(&dripped.as_secs()),
        "headers have 5 s from their first byte: {dripped:?}"
    );
    if dripped < Duration::from_millis(6800) {
        assert_eq!(status(&mut kept, "/healthz").await, Some(200));
    }
    let began = Instant::now();
    assert_eq!(
        kept.read(&mut [0; 4096]).await.unwrap_or(0),
        0,
        "an idle connection is closed at last"
    );
    assert!(
        (6..10).contains(&began.elapsed().as_secs()),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn readiness_probes_are_not_logged_while_the_store_is_away() {
    let keys = tempfile::tempdir().unwrap();
    let secret = keys.path().join("secret");
    std::fs::write(&secret, "0f".repeat(32)).unwrap();
    let flags = [
        "--listen",
        "127.0.0.1:0",
        "--redis",
        "redis://127.0.0.1:1",
        "--admin-key",
        "adm_0123456789abcdef0123456789abcdef",
    ];
    let node =
        Chaos::spawn(&[&flags[..], &["--secret-key-file", secret.to_str().unwrap()]].concat());
    let address = node.address().await;
    for _ in 0..10 {
        assert_eq!(
            http(address, b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await,
            Some(503)
        );
    }
    assert_eq!(lines(&node, "/readyz"), 0, "{}", node.log());
    assert_eq!(lines(&node, "the node is not ready until it can"), 1);
}
