#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanout::{
    bus::{Local, conformance::Recorder},
    record::Control,
};
use protocol::Limits;
use redis_testing::Server;
use store::{Append, EventBody, Keep, embedded::Embedded, redis::Redis, transfer::Transfer};

use super::*;
use crate::credential::SecretKey;

const KEEP_ALL: Keep = Keep {
    events: 0,
    bytes: 0,
};

async fn app_deletion_drops_what_was_deleted_before(store: Arc<impl Transfer + 'static>) {
    let services = Services::new(
        store.clone(),
        Limits::default(),
        SecretKey::new([7; 32]),
        "node",
    );
    let scope = Scope {
        app: AppId::from_bits(1),
        environment: Environment::Live,
    };
    let (general, bob): (ChannelId, UserId) = ("general".parse().unwrap(), "bob".parse().unwrap());
    let index = Commit::default()
        .put_value(CHANNELS, general.shared(), &true)
        .put_value(USERS, bob.shared(), &true);
    store.commit(&scope.index(), index).await.unwrap().unwrap();
    for partition in [scope.channel(&general), scope.user(&bob)] {
        let mut deleted = Commit::default().put_value(TOMBSTONE, ONLY, &true);
        let body = EventBody::Bytes(Bytes::from_static(&[0x80]), None);
        deleted.append.push(Append {
            kind: 200,
            reference: Bytes::new(),
            control: Control::None,
            body,
        });
        store.commit(&partition, deleted).await.unwrap().unwrap();
    }
    let until = Instant::now() + Duration::from_secs(60);
    assert_eq!(
        clear_channel(&services, &scope, &general, until)
            .await
            .unwrap(),
        JobStep::Done
    );
    assert_eq!(
        clear_user(&services, &scope, &bob, until).await.unwrap(),
        JobStep::Done
    );
    assert!(
        store
            .outline(&scope.channel(&general))
            .await
            .unwrap()
            .unwrap()
            .expires
            .is_none(),
        "a channel made anew goes on from there"
    );

    assert_eq!(
        clear_app(&services, &scope.app, until).await.unwrap(),
        JobStep::Done
    );
    for partition in [scope.channel(&general), scope.user(&bob), scope.index()] {
        let outline = store.outline(&partition).await.unwrap();
        assert!(
            outline.is_none_or(|outline| outline.expires.is_some()),
            "{} stays",
            partition.name()
        );
    }
}

async fn credentials_whose_creation_stopped_half_way_go_with_their_owner(
    store: Arc<impl Transfer + 'static>,
) {
    let services = Services::new(
        store.clone(),
        Limits::default(),
        SecretKey::new([7; 32]),
        "node",
    );
    let (organization, app) = (OrganizationId::from_bits(1), AppId::from_bits(2));
    let owners = [None, Some((app.clone(), Environment::Live))];
    let mut left = Vec::new();
    for (bits, owner) in (3..).zip(owners) {
        let credential = crate::keys::Credential {
            organization: organization.clone(),
            app: owner,
            key: protocol::KeyId::from_bits(bits),
        };
        let new = keys::new_key(&services, credential, None, None)
            .await
            .unwrap();
        left.push(new.partition());
    }
    let token_key = protocol::TokenKeyId::from_bits(5);
    token_keys::new_shared_key(
        &services,
        &organization,
        &app,
        Environment::Live,
        token_key.clone(),
    )
    .await
    .unwrap();
    left.push(schema::token_key(&token_key));
    for partition in &left {
        let outline = store.outline(partition).await.unwrap().unwrap();
        assert!(outline.expires.is_none(), "{}", partition.name());
    }

    let until = Instant::now() + Duration::from_secs(60);
    for step in [
        clear_app(&services, &app, until).await.unwrap(),
        clear_organization(&services, &organization, until)
            .await
            .unwrap(),
    ] {
        assert_eq!(step, JobStep::Done);
    }
    for partition in &left {
        let outline = store.outline(partition).await.unwrap();
        assert!(
            outline.is_none_or(|outline| outline.expires.is_some()),
            "{} stays",
            partition.name()
        );
    }
}

#[tokio::test]
async fn credentials_whose_creation_stopped_half_way_go_with_their_owner_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), KEEP_ALL, Local::new(Recorder::new())).unwrap();
    credentials_whose_creation_stopped_half_way_go_with_their_owner(Arc::new(store)).await;
}

#[tokio::test]
async fn credentials_whose_creation_stopped_half_way_go_with_their_owner_on_redis() {
    let server = Server::start().await;
    let store = Redis::open(&server.deployment(), KEEP_ALL);
    credentials_whose_creation_stopped_half_way_go_with_their_owner(Arc::new(store)).await;
}

#[tokio::test]
async fn app_deletion_drops_what_was_deleted_before_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), KEEP_ALL, Local::new(Recorder::new())).unwrap();
    app_deletion_drops_what_was_deleted_before(Arc::new(store)).await;
}

#[tokio::test]
async fn app_deletion_drops_what_was_deleted_before_on_redis() {
    let server = Server::start().await;
    app_deletion_drops_what_was_deleted_before(Arc::new(Redis::open(
        &server.deployment(),
        KEEP_ALL,
    )))
    .await;
}
