//! Refused and interrupted imports.

mod export;
mod organization;

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
use crate::story::{Person, StoreKind, StoreProcess, World, refusal, until};

/// An exported app, and an empty store to import it into.
struct PendingImport {
    world: World,
    busy: Busy,
    before: answers::Answers,
    folder: tempfile::TempDir,
    lines: Vec<String>,
    /// Arguments of the import.
    words: Vec<String>,
}

impl PendingImport {
    async fn to(store_kind: StoreKind) -> Self {
        let mut world = World::with(StoreKind::Redis, 1, &super::FLAGS).await;
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
        let words = world.leaves_for(store_kind).await;
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

    async fn imports(&self, text: &[u8]) -> Result<gateway::transfer::TransferCounts, String> {
        let file = self.file(text);
        chaos(&["import", "--from", file.to_str().unwrap()], &self.words)
            .await
            .map_err(|error| error.to_string())
    }

    /// Imports `text`, and checks that it is refused with `why` in the sentence.
    async fn is_refused(&self, text: &[u8], why: &str) {
        let sentence = self.imports(text).await.unwrap_err();
        assert!(sentence.contains(why), "{sentence}");
    }

    /// Checks that no credential of the app is valid.
    async fn is_not_served(&mut self) {
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

    /// Imports the complete file, and checks that the app responds as before.
    async fn imports_completely(mut self) {
        let text = self.lines.concat();
        // A task of the previous node may still hold the folder.
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

async fn truncated_file_is_refused_and_the_complete_one_imported(store_kind: StoreKind) {
    let mut import = PendingImport::to(store_kind).await;
    let (lines, text) = (import.lines.clone(), import.lines.concat());
    import.is_refused(b"", "cut off").await;
    for share in [1, 3, 7] {
        import
            .is_refused(
                lines[..lines.len() * share / 8].concat().as_bytes(),
                "cut off",
            )
            .await;
    }
    import
        .is_refused(&text.as_bytes()[..text.len() / 2], "cut off")
        .await;
    import
        .is_refused(lines[..lines.len() - 1].concat().as_bytes(), "cut off")
        .await;
    import
        .is_refused(&text.as_bytes()[..text.len() - 1], "cut off")
        .await;
    import.is_not_served().await;
    import.imports_completely().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_file_is_refused_by_a_folder() {
    truncated_file_is_refused_and_the_complete_one_imported(StoreKind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncated_file_is_refused_by_redis() {
    truncated_file_is_refused_and_the_complete_one_imported(StoreKind::Redis).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changed_file_is_refused() {
    let import = PendingImport::to(StoreKind::Redis).await;
    let (lines, text) = (import.lines.clone(), import.lines.concat());
    let without = |line: usize| [&lines[..line], &lines[line + 1..]].concat().concat();
    let message = lines
        .iter()
        .position(|line| line.contains("no. 7"))
        .unwrap();
    import
        .is_refused(
            without(message).as_bytes(),
            "a message has another number than follows",
        )
        .await;
    import
        .is_refused(
            text.replace("no. 7", "no. 8").as_bytes(),
            "do not match its counts and checksum",
        )
        .await;
    import
        .is_refused(format!("{text}\n").as_bytes(), "something follows")
        .await;
    import
        .is_refused(
            text.replace("\"no. 7", "no. 7").as_bytes(),
            &format!("line {}", message + 1),
        )
        .await;
    let other = text.replace(
        &format!("\"name\":\"a:{}", import.world.app),
        "\"name\":\"a:app_0000000000000000",
    );
    import
        .is_refused(other.as_bytes(), "a partition outside the app")
        .await;
    for other in ["1", "3"] {
        let other = text.replace("\"format\":2", &format!("\"format\":{other}"));
        import
            .is_refused(other.as_bytes(), "use the version that wrote it")
            .await;
    }
    import
        .is_refused(b"{\"hello\": \"world\"}\n", "no export")
        .await;
    let secret = import.folder.path().join("other-secret");
    fs::write(&secret, "ab".repeat(32)).unwrap();
    let file = import.file(text.as_bytes());
    let words = [
        "import",
        "--from",
        file.to_str().unwrap(),
        "--secret-key-file",
        secret.to_str().unwrap(),
    ];
    let sentence = chaos(&words, &import.words[..2])
        .await
        .unwrap_err()
        .to_string();
    assert!(sentence.contains("another secret key"), "{sentence}");
    import.imports_completely().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_import_is_refused_and_changes_nothing() {
    for store_kind in [StoreKind::Embedded, StoreKind::Redis] {
        let mut import = PendingImport::to(store_kind).await;
        let text = import.lines.concat();
        import.imports(text.as_bytes()).await.unwrap();
        import
            .is_refused(
                text.as_bytes(),
                "import it into a store that does not have it",
            )
            .await;
        import.world.goes_on().await;
        assert_eq!(
            answers::all(&import.world, &import.busy).await,
            import.before
        );
    }
}

/// Starts a process that imports from its standard input.
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
async fn killed_import_is_not_served_and_can_be_repeated() {
    for store_kind in [StoreKind::Embedded, StoreKind::Redis] {
        let mut import = PendingImport::to(store_kind).await;
        for share in [2, 5, 7] {
            let mut process = importing(&import.words);
            let mut input = process.stdin.take().unwrap();
            input
                .write_all(
                    import.lines[..import.lines.len() * share / 8]
                        .concat()
                        .as_bytes(),
                )
                .await
                .unwrap();
            let begun = || async {
                match &import.world.store_process {
                    StoreProcess::Redis(server, _) => {
                        server.command(&["DBSIZE"]).await.unwrap() != redis::Value::Int(0)
                    }
                    StoreProcess::Embedded(folder) => folder.path().join("data/data.mdb").exists(),
                    _ => unreachable!("it moves to one of these"),
                }
            };
            until("it has begun", begun).await;
            process.kill().await.unwrap();
        }
        import.is_not_served().await;
        import.imports_completely().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_of_two_concurrent_imports_succeeds() {
    let import = PendingImport::to(StoreKind::Redis).await;
    let StoreProcess::Redis(server, _) = &import.world.store_process else {
        unreachable!("it moves to one")
    };
    let channel = format!("chaos:{{c:{}:live:help}}:head", import.world.app);
    let has_channel = async |has: i64| {
        server.command(&["EXISTS", &channel]).await.unwrap() == redis::Value::Int(has)
    };
    let (last, all) = import.lines.split_last().unwrap();
    let (begin, rest) = import.lines.split_at(import.lines.len() / 8);

    // The first import has loaded everything but the footer when the second removes it.
    let (mut first, mut second) = (importing(&import.words), importing(&import.words));
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
    let PendingImport {
        mut world,
        busy,
        before,
        ..
    } = import;
    world.goes_on().await;
    assert_eq!(answers::all(&world, &busy).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folder_with_another_secret_key_refuses_the_import() {
    let mut import = PendingImport::to(StoreKind::Embedded).await;
    // A node has created a secret key in the folder.
    import.is_not_served().await;
    import
        .is_refused(
            import.lines.concat().as_bytes(),
            "which nodes use for this folder",
        )
        .await;
    import.words.truncate(2);
    import
        .is_refused(import.lines.concat().as_bytes(), "another secret key")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apps_of_one_organization_are_imported_one_after_another() {
    let mut world = World::with(StoreKind::Embedded, 1, &super::FLAGS).await;
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
    let words = world.leaves_for(StoreKind::Redis).await;
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

    // An organization that was changed meanwhile differs from the file's, until it is changed back.
    let path = format!("/v1/organizations/{}", world.organization);
    let rename = async |name: &str| {
        let _: Value = world
            .backend(&world.organization_key)
            .patch(&path, &json!({ "name": name }))
            .await
            .unwrap();
    };
    rename("Other").await;
    let sentence = chaos(&["import", "--from", second.to_str().unwrap()], &words)
        .await
        .unwrap_err()
        .to_string();
    assert!(sentence.contains(&world.organization), "{sentence}");
    rename("Acme").await;

    // The second app is imported while nodes serve the first.
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
