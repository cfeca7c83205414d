//! The log of ended sessions, as two nodes read it.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use domain::{
    apps,
    credential::Principal,
    ended::{self, EndedHandler, Ending, Follower},
    schema::deployment as deployment_partition,
    sessions, token_keys, tokens, users,
};
use protocol::{
    CloseCode, Limits,
    entity::{Algorithm, Environment},
    operation::user::{Disconnect, MintToken},
};
use store::{Append, Commit, EventBody, Keep};

use crate::story::{Deployment, scope};

#[derive(Debug, Default)]
struct Heard(Mutex<(Vec<Ending>, usize)>);

#[async_trait]
impl EndedHandler for Heard {
    async fn ended(&self, what: &Ending, at: u64) {
        assert!(at > 0);
        self.0.lock().unwrap().0.push(what.clone());
    }
    async fn all(&self) {
        self.0.lock().unwrap().1 += 1;
    }
}

impl Heard {
    fn take(&self) -> Vec<Ending> {
        std::mem::take(&mut self.0.lock().unwrap().0)
    }
    fn all_count(&self) -> usize {
        self.0.lock().unwrap().1
    }
}

#[tokio::test]
async fn every_node_receives_each_ending_once_and_in_order() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let actor = backend.actor().unwrap();
    let alice = deployment.user(&backend, "alice").await;
    let signer = deployment.signer(&tenant, Algorithm::HS256).await;
    // Endings from before the followers started are ignored.
    sessions::disconnect_user(&deployment.services, actor, &alice, Disconnect::default())
        .await
        .unwrap();

    let (here, there) = (Arc::new(Heard::default()), Arc::new(Heard::default()));
    let (other, _) = deployment.another_node();
    let mut nodes = [
        (
            Follower::start(deployment.services.clone(), here.clone())
                .await
                .unwrap(),
            here,
        ),
        (Follower::start(other, there.clone()).await.unwrap(), there),
    ];
    let services = &deployment.services;
    sessions::disconnect_user(services, actor, &alice, Disconnect::default())
        .await
        .unwrap();
    sessions::disconnect_user(services, actor, &alice, Disconnect { revoke: true })
        .await
        .unwrap();
    let revoked = tokens::mint_token(services, actor, &alice, MintToken::default())
        .await
        .unwrap()
        .expires_at
        / 1000
        - 3601;
    token_keys::revoke_token_key(
        services,
        &Principal::Admin,
        &tenant.organization,
        &tenant.app,
        &signer.id,
    )
    .await
    .unwrap();
    users::delete_user(services, actor, &alice, None)
        .await
        .unwrap();
    apps::delete_app(
        services,
        &Principal::Admin,
        &tenant.organization,
        &tenant.app,
        None,
    )
    .await
    .unwrap();
    for (follower, heard) in &mut nodes {
        follower.poll().await.unwrap();
        let live = scope(&tenant, Environment::Live);
        let told = heard.take();
        assert_eq!(told.len(), 5, "{told:?}");
        assert_eq!(
            told[0],
            Ending::user(&live, &alice, None, CloseCode::GoingAway)
        );
        let Ending::User {
            issued_until: Some(until),
            ..
        } = &told[1]
        else {
            panic!("{told:?}")
        };
        assert!(revoked.abs_diff(*until) <= 1);
        assert_eq!(told[1].close(), CloseCode::SessionEnded);
        assert_eq!(
            told[2],
            Ending::TokenKey {
                id: signer.id.clone()
            }
        );
        assert_eq!(
            told[3],
            Ending::user(&live, &alice, None, CloseCode::SessionEnded)
        );
        assert_eq!(
            told[4],
            Ending::App {
                id: tenant.app.clone()
            }
        );
        follower.poll().await.unwrap();
        assert_eq!((heard.take(), heard.all_count()), (vec![], 0));
    }
}

#[tokio::test]
async fn a_node_that_missed_entries_has_all_sessions_checked() {
    let deployment = Deployment::keeping(
        Limits::default(),
        Keep {
            events: 2,
            bytes: 0,
        },
    );
    let tenant = deployment.tenant("a").await;
    let heard = Arc::new(Heard::default());
    let mut follower = Follower::start(deployment.services.clone(), heard.clone())
        .await
        .unwrap();
    let end = async || {
        ended::end_sessions(
            &deployment.services,
            Ending::App {
                id: tenant.app.clone(),
            },
        )
        .await
        .unwrap()
    };
    end().await;
    follower.poll().await.unwrap();
    assert_eq!((heard.take().len(), heard.all_count()), (1, 0));
    for _ in 0..5 {
        end().await;
    }
    // This log has its own retention, independent of that of channels.
    let trim = Append {
        kind: 1,
        reference: Bytes::new(),
        control: Default::default(),
        body: EventBody::Bytes(Bytes::from_static(&[0x80]), None),
    };
    let trim = Commit {
        append: vec![trim],
        keep: Some(Keep {
            events: 2,
            bytes: 0,
        }),
        ..Commit::default()
    };
    deployment
        .services
        .store
        .commit(&deployment_partition(), trim)
        .await
        .unwrap()
        .unwrap();
    follower.poll().await.unwrap();
    assert_eq!((heard.take().len(), heard.all_count()), (0, 1));
    end().await;
    follower.poll().await.unwrap();
    assert_eq!(
        (heard.take().len(), heard.all_count()),
        (1, 1),
        "it goes on from there"
    );
}

#[tokio::test]
async fn endings_of_the_own_node_apply_at_once_and_clocks_are_compared() {
    let deployment = Deployment::start();
    deployment.later(Duration::from_secs(3600));
    let heard = Arc::new(Heard::default());
    let follower = Follower::start(deployment.services.clone(), heard.clone())
        .await
        .unwrap();
    let running = tokio::spawn(follower.run());
    let app: protocol::AppId = "app_0123456789abcdef".parse().unwrap();
    ended::end_sessions(&deployment.services, Ending::App { id: app })
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while heard.take().is_empty() {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let store = deployment.store.now().await.unwrap();
    assert!(
        deployment.services.clock.now_ms().abs_diff(store) < 60_000,
        "the hour between the clocks is known"
    );
    running.abort();
}

#[tokio::test]
async fn a_disconnection_counts_the_sessions_of_all_nodes() {
    let deployment = Deployment::start();
    let tenant = deployment.tenant("a").await;
    let backend = deployment.backend(&tenant, Environment::Live).await;
    let actor = backend.actor().unwrap();
    let alice = deployment.user(&backend, "alice").await;
    let member = scope(&tenant, Environment::Live).member(&alice);
    for (node, sessions) in [("n1", 2), ("n2", 3)] {
        deployment
            .store
            .lease(
                node,
                Duration::from_secs(60),
                vec![(member.clone(), sessions)],
            )
            .await
            .unwrap();
    }
    let ended =
        sessions::disconnect_user(&deployment.services, actor, &alice, Disconnect::default())
            .await
            .unwrap();
    assert_eq!(ended.sessions, 5);
    let ended = sessions::disconnect_user(
        &deployment.services,
        actor,
        &alice,
        Disconnect { revoke: true },
    )
    .await
    .unwrap();
    assert_eq!(ended.sessions, 5);
}
