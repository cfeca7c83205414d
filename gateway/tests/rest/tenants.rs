//! Organizations, apps and their keys.

use serde_json::json;

use super::node::{ADMIN, Node};

#[tokio::test]
async fn the_operator_makes_organizations() {
    let node = Node::start().await;
    let admin = node.by(ADMIN);
    let made = admin
        .post(
            "/v1/organizations",
            json!({ "name": "Acme", "email": "a@example.org", "banner": "https://x" }),
        )
        .await
        .is(201);
    let id = made.body["organization"]["id"].as_str().unwrap();
    assert!(
        made.body["key"]["secret"]
            .as_str()
            .unwrap()
            .starts_with("ork_")
    );
    let path = format!("/v1/organizations/{id}");
    assert_eq!(
        admin.get("/v1/organizations").await.is(200).body["items"][0]["id"],
        id
    );

    let owner = node.by(made.body["key"]["secret"].as_str().unwrap());
    let read = owner.get(&path).await.is(200);
    assert_eq!(read.body["banner"], "https://x");
    let changed = owner
        .patch(&path, json!({ "name": "Acme & Co", "banner": null }))
        .await
        .is(200);
    assert_eq!(
        (&changed.body["name"], changed.body.get("banner")),
        (&json!("Acme & Co"), None)
    );
    assert_ne!(read.etag(), changed.etag());
    owner
        .get("/v1/organizations")
        .await
        .refuses(403, "forbidden");
    owner
        .post("/v1/organizations", json!({ "name": "x", "email": "y@z" }))
        .await
        .refuses(403, "forbidden");
    admin
        .post("/v1/organizations", json!({ "name": "", "email": "y@z" }))
        .await
        .refuses(400, "bad_request");

    assert_eq!(owner.delete(&path).await.is(204).text, "");
    admin.get(&path).await.refuses(404, "not_found");
}

#[tokio::test]
async fn an_organization_makes_apps_and_keys() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let owner = node.by(&tenant.organization_key);
    let apps = format!("/v1/organizations/{}/apps", tenant.organization);
    assert_eq!(
        owner.get(&apps).await.is(200).body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    let app = owner.get(&tenant.base).await.is(200);
    assert_eq!(app.body["settings"]["create_users_from_tokens"], true);
    let changed = owner
        .patch(
            &tenant.base,
            json!({ "settings": { "create_users_from_tokens": false } }),
        )
        .await
        .is(200);
    assert_eq!(changed.body["settings"]["create_users_from_tokens"], false);
    assert_eq!(changed.body["name"], "Shop");

    for (kind, body) in [
        ("keys", json!({ "environment": "live", "name": "backend" })),
        (
            "token-keys",
            json!({ "environment": "test", "algorithm": "HS256" }),
        ),
    ] {
        let path = format!("{}/{kind}", tenant.base);
        let made = owner.post(&path, body).await.is(201);
        assert!(made.body["secret"].is_string());
        let listed = owner.get(&path).await.is(200);
        let line = listed.body["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|line| line["id"] == made.body["id"])
            .unwrap()
            .clone();
        assert!(line.get("secret").is_none(), "a secret is shown once");
        owner.delete(&format!("{path}/{}", made.id())).await.is(204);
        owner
            .delete(&format!("{path}/{}", made.id()))
            .await
            .refuses(404, "not_found");
    }
    let access = owner
        .post(
            &format!("{}/access", tenant.base),
            json!({ "environment": "test", "expires_in": 60 }),
        )
        .await
        .is(201);
    assert!(access.body["expires_at"].is_u64());
    node.by(access.body["secret"].as_str().unwrap())
        .get("/v1/users")
        .await
        .is(200);

    let path = format!("/v1/organizations/{}/keys", tenant.organization);
    // All fields of its body are optional, and so is the body.
    let made = owner
        .raw("POST".parse().unwrap(), &path, axum::body::Body::empty())
        .await
        .is(201);
    assert!(made.body["secret"].as_str().unwrap().starts_with("ork_"));
    assert_eq!(
        owner.get(&path).await.is(200).body["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    owner.delete(&format!("{path}/{}", made.id())).await.is(204);
    node.by(made.body["secret"].as_str().unwrap())
        .get(&apps)
        .await
        .refuses(401, "unauthenticated");

    owner.delete(&tenant.base).await.is(204);
    owner.get(&tenant.base).await.refuses(404, "not_found");
}

#[tokio::test]
async fn lists_are_paged_by_cursor() {
    let node = Node::start().await;
    let tenant = node.tenant().await;
    let owner = node.by(&tenant.organization_key);
    let apps = format!("/v1/organizations/{}/apps", tenant.organization);
    for name in ["a", "b"] {
        owner.post(&apps, json!({ "name": name })).await.is(201);
    }
    let mut found = Vec::new();
    let mut path = format!("{apps}?limit=2");
    loop {
        let page = owner.get(&path).await.is(200).body;
        found.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|app| app["id"].as_str().unwrap().to_owned()),
        );
        match page["cursor"].as_str() {
            Some(cursor) => path = format!("{apps}?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    let mut sorted = found.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((found.len(), &found), (3, &sorted));
    owner
        .get(&format!("{apps}?limit=0"))
        .await
        .refuses(400, "bad_request");
    let misfit = owner
        .get(&format!("{apps}?limit=many"))
        .await
        .refuses(400, "bad_request");
    assert_eq!(misfit.body["error"]["details"]["field"], "limit");
}
