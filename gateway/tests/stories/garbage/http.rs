//! HTTP requests that no client sends.

use super::*;

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
        // Either a valid HTTP answer or none.
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
    // Concurrently, since some are answered only after a timeout.
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
                        .request(method.clone(), &filled)
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
async fn slow_connections_are_closed() {
    use tokio::{io::AsyncWriteExt, net::TcpStream};

    let node = Node::start().await;
    let address = node.address();
    // Lifetime of a connection that never completes its request.
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
