//! Tests with child processes: a kill during writes, a full disk, a reader in another process.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    folder::{checked_keys, message, quiet, room},
    *,
};
use crate::{
    StoreError,
    embedded::{OpenError, read_only::ReadOnlyStore},
};

/// Environment variable with the role and the folder of the child process, which runs [`child`].
const ROLE: &str = "CHAOS_TEST_STORE_CHILD";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "other tests run it in a child process"]
async fn child() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    match role.split_once(' ').unwrap() {
        ("commit", folder) => commit_forever(Path::new(folder)).await,
        ("fill", folder) => fill(Path::new(folder)).await,
        ("read", folder) => {
            let _store = ReadOnlyStore::open(Path::new(folder)).unwrap();
            say("reading");
            std::future::pending().await
        }
        ("keep", folder) => {
            let store = opened(CheckpointLimits::default(), Path::new(folder)).unwrap();
            for i in 0..KEPT {
                let commit = message(&format!("m{i}"), vec![1; 20_000]);
                store.commit(&room(), commit).await.unwrap().unwrap();
            }
            say("kept");
            std::future::pending().await
        }
        ("open", folder) => match opened(FREQUENT_CHECKPOINTS, Path::new(folder)) {
            Ok(_) => say("open"),
            Err(error) => say(&error.to_string()),
        },
        _ => panic!("unknown role"),
    }
}

/// Messages of a child that keeps them in the journal.
const KEPT: usize = 40;

fn opened(limits: CheckpointLimits, folder: &Path) -> Result<Embedded, OpenError> {
    let keep = Keep {
        events: 0,
        bytes: 0,
    };
    let options = Options {
        keep,
        map_size: 64 << 20,
        limits,
        clock: Arc::new(|| 0),
    };
    Embedded::open_with(folder, options, Local::new(Arc::new(())))
}

/// A child process, killed on drop.
struct Process(Child, BufReader<ChildStdout>);

impl Process {
    fn start(role: &str, folder: &Path, shell: &str) -> Self {
        let mut child = Command::new("sh")
            .args([
                "-c",
                &format!(
                    "{shell} exec \"$0\" --ignored --exact --nocapture {}::child",
                    module_path!().split_once("::").unwrap().1
                ),
            ])
            .arg(std::env::current_exe().unwrap())
            .env(ROLE, format!("{role} {}", folder.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self(child, stdout)
    }

    /// Returns the next complete line of the child; `None` after its end.
    fn next_line(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            self.1.read_line(&mut line).unwrap();
            match line.split_once("said: ") {
                Some((_, words)) => return words.strip_suffix(".\n").map(str::to_owned),
                None if line.is_empty() => return None,
                None => {}
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn say(words: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "said: {words}.").unwrap();
    out.flush().unwrap();
}

async fn commit_forever(folder: &Path) {
    let store = Arc::new(quiet(folder));
    let process = std::process::id();
    let tasks: Vec<_> = (0..16)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0.. {
                    let name = format!("{process}-{task}-{i}");
                    let outcome = store
                        .commit(&room(), message(&name, "hi"))
                        .await
                        .unwrap()
                        .unwrap();
                    say(&format!("{} {name}", outcome.written[0].stamps.number));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn commits_acknowledged_before_a_kill_exist_once() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..6 {
        let mut process = Process::start("commit", folder.path(), "");
        let mut record = |words: String| {
            let (number, name) = words.split_once(' ').unwrap();
            assert!(acknowledged.insert((number.parse::<usize>().unwrap(), name.to_owned())));
        };
        record(process.next_line().expect("a first acknowledgement"));
        let end = Instant::now() + Duration::from_millis(rand::random_range(0..300));
        while Instant::now() < end {
            record(process.next_line().expect("it goes on"));
        }
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        while let Some(words) = process.next_line() {
            record(words);
        }
        let store = quiet(folder.path());
        let kept = checked_keys(&store).await;
        for (number, name) in &acknowledged {
            assert_eq!(&*kept[number - 1], name, "round {round}");
        }
        assert_eq!(
            kept.iter().collect::<BTreeSet<_>>().len(),
            kept.len(),
            "each once"
        );
        store.close().await;
    }
}

async fn fill(folder: &Path) {
    let store = quiet(folder);
    let mut acknowledged = 0;
    let refusal = loop {
        match store
            .commit(
                &room(),
                message(&format!("m{acknowledged}"), vec![1; 20_000]),
            )
            .await
        {
            Ok(outcome) => assert_eq!(outcome.unwrap().first_seq, acknowledged + 1),
            Err(refusal) => break refusal,
        }
        acknowledged += 1;
    };
    assert!(matches!(refusal, StoreError::Full(_)), "{refusal}");
    assert!(
        store.now().await.is_err(),
        "the store reports that it takes no writes"
    );
    assert_eq!(checked_keys(&store).await.len() as u64, acknowledged);
    say(&format!("full after {acknowledged}"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while store.now().await.is_err() {
        assert!(Instant::now() < deadline, "there is space again");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for i in 0..100 {
        let outcome = store
            .commit(&room(), message(&format!("n{i}"), vec![1; 20_000]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(outcome.first_seq, acknowledged + i + 1);
    }
    assert_eq!(checked_keys(&store).await.len() as u64, acknowledged + 100);
    store.close().await;
    say("going on");
}

/// A limit on the file size simulates the full disk: writes fail partly written, and succeed again
/// when the limit is raised.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn full_disk_refuses_commits_and_loses_none() {
    let folder = TempDir::new().unwrap();
    let mut process = Process::start("fill", folder.path(), "trap '' XFSZ; ulimit -S -f 20000;");
    let full = process.next_line().expect("it fills up");
    let acknowledged: usize = full.strip_prefix("full after ").unwrap().parse().unwrap();
    assert!(acknowledged > 10, "{acknowledged}");
    let raised = Command::new("prlimit")
        .args([
            "--pid",
            &process.0.id().to_string(),
            "--fsize=unlimited:unlimited",
        ])
        .status()
        .unwrap();
    assert!(raised.success());
    assert_eq!(process.next_line().as_deref(), Some("going on"));
    assert!(process.0.wait().unwrap().success());
    let store = quiet(folder.path());
    assert_eq!(checked_keys(&store).await.len(), acknowledged + 100);
    store.close().await;
}

/// A limit on the file size simulates the full disk. At some limits no segment can be made, at others
/// the trees cannot be written, or only partly.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn start_on_a_full_disk_tells_so_and_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let mut process = Process::start("keep", folder.path(), "");
    assert_eq!(process.next_line().as_deref(), Some("kept"));
    process.0.kill().unwrap();
    process.0.wait().unwrap();
    let data = std::fs::metadata(folder.path().join("data.mdb")).unwrap();
    // In blocks of 512 bytes. The last one has room for the trees.
    let data = data.len() / 512;
    for blocks in [data + 1, data + 3, data + 100, data + 107, 8_000] {
        let limit = format!("trap '' XFSZ; ulimit -S -f {blocks};");
        let mut process = Process::start("open", folder.path(), &limit);
        let words = process.next_line().unwrap();
        assert!(
            words.contains("is full") && words.contains("Nothing is lost"),
            "{blocks}: {words}"
        );
        assert!(process.0.wait().unwrap().success());
    }
    let store = quiet(folder.path());
    assert_eq!(checked_keys(&store).await.len(), KEPT);
    store.close().await;
}

/// Pages for a killed reader must not be kept forever: the file would grow with each commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reader_in_another_process_blocks_page_reuse_only_while_it_lives() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    let mut edit = message("m", vec![1; 200_000]);
    edit.require.clear();
    // Returns by how much the file grows while one message is replaced repeatedly.
    let growth = async || {
        let length = || {
            std::fs::metadata(folder.path().join("data.mdb"))
                .unwrap()
                .len()
        };
        let before = length();
        for _ in 0..20 {
            store.commit(&room(), edit.clone()).await.unwrap().unwrap();
            checkpointed(&store).await;
        }
        length() - before
    };
    growth().await;
    assert!(growth().await < 1_000_000);
    let mut reader = Process::start("read", folder.path(), "");
    assert_eq!(reader.next_line().as_deref(), Some("reading"));
    assert!(growth().await > 3_000_000);
    reader.0.kill().unwrap();
    reader.0.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while growth().await > 1_000_000 {
        assert!(Instant::now() < deadline, "the dead reader is released");
    }
    store.close().await;
}
