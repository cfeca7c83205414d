//! What cannot be moved is refused with a sentence, and what was interrupted is never served.

mod export;

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use protocol::{
    ErrorCode,
    operation::read::{MarkRead, ReadMark},
};
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
};

use super::{answers, busy::Busy, chaos};
use crate::story::{Ground, Keeper, Person, World, refusal, until};

/// An app in a file, and a world that is about to take it.
struct Moving {
    world: World,
    busy: Busy,
    before: answers::Answers,
    folder: tempfile::TempDir,
    lines: Vec<String>,
    /// How to import.
    words: Vec<String>,
}

impl Moving {
    async fn to(ground: Ground) -> Self {
        let mut world = World::with(Ground::Redis, 1, &super::FLAGS).await;
        let busy = Busy::app(&world).await;
        let before = answers::all(&world, &busy).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("app.jsonl");
        world.exports(&file).await;
        let lines = fs::read_to_string(&file)
            .unwrap()
            .split_inclusive('\n')
            .map(str::to_owned)
            .collect();
        let words = world.leaves_for(ground).await;
        Self {
            world,
            busy,
            before,
            folder,
            lines,
            words,
        }
    }

    fn file(&self, text: &[u8]) -> PathBuf {
        let file = self.folder.path().join("changed.jsonl");
        fs::write(&file, text).unwrap();
        file
    }

    async fn imports(&self, text: &[u8]) -> Result<gateway::transfer::Counts, String> {
        let file = self.file(text);
        chaos(&["import", "--from", file.to_str().unwrap()], &self.words)
            .await
            .map_err(|error| error.to_string())
    }

    /// The import is refused with these words in its sentence.
    async fn is_refused(&self, text: &[u8], why: &str) {
        let sentence = self.imports(text).await.unwrap_err();
        assert!(sentence.contains(why), "{sentence}");
    }

    /// No credential leads to anything of the app.
    async fn nothing_is_served(&mut self) {
        self.world.goes_on().await;
        let path = format!("/v1/organizations/{}", self.world.organization);
        for (credential, path) in [
            (&self.world.organization_key, path.as_str()),
            (&self.world.app_key, "/v1/channels/help"),
            (&self.busy.test_key, "/v1/users/ada"),
            (&self.busy.of_ada, "/v1/channels/help"),
        ] {
            let answer = self.world.backend(credential).get::<Value>(path).await;
            assert_eq!(refusal(answer), (401, ErrorCode::Unauthenticated), "{path}");
        }
        let organizations: Value = self
            .world
            .backend(&self.world.admin_key)
            .get("/v1/organizations")
            .await
            .unwrap();
        assert_eq!(organizations["items"], json!([]));
        self.world.ends().await;
    }

    /// The whole file goes in, and the app answers as it did.
    async fn comes_whole(mut self) {
        let text = self.lines.concat();
        // Of the node before, a task may still be about to let the folder go.
        until("the store is free", || async {
            match self.imports(text.as_bytes()).await {
                Ok(_) => true,
                Err(sentence) if sentence.contains("in use by") => false,
                Err(sentence) => panic!("{sentence}"),
            }
        })
        .await;
        self.world.goes_on().await;
        assert_eq!(answers::all(&self.world, &self.busy).await, self.before);
    }
}

async fn a_cut_file_is_refused_and_the_whole_one_taken(ground: Ground) {
    let mut moving = Moving::to(ground).await;
    let (lines, text) = (moving.lines.clone(), moving.lines.concat());
    moving.is_refused(b"", "cut off").await;
    for share in [1, 3, 7] {
        moving
            .is_refused(
                lines[..lines.len() * share / 8].concat().as_bytes(),
                "cut off",
            )
            .await;
    }
    moving
        .is_refused(&text.as_bytes()[..text.len() / 2], "cut off")
        .await;
    moving
        .is_refused(lines[..lines.len() - 1].concat().as_bytes(), "cut off")
        .await;
    moving
        .is_refused(&text.as_bytes()[..text.len() - 1], "cut off")
        .await;
    moving.nothing_is_served().await;
    moving.comes_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_file_is_refused_and_the_whole_one_taken_by_a_folder() {
    a_cut_file_is_refused_and_the_whole_one_taken(Ground::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_file_is_refused_and_the_whole_one_taken_by_redis() {
    a_cut_file_is_refused_and_the_whole_one_taken(Ground::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_refused() {
    let moving = Moving::to(Ground::Redis).await;
    let (lines, text) = (moving.lines.clone(), moving.lines.concat());
    let without = |line: usize| [&lines[..line], &lines[line + 1..]].concat().concat();
    let message = lines
        .iter()
        .position(|line| line.contains("no. 7"))
        .unwrap();
    moving
        .is_refused(
            without(message).as_bytes(),
            "do not match its counts and checksum",
        )
        .await;
    moving
        .is_refused(
            text.replace("no. 7", "no. 8").as_bytes(),
            "do not match its counts and checksum",
        )
        .await;
    moving
        .is_refused(format!("{text}\n").as_bytes(), "something follows")
        .await;
    moving
        .is_refused(
            text.replace("\"no. 7", "no. 7").as_bytes(),
            &format!("line {}", message + 1),
        )
        .await;
    let other = text.replace(
        &format!("\"name\":\"a:{}", moving.world.app),
        "\"name\":\"a:app_0000000000000000",
    );
    moving
        .is_refused(other.as_bytes(), "a partition outside the app")
        .await;
    for other in ["1", "3"] {
        let other = text.replace("\"format\":2", &format!("\"format\":{other}"));
        moving
            .is_refused(other.as_bytes(), "use the version that wrote it")
            .await;
    }
    moving
        .is_refused(b"{\"hello\": \"world\"}\n", "no export")
        .await;
    let secret = moving.folder.path().join("other-secret");
    fs::write(&secret, "ab".repeat(32)).unwrap();
    let file = moving.file(text.as_bytes());
    let words = [
        "import",
        "--from",
        file.to_str().unwrap(),
        "--secret-key-file",
        secret.to_str().unwrap(),
    ];
    let sentence = chaos(&words, &moving.words[..2])
        .await
        .unwrap_err()
        .to_string();
    assert!(sentence.contains("another secret key"), "{sentence}");
    moving.comes_whole().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_import_is_refused_and_changes_nothing() {
    for ground in [Ground::Embedded, Ground::Redis] {
        let mut moving = Moving::to(ground).await;
        let text = moving.lines.concat();
        moving.imports(text.as_bytes()).await.unwrap();
        moving
            .is_refused(
                text.as_bytes(),
                "import it into a store that does not have it",
            )
            .await;
        moving.world.goes_on().await;
        assert_eq!(
            answers::all(&moving.world, &moving.busy).await,
            moving.before
        );
    }
}

/// A process that imports from its standard input.
fn importing(words: &[String]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chaos"));
    command
        .arg("import")
        .args(words)
        .env_clear()
        .kill_on_drop(true);
    command
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_import_is_never_served_and_begins_again() {
    for ground in [Ground::Embedded, Ground::Redis] {
        let mut moving = Moving::to(ground).await;
        for share in [2, 5, 7] {
            let mut process = importing(&moving.words);
            let mut input = process.stdin.take().unwrap();
            input
                .write_all(
                    moving.lines[..moving.lines.len() * share / 8]
                        .concat()
                        .as_bytes(),
                )
                .await
                .unwrap();
            let begun = || async {
                match &moving.world.keeper {
                    Keeper::Redis(server, _) => {
                        server.command(&["DBSIZE"]).await.unwrap() != redis::Value::Int(0)
                    }
                    Keeper::Embedded(folder) => folder.path().join("data/data.mdb").exists(),
                    _ => unreachable!("it moves to one of these"),
                }
            };
            until("it has begun", begun).await;
            process.kill().await.unwrap();
        }
        moving.nothing_is_served().await;
        moving.comes_whole().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_imports_at_once_the_later_one_counts() {
    let moving = Moving::to(Ground::Redis).await;
    let Keeper::Redis(server, _) = &moving.world.keeper else {
        unreachable!("it moves to one")
    };
    let channel = format!("chaos:{{c:{}:live:help}}:head", moving.world.app);
    let has_channel = async |has: i64| {
        server.command(&["EXISTS", &channel]).await.unwrap() == redis::Value::Int(has)
    };
    let (last, all) = moving.lines.split_last().unwrap();
    let (begin, rest) = moving.lines.split_at(moving.lines.len() / 8);

    // The first one has everything but the footer when the second takes it away.
    let (mut first, mut second) = (importing(&moving.words), importing(&moving.words));
    let (mut to_first, mut to_second) = (first.stdin.take().unwrap(), second.stdin.take().unwrap());
    to_first.write_all(all.concat().as_bytes()).await.unwrap();
    until("the first has the channel", || has_channel(1)).await;
    to_second
        .write_all(begin.concat().as_bytes())
        .await
        .unwrap();
    until("the second has taken it away", || has_channel(0)).await;
    to_first.write_all(last.as_bytes()).await.unwrap();
    drop(to_first);
    assert_eq!(first.wait().await.unwrap().code(), Some(2));
    to_second.write_all(rest.concat().as_bytes()).await.unwrap();
    drop(to_second);
    assert_eq!(second.wait().await.unwrap().code(), Some(0));
    let Moving {
        mut world,
        busy,
        before,
        ..
    } = moving;
    world.goes_on().await;
    assert_eq!(answers::all(&world, &busy).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_with_another_secret_key_takes_nothing() {
    let mut moving = Moving::to(Ground::Embedded).await;
    // A node that comes first makes the folder its own.
    moving.nothing_is_served().await;
    moving
        .is_refused(
            moving.lines.concat().as_bytes(),
            "which nodes use for this folder",
        )
        .await;
    moving.words.truncate(2);
    moving
        .is_refused(moving.lines.concat().as_bytes(), "another secret key")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_of_one_organization_move_one_after_another() {
    let mut world = World::with(Ground::Embedded, 1, &super::FLAGS).await;
    let (other, other_key) = world.make_app("live").await;
    for key in [&world.app_key, &other_key] {
        let _: Value = world
            .backend(key)
            .put("/v1/users/ada", &json!({}))
            .await
            .unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["first.jsonl", "second.jsonl"].map(|name| folder.path().join(name));
    world.exports(&first).await;
    let app = std::mem::replace(&mut world.app, other);
    world.exports(&second).await;
    let words = world.leaves_for(Ground::Redis).await;
    let apps = async |world: &World| -> Vec<Value> {
        let list: Value = world
            .backend(&world.organization_key)
            .get(&format!("/v1/organizations/{}/apps", world.organization))
            .await
            .unwrap();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|app| app["id"].clone())
            .collect()
    };
    chaos(&["import", "--from", first.to_str().unwrap()], &words)
        .await
        .unwrap();
    world.goes_on().await;
    assert_eq!(apps(&world).await, [json!(app)]);
    let there: Value = world.team().get("/v1/users/ada").await.unwrap();
    assert_eq!(there["id"], "ada");
    let not_yet = world
        .backend(&other_key)
        .get::<Value>("/v1/users/ada")
        .await;
    assert_eq!(refusal(not_yet), (401, ErrorCode::Unauthenticated));

    // The other one comes while nodes serve the first.
    chaos(&["import", "--from", second.to_str().unwrap()], &words)
        .await
        .unwrap();
    let mut both = vec![json!(app), json!(world.app)];
    both.sort_by_key(ToString::to_string);
    assert_eq!(apps(&world).await, both);
    let comes = || async {
        world
            .backend(&other_key)
            .get::<Value>("/v1/users/ada")
            .await
            .is_ok()
    };
    until("the nodes believe the key", comes).await;
}
