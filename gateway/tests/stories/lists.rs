//! Lists and cursors: contents of pages, secrecy of cursors, limits of channels.

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use client::Backend;
use domain::{
    channels,
    credential::{Actor, Who},
    schema::Scope,
};
use protocol::{
    Encoding, ErrorCode, KeyId,
    entity::{ChannelType, Environment},
    operation::{
        channel::CreateChannel,
        session::{Connect, Watch},
    },
};
use serde_json::{Value, json};

use crate::story::{Person, StoreKind, World, refusal};

/// A world without rate limits.
struct Fast(World);

impl Fast {
    async fn on(store_kind: StoreKind) -> Self {
        Self(
            World::with(
                store_kind,
                1,
                &[
                    "--limit",
                    "requests_per_second=0",
                    "--limit",
                    "key_requests_per_second=0",
                ],
            )
            .await,
        )
    }
}

/// A world with at most three channels for a user.
struct FewChannels(World);

impl FewChannels {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "channels_per_user=3"]).await)
    }
}

/// A world with at most ten channels for a user.
struct TenChannels(World);

impl TenChannels {
    async fn on(store_kind: StoreKind) -> Self {
        Self(World::with(store_kind, 1, &["--limit", "channels_per_user=10"]).await)
    }
}

/// Creates many channels of a user concurrently.
pub(crate) async fn many_groups(world: &World, user: &str, count: usize) {
    world.people(&[user]).await;
    let scope = Scope {
        app: world.app.parse().unwrap(),
        environment: Environment::Live,
    };
    let actor = Actor {
        scope,
        who: Who::App {
            key: KeyId::from_bits(0),
        },
    };
    let body = |n| CreateChannel {
        id: Some(format!("group-{user}-{n:04}").parse().unwrap()),
        kind: ChannelType::Group,
        name: None,
        description: None,
        icon: None,
        banner: None,
        creator_id: Some(user.parse().unwrap()),
        participant_ids: Vec::new(),
        metadata: protocol::Metadata::default(),
    };
    let services = &world.nodes[0].services;
    let all: Vec<usize> = (0..count).collect();
    for some in all.chunks(64) {
        let made = futures_util::future::join_all(
            some.iter()
                .map(|n| channels::create::create_channel(services, &actor, body(*n))),
        )
        .await;
        made.into_iter().for_each(|made| drop(made.unwrap()));
    }
}

/// Reads all pages of the user's channels, and returns the ids in order. `meanwhile` runs
/// between two pages.
async fn walk_channels(
    person: &Person,
    limit: u64,
    mut meanwhile: impl AsyncFnMut(usize),
) -> Vec<String> {
    let (mut found, mut params) = (Vec::new(), json!({ "limit": limit }));
    for pages in 1.. {
        let page = person.asks("channel.list", params.clone()).await;
        let items = page["items"].as_array().unwrap();
        found.extend(
            items
                .iter()
                .map(|entry| entry["channel_id"].as_str().unwrap().to_owned()),
        );
        match page.get("cursor") {
            Some(cursor) => params["cursor"] = cursor.clone(),
            None => break,
        }
        meanwhile(pages).await;
    }
    found
}

pub(crate) async fn quiet(world: &World, name: &str) -> Person {
    world
        .connects_to(
            0,
            name,
            Encoding::MessagePack,
            Connect {
                watch: Watch::None,
                ..Connect::default()
            },
        )
        .await
}

fn ids(page: &Value) -> Vec<String> {
    page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Reads all pages of a list, and returns the ids and the number of pages.
async fn walk(who: &Backend, path: &str) -> (Vec<String>, usize) {
    let (mut found, mut pages, mut cursor) = (Vec::new(), 0, String::new());
    loop {
        let page: Value = who.get(&format!("{path}{cursor}")).await.unwrap();
        pages += 1;
        found.extend(ids(&page));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (found, pages),
        }
    }
}

/// Creates channels of a user without other participants.
async fn groups(world: &World, user: &str, prefix: &str, count: usize) {
    for n in 0..count {
        let body = json!({ "id": format!("{prefix}-{n:04}"), "type": "group", "creator_id": user });
        let _: Value = world.team().post("/v1/channels", &body).await.unwrap();
    }
}

on_both_stores! {
    async fn a_cursor_names_nothing_and_serves_only_its_caller_and_query(world: World) {
        world.channel("group", "secret-plans", &["alice", "bob", "carol"]).await;
        world.channel("group", "secret-talks", &["alice", "bob"]).await;
        let (team, alice, bob) = (world.team(), world.backend(&world.token("alice").await), world.backend(&world.token("bob").await));
        let owner = world.backend(&world.organization_key);
        let app = format!("/v1/organizations/{}/apps/{}", world.organization, world.app);
        for _ in 0..2 {
            world.make_app("live").await;
            let _: Value = owner.post(&format!("{app}/keys"), &json!({ "environment": "live" })).await.unwrap();
            let _: Value = owner.post(&format!("{app}/token-keys"), &json!({ "environment": "live", "algorithm": "HS256" })).await.unwrap();
        }
        let lists = [
            (&team, "/v1/channels?limit=1".to_owned()),
            (&team, "/v1/channels?limit=1&type=group".to_owned()),
            (&team, "/v1/users?limit=1".to_owned()),
            (&team, "/v1/users/alice/channels?limit=1".to_owned()),
            (&team, "/v1/channels/secret-plans/participants?limit=1".to_owned()),
            (&alice, "/v1/channels?limit=1".to_owned()),
            (&alice, "/v1/users/alice/channels?limit=1".to_owned()),
            (&bob, "/v1/channels?limit=1".to_owned()),
            (&bob, "/v1/channels/secret-plans/participants?limit=1".to_owned()),
            (&owner, format!("/v1/organizations/{}/apps?limit=1", world.organization)),
            (&owner, format!("{app}/keys?limit=1")),
            (&owner, format!("{app}/token-keys?limit=1")),
        ];
        let mut cursors = Vec::new();
        for (who, path) in &lists {
            let page: Value = who.get(path).await.unwrap();
            let cursor = page["cursor"].as_str().unwrap_or_else(|| panic!("{path} has one page")).to_owned();
            let bytes = URL_SAFE_NO_PAD.decode(&cursor).unwrap();
            let plain = String::from_utf8_lossy(&bytes);
            assert!(!cursor.contains("secret") && !plain.contains("secret") && !plain.contains("alice"), "{plain}");
            cursors.push(cursor);
        }
        for (n, (who, path)) in lists.iter().enumerate() {
            for (m, cursor) in cursors.iter().enumerate() {
                let answer = who.get::<Value>(&format!("{path}&cursor={cursor}")).await;
                if n == m {
                    answer.unwrap();
                    for altered in [&cursor[1..], &cursor[..cursor.len() - 2], &format!("{cursor}AA"), ""] {
                        let answer = who.get::<Value>(&format!("{path}&cursor={altered}")).await;
                        assert_eq!(refusal(answer), (400, ErrorCode::BadRequest), "{path}: {altered}");
                    }
                } else {
                    assert_eq!(refusal(answer), (400, ErrorCode::BadRequest), "{path} with the cursor of {}", lists[m].1);
                }
            }
        }
// A cursor is valid with another page length.
        let more: Value = team.get(&format!("/v1/channels?limit=50&cursor={}", cursors[0])).await.unwrap();
        assert_eq!(ids(&more), ["secret-talks"]);
    }

    async fn a_filter_by_another_user_reveals_nothing_of_the_channels_that_the_caller_is_not_in(world: World) {
        world.people(&["victim", "nobody", "stranger"]).await;
        groups(&world, "victim", "secret", 230).await;
        world.channel("open", "square", &["victim"]).await;
        world.channel("group", "shared", &["stranger", "victim"]).await;
        let stranger = world.backend(&world.token("stranger").await);
        for limit in [1, 50] {
            let about = async |user: &str| walk(&stranger, &format!("/v1/channels?participant_id={user}&limit={limit}")).await;
            assert_eq!(about("victim").await, (vec!["shared".to_owned()], 1));
            assert_eq!(about("nobody").await, (vec![], 1));
        }
        let (own, _) = walk(&world.team(), "/v1/channels?participant_id=victim&limit=200").await;
        assert_eq!(own.len(), 232);
    }

    async fn a_request_that_finds_little_ends_early_and_its_cursor_goes_on(world: World) {
        world.people(&["alice"]).await;
        groups(&world, "alice", "a-group", 450).await;
        world.channel("open", "z-open", &["alice"]).await;
        let before = world.metric(0, "chaos_store_partitions_read_total").await;
        let (found, pages) = walk(&world.team(), "/v1/channels?type=open&limit=10").await;
        let read = world.metric(0, "chaos_store_partitions_read_total").await - before;
        assert_eq!((found, pages), (vec!["z-open".to_owned()], 3));
        assert!(read < 600.0, "{read} partitions were read for 451 channels");
    }

    async fn a_channel_that_becomes_active_between_two_pages_is_not_lost(world: World) {
        for n in 0..9 {
            world.channel("group", &format!("channel-{n}"), &["alice"]).await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let alice = quiet(&world, "alice").await;
        let found = walk_channels(&alice, 2, async |pages| {
            if pages == 2 {
                alice.sends(&"channel-0".parse().unwrap(), "at the top").await;
                world.team().delete::<()>("/v1/channels/channel-5").await.unwrap();
            }
        })
        .await;
        let (quiet, late) = found.split_at(found.len() - 1);
        assert_eq!(quiet, [8, 7, 6, 5, 4, 3, 2, 1].map(|n| format!("channel-{n}")), "the cursor survives the channel that it stood at");
        assert_eq!(late, ["channel-0"]);
    }

    async fn a_walk_shows_every_channel_while_hundreds_become_active(world: Fast) {
        let world = world.0;
        many_groups(&world, "alice", 320).await;
        let (alice, talks) = (quiet(&world, "alice").await, quiet(&world, "alice").await);
        let all: BTreeSet<String> = (0..320).map(|n| format!("group-alice-{n:04}")).collect();
        for round in 0..4 {
// Every channel becomes active during the listing, the last ones first, and some
            // between any two pages.
            let found = walk_channels(&alice, 17, async |pages| {
                for n in 0..20 {
                    let channel = format!("group-alice-{:04}", (round * 31 + pages * 20 + n * 7) % 320).parse().unwrap();
                    talks.sends(&channel, "active").await;
                }
            })
            .await;
            let found: BTreeSet<String> = found.into_iter().collect();
            assert_eq!(found.len(), 320, "{:?} are missing", all.difference(&found).collect::<Vec<_>>());
        }
    }

    async fn lists_of_a_user_in_3000_channels_cost_their_pages(world: Fast) {
        let world = world.0;
        many_groups(&world, "alice", 3000).await;
        let alice = quiet(&world, "alice").await;
        let begun = tokio::time::Instant::now();
        let before = world.metric(0, "chaos_store_partitions_read_total").await;
        for _ in 0..100 {
            let page = alice.asks("channel.list", json!({ "limit": 1 })).await;
            assert_eq!(page["items"].as_array().unwrap().len(), 1);
        }
        for _ in 0..10 {
            let person = world.connects("alice").await;
            assert!(person.connected().channels.len() == 200 && person.connected().more);
        }
        let read = world.metric(0, "chaos_store_partitions_read_total").await - before;
        // The order of 3,000 is used for at least 0.3 s, and 110 requests have their own pages.
        let orders = begun.elapsed().as_secs_f64() / 0.3 + 1.0;
        assert!(read < orders * 3300.0 + 100.0 * 10.0 + 10.0 * 500.0, "{read} partitions were read in {:?}", begun.elapsed());

// Changes in the user's own stream are visible at once.
        let made = alice.asks("channel.create", json!({ "type": "group" })).await["channel"]["id"].clone();
        let first = async || alice.asks("channel.list", json!({ "limit": 1 })).await["items"][0]["channel_id"].clone();
        assert_eq!(first().await, made);
        alice.asks("channel.leave", json!({ "channel_id": made })).await;
        assert_ne!(first().await, made);
    }

    async fn channels_of_a_user_are_limited(world: FewChannels) {
        let world = world.0;
        world.people(&["alice", "bob", "carol"]).await;
        let full = |answer: Result<Value, client::BackendError>| assert_eq!(refusal(answer), (422, ErrorCode::LimitReached));
        let (team, bob) = (world.team(), quiet(&world, "bob").await);
        assert_eq!(bob.connected().limits["channels_per_user"], 3);
        groups(&world, "alice", "own", 2).await;
        let shared = world.channel("open", "shared", &["bob", "alice"]).await;
// Every operation that adds a fourth channel.
        full(team.post("/v1/channels", &json!({ "type": "group", "creator_id": "alice" })).await);
        full(team.post("/v1/channels", &json!({ "type": "group", "creator_id": "bob", "participant_ids": ["carol", "alice"] })).await);
        full(team.post("/v1/channels", &json!({ "type": "direct", "creator_id": "bob", "participant_ids": ["alice"] })).await);
        let other = world.channel("open", "other", &["bob"]).await;
        full(team.post("/v1/channels/other/participants", &json!({ "user_id": "alice" })).await);
        let batch: Value = team.post("/v1/channels/other/participants/batch", &json!({ "items": [{ "user_id": "alice" }] })).await.unwrap();
        assert_eq!(batch["items"][0]["error"]["code"], "limit_reached");
        let added = json!({ "channel_id": other, "user_id": "alice" });
        assert_eq!(bob.is_refused("participant.add", added).await, ErrorCode::LimitReached);
        let alice = quiet(&world, "alice").await;
        assert_eq!(alice.is_refused("channel.join", json!({ "channel_id": other })).await, ErrorCode::LimitReached);
        assert_eq!(alice.is_refused("channel.create", json!({ "type": "group" })).await, ErrorCode::LimitReached);
        assert_eq!(alice.asks("channel.join", json!({ "channel_id": shared })).await["participant"]["user_id"], "alice", "it is in it");

// The refusals had no effect: carol has room for all three, and bob for one more.
        groups(&world, "carol", "carols", 3).await;
        groups(&world, "bob", "bobs", 1).await;
// Every operation that removes one makes room for exactly one.
        alice.asks("channel.leave", json!({ "channel_id": shared })).await;
        alice.asks("channel.join", json!({ "channel_id": other })).await;
        assert_eq!(alice.is_refused("channel.join", json!({ "channel_id": shared })).await, ErrorCode::LimitReached);
        team.delete::<()>("/v1/channels/own-0000").await.unwrap();
        crate::story::until("the channel is cleared away", || async {
            team.post::<Value>("/v1/channels/shared/participants", &json!({ "user_id": "alice" })).await.is_ok()
        })
        .await;
        team.delete::<()>("/v1/channels/shared/participants/alice").await.unwrap();
        team.delete::<()>("/v1/channels/shared/participants/alice").await.unwrap_err();
        let direct = alice.asks("channel.create", json!({ "type": "direct", "participant_ids": ["dora"] }));
        world.people(&["dora"]).await;
        direct.await;
        assert_eq!(alice.is_refused("channel.join", json!({ "channel_id": shared })).await, ErrorCode::LimitReached);
    }

    async fn other_users_leave_a_tenth_of_the_channels_to_the_user_itself(world: TenChannels) {
        let world = world.0;
        world.people(&["alice", "bob", "carol"]).await;
        let (alice, bob, carol) = (quiet(&world, "alice").await, quiet(&world, "bob").await, quiet(&world, "carol").await);
        let with_alice = json!({ "type": "group", "participant_ids": ["alice"] });
        for _ in 0..9 {
            bob.asks("channel.create", with_alice.clone()).await;
        }
// Every operation by which another user adds her to a tenth channel.
        let open = world.channel("open", "open", &["carol"]).await;
        for (method, params) in [
            ("channel.create", with_alice.clone()),
            ("channel.create", json!({ "type": "direct", "participant_ids": ["alice"] })),
            ("participant.add", json!({ "channel_id": open, "user_id": "alice" })),
        ] {
            let refused = carol.session.request::<_, Value>(method, &params).await.unwrap_err();
            let error = refused.refusal().unwrap();
            assert_eq!(error.code, ErrorCode::LimitReached, "{method}");
            assert!(error.message.contains("`alice`") && error.message.contains("channels_per_user"), "{}", error.message);
        }
// Her own operations may use the rest.
        let direct = alice.asks("channel.create", json!({ "type": "direct", "participant_ids": ["carol"] })).await;
        assert_eq!(alice.is_refused("channel.create", json!({ "type": "group" })).await, ErrorCode::LimitReached);
        let own = direct["channel"]["id"].as_str().unwrap().to_owned();
        assert_eq!(carol.asks("channel.create", json!({ "type": "direct", "participant_ids": ["alice"] })).await["channel"]["id"], own);
// So may operations of the app, once there is room.
        let bobs = walk_channels(&bob, 200, async |_| {}).await;
        alice.asks("channel.leave", json!({ "channel_id": bobs[0] })).await;
        assert_eq!(carol.is_refused("participant.add", json!({ "channel_id": open, "user_id": "alice" })).await, ErrorCode::LimitReached);
        world.team().post::<Value>("/v1/channels/open/participants", &json!({ "user_id": "alice" })).await.unwrap();
        let full = world.team().post::<Value>("/v1/channels", &json!({ "type": "group", "creator_id": "alice" })).await;
        assert_eq!(refusal(full), (422, ErrorCode::LimitReached));
    }
}
