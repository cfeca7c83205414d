//! What needs a process of its own: a kill in the midst of writing, a disk that fills up, a reader beside the node.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Write as _},
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    folder::{message, quiet, room, whole},
    *,
};
use crate::store::{StoreError, embedded::onlooker::Onlooker};

/// Tells the test below, run by another process, what it is: a part and a folder.
const PART: &str = "CHAOS_TEST_STORE_CHILD";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a part of other tests, which run it in a process of its own"]
async fn child() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    match part.split_once(' ').unwrap() {
        ("commit", folder) => commit_for_ever(Path::new(folder)).await,
        ("fill", folder) => fill(Path::new(folder)).await,
        ("look", folder) => {
            let _onlooker = Onlooker::open(Path::new(folder)).unwrap();
            say("looking");
            std::future::pending().await
        }
        _ => panic!("no such part"),
    }
}

/// The child's process; killed when the test ends, however it ends.
struct Process(Child, BufReader<ChildStdout>);

impl Process {
    fn start(part: &str, folder: &Path, shell: &str) -> Self {
        let mut child = Command::new("sh")
            .args([
                "-c",
                &format!(
                    "{shell} exec \"$0\" --ignored --exact --nocapture {}::child",
                    module_path!().split_once("::").unwrap().1
                ),
            ])
            .arg(std::env::current_exe().unwrap())
            .env(PART, format!("{part} {}", folder.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self(child, stdout)
    }

    /// The next line that the part said; `None` after its end. What is cut off by the end is not said.
    fn said(&mut self) -> Option<String> {
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

async fn commit_for_ever(folder: &Path) {
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
async fn what_was_acknowledged_before_a_kill_is_there_exactly_once() {
    let folder = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    for round in 0..6 {
        let mut process = Process::start("commit", folder.path(), "");
        let mut hear = |words: String| {
            let (number, name) = words.split_once(' ').unwrap();
            assert!(acknowledged.insert((number.parse::<usize>().unwrap(), name.to_owned())));
        };
        hear(process.said().expect("a first acknowledgement"));
        let end = Instant::now() + Duration::from_millis(rand::random_range(0..300));
        while Instant::now() < end {
            hear(process.said().expect("it goes on"));
        }
        process.0.kill().unwrap();
        process.0.wait().unwrap();
        while let Some(words) = process.said() {
            hear(words);
        }
        let store = quiet(folder.path());
        let kept = whole(&store).await;
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
    assert!(matches!(refusal, StoreError::Unavailable(_)), "{refusal}");
    assert!(
        store.now().await.is_err(),
        "it tells that it cannot be written"
    );
    assert_eq!(whole(&store).await.len() as u64, acknowledged);
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
    assert_eq!(whole(&store).await.len() as u64, acknowledged + 100);
    store.close().await;
    say("going on");
}

/// The limit on the size of files stands in for the full disk: writes fail halfway through, and go on when it is raised.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_commits_loses_none_and_goes_on_when_there_is_space() {
    let folder = TempDir::new().unwrap();
    let mut process = Process::start("fill", folder.path(), "trap '' XFSZ; ulimit -S -f 4000;");
    let full = process.said().expect("it fills up");
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
    assert_eq!(process.said().as_deref(), Some("going on"));
    assert!(process.0.wait().unwrap().success());
    let store = quiet(folder.path());
    assert_eq!(whole(&store).await.len(), acknowledged + 100);
    store.close().await;
}

/// What one reads that was killed must not be kept for ever: the file would grow with each commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_another_process_holds_up_what_is_freed_only_while_it_lives() {
    let folder = TempDir::new().unwrap();
    let store = quiet(folder.path());
    let mut edit = message("m", vec![1; 200_000]);
    edit.require.clear();
    // How much the file grows while one message is replaced.
    let grows = async || {
        let length = || {
            std::fs::metadata(folder.path().join("data.mdb"))
                .unwrap()
                .len()
        };
        let before = length();
        for _ in 0..20 {
            store.commit(&room(), edit.clone()).await.unwrap().unwrap();
        }
        length() - before
    };
    grows().await;
    assert!(grows().await < 1_000_000);
    let mut reader = Process::start("look", folder.path(), "");
    assert_eq!(reader.said().as_deref(), Some("looking"));
    assert!(grows().await > 3_000_000);
    reader.0.kill().unwrap();
    reader.0.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while grows().await > 1_000_000 {
        assert!(Instant::now() < deadline, "it is forgotten");
    }
    store.close().await;
}
