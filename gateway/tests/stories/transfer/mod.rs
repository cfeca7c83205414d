//! `chaos export` and `chaos import`: an app behaves in another store as it did before.

mod answers;
mod busy;
mod old_data;
mod refused;

use std::path::Path;

use domain::{
    document::PutValue,
    jobs::{Job, Task},
    schema::{self, JOBS, Scope},
};
use gateway::{
    config::{self, Command},
    start::CommandError,
    transfer::{self, TransferCounts},
};
use protocol::{
    ChannelId, Cursor, Encoding, ErrorCode,
    entity::Environment,
    operation::{
        message::{MessageSend, SendMessage},
        session::Connect,
    },
};
use serde_json::{Value, json};
use store::{Commit, Position, Read};

use self::busy::Busy;
use crate::story::{StoreKind, TIMEOUT, World, refusal, start_store};

/// Few events are retained, so that some positions are trimmed.
const FLAGS: [&str; 4] = ["--limit", "log_events=20", "--demo", "off"];

/// Runs `chaos export` or `chaos import`.
async fn chaos(words: &[&str], more: &[String]) -> Result<TransferCounts, CommandError> {
    let arguments = ["chaos"]
        .iter()
        .chain(words)
        .map(|word| (*word).to_owned())
        .chain(more.iter().cloned());
    match config::parse(arguments, &|_| None).unwrap() {
        Command::Export(settings) => transfer::export(settings).await,
        Command::Import(settings) => transfer::import(settings).await,
        other => panic!("{other:?} moves nothing"),
    }
}

impl World {
    /// Stops the nodes, and exports the app to a file.
    async fn exports(&mut self, file: &Path) -> TransferCounts {
        self.ends().await;
        let words = ["export", "--app", &self.app, "--to", file.to_str().unwrap()];
        let deadline = tokio::time::Instant::now() + TIMEOUT;
        loop {
            // A task of the previous node may still hold the folder.
            match chaos(&words, &self.store).await {
                Ok(counts) => return counts,
                Err(error) => assert!(
                    error.0.contains("in use") && tokio::time::Instant::now() < deadline,
                    "{error}"
                ),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Switches to another, empty store with the same secret key. Returns the arguments of an
    /// import.
    async fn leaves_for(&mut self, store_kind: StoreKind) -> Vec<String> {
        let secret = std::fs::read_to_string(self.secret_key_file()).unwrap();
        let (store_process, store) = start_store(store_kind, &secret).await;
        let mut words = store.clone();
        if store_kind == StoreKind::Embedded {
            // The key file of the old store. The new folder gets its own.
            let file = self.secrets.path().join("secret");
            std::fs::write(&file, secret).unwrap();
            words.extend(["--secret-key-file".to_owned(), file.display().to_string()]);
        }
        (self.store_process, self.store) = (store_process, store);
        words
    }

    /// Moves the app to another store, and starts a node there.
    async fn moves_to(&mut self, store_kind: StoreKind) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.jsonl");
        let left = self.exports(&file).await;
        let words = self.leaves_for(store_kind).await;
        let came = chaos(&["import", "--from", file.to_str().unwrap()], &words)
            .await
            .unwrap();
        assert_eq!(came, left);
        self.goes_on().await;
    }

    async fn goes_on(&mut self) {
        self.add_node().await;
        self.admin_key = self.nodes[0].admin_key.expose().to_owned();
    }
}

/// Checks that credentials from before the move are valid or invalid as before.
async fn credentials_are_unchanged(world: &World, busy: &Busy) {
    for key in [&world.app_key, &busy.second_key, &busy.access_key] {
        let _: Value = world.backend(key).get("/v1/channels/help").await.unwrap();
    }
    let of_test: Value = world
        .backend(&busy.test_key)
        .get("/v1/channels/help")
        .await
        .unwrap();
    assert_eq!(of_test["creator_id"], "tess");
    let of_ada: Value = world
        .backend(&busy.of_ada)
        .get("/v1/channels/help")
        .await
        .unwrap();
    assert_eq!(of_ada["creator_id"], "ada");
    for refused in [&busy.revoked_key, &busy.of_bob_revoked, &busy.of_gone] {
        let answer = world
            .backend(refused)
            .get::<Value>("/v1/channels/help")
            .await;
        assert_eq!(refusal(answer), (401, ErrorCode::Unauthenticated));
    }
    let again = world
        .team()
        .put::<Value>("/v1/users/gone", &json!({ "first_name": "G" }))
        .await;
    assert_eq!(
        refusal(again),
        (409, ErrorCode::Conflict),
        "a deleted user's id is never given again"
    );
}

/// Checks that new events continue the old log and numbers. `seq, at` is the position of a client
/// that has received everything.
async fn new_events_continue_the_log(
    world: &World,
    busy: &Busy,
    (number, seq, at): (u64, u64, u64),
) {
    let resume = [(busy.help.clone(), Cursor::After(seq, at))].into();
    let mut ada = world
        .connects_to(
            0,
            "ada",
            Encoding::MessagePack,
            Connect {
                resume,
                ..Connect::default()
            },
        )
        .await;
    assert_eq!(
        (ada.entry(&busy.help).gap, ada.entry(&busy.help).seq),
        (None, seq)
    );
    let bob = world.connects("bob").await;
    let sent = bob.sends(&busy.help, "here").await;
    assert_eq!((sent.number, sent.seq), (number + 1, seq + 1));
    let told = ada.next().await;
    assert_eq!(
        (told.event.as_str(), told.seq),
        ("message.created", Some(seq + 1))
    );
    assert!(told.at.unwrap() >= at);
    let again = SendMessage {
        message_id: Some(sent.id.clone()),
        text: Some("here".into()),
        ..SendMessage::default()
    };
    assert_eq!(
        bob.session
            .call::<MessageSend>(&busy.help, &again)
            .await
            .unwrap()
            .number,
        sent.number
    );
    bob.session.abort().await;
    ada.session.abort().await;
    // A channel that was deleted and created again continues its old numbers, too.
    let made: Value = world
        .team()
        .put("/v1/channels/short", &json!({ "type": "group" }))
        .await
        .unwrap();
    assert_eq!(made["id"], "short");
    let first = json!({ "kind": "system", "text": "first" });
    let message: Value = world
        .team()
        .post("/v1/channels/short/messages", &first)
        .await
        .unwrap();
    assert!(
        message["number"].as_u64().unwrap() >= 2 && message["seq"].as_u64().unwrap() > 4,
        "{message}"
    );
}

async fn an_app_moves(store_kind: StoreKind) {
    let mut world = World::with(StoreKind::Embedded, 1, &FLAGS).await;
    let busy = Busy::app(&world).await;
    let before = answers::all(&world, &busy).await;
    assert!(before.len() > 100, "{} answers", before.len());
    let (number, seq, at) = place(&world, &busy).await;
    let log = positions(&world, &busy.help).await;
    assert_eq!(log.len(), 21, "some are trimmed");
    let elsewhere =
        [(0, 0), (3, 1), (seq, at + 1), (seq + 5, at)].map(|(seq, at)| Position { seq, at });
    let mut resumes = Vec::new();
    for position in log.into_iter().chain(elsewhere) {
        resumes.push((
            position,
            answers::resume(&world, "ada", "help", position).await,
        ));
    }

    // A node that ended during a deletion left its job.
    let job = format!("u:{}:live:nobody", world.app);
    let noted = Commit::default().put_value(
        JOBS,
        job.as_str(),
        &Job::new(Task::of_partition(&job).unwrap()),
    );
    world.nodes[0]
        .services
        .store
        .commit(&schema::deployment(), noted)
        .await
        .unwrap()
        .unwrap();

    for store_kind in [store_kind, StoreKind::Embedded] {
        world.moves_to(store_kind).await;
        let read = Read {
            partition: schema::deployment(),
            documents: vec![(JOBS, job.as_str().into())],
            newest: None,
        };
        let noted = world.nodes[0]
            .services
            .store
            .read(vec![read])
            .await
            .unwrap();
        assert!(
            noted[0].documents[0].is_some(),
            "a node here finishes what was begun there"
        );
        let after = answers::all(&world, &busy).await;
        for (asked, answer) in &before {
            assert_eq!(after.get(asked), Some(answer), "{asked} on {store_kind:?}");
        }
        assert_eq!(after.len(), before.len());
        for (position, told) in &resumes {
            assert_eq!(
                answers::resume(&world, "ada", "help", *position).await,
                *told,
                "{position:?} on {store_kind:?}"
            );
        }
    }
    credentials_are_unchanged(&world, &busy).await;
    new_events_continue_the_log(&world, &busy, (number, seq, at)).await;
    // The app moves again, with the new events.
    let before = answers::all(&world, &busy).await;
    world.moves_to(store_kind).await;
    assert_eq!(answers::all(&world, &busy).await, before);
    credentials_are_unchanged(&world, &busy).await;
    new_events_continue_the_log(&world, &busy, place(&world, &busy).await).await;
}

/// Returns the head of the channel: `number, seq, at`.
async fn place(world: &World, busy: &Busy) -> (u64, u64, u64) {
    let ada = world.connects("ada").await;
    let entry = ada.entry(&busy.help).clone();
    ada.session.abort().await;
    (entry.number, entry.seq, entry.at)
}

/// Returns the positions from which a client can resume a channel, oldest first.
async fn positions(world: &World, channel: &ChannelId) -> Vec<Position> {
    let scope = Scope {
        app: world.app.parse().unwrap(),
        environment: Environment::Live,
    };
    let (store, partition) = (&world.nodes[0].services.store, scope.channel(channel));
    let read = Read {
        partition: partition.clone(),
        documents: Vec::new(),
        newest: None,
    };
    let floor = store.read(vec![read]).await.unwrap()[0].head.floor;
    let log = store.log(&partition, floor, 1_000).await.unwrap();
    [floor]
        .into_iter()
        .chain(log.entries.iter().map(|entry| entry.position))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_moves_to_redis_and_back() {
    an_app_moves(StoreKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn app_moves_to_a_cluster_and_back() {
    an_app_moves(StoreKind::Cluster).await;
}
