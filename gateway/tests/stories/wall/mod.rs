//! The wall between tenants: what another app, environment or organization has answers exactly as what nobody has, whatever names it
//! and whoever asks, and the other one neither changes nor hears of it.

mod answer;
mod routes;
mod tenants;

use std::{collections::BTreeMap, sync::atomic::AtomicU64, sync::atomic::Ordering};

use client::{Connector, RequestError, Session};
use hyper::header::HeaderName;
use protocol::{
    Encoding, Method,
    params::{Connect, Watch},
};
use serde_json::{Value, json};

use self::{
    answer::{Ear, of_http, plain},
    routes::{Request, Route, routes},
    tenants::{Tenant, text, unused},
};
use crate::{
    methods::{self, Kind},
    story::{Ground, World},
};

/// The last message of a story.
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
    /// A user token, of the owner of a channel.
    Owner,
    /// A user token, of somebody who is in nothing.
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

    /// Whether this is no wall but the way in: an organization's other apps, an app's other environment.
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

/// Which of the places that name something are somebody else's.
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

/// The places of a request, and all the ways of putting somebody else's ids into them.
fn ways(places: &BTreeMap<String, Kind>) -> Vec<Foreign> {
    let mut ways: Vec<Foreign> = places.keys().cloned().map(Foreign::One).collect();
    if places.len() > 1 {
        ways.push(Foreign::All);
    }
    ways
}

/// Makes a request of a route, with the ids of `named` in the foreign places and the caller's own in those that must be filled.
fn request(
    route: &Route<'_>,
    who: Who,
    mine: &Tenant,
    foreign: &Foreign,
    named: &dyn Fn(Kind) -> String,
) -> Request {
    route.request(&mut |place, kind, must| {
        let is_sender = place.ends_with("sender_id") && matches!(who, Who::App | Who::Access);
        match foreign {
            Foreign::One(one) if one == place => Some(named(kind)),
            Foreign::All if must || is_sender => Some(named(kind)),
            _ if is_sender => Some("alice".to_owned()),
            _ => must.then(|| mine.id(kind)),
        }
    })
}

/// Another tenant's ids of these kinds beside those that nobody has.
fn pair(theirs: &Tenant, kinds: impl Iterator<Item = Kind>) -> (Vec<String>, Vec<String>) {
    let ids: Vec<String> = kinds.map(|kind| theirs.id(kind)).collect();
    let nobodys = ids.iter().map(|id| unused(id)).collect();
    (ids, nobodys)
}

/// Compares what each route answers. `makes` chooses those that make what they name, or the others.
async fn try_routes(
    world: &World,
    credentials: &[(Who, String)],
    mine: &Tenant,
    others: &[Tenant],
    makes: bool,
) -> usize {
    let document: Value = world.backend("").get("/v1/openapi.json").await.unwrap();
    let mut compared = 0;
    for (who, credential) in credentials {
        let (who, caller) = (*who, world.backend(credential));
        for route in routes(&document) {
            let mut places = BTreeMap::new();
            let filled = route.request(&mut |place, kind, _| {
                places.insert(place.to_owned(), kind);
                Some(mine.id(kind))
            });
            drop(filled);
            for foreign in ways(&places) {
                let kinds = || {
                    places
                        .iter()
                        .filter(|(place, _)| foreign.is(place))
                        .map(|(_, kind)| *kind)
                };
                if places
                    .keys()
                    .any(|place| foreign.is(place) && route.makes(place))
                    != makes
                {
                    continue;
                }
                for theirs in others {
                    if kinds().any(|kind| who.reaches(mine, theirs, kind)) {
                        continue;
                    }
                    let (ids, nobodys) = pair(theirs, kinds());
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
                            request(&route, who, mine, &foreign, &named);
                        let mut call = caller.call(method, &path);
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
                    assert_eq!(
                        answers[0], answers[1],
                        "{who:?} names what {} has: {} {} {foreign:?}",
                        theirs.name, route.method, route.path
                    );
                    assert!(
                        !answers[0].starts_with('5'),
                        "{}: {}",
                        route.path,
                        answers[0]
                    );
                    compared += 1;
                }
            }
        }
    }
    compared
}

async fn ask(session: &Session, method: Method, params: &Value) -> String {
    match session.request::<_, Value>(method, params).await {
        Ok(result) => format!("result {result}"),
        Err(RequestError::Refused(error)) => {
            format!("error {}", serde_json::to_value(error).unwrap())
        }
        Err(other) => panic!("{method:?} {params}: {other}"),
    }
}

/// A plain form of a reply, whose head is not JSON.
fn plain_reply(reply: &str, named: &[String]) -> String {
    let (head, body) = reply.split_once(' ').unwrap();
    format!("{head} {}", plain(body, named))
}

/// Compares what each method answers.
async fn try_methods(world: &World, mine: &Tenant, others: &[Tenant], makes: bool) -> usize {
    static FRESH: AtomicU64 = AtomicU64::new(1 << 40);
    let mut compared = 0;
    for (who, encoding) in [("alice", Encoding::MessagePack), ("nobody", Encoding::Json)] {
        let quiet = Connect {
            watch: Watch::None,
            ..Connect::default()
        };
        let person = world.connects_to(0, who, encoding, quiet).await;
        for method in Method::ALL.iter().copied() {
            let mut places = BTreeMap::new();
            let _ = methods::params(method, &mut |place, kind| {
                places.insert(place.to_owned(), kind);
                mine.id(kind)
            });
            for foreign in ways(&places) {
                let does_make = method == Method::MessageSend && foreign.is("message_id");
                if does_make != makes {
                    continue;
                }
                for theirs in others {
                    let kinds = places
                        .iter()
                        .filter(|(place, _)| foreign.is(place))
                        .map(|(_, kind)| *kind);
                    let (ids, nobodys) = pair(theirs, kinds);
                    let mut replies = Vec::new();
                    for (ids, is_theirs) in [(&ids, true), (&nobodys, false)] {
                        let params =
                            methods::params(method, &mut |place, kind| match foreign.is(place) {
                                true if is_theirs => theirs.id(kind),
                                true => unused(&theirs.id(kind)),
                                // A send of its own each time: one that is known is answered whatever else it says.
                                false if method == Method::MessageSend && place == "message_id" => {
                                    format!("msg_{:016x}", FRESH.fetch_add(1, Ordering::Relaxed))
                                }
                                false => mine.id(kind),
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

/// What names something before there is a session, or instead of another one's token.
async fn try_connect(world: &World, mine: &Tenant, others: &[Tenant]) {
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
        // A token of theirs does not go on with a session of mine, be it of the same user id.
        let team = world.backend(&theirs.app_key);
        let minted: Value = team
            .post("/v1/users/alice/tokens", &json!({}))
            .await
            .unwrap();
        let alice = world.connects("alice").await;
        let foreign = ask(
            &alice.session,
            Method::TokenRefresh,
            &json!({ "token": minted["token"] }),
        )
        .await;
        let others_token = json!({ "token": world.token("carol").await });
        assert_eq!(
            foreign,
            ask(&alice.session, Method::TokenRefresh, &others_token).await
        );
        assert!(foreign.contains("forbidden"), "{foreign}");
        // A token key of theirs does not verify what is signed with another secret, no more than one that does not exist.
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
                .call(hyper::Method::GET, "/v1/channels")
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
        // Claims name no tenant: who signed decides.
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

/// Who listens in a tenant: alice, and the one that only this tenant has.
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
            .watch_presence(
                ["alice".to_owned(), tenant.id(Kind::User)]
                    .iter()
                    .map(|id| id.parse().unwrap())
                    .collect(),
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

async fn nothing_gets_over_the_wall(ground: Ground) {
    let world = World::with(ground, 1, &FLAGS).await;
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
    // What makes the thing that it names comes last: afterwards that id is one of mine.
    for makes in [false, true] {
        compared += try_methods(&world, &mine, &others, makes).await;
        compared += try_routes(&world, &credentials, &mine, &others, makes).await;
    }
    assert!(compared > 1000, "only {compared} requests were compared");

    // Nothing of theirs has changed, and nobody of theirs has heard anything.
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
    // What was heard on this side of ids that are theirs is what was heard of ids that are nobody's.
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
async fn what_another_tenant_has_answers_as_what_nobody_has_on_the_embedded_store() {
    nothing_gets_over_the_wall(Ground::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_tenant_has_answers_as_what_nobody_has_on_redis() {
    nothing_gets_over_the_wall(Ground::Redis).await;
}

on_both_stores! {
    async fn an_idempotency_key_is_ones_own(world: World) {
        let (mine, others) = Tenant::all(&world).await;
        let document: Value = world.backend("").get("/v1/openapi.json").await.unwrap();
        let header = HeaderName::from_static("idempotency-key");
        let mut compared = 0;
        for (index, route) in routes(&document).into_iter().filter(Route::is_idempotent).enumerate() {
            for theirs in &others {
                let is_organizations = route.path.starts_with("/v1/organizations");
                if route.path == "/v1/organizations" || is_organizations && theirs.organization_key == mine.organization_key {
                    // The credential is the same one: so is the key.
                    continue;
                }
                let key = format!("key {index} of {}", theirs.name);
                let mut answers = Vec::new();
                for (tenant, key) in [(theirs, &key), (&mine, &key), (&mine, &format!("{key}, unused"))] {
                    let credential = if is_organizations { &tenant.organization_key } else { &tenant.app_key };
                    let Request { method, path, body } = request(&route, Who::App, tenant, &Foreign::One(String::new()), &|_| String::new());
                    let caller = world.backend(credential);
                    let call = caller.call(method, &path).header(header.clone(), key);
                    let answer = call.json(&body.unwrap_or_else(|| json!({}))).send().await.unwrap();
                    assert!(answer.status.as_u16() < 500, "{path}: {:?}", answer.body);
                    answers.push(answer);
                }
                assert!(!String::from_utf8_lossy(&answers[1].body).contains(&theirs.secret()));
                let ids: Vec<String> = answers.iter().filter_map(|answer| answer.json::<Value>().ok()?["id"].as_str().map(str::to_owned)).collect();
                if ids.len() == 3 && ids[1] != ids[2] {
                    assert_ne!(ids[0], ids[1], "{}: the first answer came over the wall", route.path);
                }
                assert_eq!(of_http(&answers[1], &[]), of_http(&answers[2], &[]), "{}", route.path);
                compared += 1;
            }
        }
        assert!(compared > 20, "{compared}");
    }
}
