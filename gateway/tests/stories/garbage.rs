//! What no client should send: each is answered by an error, a close code or an HTTP status, and costs the node nothing that lasts.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use protocol::{Encoding, Limits, Method, frame::encode_request};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::{
    methods::{Kind, params},
    process::{Chaos, Shop, admin_key},
    story::until,
    wire::{BINARY, Outcome, Raw, TEXT, declared, frame, http},
};

/// Most of what is sent by chance.
const MUTATIONS: usize = 1500;
/// Connections that each hold as much as they may.
const HOLDERS: usize = 300;

/// A node of its own, whose memory and log are looked at.
struct Node {
    chaos: Chaos,
    shop: Shop,
    token: String,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut flags = vec!["--demo", "off"];
        for limit in [
            "requests_per_second=0",
            "unauthenticated_per_ip=0",
            "key_requests_per_second=0",
            "connections_per_user=0",
        ] {
            flags.extend(["--limit", limit]);
        }
        let (chaos, address) = Chaos::node(folder.path(), &flags).await;
        let shop = Shop::open(address, &admin_key(folder.path())).await;
        shop.group("general", &["alice", "bob"]).await;
        let token = shop.token("alice").await;
        Self {
            chaos,
            shop,
            token,
            _folder: folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.shop.address
    }

    async fn session(&self, encoding: Encoding) -> Raw {
        Raw::session(self.address(), encoding, &self.token).await
    }

    /// It panicked at nothing, and serves.
    async fn is_well(&self) {
        assert!(
            !self.chaos.log().contains("panicked"),
            "{}",
            self.chaos.log()
        );
        // In a channel of its own: what came before may by chance have been a request to leave.
        static ROUNDS: AtomicUsize = AtomicUsize::new(0);
        let channel = format!("round-{}", ROUNDS.fetch_add(1, Ordering::Relaxed));
        self.shop.group(&channel, &["alice"]).await;
        let mut session = self.session(Encoding::MessagePack).await;
        let body = json!({ "channel_id": channel, "text": "still there" });
        session
            .message(&encode_request(
                Encoding::MessagePack,
                9,
                "message.send",
                &body,
            ))
            .await;
        assert_eq!(session.outcome().await, Outcome::Reply(9, None));
        assert_eq!(
            http(self.address(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await,
            Some(200)
        );
    }
}

fn ids(place: &'static str, kind: Kind) -> String {
    match (place, kind) {
        (_, Kind::User) => "bob".into(),
        (_, Kind::Channel) => "general".into(),
        (_, Kind::Cursor) => "1.general".into(),
        ("message_id", _) => "msg_00000000000000aa".into(),
        _ => "msg_00000000000000bb".into(),
    }
}

/// A request with a parameter of which the innermost of so many levels is null.
fn nested(encoding: Encoding, levels: usize) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"id":5,"method":"ping","params":{{"a":{open}null{close}}}}}"#).into_bytes()
        }
        Encoding::MessagePack => {
            let mut bytes = b"\x83\xa2id\x05\xa6method\xa4ping\xa6params\x81\xa1a".to_vec();
            bytes.extend(std::iter::repeat_n(0x91, levels));
            bytes.push(0xc0);
            bytes
        }
    }
}

/// Payloads that are no request, in frames that are in order.
fn no_requests(encoding: Encoding) -> Vec<(&'static str, Vec<u8>)> {
    let ping = encode_request(encoding, 5, "ping", &json!({}));
    let mut all = vec![
        ("nothing", Vec::new()),
        ("nested 10,000 deep", nested(encoding, 10_000)),
        ("trailing bytes", [&ping[..], b"\x01"].concat()),
        ("two requests", [&ping[..], &ping].concat()),
        ("cut off", ping[..ping.len() - 1].to_vec()),
        ("no id", encoding.encode(&json!({ "method": "ping" }))),
        (
            "id 0",
            encoding.encode(&json!({ "id": 0, "method": "ping" })),
        ),
        (
            "an id beyond 32 bits",
            encoding.encode(&json!({ "id": 1u64 << 32, "method": "ping" })),
        ),
        (
            "a negative id",
            encoding.encode(&json!({ "id": -1, "method": "ping" })),
        ),
        (
            "an id of text",
            encoding.encode(&json!({ "id": "1", "method": "ping" })),
        ),
        ("no method", encoding.encode(&json!({ "id": 5 }))),
        (
            "a method that is a number",
            encoding.encode(&json!({ "id": 5, "method": 7 })),
        ),
        (
            "params that are a list",
            encoding.encode(&json!({ "id": 5, "method": "ping", "params": [] })),
        ),
        ("a list", encoding.encode(&json!([1, 2, 3]))),
        ("a number", encoding.encode(&json!(7))),
    ];
    if encoding == Encoding::Json {
        all.extend([
            (
                "a NUL",
                b"{\"id\":5,\"method\":\"ping\",\"params\":{\"a\":\"\0\"}}".to_vec(),
            ),
            (
                "NaN",
                br#"{"id":5,"method":"ping","params":{"a":NaN}}"#.to_vec(),
            ),
        ]);
    } else {
        let head = b"\x83\xa2id\x05\xa6method\xa4ping\xa6params";
        let with = |tail: &[u8]| [&head[..], tail].concat();
        all.extend([
            ("a map of 2^32-1 entries", with(b"\xdf\xff\xff\xff\xff")),
            (
                "a list of 2^32-1 items",
                with(b"\x81\xa1a\xdd\xff\xff\xff\xff"),
            ),
            (
                "a text of 2^32-1 bytes",
                with(b"\x81\xa1a\xdb\xff\xff\xff\xff"),
            ),
            (
                "bytes of 2^32-1 bytes",
                with(b"\x81\xa1a\xc6\xff\xff\xff\xff"),
            ),
            (
                "an extension of 2^32-1 bytes",
                with(b"\x81\xa1a\xc9\xff\xff\xff\xff\x01"),
            ),
            (
                "a frame of 2^32-1 entries",
                b"\xdf\xff\xff\xff\xff\xa2id\x05".to_vec(),
            ),
            ("the byte that means nothing", with(b"\xc1")),
            (
                "a method that is no UTF-8",
                b"\x82\xa2id\x05\xa6method\xa4\xff\xfe\xfd\xfc".to_vec(),
            ),
        ]);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_is_refused_before_and_after_connect() {
    let node = Node::start().await;
    for encoding in Encoding::ALL {
        for (name, payload) in no_requests(encoding) {
            let mut fresh = Raw::open(node.address(), encoding).await;
            fresh.message(&payload).await;
            assert_eq!(
                fresh.outcome().await,
                Outcome::Closed(4000),
                "{name} in place of connect, {encoding:?}"
            );
            let mut session = node.session(encoding).await;
            session.message(&payload).await;
            assert_eq!(
                session.outcome().await,
                Outcome::Closed(4000),
                "{name} in a session, {encoding:?}"
            );
        }
    }
    node.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_break_the_protocol_close_the_connection() {
    let node = Node::start().await;
    let limit = Limits::default().frame_bytes;
    for encoding in Encoding::ALL {
        let (own, other) = if encoding == Encoding::Json {
            (TEXT, BINARY)
        } else {
            (BINARY, TEXT)
        };
        let ping = encode_request(encoding, 5, "ping", &json!({}));
        let unmasked = [&declared(true, own, false, ping.len() as u64)[..], &ping].concat();
        let mut reserved = frame(true, own, &ping);
        reserved[0] |= 0x40;
        let cases: Vec<(&str, Vec<u8>, u16)> = vec![
            ("the other kind of message", frame(true, other, &ping), 4000),
            ("no mask", unmasked, 4000),
            ("a reserved bit", reserved, 4000),
            ("a reserved opcode", frame(true, 3, &ping), 4000),
            ("a reserved control opcode", frame(true, 11, b""), 4000),
            ("a continuation of nothing", frame(true, 0, &ping), 4000),
            (
                "a message within a message",
                [frame(false, own, &ping[..3]), frame(true, own, &ping)].concat(),
                4000,
            ),
            ("a ping in two parts", frame(false, 9, b"x"), 4000),
            ("a ping of 126 bytes", frame(true, 9, &[b'x'; 126]), 4000),
            (
                "a text that is no UTF-8",
                frame(true, TEXT, b"\xff\xfe\xfd"),
                4000,
            ),
            (
                "a frame beyond the limit",
                frame(true, own, &vec![b' '; limit as usize + 1]),
                4010,
            ),
            (
                "2^62 bytes announced",
                [&declared(true, own, true, 1 << 62)[..], &[0; 4]].concat(),
                4010,
            ),
            (
                "2^64-1 bytes announced",
                [&declared(true, own, true, u64::MAX)[..], &[0; 4]].concat(),
                4010,
            ),
            (
                "parts that are too much together",
                [
                    frame(false, own, &vec![b' '; limit as usize / 2 + 1]),
                    frame(true, 0, &vec![b' '; limit as usize / 2 + 1]),
                ]
                .concat(),
                4010,
            ),
        ];
        for (name, bytes, code) in cases {
            let mut fresh = Raw::open(node.address(), encoding).await;
            fresh.bytes(&bytes).await;
            assert_eq!(
                fresh.outcome().await,
                Outcome::Closed(code),
                "{name} in place of connect, {encoding:?}"
            );
            let mut session = node.session(encoding).await;
            session.bytes(&bytes).await;
            assert_eq!(
                session.outcome().await,
                Outcome::Closed(code),
                "{name} in a session, {encoding:?}"
            );
        }
        // A `connect` has 32 KiB, whatever other frames have.
        let mut fresh = Raw::open(node.address(), encoding).await;
        fresh
            .message(&encode_request(
                encoding,
                1,
                "connect",
                &json!({ "token": "x".repeat(33 * 1024) }),
            ))
            .await;
        assert_eq!(fresh.outcome().await, Outcome::Closed(4010));
        // What is allowed goes through: fragments, with a ping between them, and close frames of all kinds.
        let mut session = node.session(encoding).await;
        let parts = [
            frame(false, own, &ping[..2]),
            frame(true, 9, b"between"),
            frame(false, 0, &ping[2..5]),
            frame(true, 0, &ping[5..]),
        ];
        session.bytes(&parts.concat()).await;
        assert_eq!(session.outcome().await, Outcome::Reply(5, None));
        for close in [
            &b""[..],
            b"\x03\xe8",
            b"\x03\xe8bye",
            b"\x00\x00",
            b"\xff\xff",
            b"\x03",
            b"\x03\xe8\xff\xfe",
        ] {
            let mut session = node.session(encoding).await;
            session.bytes(&frame(true, 8, close)).await;
            let outcome = session.outcome().await;
            assert!(
                matches!(outcome, Outcome::Closed(_) | Outcome::Cut),
                "close with {close:?}: {outcome:?}"
            );
        }
    }
    node.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_type_in_any_field_of_any_method_is_answered() {
    let node = Node::start().await;
    for encoding in Encoding::ALL {
        let mut session = node.session(encoding).await;
        let mut id = 1;
        for method in Method::ALL.iter().copied() {
            let good = params(method, &mut ids);
            let fields: Vec<String> = good.as_object().unwrap().keys().cloned().collect();
            for field in &fields {
                let wrong = [
                    json!(true),
                    json!(-1),
                    json!(1.5),
                    json!(u64::MAX),
                    json!("\0"),
                    json!(""),
                    json!("x".repeat(20_000)),
                    json!([]),
                    json!([[[]]]),
                    json!([null]),
                    json!({ "": {} }),
                    json!(vec![0; 2_000]),
                ];
                for value in wrong {
                    id += 1;
                    let mut params = good.clone();
                    params[field] = value.clone();
                    session
                        .message(&encode_request(encoding, id, method.as_str(), &params))
                        .await;
                    match session.outcome().await {
                        Outcome::Reply(of, error) if of == id => {
                            assert_ne!(
                                error.as_deref(),
                                Some("internal"),
                                "{method:?} with {field} = {value}"
                            );
                        }
                        other => panic!("{method:?} with {field} = {value}: {other:?}"),
                    }
                }
            }
        }
        for name in [
            "",
            "connect\0",
            "message.sendd",
            "__proto__",
            "☃",
            &"m".repeat(10_000),
        ] {
            id += 1;
            session
                .message(&encode_request(encoding, id, name, &json!({})))
                .await;
            assert_eq!(
                session.outcome().await,
                Outcome::Reply(id, Some("unsupported".into())),
                "{name}"
            );
        }
    }
    node.is_well().await;
}

/// Changes some bytes, cuts, doubles or inserts.
fn mutate(rng: &mut SmallRng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = if bytes.is_empty() {
            0
        } else {
            rng.random_range(0..bytes.len())
        };
        match rng.random_range(0..5) {
            0 if !bytes.is_empty() => bytes[at] = rng.random(),
            1 if !bytes.is_empty() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 => bytes.truncate(at),
            3 => {
                let part = bytes[at..].to_vec();
                bytes.extend(part);
            }
            _ => bytes.insert(at, rng.random()),
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_changed_by_chance_are_answered_or_end_the_connection() {
    let seed: u64 = std::env::var("CHAOS_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(rand::random);
    println!("CHAOS_TEST_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let node = Node::start().await;
    for encoding in Encoding::ALL {
        let good: Vec<Vec<u8>> = Method::ALL
            .iter()
            .map(|method| encode_request(encoding, 77, method.as_str(), &params(*method, &mut ids)))
            .collect();
        let mut session = node.session(encoding).await;
        for round in 0..MUTATIONS {
            let chosen = rng.random_range(0..good.len());
            let payload = mutate(&mut rng, &good[chosen]);
            session.message(&payload).await;
            match session.outcome().await {
                Outcome::Reply(_, error) => {
                    assert_ne!(error.as_deref(), Some("internal"), "{}", show(&payload))
                }
                // A text that is no UTF-8 is no message at all.
                Outcome::Closed(4000) => session = node.session(encoding).await,
                other => panic!(
                    "round {round}, {encoding:?}: {other:?} after {}",
                    show(&payload)
                ),
            }
        }
        // The frames themselves, headers and all: after them nothing more comes, so that none waits for the rest of a frame.
        for round in 0..MUTATIONS / 10 {
            let opcode = if encoding == Encoding::Json {
                TEXT
            } else {
                BINARY
            };
            let chosen = rng.random_range(0..good.len());
            let bytes = mutate(&mut rng, &frame(true, opcode, &good[chosen]));
            let mut session = if round % 2 == 0 {
                node.session(encoding).await
            } else {
                Raw::open(node.address(), encoding).await
            };
            session.bytes(&bytes).await;
            session.hangs_up().await;
            loop {
                match session.outcome().await {
                    Outcome::Reply(_, error) => {
                        assert_ne!(error.as_deref(), Some("internal"), "{}", show(&bytes))
                    }
                    Outcome::Closed(_) | Outcome::Cut => break,
                    Outcome::Silence => panic!(
                        "round {round}, {encoding:?}: silence after {}",
                        show(&bytes)
                    ),
                }
            }
        }
    }
    node.is_well().await;
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_costs_no_memory_beyond_the_frame_limit() {
    let node = Node::start().await;
    let limit = Limits::default().frame_bytes as usize;
    let before = node.chaos.resident_bytes();
    let mut most = before;
    for round in 0..3 {
        let mut holders = Vec::new();
        for index in 0..HOLDERS {
            let encoding = Encoding::ALL[index % 2];
            let opcode = if encoding == Encoding::Json {
                TEXT
            } else {
                BINARY
            };
            let mut raw = Raw::open(node.address(), encoding).await;
            // Each announces as much as it may, brings all but the last byte of it, and waits.
            let mut bytes = declared(true, opcode, true, limit as u64);
            bytes.extend(vec![b' '; 4 + limit - 1]);
            raw.bytes(&bytes).await;
            holders.push(raw);
        }
        most = most.max(node.chaos.resident_bytes());
        for mut raw in holders {
            raw.bytes(b" ").await;
            let outcome = raw.outcome().await;
            assert!(
                matches!(outcome, Outcome::Closed(4000 | 4010)),
                "{outcome:?}"
            );
        }
        // And those that are refused at once, by the thousand.
        for index in 0..700 {
            let encoding = Encoding::ALL[index % 2];
            let mut raw = Raw::open(node.address(), encoding).await;
            let garbage = no_requests(encoding);
            raw.message(&garbage[index % garbage.len()].1).await;
            assert_eq!(raw.outcome().await, Outcome::Closed(4000));
        }
        println!("round {round}: {} MiB", node.chaos.resident_bytes() >> 20);
    }
    // Each holder may cost its frame, its buffers and its connection, twice over for what an allocator rounds up and keeps.
    let allowed = (HOLDERS * 2 * (limit + 32 * 1024)) as u64;
    println!(
        "{} MiB before, {} MiB at most; {} MiB more are allowed",
        before >> 20,
        most >> 20,
        allowed >> 20
    );
    assert!(most - before < allowed);
    until("the connections are gone", || async {
        node.chaos.resident_bytes() < before + allowed
    })
    .await;
    node.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_garbage_gets_a_status_or_an_end() {
    let node = Node::start().await;
    let address = node.address();
    let auth = format!("authorization: Bearer {}\r\n", node.shop.app_key);
    let head = |line: &str, headers: &str| {
        format!("{line} HTTP/1.1\r\nhost: x\r\n{auth}{headers}\r\n").into_bytes()
    };
    let post = |path: &str, headers: &str, body: &[u8]| {
        let mut bytes = head(
            &format!("POST {path}"),
            &format!("content-length: {}\r\n{headers}", body.len()),
        );
        bytes.extend(body);
        bytes
    };
    let json = "content-type: application/json\r\n";
    let deep = format!(
        r#"{{"metadata":{}1{}}}"#,
        r#"{"a":"#.repeat(10_000),
        "}".repeat(10_000)
    );
    let huge = vec![b' '; 70_000];
    let cases: Vec<(&'static str, Vec<u8>, &'static [u16])> = vec![
        (
            "no HTTP",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(),
            &[400],
        ),
        // Answered in its own language or not at all.
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[]),
        ("no version", b"GET /healthz\r\n\r\n".to_vec(), &[400]),
        (
            "a bad header",
            b"GET /healthz HTTP/1.1\r\nhost x\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "a NUL in a header",
            b"GET /healthz HTTP/1.1\r\nhost: \0\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "a NUL in the path",
            b"GET /v1/users/a\0b HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            &[400],
        ),
        (
            "a huge header",
            head(
                "GET /v1/users",
                &format!("x-large: {}\r\n", "x".repeat(100_000)),
            ),
            &[431],
        ),
        (
            "very many headers",
            head("GET /v1/users", &"x: y\r\n".repeat(1000)),
            &[431],
        ),
        (
            "a huge path",
            head(&format!("GET /v1/users/{}", "x".repeat(60_000)), ""),
            &[414, 431],
        ),
        (
            "two lengths",
            head(
                "POST /v1/users",
                &format!("{json}content-length: 2\r\ncontent-length: 3\r\n"),
            ),
            &[400],
        ),
        (
            "a negative length",
            head("POST /v1/users", &format!("{json}content-length: -1\r\n")),
            &[400],
        ),
        (
            "a length and chunks",
            head(
                "POST /v1/users",
                &format!("{json}content-length: 2\r\ntransfer-encoding: chunked\r\n"),
            ),
            &[400, 413],
        ),
        (
            "a bad chunk",
            [
                head(
                    "POST /v1/users",
                    &format!("{json}transfer-encoding: chunked\r\n"),
                ),
                b"zz\r\n".to_vec(),
            ]
            .concat(),
            &[400],
        ),
        (
            "a chunk of 2^64",
            [
                head(
                    "POST /v1/users",
                    &format!("{json}transfer-encoding: chunked\r\n"),
                ),
                b"FFFFFFFFFFFFFFFF\r\n".to_vec(),
            ]
            .concat(),
            &[400, 413],
        ),
        (
            "an announced huge body",
            head(
                "POST /v1/users",
                &format!("{json}content-length: 99999999999\r\n"),
            ),
            &[413],
        ),
        ("a huge body", post("/v1/users", json, &huge), &[413]),
        ("no JSON", post("/v1/users", json, b"{"), &[400]),
        ("a list", post("/v1/users", json, b"[]"), &[400]),
        (
            "a body that is no UTF-8",
            post("/v1/users", json, b"{\"first_name\":\"\xff\xfe\"}"),
            &[400],
        ),
        (
            "a deep body",
            post("/v1/users", json, deep.as_bytes()),
            &[400, 413],
        ),
        ("trailing bytes", post("/v1/users", json, b"{} {}"), &[400]),
        ("an empty body", post("/v1/users", json, b""), &[400]),
        (
            "a NUL in a text",
            post("/v1/users", json, br#"{"id":"a\u0000b"}"#),
            &[400],
        ),
        ("no content type", post("/v1/users", "", b"{}"), &[415]),
        (
            "another content type",
            post("/v1/users", "content-type: text/plain\r\n", b"{}"),
            &[415],
        ),
        (
            "a content type of garbage",
            post("/v1/users", "content-type: ;;;\u{ff}\r\n", b"{}"),
            &[415],
        ),
        (
            "an encoded body",
            post(
                "/v1/users",
                &format!("{json}content-encoding: gzip\r\n"),
                b"{}",
            ),
            &[415],
        ),
        (
            "a path upwards",
            head("GET /v1/users/../../etc/passwd", ""),
            &[404],
        ),
        (
            "a path upwards, hidden",
            head("GET /v1/users/..%2f..%2fetc%2fpasswd", ""),
            &[404],
        ),
        ("half an escape", head("GET /v1/users/%", ""), &[400, 404]),
        (
            "a broken escape",
            head("GET /v1/users/%zz", ""),
            &[400, 404],
        ),
        (
            "an escape that is no UTF-8",
            head("GET /v1/users/%ff%fe", ""),
            &[400, 404],
        ),
        ("an escaped NUL", head("GET /v1/users/%00", ""), &[404]),
        (
            "a query of garbage",
            head("GET /v1/users?limit=%ff&&&=&limit", ""),
            &[400],
        ),
        (
            "a negative limit",
            head("GET /v1/users?limit=-1", ""),
            &[400],
        ),
        (
            "a cursor of garbage",
            head("GET /v1/users?cursor=%00%7b%7d", ""),
            &[400],
        ),
        (
            "a bad idempotency key",
            post(
                "/v1/users",
                &format!("{json}idempotency-key: \x01\r\n"),
                b"{}",
            ),
            &[400],
        ),
        (
            "a long idempotency key",
            post(
                "/v1/users",
                &format!("{json}idempotency-key: {}\r\n", "k".repeat(300)),
                b"{}",
            ),
            &[400],
        ),
        (
            "a bad If-Match",
            head(
                "GET /v1/users/alice",
                "if-match: \u{7f}\r\nif-none-match: ???\r\n",
            ),
            &[200, 400],
        ),
        ("a method of its own", head("FROB /v1/users", ""), &[405]),
        (
            "CONNECT",
            b"CONNECT example.com:443 HTTP/1.1\r\nhost: example.com\r\n\r\n".to_vec(),
            &[400, 404, 405],
        ),
        ("TRACE", head("TRACE /v1/users", ""), &[405]),
        (
            "a bad credential",
            b"GET /v1/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer \xff\xfe\r\n\r\n".to_vec(),
            &[401],
        ),
        (
            "a huge credential",
            format!(
                "GET /v1/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n",
                "x".repeat(20_000)
            )
            .into_bytes(),
            &[401],
        ),
        ("an upgrade to nothing", head("GET /v1/ws", ""), &[400]),
        (
            "an upgrade without a key",
            head(
                "GET /v1/ws",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n",
            ),
            &[400],
        ),
        (
            "an upgrade of version 8",
            head(
                "GET /v1/ws",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 8\r\nsec-websocket-key: eA==\r\n",
            ),
            &[400],
        ),
        (
            "an upgrade to unknown sub-protocols",
            head(
                "GET /v1/ws",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\nsec-websocket-protocol: soap, graphql-ws\r\n",
            ),
            &[400],
        ),
        (
            "an upgrade by POST",
            head(
                "POST /v1/ws",
                "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n",
            ),
            &[405],
        ),
    ];
    // All at once: some are answered only when a deadline is over.
    let asked: Vec<_> = cases
        .into_iter()
        .map(|(name, bytes, allowed)| {
            (
                name,
                allowed,
                tokio::spawn(async move { http(address, &bytes).await }),
            )
        })
        .collect();
    let mut wrong = Vec::new();
    for (name, allowed, status) in asked {
        let status = status.await.unwrap();
        if status.map_or(!allowed.is_empty(), |status| !allowed.contains(&status)) {
            wrong.push(format!("{name}: {status:?}, not {allowed:?}"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    node.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_type_in_any_field_of_any_route_is_answered() {
    let node = Node::start().await;
    let team = node.shop.team();
    let document: Value = team.get("/v1/openapi.json").await.unwrap();
    let mut tried = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Some(schema) =
                operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str()
            else {
                continue;
            };
            let schema = &document["components"]["schemas"][schema.rsplit('/').next().unwrap()];
            let credential = if path.starts_with("/v1/organizations") {
                &node.shop.admin_key
            } else {
                &node.shop.app_key
            };
            let backend = node.shop.http(credential);
            let filled = path
                .replace("{org}", &node.shop.organization)
                .replace("{app}", &node.shop.app)
                .replace("{channel}", "general")
                .replace("{user}", "bob")
                .replace("{message}", "msg_00000000000000aa");
            for field in schema["properties"].as_object().unwrap().keys() {
                for value in [
                    json!(true),
                    json!(-1),
                    json!(1.5),
                    json!("\0"),
                    json!([[]]),
                    json!([null]),
                    json!({ "": {} }),
                    json!("x".repeat(5000)),
                ] {
                    let mut body = schema["example"].clone();
                    if !body.is_object() {
                        body = json!({});
                    }
                    body[field] = value.clone();
                    let method =
                        hyper::Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                    let answer = backend
                        .call(method.clone(), &filled)
                        .json(&body)
                        .send()
                        .await
                        .unwrap();
                    assert!(
                        answer.status.as_u16() < 500,
                        "{method} {filled} with {field} = {value}: {:?}",
                        answer.body
                    );
                    assert!(
                        answer.status.is_success()
                            || answer.json::<()>().unwrap_err().refusal().is_some(),
                        "{method} {filled}: {:?}",
                        answer.body
                    );
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 300, "{tried}");
    node.is_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_dawdles_is_shown_out() {
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    let node = Node::start().await;
    let address = node.address();
    // How long a connection lives that never finishes what it began.
    let lives = async |begin: Vec<u8>, drip: &'static [u8]| {
        let begun = std::time::Instant::now();
        let (mut reader, mut writer) = TcpStream::connect(address).await.unwrap().into_split();
        writer.write_all(&begin).await.unwrap();
        let dripping = tokio::spawn(async move {
            while !drip.is_empty() && writer.write_all(drip).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            std::future::pending::<()>().await;
        });
        let mut answer = Vec::new();
        let end = tokio::time::timeout(
            Duration::from_secs(20),
            tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut answer),
        )
        .await;
        dripping.abort();
        assert!(end.is_ok(), "it lives for ever");
        (
            begun.elapsed().as_secs_f32(),
            String::from_utf8_lossy(&answer).into_owned(),
        )
    };
    let upgrade = b"GET /v1/ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: eA==\r\n";
    let body = format!(
        "POST /v1/users HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: 50000\r\n\r\n",
        node.shop.app_key
    );
    let (headers, request_line, half, silent, slow_body, no_connect) = tokio::join!(
        lives(b"GET /v1/users HTTP/1.1\r\n".to_vec(), b"x: y\r\n"),
        lives(b"G".to_vec(), b"E"),
        lives(upgrade.to_vec(), b""),
        lives([&upgrade[..], b"\r\n"].concat(), b""),
        lives(body.into_bytes(), b" "),
        async { Raw::open(address, Encoding::Json).await.outcome().await },
    );
    assert!((4.5..8.0).contains(&headers.0), "headers: {headers:?}");
    assert!(
        (4.5..8.0).contains(&request_line.0),
        "a request line: {request_line:?}"
    );
    assert!((4.5..8.0).contains(&half.0), "half an upgrade: {half:?}");
    assert!(
        (9.5..14.0).contains(&silent.0),
        "an upgrade without connect: {:?}",
        silent.0
    );
    assert!(silent.1.contains("101 Switching Protocols"));
    assert!(
        (9.5..18.0).contains(&slow_body.0) && slow_body.1.contains("400 Bad Request"),
        "a body: {slow_body:?}"
    );
    assert_eq!(no_connect, Outcome::Closed(4001));
    node.is_well().await;
}
