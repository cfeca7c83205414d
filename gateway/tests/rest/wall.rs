//! The wall between tenants: what another app or environment has answers like what nobody has.

use axum::http::Method;
use gateway::rest::document;
use serde_json::{Value, json};

use super::{
    document::operations,
    node::{Node, Tenant},
};

/// What a tenant owns, by the names of the paths' parameters.
struct Belongings {
    ids: Vec<(&'static str, String)>,
    tenant: Tenant,
    token: String,
}

async fn belongings(node: &Node, user: &str) -> Belongings {
    let tenant = node.tenant().await;
    let token = node.user(&tenant.live, user).await;
    let owner = node.by(&tenant.organization_key);
    let app = node.by(&tenant.live);
    let channel = app
        .post(
            "/v1/channels",
            json!({ "type": "open", "name": "mine", "creator_id": user }),
        )
        .await
        .is(201)
        .id();
    let sent = app
        .post(
            &format!("/v1/channels/{channel}/messages"),
            json!({ "text": "mine", "sender_id": user }),
        )
        .await
        .is(201)
        .id();
    let key = owner
        .get(&format!("{}/keys", tenant.base))
        .await
        .is(200)
        .body["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let token_key = owner
        .post(
            &format!("{}/token-keys", tenant.base),
            json!({ "environment": "live", "algorithm": "HS256" }),
        )
        .await
        .id();
    let organization_key = owner
        .get(&format!("/v1/organizations/{}/keys", tenant.organization))
        .await
        .body["items"][0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let ids = vec![
        ("org", tenant.organization.clone()),
        ("app", tenant.app.clone()),
        ("app key", key),
        ("token key", token_key),
        ("org key", organization_key),
        ("user", user.to_owned()),
        ("channel", channel),
        ("message", sent),
    ];
    Belongings { ids, tenant, token }
}

impl Belongings {
    fn id(&self, name: &str) -> &str {
        &self.ids.iter().find(|(other, _)| *other == name).unwrap().1
    }

    /// Everything that can be read of it.
    async fn picture(&self, node: &Node) -> Vec<Value> {
        let (app, owner) = (
            node.by(&self.tenant.live),
            node.by(&self.tenant.organization_key),
        );
        let channel = self.id("channel");
        let mut seen = Vec::new();
        for path in [
            "/v1/users".to_owned(),
            "/v1/channels".to_owned(),
            format!("/v1/channels/{channel}/messages"),
            format!("/v1/channels/{channel}/participants"),
        ] {
            seen.push(app.get(&path).await.is(200).body);
        }
        for path in [
            format!("/v1/organizations/{}", self.tenant.organization),
            self.tenant.base.clone(),
            format!("{}/keys", self.tenant.base),
            format!("{}/token-keys", self.tenant.base),
        ] {
            seen.push(owner.get(&path).await.is(200).body);
        }
        seen
    }
}

fn name_of(parameter: &str, path: &str) -> &'static str {
    match parameter {
        "org" => "org",
        "app" => "app",
        "key" if path.contains("token-keys") => "token key",
        "key" if path.contains("/apps/") => "app key",
        "key" => "org key",
        "user" => "user",
        "channel" => "channel",
        "message" => "message",
        other => panic!("the wall does not know {other} in {path}: say what a tenant has of it"),
    }
}

fn unused(name: &str) -> &'static str {
    match name {
        "org" => "org_00000000000000ee",
        "app" => "app_00000000000000ee",
        "token key" => "tk_00000000000000ee",
        "app key" | "org key" => "key_00000000000000ee",
        "user" => "nobody-at-all",
        "channel" => "nowhere-at-all",
        _ => "msg_00000000000000ee",
    }
}

/// A body in which `id` stands wherever one can be named.
fn bodies(schema: &str, theirs: &Belongings, is_unused: bool) -> Value {
    let id = |name: &'static str| {
        if is_unused {
            unused(name).to_owned()
        } else {
            theirs.id(name).to_owned()
        }
    };
    match schema {
        "AddParticipant" => json!({ "user_id": id("user") }),
        "Batch_AddParticipant" => json!({ "items": [{ "user_id": id("user") }] }),
        "Batch_PutUser" => json!({ "items": [] }),
        "CreateChannel" => json!({ "type": "group", "participant_ids": [id("user")] }),
        "SendMessage" => json!({ "text": "x", "kind": "system", "reply_to_id": id("message") }),
        _ => Value::Null,
    }
}

#[tokio::test]
async fn what_is_another_tenants_answers_like_what_nobody_has() {
    let node = Node::start().await;
    let mine = belongings(&node, "mine").await;
    let theirs = belongings(&node, "theirs").await;
    let before = theirs.picture(&node).await;
    let document = document();
    let credentials = [
        ("organization_key", mine.tenant.organization_key.clone()),
        ("app_key", mine.tenant.live.clone()),
        // The other environment of the very app.
        ("app_key", theirs.tenant.test.clone()),
        ("user_token", mine.token.clone()),
    ];
    let mut compared = 0;
    for (method, path) in operations() {
        let operation = &document["paths"][&path][method.to_lowercase()];
        let schema =
            operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
        let schema = schema
            .and_then(|path| path.rsplit('/').next())
            .unwrap_or_default();
        let parameters: Vec<&str> = path
            .split(['{', '}'])
            .skip(1)
            .step_by(2)
            .filter(|name| *name != "emoji")
            .collect();
        let names_in_body = bodies(schema, &theirs, false) != bodies(schema, &theirs, true);
        if parameters.is_empty() && !names_in_body {
            continue;
        }
        for (kind, credential) in &credentials {
            if !operation["security"]
                .as_array()
                .into_iter()
                .flatten()
                .any(|one| one.get(*kind).is_some())
            {
                continue;
            }
            // Each parameter on its own is another's while those before it are the caller's; then the body.
            for foreign in 0..parameters.len() + usize::from(names_in_body) {
                let sent = |is_unused: bool| {
                    let mut filled = path.replace("{emoji}", "x");
                    for (place, parameter) in parameters.iter().enumerate() {
                        let name = name_of(parameter, &path);
                        let id = match place.cmp(&foreign) {
                            std::cmp::Ordering::Less => mine.id(name),
                            _ if is_unused => unused(name),
                            _ => theirs.id(name),
                        };
                        filled = filled.replace(&format!("{{{parameter}}}"), id);
                    }
                    if path.ends_with("{emoji}") && *kind == "app_key" {
                        filled = format!("{filled}?sender_id=mine");
                    }
                    let method = Method::from_bytes(method.as_bytes()).unwrap();
                    let body = operation.get("requestBody").map(|_| {
                        match bodies(schema, &theirs, is_unused) {
                            Value::Null => {
                                document["components"]["schemas"][schema]["example"].clone()
                            }
                            body => body,
                        }
                    });
                    (method, filled, body)
                };
                let is_create = method == "PUT" && !path.ends_with("{emoji}");
                let ((m1, p1, b1), (m2, p2, b2)) = (sent(false), sent(true));
                let caller = node.by(credential);
                let theirs_reply = caller.call(m1, &p1, b1).await;
                let nobodys_reply = caller.call(m2, &p2, b2).await;
                assert_eq!(
                    theirs_reply.status, nobodys_reply.status,
                    "{method} {p1} with {kind}: {} / {}",
                    theirs_reply.text, nobodys_reply.text
                );
                if !is_create {
                    assert_eq!(
                        theirs_reply.body, nobodys_reply.body,
                        "{method} {p1} with {kind}"
                    );
                    assert!(
                        theirs_reply.status >= 400 || path.ends_with("batch"),
                        "{method} {p1}: {}",
                        theirs_reply.text
                    );
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 80, "{compared}");
    assert_eq!(
        theirs.picture(&node).await,
        before,
        "and nothing of theirs changed"
    );
}
