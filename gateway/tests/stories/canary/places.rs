//! Every text field, over HTTP and WebSocket.

use super::*;

/// Sends a secret over HTTP: as the credential of every kind of route, and in every text field.
pub(super) async fn over_http(shop: &Shop, canary: &Canary, said: &mut Said) {
    let text = canary.text.as_str();
    let mut ask = async |caller: &Backend,
                         method: Method,
                         path: String,
                         header: Option<(&'static str, String)>,
                         body: Option<Value>| {
        let mut call = caller.request(method.clone(), &path);
        if let Some((name, value)) = &header {
            call = call.header(HeaderName::from_static(name), value);
        }
        if let Some(body) = &body {
            call = call.json(body);
        }
        let answer = call.send().await.unwrap();
        // A successful answer may contain the text of the request; a refusal may not.
        if answer.status.as_u16() >= 400 {
            let place = format!("{} {method} {path} {header:?} {body:?}", answer.status);
            said.note(
                place,
                format!(
                    "{:?} {}",
                    answer.headers,
                    String::from_utf8_lossy(&answer.body)
                ),
            );
        }
    };
    let bearer = shop.http(text);
    let (organization, app) = (&shop.organization, &shop.app);
    for path in [
        "/v1/organizations".to_owned(),
        format!("/v1/organizations/{organization}"),
        format!("/v1/organizations/{organization}/apps/{app}/keys"),
        "/v1/users".to_owned(),
        "/v1/users/alice".to_owned(),
        "/v1/channels".to_owned(),
        "/v1/channels/none".to_owned(),
    ] {
        ask(&bearer, Method::GET, path.clone(), None, None).await;
        ask(
            &bearer,
            Method::POST,
            path,
            None,
            Some(json!({ "type": text, "name": [text], "email": text })),
        )
        .await;
    }
    let (team, owner, anybody) = (shop.team(), shop.http(&shop.admin_key), shop.http(""));
    for value in [
        text.to_owned(),
        format!("Basic {text}"),
        format!("bearer  {text} {text}"),
        format!("Bearer {text}x"),
    ] {
        ask(
            &anybody,
            Method::GET,
            "/v1/users".into(),
            Some(("authorization", value)),
            None,
        )
        .await;
    }
    for name in [
        "idempotency-key",
        "if-match",
        "if-none-match",
        "x-request-id",
        "cookie",
        "origin",
        "content-type",
        "content-encoding",
        "x-forwarded-for",
    ] {
        ask(
            &team,
            Method::POST,
            "/v1/users".into(),
            Some((name, text.into())),
            Some(json!({ "id": "!" })),
        )
        .await;
        ask(
            &team,
            Method::PATCH,
            "/v1/users/nobody".into(),
            Some((name, text.into())),
            Some(json!({})),
        )
        .await;
    }
    for path in [
        format!("/{text}"),
        format!("/v1/{text}"),
        format!("/v1/users/{text}"),
        format!("/v1/users/{text}/unread"),
        format!("/v1/channels/{text}"),
        format!("/v1/channels/{text}/messages/{text}"),
        format!("/v1/channels/general/participants/{text}"),
        format!("/v1/users?cursor={text}{text}"),
        format!("/v1/users?limit={text}"),
        format!("/v1/channels?type={text}"),
        format!("/v1/channels?ids=!{text}"),
        format!("/v1/channels?participant_id=!{text}&access_token={text}"),
        format!("/v1/channels/general/messages?before={text}&{text}=1"),
        format!("/v1/ws?token={text}"),
    ] {
        for method in [Method::GET, Method::DELETE, Method::OPTIONS] {
            ask(&team, method, path.clone(), None, None).await;
        }
    }
    for path in [
        "",
        "/apps",
        "/keys/x",
        "/apps/x/keys",
        "/apps/x/token-keys/x",
    ] {
        ask(
            &owner,
            Method::GET,
            format!("/v1/organizations/{text}{}", path.replace('x', text)),
            None,
            None,
        )
        .await;
    }
    let base = format!("/v1/organizations/{organization}/apps/{app}");
    for (caller, path, body) in [
        (
            &owner,
            format!("{base}/keys"),
            json!({ "environment": text }),
        ),
        (
            &owner,
            format!("{base}/token-keys"),
            json!({ "environment": "live", "algorithm": text }),
        ),
        (
            &owner,
            format!("{base}/token-keys"),
            json!({ "environment": "live", "algorithm": "EdDSA", "public_key": text }),
        ),
        (
            &owner,
            format!("{base}/access"),
            json!({ "environment": "live", "expires_in": text }),
        ),
        (&team, "/v1/channels".into(), json!({ "type": text })),
        (
            &team,
            "/v1/channels".into(),
            json!({ "type": "group", "participant_ids": [text, format!("!{text}")] }),
        ),
        (
            &team,
            "/v1/channels/general/participants".into(),
            json!({ "user_id": text }),
        ),
        (
            &team,
            "/v1/channels/general/participants".into(),
            json!({ "user_id": "bob", "role": text }),
        ),
        (
            &team,
            "/v1/channels/general/messages".into(),
            json!({ "sender_id": text, "text": "t" }),
        ),
        (
            &team,
            "/v1/channels/general/messages".into(),
            json!({ "sender_id": "alice", "message_id": text, "text": "t" }),
        ),
        (
            &team,
            "/v1/channels/general/messages".into(),
            json!({ "sender_id": "alice", "text": text }),
        ),
        (
            &team,
            "/v1/users".into(),
            json!({ "bot": text, text: text }),
        ),
        (
            &team,
            "/v1/users".into(),
            json!({ "id": format!("{text}!") }),
        ),
        (&team, "/v1/users".into(), json!({ "metadata": text })),
        (
            &team,
            "/v1/users/alice/tokens".into(),
            json!({ "expires_in": text }),
        ),
    ] {
        ask(caller, Method::POST, path, None, Some(body)).await;
    }
    // In unusual places, too.
    for raw in [
        format!("GET /v1/users HTTP/1.1\r\nhost: x\r\n{text}\r\n\r\n"),
        format!("{text} /v1/users HTTP/1.1\r\nhost: x\r\n\r\n"),
        format!("GET /v1/users HTTP/{text}\r\nhost: x\r\n\r\n"),
        format!(
            "POST /v1/users HTTP/1.1\r\nhost: {text}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{text}",
            shop.app_key,
            text.len()
        ),
    ] {
        said.note("raw HTTP", http_answer(shop.address, raw.as_bytes()).await);
    }
}

/// Sends a secret over WebSocket: as the token, and in every text field.
pub(super) async fn over_websocket(shop: &Shop, canary: &Canary, said: &mut Said) {
    let text = canary.text.as_str();
    for encoding in Encoding::ALL {
        let connector = Connector::new(
            &format!("ws://{}/v1/ws?token={text}", shop.address),
            encoding,
        )
        .unwrap();
        for params in [
            Connect {
                token: text.to_owned(),
                ..Connect::default()
            },
            Connect {
                token: format!("{text}x"),
                client: Some(text.to_owned()),
                ..Connect::default()
            },
        ] {
            match connector.connect(&params).await {
                Ok((session, _)) => session.close(1000, "").await,
                Err(ConnectError::Refused { error, closed }) => {
                    said.note("connect", format!("{error:?} {closed}"))
                }
                Err(other) => panic!("{other}"),
            }
        }
        let value = HeaderValue::from_str(text).unwrap();
        for name in [SEC_WEBSOCKET_PROTOCOL, ORIGIN] {
            if let Err(error) = connector.clone().header(name, value.clone()).open().await {
                said.note("upgrade", error.to_string());
            }
        }
        let mut raw = Raw::open(shop.address, encoding).await;
        raw.message(text.as_bytes()).await;
        assert_eq!(raw.outcome().await, Outcome::Closed(4000));

        let (session, _events) = shop.connects("alice", encoding).await;
        for params in [
            json!({ "token": text }),
            json!({ "channel_id": text, "message_id": text, "user_id": text, "emoji": text, "text": "t" }),
            json!({ "channel_id": format!("!{text}"), "channels": { text: [] }, "user_ids": [format!("!{text}")] }),
            json!({ "channel_id": "general", "message_id": text, "role": text, "cursor": format!("{text}{text}"), "text": "t" }),
            json!({ "channel_id": "general", "number": text, "typing": text, "limit": text, "type": text, "first_name": [text] }),
        ] {
            for method in protocol::operation::methods() {
                match session.request::<_, Value>(method, &params).await {
                    Ok(_) => {}
                    Err(RequestError::Refused(error)) => {
                        said.note(format!("{method:?} {params}"), format!("{error:?}"))
                    }
                    Err(other) => panic!("{method:?}: {other}"),
                }
            }
        }
        session.close(1000, text).await;
    }
}
