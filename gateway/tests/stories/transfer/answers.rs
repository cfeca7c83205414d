//! All responses of an app, to be compared before and after a move.

use std::collections::BTreeMap;

use axum::http::{Method as Verb, header::ETAG};
use protocol::{
    Cursor, Encoding,
    operation::session::{Connect, Watch},
};
use serde_json::{Value, json};
use store::Position;

use super::busy::Busy;
use crate::story::World;

/// Responses by request.
pub(super) type Answers = BTreeMap<String, String>;

/// Reads everything over HTTP with each credential, and over a session of each user.
pub(super) async fn all(world: &World, busy: &Busy) -> Answers {
    let mut answers = Answers::new();
    let organization = format!("/v1/organizations/{}", world.organization);
    let app = format!("{organization}/apps/{}", world.app);
    read(
        world,
        ("admin", &world.admin_key),
        "/v1/organizations",
        &mut answers,
    )
    .await;
    for path in [
        &organization,
        &format!("{organization}/keys"),
        &format!("{organization}/apps"),
    ] {
        read(
            world,
            ("owner", &world.organization_key),
            path,
            &mut answers,
        )
        .await;
    }
    for path in [&app, &format!("{app}/keys"), &format!("{app}/token-keys")] {
        read(
            world,
            ("owner", &world.organization_key),
            path,
            &mut answers,
        )
        .await;
    }
    for key in [("live", &world.app_key), ("test", &busy.test_key)] {
        for user in ids(&read(world, key, "/v1/users?limit=200", &mut answers).await) {
            for rest in ["", "/channels", "/unread"] {
                read(world, key, &format!("/v1/users/{user}{rest}"), &mut answers).await;
            }
        }
        for channel in ids(&read(world, key, "/v1/channels?limit=200", &mut answers).await) {
            let path = format!("/v1/channels/{channel}");
            for rest in [
                "",
                "/participants",
                "/messages",
                "/messages?before=9",
                "/messages?after=3&limit=2",
                "/messages?changed_after=7",
            ] {
                read(world, key, &format!("{path}{rest}"), &mut answers).await;
            }
            for message in ids(&read(
                world,
                key,
                &format!("{path}/messages?limit=200"),
                &mut answers,
            )
            .await)
            {
                read(
                    world,
                    key,
                    &format!("{path}/messages/{message}"),
                    &mut answers,
                )
                .await;
            }
        }
        // Deleted entities, and some that never existed.
        for path in [
            "/v1/users/gone",
            "/v1/users/nobody",
            "/v1/channels/short",
            "/v1/channels/none",
        ] {
            read(world, key, path, &mut answers).await;
        }
    }
    for user in ["ada", "bob", "cem"] {
        sessions(world, user, &mut answers).await;
    }
    answers
}

async fn read(
    world: &World,
    (who, key): (&str, &String),
    path: &str,
    answers: &mut Answers,
) -> Value {
    let answer = world
        .backend(key)
        .request(Verb::GET, path)
        .send()
        .await
        .unwrap();
    let body = String::from_utf8(answer.body.to_vec()).unwrap();
    answers.insert(
        format!("{who} asks {path}"),
        format!("{} {:?} {body}", answer.status, answer.header(&ETAG)),
    );
    serde_json::from_str(&body).unwrap()
}

fn ids(list: &Value) -> Vec<String> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

async fn sessions(world: &World, user: &str, answers: &mut Answers) {
    let person = world
        .connects_to(0, user, Encoding::MessagePack, Connect::default())
        .await;
    let mut connected = serde_json::to_value(person.connected()).unwrap();
    connected.as_object_mut().unwrap().remove("session_id");
    let mut asked = vec![
        ("channel.list", json!({})),
        ("presence.watch", json!({ "user_ids": ["eve", "nobody"] })),
    ];
    for entry in connected["channels"].as_array().unwrap() {
        let channel = &entry["channel_id"];
        asked.push((
            "message.list",
            json!({ "channel_id": channel, "limit": 200 }),
        ));
        asked.push((
            "message.list",
            json!({ "channel_id": channel, "changed_after": 5, "limit": 200 }),
        ));
        asked.push(("participant.list", json!({ "channel_id": channel })));
    }
    answers.insert(format!("{user} connects"), connected.to_string());
    for (method, params) in asked {
        let mut answer = person.asks(method, params.clone()).await;
        if let Some(people) = answer["presence"].as_object_mut() {
            // The time of the request.
            people
                .values_mut()
                .for_each(|person| drop(person.as_object_mut().unwrap().remove("at")));
        }
        answers.insert(format!("{user} asks {method} {params}"), answer.to_string());
    }
    person.session.abort().await;
}

/// Resumes a channel, and returns the entry and the events up to its head.
pub(super) async fn resume(
    world: &World,
    user: &str,
    channel: &str,
    Position { seq, at }: Position,
) -> Vec<String> {
    let resume = [(channel.parse().unwrap(), Cursor::After(seq, at))].into();
    let quiet = Connect {
        watch: Watch::None,
        resume,
        ..Connect::default()
    };
    let mut person = world
        .connects_to(0, user, Encoding::MessagePack, quiet)
        .await;
    let entry = serde_json::to_value(&person.connected().channels[0]).unwrap();
    let mut told = vec![entry.to_string()];
    if entry["gap"].is_null() {
        for _ in seq..entry["seq"].as_u64().unwrap() {
            told.push(
                serde_json::to_value(person.next().await)
                    .unwrap()
                    .to_string(),
            );
        }
    }
    person.session.abort().await;
    told
}
