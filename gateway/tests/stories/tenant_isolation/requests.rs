//! Requests for objects of another tenant, over both transports.

use super::*;

/// Sends an HTTP request, with the ids of `named` in the foreign parameters and the caller's own in
/// required ones.
pub(super) fn request(
    operation: &Declared,
    http: Http,
    who: Who,
    mine: &Tenant,
    foreign: &Foreign,
    named: &dyn Fn(Kind) -> String,
) -> Request {
    operation.request(http, &mut |place| {
        let is_sender = place.is_acting_user() && matches!(who, Who::App | Who::Access);
        match foreign {
            Foreign::One(one) if *one == place.name => Some(named(place.kind)),
            Foreign::All if place.is_required || is_sender => Some(named(place.kind)),
            _ if is_sender => Some("alice".to_owned()),
            _ => place.is_required.then(|| mine.id(place.kind)),
        }
    })
}

/// Returns another tenant's ids of these kinds, and ids that do not exist.
pub(super) fn pair(
    theirs: &Tenant,
    kinds: impl Iterator<Item = Kind>,
) -> (Vec<String>, Vec<String>) {
    let ids: Vec<String> = kinds.map(|kind| theirs.id(kind)).collect();
    let nobodys = ids.iter().map(|id| unused(id)).collect();
    (ids, nobodys)
}

/// Compares the answers of operations over HTTP. `creates` selects those that create the entity
/// they name, or the others.
pub(super) async fn try_http(
    world: &World,
    credentials: &[(Who, String)],
    mine: &Tenant,
    others: &[Tenant],
    creates: bool,
) -> usize {
    let mut compared = 0;
    for (who, credential) in credentials {
        let (who, caller) = (*who, world.backend(credential));
        for operation in variants() {
            let Some(http) = operation.about.http else {
                continue;
            };
            for foreign in ways(&operation.places) {
                let places = || {
                    operation
                        .places
                        .iter()
                        .filter(|place| foreign.is(&place.name))
                };
                if places().any(|place| operation.creates(place)) != creates {
                    continue;
                }
                for theirs in others {
                    if places().any(|place| who.reaches(mine, theirs, place.kind)) {
                        continue;
                    }
                    let (ids, nobodys) = pair(theirs, places().map(|place| place.kind));
                    let mut answers = Vec::new();
                    for (ids, is_theirs) in [(&ids, true), (&nobodys, false)] {
                        let named = |kind| {
                            if is_theirs {
                                theirs.id(kind)
                            } else {
                                unused(&theirs.id(kind))
                            }
                        };
                        let Request { method, path, body } =
                            request(&operation, http, who, mine, &foreign, &named);
                        let mut call = caller.request(method, &path);
                        if let Some(body) = body {
                            call = call.json(&body);
                        }
                        let answer = call.send().await.unwrap();
                        assert!(
                            !String::from_utf8_lossy(&answer.body).contains(&theirs.secret()),
                            "{who:?} reads through {path}"
                        );
                        answers.push(of_http(&answer, ids));
                    }
                    let name = operation.about.name;
                    assert_eq!(
                        answers[0], answers[1],
                        "{who:?} names what {} has: {name} {foreign:?}",
                        theirs.name
                    );
                    assert!(!answers[0].starts_with('5'), "{name}: {}", answers[0]);
                    compared += 1;
                }
            }
        }
    }
    compared
}

async fn ask(session: &Session, method: &str, params: &Value) -> String {
    match session.request::<_, Value>(method, params).await {
        Ok(result) => format!("result {result}"),
        Err(RequestError::Refused(error)) => {
            format!("error {}", serde_json::to_value(error).unwrap())
        }
        Err(other) => panic!("{method:?} {params}: {other}"),
    }
}

/// Returns a reply in a comparable form.
fn plain_reply(reply: &str, named: &[String]) -> String {
    let (head, body) = reply.split_once(' ').unwrap();
    format!("{head} {}", plain(body, named))
}

/// Compares the answers of operations over WebSocket.
pub(super) async fn try_websocket(
    world: &World,
    mine: &Tenant,
    others: &[Tenant],
    creates: bool,
) -> usize {
    static FRESH: AtomicU64 = AtomicU64::new(1 << 40);
    let mut compared = 0;
    for (who, encoding) in [("alice", Encoding::MessagePack), ("nobody", Encoding::Json)] {
        let quiet = Connect {
            watch: Watch::None,
            ..Connect::default()
        };
        let person = world.connects_to(0, who, encoding, quiet).await;
        for operation in variants()
            .into_iter()
            .filter(|operation| operation.about.websocket.is_some())
        {
            let method = operation.about.name;
            for foreign in ways(&operation.places) {
                let places = || {
                    operation
                        .places
                        .iter()
                        .filter(|place| foreign.is(&place.name))
                };
                if places().any(|place| operation.creates(place)) != creates {
                    continue;
                }
                for theirs in others {
                    let (ids, nobodys) = pair(theirs, places().map(|place| place.kind));
                    let mut replies = Vec::new();
                    for (ids, is_theirs) in [(&ids, true), (&nobodys, false)] {
                        let params = operation.params(&mut |place| match foreign.is(&place.name) {
                            true if is_theirs => Some(theirs.id(place.kind)),
                            true => Some(unused(&theirs.id(place.kind))),
                            // Each send has a new id, since a repeated one is answered whatever
                            // its other fields.
                            false
                                if operation.about.name == MessageSend::NAME
                                    && place.name == "message_id" =>
                            {
                                Some(format!(
                                    "msg_{:016x}",
                                    FRESH.fetch_add(1, Ordering::Relaxed)
                                ))
                            }
                            false => place.is_required.then(|| mine.id(place.kind)),
                        });
                        let reply = ask(&person.session, method, &params).await;
                        assert!(
                            !reply.contains(&theirs.secret()),
                            "{who} reads through {method:?}"
                        );
                        replies.push(plain_reply(&reply, ids));
                    }
                    assert_eq!(
                        replies[0], replies[1],
                        "{who} names what {} has: {method:?} {foreign:?}",
                        theirs.name
                    );
                    compared += 1;
                }
            }
        }
    }
    compared
}

/// Requests that refer to entities before there is a session, or with another tenant's token.
pub(super) async fn try_connect(world: &World, mine: &Tenant, others: &[Tenant]) {
    for theirs in others {
        let positions = [
            json!([]),
            json!([0, 0]),
            json!([1, 1_700_000_000_000u64]),
            json!([1u64 << 40, 1u64 << 50]),
        ];
        for (watch, entries) in [("none", "full"), ("none", "positions"), ("all", "full")] {
            for position in &positions {
                let mut answers = Vec::new();
                for channel in [theirs.id(Kind::Channel), unused(&theirs.id(Kind::Channel))] {
                    let params = json!({
                        "token": world.token("alice").await, "watch": watch, "entries": entries, "user_position": position,
                        "resume": { channel.clone(): position },
                    });
                    let params: Connect = serde_json::from_value(params).unwrap();
                    let connector = Connector::new(&world.url(0), Encoding::Json).unwrap();
                    let (session, _events) = connector.connect(&params).await.unwrap();
                    let connected = serde_json::to_value(session.connected())
                        .unwrap()
                        .to_string();
                    assert!(!connected.contains(&theirs.secret()));
                    answers.push(plain(&connected, &[channel]));
                    session.close(1000, "").await;
                }
                assert_eq!(
                    answers[0], answers[1],
                    "resume with {position}, {watch}, {entries}"
                );
            }
        }
        // A token of the other tenant does not refresh a session here, even for the same user id.
        let team = world.backend(&theirs.app_key);
        let minted: Value = team
            .post("/v1/users/alice/tokens", &json!({}))
            .await
            .unwrap();
        let alice = world.connects("alice").await;
        let foreign = ask(
            &alice.session,
            "token.refresh",
            &json!({ "token": minted["token"] }),
        )
        .await;
        let others_token = json!({ "token": world.token("carol").await });
        assert_eq!(
            foreign,
            ask(&alice.session, "token.refresh", &others_token).await
        );
        assert!(foreign.contains("forbidden"), "{foreign}");
        // A token key of the other tenant does not verify a token signed with another secret, just
        // like a missing one.
        let mut answers = Vec::new();
        for kid in [
            theirs.id(Kind::TokenKey),
            unused(&theirs.id(Kind::TokenKey)),
        ] {
            let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
            header.kid = Some(kid.clone());
            let now = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs();
            let claims = json!({ "sub": "alice", "iat": now, "exp": now + 600, "app_id": theirs.app, "environment": theirs.environment });
            let key = jsonwebtoken::EncodingKey::from_secret(b"guessed, guessed, guessed, guessed");
            let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
            let answer = world
                .backend(&token)
                .request(hyper::Method::GET, "/v1/channels")
                .send()
                .await
                .unwrap();
            let connect = Connector::new(&world.url(0), Encoding::Json).unwrap();
            let refused = connect
                .connect(&Connect {
                    token,
                    ..Connect::default()
                })
                .await
                .unwrap_err();
            answers.push((of_http(&answer, &[]), refused.to_string().replace(&kid, "")));
        }
        assert_eq!(answers[0], answers[1]);
        assert!(answers[0].0.starts_with("401"), "{answers:?}");
        // The signing key determines the tenant, not the claims.
        let seen: Value = world
            .backend(&world.token("alice").await)
            .get("/v1/channels")
            .await
            .unwrap();
        assert!(
            seen.to_string().contains(&mine.secret())
                && !seen.to_string().contains(&theirs.secret())
        );
    }
}
