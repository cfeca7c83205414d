//! No acknowledgement precedes its sync, checked in a trace of the binary's system calls.
//!
//! For a group of commits, the node writes into a segment of its journal and calls `fdatasync`. Both
//! must have returned, in this order, before any byte about a message is written to a socket.

use std::collections::BTreeMap;

use protocol::{
    Encoding,
    operation::message::{MessageSend, SendMessage},
};

use crate::{
    process::{Chaos, Shop, admin_key},
    story::until,
};

/// A system call in a trace of `strace -f -y`.
#[derive(Debug)]
struct Call<'a> {
    name: &'a str,
    /// Its arguments, with the data.
    arguments: &'a str,
    /// The lines of its start and return.
    began: usize,
    returned: usize,
    /// Its result.
    result: &'a str,
}

impl<'a> Call<'a> {
    fn succeeded(&self) -> bool {
        !self.result.starts_with('-') && !self.result.starts_with('?')
    }

    /// Its descriptor, and the file or socket of that.
    fn descriptor(&self) -> Option<(&'a str, &'a str)> {
        let (number, rest) = self.arguments.split_once('<')?;
        Some((number, rest.split_once('>')?.0))
    }

    fn is_of_journal(&self) -> bool {
        self.descriptor()
            .is_some_and(|(_, path)| path.ends_with(".segment"))
    }

    fn is_of_socket(&self) -> bool {
        self.descriptor()
            .is_some_and(|(_, path)| path.starts_with("socket:") || path.starts_with("TCP"))
    }
}

/// Parses a trace. A call that was interrupted by other threads' calls continues where it
/// resumes.
fn calls(trace: &str) -> Vec<Call<'_>> {
    let mut under_way: BTreeMap<(&str, &str), (usize, &str)> = BTreeMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(resumed) = rest.strip_prefix("<... ") {
            let Some((name, rest)) = resumed.split_once(" resumed>") else {
                continue;
            };
            let Some((began, arguments)) = under_way.remove(&(thread, name)) else {
                continue;
            };
            let result = rest
                .rsplit_once(" = ")
                .map_or("?", |(_, result)| result.trim());
            calls.push(Call {
                name,
                arguments,
                began,
                returned: at,
                result,
            });
        } else if let Some((name, rest)) = rest.split_once('(') {
            if let Some(arguments) = rest.strip_suffix(" <unfinished ...>") {
                under_way.insert((thread, name), (at, arguments));
            } else if let Some((arguments, result)) = rest.rsplit_once(" = ") {
                calls.push(Call {
                    name,
                    arguments,
                    began: at,
                    returned: at,
                    result: result.trim(),
                });
            }
        }
    }
    calls.sort_by_key(|call| call.began);
    calls
}

/// Returns whether each of these texts left through a socket only after it was synced. They occur
/// in the trace unencoded.
fn told_after_its_sync(trace: &str, texts: &[String]) -> Result<(), String> {
    let calls = calls(trace);
    let is_write = |call: &&Call<'_>| {
        ["pwrite64", "pwritev", "writev", "write"].contains(&call.name)
            && call.is_of_journal()
            && call.succeeded()
    };
    let is_sync = |call: &&Call<'_>| {
        ["fdatasync", "fsync"].contains(&call.name) && call.is_of_journal() && call.succeeded()
    };
    for text in texts {
        let told = calls.iter().find(|call| {
            call.is_of_socket()
                && SENDS.contains(&call.name)
                && call.arguments.contains(text.as_str())
        });
        let told = told.ok_or_else(|| format!("nothing tells of {text}"))?;
        let written = calls
            .iter()
            .filter(is_write)
            .find(|call| call.arguments.contains(text.as_str()));
        let written = written
            .filter(|call| call.returned < told.began)
            .ok_or_else(|| format!("{text} is told before it is written"))?;
        let synced = calls.iter().filter(is_sync).any(|call| {
            call.began > written.returned
                && call.returned < told.began
                && call.descriptor() == written.descriptor()
        });
        if !synced {
            return Err(format!("{text} is told before a sync of what was written"));
        }
    }
    Ok(())
}

/// The system calls that write to a socket.
const SENDS: [&str; 5] = ["sendto", "sendmsg", "sendmmsg", "write", "writev"];

#[test]
fn missing_sync_is_detected_in_a_trace() {
    const TRACE: &str = r#"
8 recvfrom(9<socket:[1]>, "… hello-1 …", 4096, 0, NULL, NULL) = 80
7 pwrite64(5</d/journal/1.segment>, "GRP1… hello-1 …", 400, 8192) = 400
7 fdatasync(5</d/journal/1.segment> <unfinished ...>
8 epoll_wait(3<anon_inode:[eventpoll]>, [], 1024, 4) = 0
7 <... fdatasync resumed>) = 0
8 sendto(9<socket:[1]>, "\201… hello-1 …", 80, MSG_NOSIGNAL, NULL, 0) = 80
"#;
    let told = |trace: &str| told_after_its_sync(trace, &["hello-1".to_owned()]);
    assert_eq!(told(TRACE), Ok(()));
    let without = |words: &str| {
        let lines = TRACE
            .lines()
            .filter(|line| !line.contains(words))
            .collect::<Vec<_>>();
        assert!(lines.len() < TRACE.lines().count(), "{words}");
        lines.join("\n")
    };
    assert!(
        told(&without("fdatasync"))
            .unwrap_err()
            .contains("before a sync")
    );
    assert!(
        told(&without("pwrite64"))
            .unwrap_err()
            .contains("before it is written")
    );
    assert!(
        told(&without("sendto"))
            .unwrap_err()
            .contains("nothing tells")
    );
    // A failed sync, a sync of another segment, one that began too early, and an answer before it
    // returned.
    assert!(
        told(&TRACE.replace("resumed>) = 0", "resumed>) = -1 EIO (Input/output error)")).is_err()
    );
    assert!(told(&TRACE.replace("fdatasync(5</d/journal/1", "fdatasync(6</d/journal/2")).is_err());
    let mut lines: Vec<_> = TRACE.lines().collect();
    lines.swap(2, 3);
    assert!(
        told(&lines.join("\n"))
            .unwrap_err()
            .contains("before a sync")
    );
    let mut lines: Vec<_> = TRACE.lines().collect();
    lines.swap(5, 6);
    assert!(
        told(&lines.join("\n"))
            .unwrap_err()
            .contains("before a sync")
    );
}

/// Returns whether system calls can be traced here. Fails if they should be traceable.
pub(crate) fn can_trace() -> bool {
    let works = |program: &str, arguments: &[&str]| {
        std::process::Command::new(program)
            .args(arguments)
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if works("strace", &["-f", "-o", "/dev/null", "true"]) {
        return true;
    }
    let can_install = works("sh", &["-c", "[ \"$(id -u)\" = 0 ] && command -v apt-get"]);
    assert!(
        !can_install,
        "strace is missing or may not trace: apt-get install strace, and allow ptrace"
    );
    // Written directly, since the harness hides the output of passing tests.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        b"skipped: strace is missing or may not trace, so no system call was seen or made to fail\n",
    );
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_synced_before_it_is_published_or_acknowledged() {
    if !can_trace() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (data, trace) = (folder.path().join("data"), folder.path().join("trace"));
    let calls =
        "trace=openat,pwrite64,pwritev,write,writev,fdatasync,fsync,msync,sendto,sendmsg,sendmmsg";
    // `-D` makes the node a child of this process.
    let starter = [
        "strace",
        "-D",
        "-f",
        "-y",
        "-q",
        "-s",
        "1000000",
        "-e",
        calls,
        "-e",
        "signal=none",
        "-o",
        trace.to_str().unwrap(),
    ];
    let flags = ["--demo", "off", "--limit", "requests_per_second=0"];
    let (mut node, address) = Chaos::node_by(&starter, &data, &flags).await;
    let shop = Shop::open(address, &admin_key(&data)).await;
    shop.group("general", &["alice", "bob"]).await;
    let mut senders = Vec::new();
    let mut texts = Vec::new();
    // JSON, so that the trace shows the texts unencoded.
    for name in ["alice", "bob"] {
        let (session, _) = shop.connects(name, Encoding::Json).await;
        let said: Vec<String> = (100..150)
            .map(|number| format!("{name}-says-{number}"))
            .collect();
        texts.extend(said.clone());
        senders.push(tokio::spawn(async move {
            let mut replies = Vec::new();
            for (index, text) in said.into_iter().enumerate() {
                let body = SendMessage {
                    text: Some(text),
                    ..SendMessage::default()
                };
                replies.push(
                    session
                        .begin::<MessageSend>(&"general".parse().unwrap(), &body)
                        .await
                        .unwrap(),
                );
                // Alternately one by one and several in one commit.
                if index % 10 > 4 {
                    for reply in replies.drain(..) {
                        reply.reply().await.unwrap();
                    }
                }
            }
            for reply in replies {
                reply.reply().await.unwrap();
            }
        }));
    }
    for sender in senders {
        sender.await.unwrap();
    }
    let node_pid = node.pid().to_string();
    node.signal("TERM").await;
    assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
    let read = || String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
    let is_end = |line: &str| {
        line.split_whitespace()
            .eq([&node_pid, "+++", "exited", "with", "0", "+++"])
    };
    until("the trace is complete", || async {
        read().lines().any(is_end)
    })
    .await;
    let trace = read();
    told_after_its_sync(&trace, &texts).unwrap();
}
