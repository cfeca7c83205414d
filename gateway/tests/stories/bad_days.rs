//! Damaged, full and unwritable data folders: the binary reports the cause and exits with code 2,
//! or answers `unavailable`. It never ends by a signal, and no acknowledged write is lost.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown},
    path::Path,
};

use client::{RequestError, Session};
use heed::{Database, EnvOpenOptions, types::Bytes};
use protocol::{Encoding, ErrorCode, MessageId, operation::message::MessageSend};

use crate::{
    kill::{refuses_to_start, refuses_to_start_by, said, whole_channel},
    process::{Chaos, Shop, admin_key},
    story::until,
    synced::can_trace,
};

const PAGE: u64 = 4_096;
/// Offset of the commit number on a meta page.
const COMMIT: u64 = 144;
/// Flags of the nodes of these stories.
const FLAGS: [&str; 4] = ["--demo", "off", "--limit", "requests_per_second=0"];
/// A user id without files.
const NOBODY: u32 = 65_534;

/// Creates a data folder with a few messages.
async fn filled(data: &Path) {
    let (mut node, address) = Chaos::node(data, &["--demo", "off"]).await;
    let shop = Shop::open(address, &admin_key(data)).await;
    shop.group("general", &["alice", "bob"]).await;
    let (alice, _) = shop.connects("alice", Encoding::MessagePack).await;
    for number in 1..=40 {
        alice
            .call::<MessageSend>(
                &"general".parse().unwrap(),
                &said(&MessageId::from_bits(number)),
            )
            .await
            .unwrap();
    }
    node.signal("TERM").await;
    assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
}

fn copied(from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["data.mdb", "secret-key", "admin-key"] {
        fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let journal = folder.path().join("journal");
    fs::create_dir(&journal).unwrap();
    for file in fs::read_dir(from.join("journal")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), journal.join(file.file_name())).unwrap();
    }
    folder
}

async fn refuses(data: &Path) -> String {
    refuses_to_start(&[
        "--listen",
        "127.0.0.1:0",
        "--data",
        &data.display().to_string(),
    ])
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_ends_the_start_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    filled(&data).await;
    let length = fs::metadata(data.join("data.mdb")).unwrap().len();
    let commits = [0, 1].map(|page| {
        let mut commit = [0; 8];
        fs::File::open(data.join("data.mdb"))
            .unwrap()
            .read_exact_at(&mut commit, page * PAGE + COMMIT)
            .unwrap();
        u64::from_ne_bytes(commit)
    });
    assert_eq!(
        commits[0].abs_diff(commits[1]),
        1,
        "these are the meta pages of two commits in a row"
    );
    let newer = u64::from(commits[1] > commits[0]);
    type Bad = (&'static str, Box<dyn Fn(&fs::File)>, &'static str);
    let zero = |offset: u64, length: u64| -> Box<dyn Fn(&fs::File)> {
        Box::new(move |file| {
            file.write_all_at(&vec![0; usize::try_from(length).unwrap()], offset)
                .unwrap()
        })
    };
    let cut = |length: u64| -> Box<dyn Fn(&fs::File)> {
        Box::new(move |file| file.set_len(length).unwrap())
    };
    let days: [Bad; 10] = [
        ("cut in half", cut(length / 2 / PAGE * PAGE), "was cut off"),
        ("cut within a page", cut(length / 2 + 77), "was cut off"),
        ("empty", cut(0), "too few for a store"),
        ("one page", cut(PAGE), "too few for a store"),
        ("the first meta page zeroed", zero(0, PAGE), "meta page 0"),
        (
            "the second meta page zeroed",
            zero(PAGE, PAGE),
            "meta page 1",
        ),
        ("both meta pages zeroed", zero(0, 2 * PAGE), "meta page 0"),
        (
            "what the last commit wrote to its meta page zeroed",
            zero(newer * PAGE + 32, 120),
            "meta page",
        ),
        (
            "the last commit's meta page torn",
            zero(newer * PAGE + COMMIT, 8),
            "not of two in a row",
        ),
        (
            "a zeroed tail",
            zero(length / 2, length - length / 2),
            "is damaged (page ",
        ),
    ];
    for (day, damage, words) in days {
        let folder = copied(&data);
        damage(
            &fs::File::options()
                .write(true)
                .open(folder.path().join("data.mdb"))
                .unwrap(),
        );
        let sentence = refuses(folder.path()).await;
        assert!(
            sentence.contains(words) && sentence.contains("chaos restore"),
            "{day}: {sentence}"
        );
        let (code, words) =
            Chaos::runs(&["check", "--data", &folder.path().display().to_string()]).await;
        assert!(code == 1 || code == 2, "{day}: {words}");
    }
    // The originals are undamaged.
    let (_node, _) = Chaos::node(copied(&data).path(), &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_a_newer_version_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path()).await;
    {
        #[expect(unsafe_code, reason = "no node runs on the folder")]
        let env = unsafe {
            EnvOpenOptions::new()
                .max_dbs(8)
                .map_size(1 << 30)
                .open(folder.path())
        }
        .unwrap();
        let mut txn = env.write_txn().unwrap();
        let meta: Database<Bytes, Bytes> = env.open_database(&txn, Some("meta")).unwrap().unwrap();
        meta.put(&mut txn, b"format", &99u64.to_be_bytes()).unwrap();
        txn.commit().unwrap();
    }
    let before = fs::read(folder.path().join("data.mdb")).unwrap();
    let sentence = refuses(folder.path()).await;
    assert!(
        sentence.contains("has format 99") && sentence.contains("start the version that wrote it"),
        "{sentence}"
    );
    for command in [vec!["check"], vec!["backup", "--to", "new"]] {
        let data = folder.path().display().to_string();
        let (code, words) = Chaos::runs(&[&command[..], &["--data", &data]].concat()).await;
        assert_eq!(code, 2, "{words}");
        assert!(words.contains("has format 99"), "{words}");
    }
    assert_eq!(fs::read(folder.path().join("data.mdb")).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_may_not_be_written_ends_the_start_with_a_sentence() {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    filled(&data).await;
    // Root may write anywhere, so another user starts the node.
    let starter = [
        "setpriv",
        "--reuid=65534",
        "--clear-groups",
        "--inh-caps=-all",
    ];
    let starter = if is_root { &starter[..] } else { &[] };
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    mode(folder.path(), 0o755);
    for name in [
        "data.mdb",
        "secret-key",
        "admin-key",
        "lock.mdb",
        "chaos.lock",
        "",
    ] {
        let path = data.join(name);
        if is_root {
            chown(&path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        mode(&path, if name.is_empty() { 0o555 } else { 0o444 });
    }
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--data",
        &data.display().to_string(),
    ];
    let sentence = refuses_to_start_by(starter, &arguments).await;
    assert!(
        sentence.contains("name one that this user may write to"),
        "{sentence}"
    );
    mode(&data, 0o755);
    fs::remove_file(data.join("chaos.lock")).unwrap();
    mode(&data, 0o555);
    let sentence = refuses_to_start_by(starter, &arguments).await;
    assert!(
        sentence.contains("name one that this user may write to"),
        "{sentence}"
    );
    mode(&data, 0o755);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_without_room_for_a_store_ends_the_start_with_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    // Enough for the keys and the log, too little for the first two pages.
    let starter = ["sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""];
    let sentence =
        refuses_to_start_by(&starter, &["--listen", "127.0.0.1:0", "--data", &data]).await;
    assert!(
        sentence.contains(&data) && sentence.contains("cannot be used"),
        "{sentence}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_of_a_cut_journal_ends_with_1_and_restore_refuses_it() {
    let folder = tempfile::tempdir().unwrap();
    let [data, backup, restored] =
        ["data", "backup", "restored"].map(|name| folder.path().join(name));
    filled(&data).await;
    let [source, target, new] = [&data, &backup, &restored].map(|path| path.display().to_string());
    let (code, words) = Chaos::runs(&["backup", "--data", &source, "--to", &target]).await;
    assert_eq!(code, 0, "{words}");
    for file in fs::read_dir(backup.join("journal")).unwrap() {
        let file = fs::File::options()
            .write(true)
            .open(file.unwrap().path())
            .unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    }
    let (code, words) = Chaos::runs(&["check", "--data", &target]).await;
    assert_eq!(code, 1, "{words}");
    assert!(
        words.contains("is not complete") && words.contains("is not whole: 1 finding"),
        "{words}"
    );
    let (code, words) = Chaos::runs(&["restore", "--from", &target, "--data", &new]).await;
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("is not complete"), "{words}");
}

/// A limit on the file size simulates a full disk: no further segment of the journal can be made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_makes_sends_unavailable_and_loses_no_acknowledged_message() {
    let folder = tempfile::tempdir().unwrap();
    let starter = ["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""];
    let (mut node, address) = Chaos::node_by(&starter, folder.path(), &FLAGS).await;
    let mut shop = Shop::open(address, &admin_key(folder.path())).await;
    shop.group("general", &["alice", "bob"]).await;
    let general = "general".parse().unwrap();
    let (alice, _) = shop.connects("alice", Encoding::MessagePack).await;
    let mut acknowledged = BTreeMap::new();
    let long = |id: &MessageId| protocol::operation::message::SendMessage {
        text: Some("x".repeat(16_000)),
        ..said(id)
    };
    let limit_file_size = |pid: u32, limit: &str| {
        let limited = std::process::Command::new("prlimit")
            .args([
                "--pid",
                &pid.to_string(),
                &format!("--fsize={limit}:unlimited"),
            ])
            .status();
        assert!(limited.unwrap().success());
    };
    limit_file_size(node.pid(), "1000000");
    let refusal = loop {
        let id = MessageId::from_bits(acknowledged.len() as u64 + 1);
        match alice.call::<MessageSend>(&general, &long(&id)).await {
            Ok(message) => acknowledged.insert(id, message.number),
            Err(RequestError::Refused(error)) => break error,
            Err(other) => panic!("{other}"),
        };
    };
    assert_eq!(refusal.code, ErrorCode::Unavailable);
    assert!(acknowledged.len() > 20);
    let team = shop.team();
    let ready = async || {
        team.request(axum::http::Method::GET, "/readyz")
            .send()
            .await
            .unwrap()
            .status
            .as_u16()
    };
    until("it is not ready", async || ready().await == 503).await;
    // The session is open, and reads are answered.
    assert_eq!(whole_channel(&shop, "general").await, acknowledged);
    limit_file_size(node.pid(), "unlimited");
    until("it is ready again", async || ready().await == 200).await;
    let id = MessageId::from_bits(acknowledged.len() as u64 + 1);
    acknowledged.insert(
        id.clone(),
        alice
            .call::<MessageSend>(&general, &long(&id))
            .await
            .unwrap()
            .number,
    );
    node.kill9().await;
    let (_node, address) = Chaos::node(folder.path(), &FLAGS).await;
    shop = shop.moved(address);
    assert_eq!(whole_channel(&shop, "general").await, acknowledged);
}

/// Sends messages, and records the acknowledged ones. Returns the number of refusals, or `None` if
/// the connection ended before.
async fn sends(
    session: &Session,
    ids: std::ops::RangeInclusive<u64>,
    acknowledged: &mut BTreeMap<MessageId, u64>,
) -> Option<usize> {
    let mut refused = 0;
    for id in ids.map(MessageId::from_bits) {
        match session
            .call::<MessageSend>(&"general".parse().unwrap(), &said(&id))
            .await
        {
            Ok(message) => assert_eq!(
                *acknowledged.entry(id).or_insert(message.number),
                message.number
            ),
            Err(RequestError::Refused(error)) => {
                assert_eq!(error.code, ErrorCode::Unavailable);
                refused += 1;
            }
            Err(_) => return None,
        }
    }
    Some(refused)
}

/// A node whose writes fail at times.
async fn on_a_failing_disk(data: &Path, fault: &str) -> (Chaos, Shop, Session) {
    let starter = [
        "strace",
        "-D",
        "-f",
        "-qq",
        "-e",
        "trace=fdatasync,pwrite64",
        "-e",
        fault,
        "-o",
        "/dev/null",
    ];
    let (node, address) = Chaos::node_by(&starter, data, &FLAGS).await;
    let shop = Shop::open(address, &admin_key(data)).await;
    shop.group("general", &["alice", "bob"]).await;
    let (alice, _) = shop.connects("alice", Encoding::MessagePack).await;
    (node, shop, alice)
}

/// Restarts on the same folder, and checks that acknowledged messages exist and that the others can
/// be sent again.
async fn holds(data: &Path, shop: Shop, last: u64, mut acknowledged: BTreeMap<MessageId, u64>) {
    let (_node, address) = Chaos::node(data, &FLAGS).await;
    let shop = shop.moved(address);
    let found = whole_channel(&shop, "general").await;
    assert!(
        acknowledged
            .iter()
            .all(|(id, number)| found.get(id) == Some(number))
    );
    let (alice, _) = shop.connects("alice", Encoding::MessagePack).await;
    assert_eq!(sends(&alice, 1..=last, &mut acknowledged).await, Some(0));
    assert_eq!(whole_channel(&shop, "general").await, acknowledged);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_sync_ends_the_node_and_loses_no_acknowledged_message() {
    if !can_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut node, shop, alice) =
        on_a_failing_disk(folder.path(), "inject=fdatasync:error=EIO:when=40..44").await;
    let mut acknowledged = BTreeMap::new();
    let _ = sends(&alice, 1..=60, &mut acknowledged).await;
    assert!(
        (10..60).contains(&acknowledged.len()),
        "{} acknowledged",
        acknowledged.len()
    );
    // Whether the disk has what was written before a failed sync is unknown, also after a later sync
    // that succeeds.
    assert_eq!(node.ends().await.code(), Some(2), "{}", node.log());
    holds(folder.path(), shop, 60, acknowledged).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_commit_write_ends_the_node_and_loses_no_acknowledged_message() {
    if !can_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut node, shop, alice) =
        on_a_failing_disk(folder.path(), "inject=pwrite64:error=EIO:when=84+12").await;
    let mut acknowledged = BTreeMap::new();
    let _ = sends(&alice, 1..=200, &mut acknowledged).await;
    assert!(
        (10..200).contains(&acknowledged.len()),
        "{} acknowledged",
        acknowledged.len()
    );
    assert_eq!(node.ends().await.code(), Some(2), "{}", node.log());
    let log = node.log();
    assert!(log.lines().last().is_some_and(|line| line.starts_with("chaos: the disk failed in the midst of a commit")), "{log}");
    holds(folder.path(), shop, 200, acknowledged).await;
}
