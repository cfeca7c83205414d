//! Data of an earlier version are opened and served by this one.
//!
//! `tests/old_data/<version>` holds a data folder and the keys of a Redis, both filled by the build
//! of that version, and its responses. Create them with the current version by
//! `CHAOS_OLD_DATA=<version> cargo test -p chaos-gateway --test stories old_data`; that is done
//! once, before a change to what is stored, and never to make a test pass.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use redis::aio::MultiplexedConnection;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{answers, busy::Busy, new_events_continue_the_log, place};
use crate::story::{StoreKind, StoreProcess, World, refusal};

/// The folder of the oldest version that must still be opened.
const VERSION: &str = "store-2";

/// The files of a data folder that outlive its node.
const FILES: [&str; 3] = ["data.mdb", "secret-key", "admin-key"];

/// The credentials and responses from when the data were written.
#[derive(Serialize, Deserialize)]
struct Written {
    organization: String,
    organization_key: String,
    app: String,
    app_key: String,
    admin_key: String,
    test_key: String,
    second_key: String,
    revoked_key: String,
    answers: BTreeMap<String, Value>,
}

fn folder(version: &str, store_kind: StoreKind) -> PathBuf {
    let name = if store_kind == StoreKind::Embedded {
        "embedded"
    } else {
        "redis"
    };
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/old_data")
        .join(version)
        .join(name)
}

async fn connection(world: &World) -> Option<MultiplexedConnection> {
    let StoreProcess::Redis(server, _) = &world.store_process else {
        return None;
    };
    Some(
        redis::Client::open(server.url())
            .unwrap()
            .get_multiplexed_async_connection()
            .await
            .unwrap(),
    )
}

/// Returns the responses without what a later version may add, such as headers.
async fn ask(world: &World, busy: &Busy) -> BTreeMap<String, Value> {
    let answers = answers::all(world, busy).await;
    let body = |answer: &String| {
        answer.find('{').map_or(Value::Null, |start| {
            serde_json::from_str(&answer[start..]).unwrap()
        })
    };
    answers
        .iter()
        .map(|(asked, answer)| (asked.clone(), body(answer)))
        .collect()
}

async fn write(version: &str, store_kind: StoreKind) {
    let mut world = World::with(store_kind, 1, &super::FLAGS).await;
    let busy = Busy::app(&world).await;
    let written = Written {
        answers: ask(&world, &busy).await,
        organization: world.organization.clone(),
        organization_key: world.organization_key.clone(),
        app: world.app.clone(),
        app_key: world.app_key.clone(),
        admin_key: world.admin_key.clone(),
        test_key: busy.test_key,
        second_key: busy.second_key,
        revoked_key: busy.revoked_key,
    };
    world.ends().await;
    let folder = folder(version, store_kind);
    fs::create_dir_all(&folder).unwrap();
    fs::write(
        folder.join("written.json"),
        serde_json::to_string_pretty(&written).unwrap(),
    )
    .unwrap();
    if let StoreProcess::Embedded(data) = &world.store_process {
        for file in FILES {
            fs::copy(data.path().join("data").join(file), folder.join(file)).unwrap();
        }
    }
    if let Some(mut redis) = connection(&world).await {
        let mut keys: Vec<String> = redis::cmd("KEYS")
            .arg("*")
            .query_async(&mut redis)
            .await
            .unwrap();
        keys.sort();
        let mut lines = String::new();
        for key in keys {
            let value: Vec<u8> = redis::cmd("DUMP")
                .arg(&key)
                .query_async(&mut redis)
                .await
                .unwrap();
            lines += &format!("{key} {}\n", BASE64.encode(value));
        }
        fs::write(folder.join("keys"), lines).unwrap();
    }
}

/// Starts a node of this version on the data of an earlier one.
async fn open(store_kind: StoreKind) -> (World, Busy, BTreeMap<String, Value>) {
    let mut world = World::with(store_kind, 0, &super::FLAGS).await;
    let folder = folder(VERSION, store_kind);
    let written: Written =
        serde_json::from_slice(&fs::read(folder.join("written.json")).unwrap()).unwrap();
    if let StoreProcess::Embedded(data) = &world.store_process {
        let data = data.path().join("data");
        fs::create_dir_all(&data).unwrap();
        for file in FILES {
            fs::copy(folder.join(file), data.join(file)).unwrap();
            // git does not store these permissions.
            fs::set_permissions(data.join(file), fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
    if let Some(mut redis) = connection(&world).await {
        for line in fs::read_to_string(folder.join("keys")).unwrap().lines() {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let value = BASE64.decode(value).unwrap();
            let _: () = redis::cmd("RESTORE")
                .arg(key)
                .arg(0)
                .arg(value)
                .query_async(&mut redis)
                .await
                .unwrap();
        }
    }
    world.add_node().await;
    world.admin_key = world.nodes[0].admin_key.expose().to_owned();
    assert_eq!(world.admin_key, written.admin_key);
    (world.organization, world.organization_key) = (written.organization, written.organization_key);
    (world.app, world.app_key) = (written.app, written.app_key);
    let busy = Busy {
        help: "help".parse().unwrap(),
        test_key: written.test_key,
        second_key: written.second_key,
        revoked_key: written.revoked_key,
        // Access keys and tokens expire.
        access_key: String::new(),
        of_ada: String::new(),
        of_bob_revoked: String::new(),
        of_gone: String::new(),
    };
    (world, busy, written.answers)
}

/// Returns whether `now` has everything that `then` has. A later version may add fields, and
/// expired values may be missing.
fn includes(now: &Value, then: &Value) -> bool {
    match (now, then) {
        (Value::Object(now), Value::Object(then)) => then.iter().all(|(name, then)| {
            now.get(name)
                .map_or(then.is_null(), |now| includes(now, then))
        }),
        (Value::Array(now), Value::Array(then)) => {
            let lasting = |item: &&Value| item.get("expires_at").is_none();
            let (now, then): (Vec<_>, Vec<_>) = (
                now.iter().filter(lasting).collect(),
                then.iter().filter(lasting).collect(),
            );
            now.len() == then.len() && now.iter().zip(then).all(|(now, then)| includes(now, then))
        }
        (now, then) => now == then,
    }
}

async fn data_of_an_earlier_version_are_served(store_kind: StoreKind) {
    if let Ok(version) = std::env::var("CHAOS_OLD_DATA") {
        return write(&version, store_kind).await;
    }
    let (mut world, busy, then) = open(store_kind).await;
    assert!(then.len() > 100, "{} answers", then.len());
    let now = ask(&world, &busy).await;
    for (asked, then) in &then {
        let now = now
            .get(asked)
            .unwrap_or_else(|| panic!("{asked} is not asked any more"));
        assert!(includes(now, then), "{asked}\nthen {then}\nnow  {now}");
    }
    for key in [&world.app_key, &busy.second_key] {
        let _: Value = world.backend(key).get("/v1/channels/help").await.unwrap();
    }
    assert_eq!(
        refusal(
            world
                .backend(&busy.revoked_key)
                .get::<Value>("/v1/channels/help")
                .await
        )
        .0,
        401
    );
    new_events_continue_the_log(&world, &busy, place(&world, &busy).await).await;
    // Dropping an embedded world checks its folder.
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_data_folder_is_served() {
    data_of_an_earlier_version_are_served(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_redis_is_served() {
    data_of_an_earlier_version_are_served(StoreKind::Redis).await;
}
