#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::sync::Arc;

use fanout::bus::{Local, conformance::Recorder};
use protocol::{AppId, ErrorCode, Limits, Metadata, entity::Environment};
use store::{Keep, embedded::Embedded};

use super::*;
use crate::credential::SecretKey;
use crate::credential::Who;

fn pair(a: &str, b: &str) -> Vec<(UserId, Role)> {
    [a, b].map(|id| (id.parse().unwrap(), Role::Owner)).to_vec()
}

fn services(folder: &tempfile::TempDir, secret: u8) -> Services {
    let bus = Local::new(Recorder::new());
    let path = folder.path().join(secret.to_string());
    std::fs::create_dir(&path).unwrap();
    let store = Embedded::open(
        &path,
        Keep {
            events: 0,
            bytes: 0,
        },
        bus,
    )
    .unwrap();
    Services::new(
        Arc::new(store),
        Limits::default(),
        SecretKey::new([secret; 32]),
        "node",
    )
}

#[tokio::test]
async fn direct_channel_ids_depend_on_the_secret_key_the_tenant_and_both_users() {
    let folder = tempfile::tempdir().unwrap();
    let (services, others) = (services(&folder, 7), services(&folder, 8));
    let scope = |app, environment| Scope {
        app: AppId::from_bits(app),
        environment,
    };
    let live = scope(1, Environment::Live);
    let id = direct_id(&services, &live, &pair("alice", "bob")).unwrap();
    assert_eq!(
        direct_id(&services, &live, &pair("bob", "alice")).unwrap(),
        id
    );
    assert_ne!(
        direct_id(&others, &live, &pair("alice", "bob")).unwrap(),
        id
    );
    assert_ne!(
        direct_id(&services, &live, &pair("alice", "carol")).unwrap(),
        id
    );
    assert_ne!(
        direct_id(
            &services,
            &scope(1, Environment::Test),
            &pair("alice", "bob")
        )
        .unwrap(),
        id
    );
    assert_ne!(
        direct_id(
            &services,
            &scope(2, Environment::Live),
            &pair("alice", "bob")
        )
        .unwrap(),
        id
    );
}

#[tokio::test]
async fn a_direct_channel_of_another_pair_with_the_same_id_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let services = services(&folder, 7);
    let scope = Scope {
        app: AppId::from_bits(1),
        environment: Environment::Live,
    };
    let app = Actor {
        scope: scope.clone(),
        who: Who::App {
            key: protocol::KeyId::from_bits(0),
        },
    };
    for name in ["alice", "bob", "carol"] {
        let user = Commit::default().put_value(
            ENTITY,
            ONLY,
            &serde_json::json!({ "id": name, "bot": false, "metadata": {} }),
        );
        services
            .commit(&scope.user(&name.parse().unwrap()), user)
            .await
            .unwrap()
            .unwrap();
    }
    let channel = |creator: &str| Channel {
        id: direct_id(&services, &scope, &pair("alice", "bob")).unwrap(),
        kind: ChannelType::Direct,
        name: None,
        description: None,
        icon: None,
        banner: None,
        creator_id: Some(creator.parse().unwrap()),
        metadata: Metadata::default(),
        created_at: 0,
        participant_count: 0,
    };
    // As if the hashes of both pairs were the same.
    make_channel(
        &services,
        &app,
        NewChannel {
            scope: &app.scope,
            channel: channel("carol"),
            members: pair("carol", "bob"),
            found: Found::Is,
        },
    )
    .await
    .unwrap();
    let body = CreateChannel {
        kind: ChannelType::Direct,
        participant_ids: vec!["alice".parse().unwrap(), "bob".parse().unwrap()],
        ..empty()
    };
    let error = create_channel(&services, &app, body).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Conflict);
}

fn empty() -> CreateChannel {
    serde_json::from_value(serde_json::json!({ "type": "group" })).unwrap()
}
