//! Tenant isolation: requests for entities of another app, environment or organization are answered
//! exactly like requests for missing ones, and the other tenant neither changes nor receives
//! anything.

mod answer;
mod requests;
mod tenants;

use std::sync::atomic::{AtomicU64, Ordering};

use client::{Connector, RequestError, Session};
use hyper::header::HeaderName;
use protocol::{
    Encoding,
    operation::{
        Http, HttpMethod, Operation,
        message::MessageSend,
        presence::PresenceWatch,
        session::{Connect, Watch},
        user::UserIds,
    },
};
use serde_json::{Value, json};

use self::{
    answer::{Ear, of_http, plain},
    tenants::{Tenant, text, unused},
};
use crate::{
    operations::{self, Declared, Kind, Place, Request},
    story::{StoreKind, World},
};
use requests::{pair, request, try_connect, try_http, try_websocket};

/// Text of the last message of a story.
const END: &str = "the end";

const FLAGS: [&str; 6] = [
    "--limit",
    "requests_per_second=0",
    "--limit",
    "key_requests_per_second=0",
    "--limit",
    "unauthenticated_per_ip=0",
];

/// A kind of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Admin,
    Organization,
    App,
    Access,
    /// A token of the owner of a channel.
    Owner,
    /// A token of a user without channels.
    Nobody,
}

impl Who {
    const ALL: [Self; 6] = [
        Self::Admin,
        Self::Organization,
        Self::App,
        Self::Access,
        Self::Owner,
        Self::Nobody,
    ];

    async fn credential(self, world: &World, mine: &Tenant) -> String {
        match self {
            Self::Admin => world.admin_key.clone(),
            Self::Organization => mine.organization_key.clone(),
            Self::App => mine.app_key.clone(),
            Self::Access => {
                let body = json!({ "environment": mine.environment });
                let key: Value = world
                    .backend(&mine.organization_key)
                    .post(&format!("{}/access", mine.base()), &body)
                    .await
                    .unwrap();
                text(&key["secret"])
            }
            Self::Owner => world.token("alice").await,
            Self::Nobody => world.token("nobody").await,
        }
    }

    /// Returns whether the credential may reach the other tenant: an organization's other apps, an
    /// app's other environment.
    fn reaches(self, mine: &Tenant, theirs: &Tenant, kind: Kind) -> bool {
        let is_operator = matches!(self, Self::Admin | Self::Organization);
        match kind {
            Kind::Organization => {
                self == Self::Admin || is_operator && theirs.organization == mine.organization
            }
            Kind::App | Kind::OrganizationKey => {
                is_operator && theirs.organization == mine.organization
            }
            Kind::AppKey | Kind::TokenKey => is_operator && theirs.app == mine.app,
            Kind::User | Kind::Channel | Kind::Message | Kind::Cursor => false,
        }
    }
}

/// The parameters with another tenant's ids.
#[derive(Debug, Clone, PartialEq)]
enum Foreign {
    One(String),
    All,
}

impl Foreign {
    fn is(&self, place: &str) -> bool {
        match self {
            Self::One(one) => one == place,
            Self::All => true,
        }
    }
}

/// Returns all combinations of foreign ids in a request's parameters.
fn ways(places: &[Place]) -> Vec<Foreign> {
    let mut ways: Vec<Foreign> = places
        .iter()
        .map(|place| Foreign::One(place.name.clone()))
        .collect();
    if places.len() > 1 {
        ways.push(Foreign::All);
    }
    ways
}

/// Returns the operations, with channel creation once for each type.
fn variants() -> Vec<Declared> {
    let mut all = Vec::new();
    for operation in operations::all() {
        if operation.about.name == "channel.create" {
            for kind in ["direct", "group", "open", "broadcast"] {
                let mut variant = operation.clone();
                variant.example["type"] = kind.into();
                all.push(variant);
            }
        } else {
            all.push(operation);
        }
    }
    all
}

/// The sessions of a tenant: alice, and a user that only this tenant has.
async fn ears(world: &World, tenant: &Tenant) -> Vec<Ear> {
    let mut ears = Vec::new();
    for user in ["alice".to_owned(), tenant.id(Kind::User)] {
        let team = world.backend(&tenant.app_key);
        let minted: Value = team
            .post(&format!("/v1/users/{user}/tokens"), &json!({}))
            .await
            .unwrap();
        let connector = Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
        let params = Connect {
            token: text(&minted["token"]),
            ..Connect::default()
        };
        let (session, events) = connector.connect(&params).await.unwrap();
        session
            .call::<PresenceWatch>(
                (),
                UserIds {
                    user_ids: ["alice".to_owned(), tenant.id(Kind::User)]
                        .iter()
                        .map(|id| id.parse().unwrap())
                        .collect(),
                },
            )
            .await
            .unwrap();
        ears.push(Ear::of(events));
        std::mem::forget(session);
    }
    ears
}

async fn says_the_end(world: &World, tenant: &Tenant) {
    let team = world.backend(&tenant.app_key);
    let room = format!("/v1/channels/{}/messages", tenant.id(Kind::Channel));
    let _: Value = team
        .post(&room, &json!({ "sender_id": "alice", "text": END }))
        .await
        .unwrap();
}

async fn no_data_crosses_the_tenant_boundary(store_kind: StoreKind) {
    let world = World::with(store_kind, 1, &FLAGS).await;
    world.people(&["nobody"]).await;
    let (mine, others) = Tenant::all(&world).await;
    let mut credentials = Vec::new();
    for who in Who::ALL {
        credentials.push((who, who.credential(&world, &mine).await));
    }
    let my_ears = ears(&world, &mine).await;
    let mut pictures = Vec::new();
    let mut their_ears = Vec::new();
    for theirs in &others {
        their_ears.push(ears(&world, theirs).await);
        pictures.push(theirs.picture(&world).await);
    }
    try_connect(&world, &mine, &others).await;
    let mut compared = 0;
    // Operations that create the named entity come last, since the id then belongs to this tenant.
    for creates in [false, true] {
        compared += try_websocket(&world, &mine, &others, creates).await;
        compared += try_http(&world, &credentials, &mine, &others, creates).await;
    }
    assert!(compared > 1000, "only {compared} requests were compared");

    // The other tenant is unchanged, and its sessions have received nothing.
    for ((theirs, before), ears) in others.iter().zip(pictures).zip(their_ears) {
        let after = theirs.picture(&world).await;
        assert!(
            after.keys().eq(before.keys()),
            "{}: {:?}",
            theirs.name,
            after.keys()
        );
        for (path, seen) in after {
            assert_eq!(seen, before[&path], "{}: {path}", theirs.name);
        }
        says_the_end(&world, theirs).await;
        for ear in ears {
            let heard: Vec<Value> = ear
                .until(END)
                .await
                .into_iter()
                .filter(|event| event["event"] != "presence.changed")
                .collect();
            assert_eq!(heard, Vec::<Value>::new(), "{}", theirs.name);
        }
    }
    // Sessions here received the same for the other tenant's ids as for ids that do not
    // exist.
    says_the_end(&world, &mine).await;
    for ear in my_ears {
        let heard = ear.until(END).await;
        for theirs in &others {
            let (ids, nobodys) = pair(
                theirs,
                [Kind::User, Kind::Channel, Kind::Message].into_iter(),
            );
            let of = |ids: &[String]| {
                let mut of: Vec<String> = heard
                    .iter()
                    .map(Value::to_string)
                    .filter(|event| ids.iter().any(|id| event.contains(id.as_str())))
                    .map(|event| plain(&event, ids))
                    .collect();
                of.sort();
                of
            };
            assert_eq!(of(&ids), of(&nobodys), "{}", theirs.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entities_of_another_tenant_answer_like_missing_ones_on_the_embedded_store() {
    no_data_crosses_the_tenant_boundary(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entities_of_another_tenant_answer_like_missing_ones_on_redis() {
    no_data_crosses_the_tenant_boundary(StoreKind::Redis).await;
}

on_both_stores! {
    async fn idempotency_keys_of_credentials_are_separate(world: World) {
        let (mine, others) = Tenant::all(&world).await;
        let header = HeaderName::from_static("idempotency-key");
        let mut compared = 0;
        let posts = variants().into_iter().filter_map(|operation| {
            let http = operation.about.http.filter(|http| http.method == HttpMethod::Post)?;
            Some((operation, http))
        });
        for (index, (operation, http)) in posts.enumerate() {
            for theirs in &others {
                let is_organizations = http.path.starts_with("/v1/organizations");
                if http.path == "/v1/organizations" || is_organizations && theirs.organization_key == mine.organization_key {
// The credential is the same, and so is the idempotency key.
                    continue;
                }
                let key = format!("key {index} of {}", theirs.name);
                let mut answers = Vec::new();
                for (tenant, key) in [(theirs, &key), (&mine, &key), (&mine, &format!("{key}, unused"))] {
                    let credential = if is_organizations { &tenant.organization_key } else { &tenant.app_key };
                    let Request { method, path, body } = request(&operation, http, Who::App, tenant, &Foreign::One(String::new()), &|_| String::new());
                    let caller = world.backend(credential);
                    let call = caller.request(method, &path).header(header.clone(), key);
                    let answer = call.json(&body.unwrap_or_else(|| json!({}))).send().await.unwrap();
                    assert!(answer.status.as_u16() < 500, "{path}: {:?}", answer.body);
                    answers.push(answer);
                }
                assert!(!String::from_utf8_lossy(&answers[1].body).contains(&theirs.secret()));
                let ids: Vec<String> = answers.iter().filter_map(|answer| answer.json::<Value>().ok()?["id"].as_str().map(str::to_owned)).collect();
                if ids.len() == 3 && ids[1] != ids[2] {
                    assert_ne!(ids[0], ids[1], "{}: the first answer is of the other tenant", operation.about.name);
                }
                assert_eq!(of_http(&answers[1], &[]), of_http(&answers[2], &[]), "{}", operation.about.name);
                compared += 1;
            }
        }
        assert!(compared > 20, "{compared}");
    }
}
