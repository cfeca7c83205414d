//! `chaos backup`, `restore` and `check`, also while a node uses the data folder.

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use client::Session;
use heed::{Database, EnvOpenOptions, types::Bytes};
use protocol::{
    Cursor, Encoding, EventMessage, MessageId,
    entity::{EntryResult, Gap},
    event::Event,
    operation::{
        message::{MessageSend, SendMessage},
        session::Connect,
    },
};

use crate::{
    kill::{refuses_to_start, said, whole_channel},
    process::{Chaos, Shop, admin_key},
    story::{TIMEOUT, until},
};

const FLAGS: [&str; 4] = ["--demo", "off", "--limit", "requests_per_second=0"];

fn text(path: &Path) -> String {
    path.display().to_string()
}

async fn backs_up(data: &Path, to: &Path) {
    let (code, words) = Chaos::runs(&["backup", "--data", &text(data), "--to", &text(to)]).await;
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("is complete"), "{words}");
}

async fn restores(from: &Path, data: &Path) {
    let (code, words) =
        Chaos::runs(&["restore", "--from", &text(from), "--data", &text(data)]).await;
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("is restored"), "{words}");
}

async fn is_whole(data: &Path) {
    let (code, words) = Chaos::runs(&["check", "--data", &text(data)]).await;
    assert_eq!(code, 0, "{words}");
    assert!(words.contains("is whole: "), "{words}");
}

/// Runs a command that fails with exit code 2, and returns its sentence.
async fn is_refused(arguments: &[&str]) -> String {
    let (code, words) = Chaos::runs(arguments).await;
    assert_eq!(code, 2, "{arguments:?}: {words}");
    let sentences: Vec<_> = words
        .lines()
        .filter(|line| line.starts_with("chaos: "))
        .collect();
    assert_eq!(sentences.len(), 1, "{arguments:?}: {words}");
    sentences[0].to_owned()
}

/// Returns the sorted names of a folder's entries.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Sends until the session ends, and counts the acknowledged messages.
async fn sends_on(session: Session, lane: u64, acknowledged: Arc<AtomicU64>) {
    for number in 1.. {
        let id = MessageId::from_bits(lane << 32 | number);
        if session
            .call::<MessageSend>(&"general".parse().unwrap(), &said(&id))
            .await
            .is_err()
        {
            return;
        }
        acknowledged.store(number, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_a_busy_node_has_every_message_acknowledged_before() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup, restored) = (
        folder.path().join("data"),
        folder.path().join("backup"),
        folder.path().join("restored"),
    );
    let (mut node, address) = Chaos::node(&data, &FLAGS).await;
    let shop = Shop::open(address, &admin_key(&data)).await;
    shop.group("general", &["alice", "bob"]).await;
    let lanes = [1u64, 2].map(|lane| (lane, Arc::new(AtomicU64::new(0))));
    let mut senders = Vec::new();
    for ((lane, acknowledged), name) in lanes.iter().zip(["alice", "bob"]) {
        let (session, _) = shop.connects(name, Encoding::MessagePack).await;
        senders.push(tokio::spawn(sends_on(session, *lane, acknowledged.clone())));
    }
    let counts = || {
        lanes
            .each_ref()
            .map(|(_, count)| count.load(Ordering::SeqCst))
    };
    until("something is acknowledged", || async {
        counts().iter().all(|count| *count > 50)
    })
    .await;
    let before = counts();
    backs_up(&data, &backup).await;
    let after = counts();
    assert!(
        before
            .iter()
            .zip(after)
            .any(|(before, after)| *before < after),
        "the node goes on meanwhile"
    );
    is_whole(&data).await;
    node.kill9().await;
    for sender in senders {
        sender.await.unwrap();
    }
    is_whole(&data).await;

    assert_eq!(
        names(&backup),
        ["admin-key", "data.mdb", "journal", "secret-key"]
    );
    for name in names(&backup) {
        let found = std::fs::metadata(backup.join(&name)).unwrap();
        let expected = if found.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(found.permissions().mode() & 0o777, expected, "{name}");
    }
    is_whole(&backup).await;
    restores(&backup, &restored).await;
    is_whole(&restored).await;
    let (_node, address) = Chaos::node(&restored, &FLAGS).await;
    let shop = shop.moved(address);
    let found = whole_channel(&shop, "general").await;
    for ((lane, _), before) in lanes.iter().zip(before) {
        for number in 1..=before {
            assert!(
                found.contains_key(&MessageId::from_bits(lane << 32 | number)),
                "{number} of {lane} was acknowledged before"
            );
        }
    }
    // The node's signing key is encrypted with the secret key of the backup.
    shop.connects("alice", Encoding::Json).await;
}

/// Returns the cursor of a client that has received this event.
fn after(event: &EventMessage) -> Cursor {
    Cursor::After(event.seq.unwrap(), event.at.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_ahead_of_a_restored_backup_receives_diverged() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup, restored) = (
        folder.path().join("data"),
        folder.path().join("backup"),
        folder.path().join("restored"),
    );
    let (mut node, address) = Chaos::node(&data, &FLAGS).await;
    let mut shop = Shop::open(address, &admin_key(&data)).await;
    shop.group("general", &["alice", "bob"]).await;
    let general = "general".parse().unwrap();
    let send = async |shop: &Shop, ids: std::ops::RangeInclusive<u64>| {
        let (alice, mut events) = shop.connects("alice", Encoding::MessagePack).await;
        let mut seen = Vec::new();
        for id in ids {
            alice
                .call::<MessageSend>(&general, &said(&MessageId::from_bits(id)))
                .await
                .unwrap();
            seen.push(
                tokio::time::timeout(TIMEOUT, events.next())
                    .await
                    .unwrap()
                    .unwrap(),
            );
        }
        seen
    };
    let kept = send(&shop, 1..=3).await;
    backs_up(&data, &backup).await;
    let lost = send(&shop, 4..=6).await;
    // Events of Bob's own stream are lost, too.
    let (bob, mut events) = shop.connects("bob", Encoding::MessagePack).await;
    let user_position = bob.connected().user_position;
    shop.group("later", &["alice", "bob"]).await;
    let added = loop {
        let event = tokio::time::timeout(TIMEOUT, events.next())
            .await
            .unwrap()
            .unwrap();
        if event.event == "channel.added" {
            break event;
        }
    };
    node.signal("TERM").await;
    assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());

    restores(&backup, &restored).await;
    let (_node, address) = Chaos::node(&restored, &FLAGS).await;
    shop = shop.moved(address);
    let resumes = async |cursor: Cursor, user_position: Cursor| {
        let connect = Connect {
            resume: [(general.clone(), cursor)].into(),
            user_position: Some(user_position),
            ..Connect::default()
        };
        let (bob, events) = shop.resumes("bob", connect).await;
        let gap = match &bob.connected().channels[..] {
            [EntryResult::Entry(entry)] => entry.gap,
            other => panic!("{other:?}"),
        };
        (gap, bob.connected().user_gap, events)
    };
    let unchanged = Cursor::After(user_position.0, user_position.1);
    for event in &lost {
        let (gap, user_gap, _) = resumes(after(event), unchanged).await;
        assert_eq!(
            (gap, user_gap),
            (Some(Gap::Diverged), None),
            "in the future of what was restored"
        );
    }
    assert_eq!(
        resumes(after(&kept[2]), after(&added)).await.1,
        Some(Gap::Diverged),
        "his own stream, too"
    );
    // The restored channel assigns the lost numbers to other events.
    let anew = send(&shop, 11..=15).await;
    assert_eq!(anew[0].seq, lost[0].seq, "numbers are assigned again");
    for event in &lost {
        assert_eq!(
            resumes(after(event), unchanged).await.0,
            Some(Gap::Diverged),
            "another event stands there"
        );
    }
    // A client that was not ahead of the backup receives each new event once.
    let (gap, user_gap, mut events) = resumes(after(&kept[1]), unchanged).await;
    assert_eq!((gap, user_gap), (None, None));
    for expected in [3, 11, 12, 13, 14, 15] {
        let event = tokio::time::timeout(TIMEOUT, events.next())
            .await
            .unwrap()
            .unwrap();
        match event.read().unwrap() {
            Event::MessageCreated(message) => {
                assert_eq!(message.id, MessageId::from_bits(expected))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_overwritten_and_failures_are_reported_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let (data, backup, other, nowhere) =
        (path("data"), path("backup"), path("other"), path("nowhere"));
    let (_node, _) = Chaos::node(Path::new(&data), &[]).await;
    backs_up(Path::new(&data), Path::new(&backup)).await;
    assert_eq!(
        names(Path::new(&backup)),
        [
            "admin-key",
            "data.mdb",
            "demo.json",
            "journal",
            "secret-key"
        ]
    );
    std::fs::create_dir(&other).unwrap();
    std::fs::write(format!("{other}/notes"), "mine").unwrap();
    std::fs::write(path("file"), "mine").unwrap();

    let cut = path("cut");
    std::fs::create_dir(&cut).unwrap();
    std::fs::write(
        format!("{cut}/data.mdb"),
        &std::fs::read(format!("{backup}/data.mdb")).unwrap()[..12_000],
    )
    .unwrap();

    for (arguments, words) in [
        (
            vec!["backup", "--data", &data, "--to", &backup],
            "exists already",
        ),
        (
            vec!["backup", "--data", &data, "--to", &other],
            "exists already",
        ),
        (
            vec!["backup", "--data", &data, "--to", &path("file")],
            "exists already",
        ),
        (
            vec!["backup", "--data", &data, "--to", &path("nowhere/backup")],
            "pass one in a folder",
        ),
        (
            vec!["backup", "--data", &data, "--to", ".."],
            "exists already",
        ),
        (
            vec!["backup", "--data", &nowhere, "--to", &path("new")],
            "holds no store",
        ),
        (
            vec!["backup", "--data", &cut, "--to", &path("new")],
            "was cut off",
        ),
        (
            vec!["restore", "--from", &backup, "--data", &data],
            "in use by another process",
        ),
        (
            vec!["restore", "--from", &backup, "--data", &other],
            "contains notes",
        ),
        (
            vec!["restore", "--from", &backup, "--data", &path("file")],
            "cannot restore to",
        ),
        (
            vec!["restore", "--from", &nowhere, "--data", &path("new")],
            "holds no store",
        ),
        (
            vec!["restore", "--from", &cut, "--data", &path("new")],
            "is not whole",
        ),
        (vec!["check", "--data", &nowhere], "holds no store"),
        (vec!["check", "--data", &other], "holds no store"),
        (
            vec!["--log", "info", "check", "--data", &data],
            "the command's flags after it",
        ),
    ] {
        let sentence = is_refused(&arguments).await;
        assert!(sentence.contains(words), "{arguments:?}: {sentence}");
    }
    let left = names(folder.path());
    assert_eq!(
        left,
        ["backup", "cut", "data", "file", "other"],
        "a failed command leaves no files"
    );
    assert_eq!(names(Path::new(&other)), ["chaos.lock", "notes"]);

    let (code, words) = Chaos::runs(&["check", "--data", &cut]).await;
    assert_eq!(code, 1, "{words}");
    assert!(
        words.contains("was cut off")
            && words.contains("mending it")
            && words.contains("is not whole: 1 finding"),
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounted_volume_counts_as_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (data, backup, restored) = (
        folder.path().join("data"),
        folder.path().join("backup"),
        folder.path().join("restored"),
    );
    for volume in [&data, &restored] {
        std::fs::create_dir_all(volume.join("lost+found")).unwrap();
    }
    let (_node, _) = Chaos::node(&data, &[]).await;
    backs_up(&data, &backup).await;
    assert_eq!(
        names(&backup),
        [
            "admin-key",
            "data.mdb",
            "demo.json",
            "journal",
            "secret-key"
        ]
    );
    restores(&backup, &restored).await;
    is_whole(&restored).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_with_a_missing_record_fails_the_check_and_is_not_restored() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let (data, restored) = (path("data"), path("restored"));
    let (mut node, _) = Chaos::node(Path::new(&data), &[]).await;
    node.signal("TERM").await;
    assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
    is_whole(Path::new(&data)).await;
    {
        #[expect(unsafe_code, reason = "no node runs on the folder")]
        let env = unsafe {
            EnvOpenOptions::new()
                .max_dbs(8)
                .map_size(1 << 30)
                .open(&data)
        }
        .unwrap();
        let mut txn = env.write_txn().unwrap();
        let entries: Database<Bytes, Bytes> =
            env.open_database(&txn, Some("entries")).unwrap().unwrap();
        let is_event = |(key, _): &(&[u8], &[u8])| key[8] == b'l';
        let event = entries
            .iter(&txn)
            .unwrap()
            .map(Result::unwrap)
            .find(is_event)
            .unwrap()
            .0
            .to_vec();
        assert!(entries.delete(&mut txn, &event).unwrap());
        txn.commit().unwrap();
    }
    let (code, words) = Chaos::runs(&["check", "--data", &data]).await;
    assert_eq!(code, 1, "{words}");
    assert!(
        words.contains("lacks the events 1; mending it would begin the log above them"),
        "{words}"
    );
    let sentence = is_refused(&["restore", "--from", &data, "--data", &restored]).await;
    assert!(
        sentence.contains("is not whole") && sentence.contains("1 finding in all"),
        "{sentence}"
    );
    assert_eq!(names(folder.path()), ["data"]);
}

/// A limit on the file size simulates a full disk. It is large enough for LMDB's lock file, but not
/// for the copy.
const FULL: [&str; 3] = [
    "sh",
    "-c",
    "trap '' XFSZ; ulimit -f 200; exec \"$0\" \"$@\"",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_on_a_full_disk_leaves_no_backup() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| text(&folder.path().join(name));
    let (data, backup, restored) = (path("data"), path("backup"), path("restored"));
    let (node, address) = Chaos::node(Path::new(&data), &["--demo", "off"]).await;
    let shop = Shop::open(address, &admin_key(Path::new(&data))).await;
    shop.group("general", &["alice", "bob"]).await;
    let (alice, _) = shop.connects("alice", Encoding::MessagePack).await;
    for number in 1..=20 {
        let long = SendMessage {
            text: Some("x".repeat(16_000)),
            ..said(&MessageId::from_bits(number))
        };
        alice
            .call::<MessageSend>(&"general".parse().unwrap(), &long)
            .await
            .unwrap();
    }
    let (code, words) = Chaos::runs_by(&FULL, &["backup", "--data", &data, "--to", &backup]).await;
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("make room there"), "{words}");
    assert_eq!(names(folder.path()), ["data"]);
    backs_up(Path::new(&data), Path::new(&backup)).await;
    drop(node);

    let (code, words) =
        Chaos::runs_by(&FULL, &["restore", "--from", &backup, "--data", &restored]).await;
    assert_eq!(code, 2, "{words}");
    assert!(words.contains("make room there"), "{words}");
    let sentence = refuses_to_start(&["--listen", "127.0.0.1:0", "--data", &restored]).await;
    assert!(
        sentence.contains("secret-key is missing"),
        "no node takes it for a new folder: {sentence}"
    );
    restores(Path::new(&backup), Path::new(&restored)).await;
    is_whole(Path::new(&restored)).await;
}
