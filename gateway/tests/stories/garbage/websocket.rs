//! WebSocket frames and requests that no client sends.

use super::*;

/// Invalid payloads in valid frames.
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
async fn invalid_request_is_refused_before_and_after_connect() {
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
        // A `connect` is limited to 32 KiB, whatever the limit of other frames.
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
        // Valid input is accepted: fragments with a ping between them, and close frames of
        // all kinds.
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
        for method in methods() {
            let good = params(method);
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
                        .message(&encode_request(encoding, id, method, &params))
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

/// Changes, removes, duplicates or inserts some bytes.
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
        let good: Vec<Vec<u8>> = methods()
            .map(|method| encode_request(encoding, 77, method, &params(method)))
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
                // A text that is not UTF-8 is a protocol error.
                Outcome::Closed(4000) => session = node.session(encoding).await,
                other => panic!(
                    "round {round}, {encoding:?}: {other:?} after {}",
                    show(&payload)
                ),
            }
        }
        // Mutated frames, including their headers. The stream ends afterwards, so that none waits
        // for the rest of a frame.
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
            // Each announces the maximum, sends all but the last byte, and waits.
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
        // Thousands of frames that are refused at once.
        for index in 0..700 {
            let encoding = Encoding::ALL[index % 2];
            let mut raw = Raw::open(node.address(), encoding).await;
            let garbage = no_requests(encoding);
            raw.message(&garbage[index % garbage.len()].1).await;
            assert_eq!(raw.outcome().await, Outcome::Closed(4000));
        }
        println!("round {round}: {} MiB", node.chaos.resident_bytes() >> 20);
    }
    // Each connection may cost its frame, buffers and state, doubled for the overhead of the
    // allocator.
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
