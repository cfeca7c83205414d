//! Imports of apps whose organization the store has.

use domain::credential::hex;
use protocol::operation::organization::OrganizationCreated;
use sha2::{Digest, Sha256};

use super::*;

/// Returns an export with `from` replaced by `to`, and the footer to match.
fn forged(export: &str, from: &str, to: &str) -> String {
    let mut lines: Vec<_> = export.lines().collect();
    let mut footer: Value = serde_json::from_str(lines.pop().unwrap()).unwrap();
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.replace(from, to));
        text.push('\n');
    }
    footer["end"]["sha256"] = json!(hex(&Sha256::digest(&text)));
    format!("{text}{footer}\n")
}

async fn forged_organization_is_refused(store_kind: StoreKind, is_forged_first: bool) {
    let mut world = World::with(StoreKind::Embedded, 1, &super::super::FLAGS).await;
    let body = json!({ "name": "Evil", "email": "evil@evil.example" });
    let evil: OrganizationCreated = world
        .backend(&world.admin_key)
        .post("/v1/organizations", &body)
        .await
        .unwrap();
    let evil_key = evil.key.secret.unwrap();
    let apps = format!("/v1/organizations/{}/apps", evil.organization.id);
    let evil_app: Value = world
        .backend(&evil_key)
        .post(&apps, &json!({ "name": "Chat" }))
        .await
        .unwrap();
    let evil_app = evil_app["id"].as_str().unwrap().to_owned();
    let _: Value = world.team().put("/v1/users/ada", &json!({})).await.unwrap();

    let folder = tempfile::tempdir().unwrap();
    let [genuine, fake] = ["genuine.jsonl", "fake.jsonl"].map(|name| folder.path().join(name));
    world.exports(&genuine).await;
    let app = std::mem::replace(&mut world.app, evil_app.clone());
    world.exports(&fake).await;
    world.app = app;
    let text = fs::read_to_string(&fake).unwrap();
    let evil_id = evil.organization.id.as_str();
    fs::write(&fake, forged(&text, evil_id, &world.organization)).unwrap();

    let words = world.leaves_for(store_kind).await;
    let (first, second) = if is_forged_first {
        (&fake, &genuine)
    } else {
        (&genuine, &fake)
    };
    chaos(&["import", "--from", first.to_str().unwrap()], &words)
        .await
        .unwrap();
    let sentence = chaos(&["import", "--from", second.to_str().unwrap()], &words)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        sentence.contains(&world.organization) && sentence.contains("compare them"),
        "{sentence}"
    );

    world.goes_on().await;
    let is_genuine = !is_forged_first;
    let path = format!("/v1/organizations/{}/apps", world.organization);
    for (key, is_valid) in [
        (&world.organization_key, is_genuine),
        (&evil_key, !is_genuine),
    ] {
        let list = world.backend(key).get::<Value>(&path).await;
        assert_eq!(list.is_ok(), is_valid, "{list:?}");
        if let Ok(list) = list {
            assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
        }
    }
    let user = world.team().get::<Value>("/v1/users/ada").await;
    assert_eq!(user.is_ok(), is_genuine, "{user:?}");
    if let StoreProcess::Redis(server, _) = &world.store_process {
        let refused = if is_forged_first {
            &world.app
        } else {
            &evil_app
        };
        let keys = server.command(&["KEYS", &format!("*{refused}*")]).await;
        assert_eq!(keys.unwrap(), redis::Value::Array(Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn genuine_organization_is_refused_after_a_forged_one() {
    for store_kind in [StoreKind::Embedded, StoreKind::Redis] {
        forged_organization_is_refused(store_kind, true).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forged_organization_is_refused_after_the_genuine_one() {
    for store_kind in [StoreKind::Embedded, StoreKind::Redis] {
        forged_organization_is_refused(store_kind, false).await;
    }
}
