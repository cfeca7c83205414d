//! The binary: start, failed start, shutdown, and the data after a
//! kill.

use std::{
    collections::{BTreeMap, VecDeque},
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use client::Session;
use parking_lot::Mutex;
use protocol::{
    ChannelId, CloseCode, Encoding, MessageId,
    entity::Message,
    operation::message::{MessagePage, MessageSend, SendMessage},
};

use crate::{
    process::{Chaos, Shop, admin_key},
    story::until,
};

/// Minimum number of acknowledged sends between two kills.
const ACKNOWLEDGED: usize = 400;
/// Maximum number of unanswered sends of one session.
const UNDER_WAY: usize = 16;

/// A user who sends messages until the node is killed.
#[derive(Clone, Copy)]
struct Lane {
    index: u64,
    user: &'static str,
    channel: &'static str,
}

const LANES: [Lane; 4] = [
    Lane {
        index: 0,
        user: "alice",
        channel: "north",
    },
    Lane {
        index: 1,
        user: "bob",
        channel: "north",
    },
    Lane {
        index: 2,
        user: "bob",
        channel: "south",
    },
    Lane {
        index: 3,
        user: "carol",
        channel: "south",
    },
];

/// The sends of a lane, with the number of each acknowledged message.
type Receipts = Arc<Mutex<BTreeMap<MessageId, Option<u64>>>>;

impl Lane {
    fn channel(self) -> ChannelId {
        self.channel.parse().unwrap()
    }

    /// Sends until the node is killed.
    async fn sends(self, session: Session, life: u64, receipts: Receipts, count: Arc<AtomicUsize>) {
        let mut waiting = VecDeque::new();
        for number in 0.. {
            let id = MessageId::from_bits(life << 48 | self.index << 32 | number);
            receipts.lock().insert(id.clone(), None);
            let Ok(pending) = session
                .begin::<MessageSend>(&self.channel(), &said(&id))
                .await
            else {
                return;
            };
            waiting.push_back(pending);
            if waiting.len() >= UNDER_WAY {
                let Ok(stored) = waiting.pop_front().unwrap().reply().await else {
                    return;
                };
                receipts.lock().insert(stored.id, Some(stored.number));
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

pub(crate) fn said(id: &MessageId) -> SendMessage {
    SendMessage {
        message_id: Some(id.clone()),
        text: Some(format!("this is {id}")),
        ..SendMessage::default()
    }
}

/// Returns the numbers of a channel's messages by id. Checks that numbers and seqs have no gap, and
/// that none occurs twice.
pub(crate) async fn whole_channel(shop: &Shop, channel: &str) -> BTreeMap<MessageId, u64> {
    let mut all: Vec<Message> = Vec::new();
    loop {
        let after = all.last().map_or(0, |message| message.number);
        let page: MessagePage = shop
            .team()
            .get(&format!(
                "/v1/channels/{channel}/messages?after={after}&limit=200"
            ))
            .await
            .unwrap();
        all.extend(page.items);
        if !page.more {
            break;
        }
    }
    let numbers: Vec<u64> = all.iter().map(|message| message.number).collect();
    assert_eq!(
        numbers,
        (1..=all.len() as u64).collect::<Vec<_>>(),
        "the numbers of {channel} have a hole"
    );
    let first = all.first().map_or(0, |message| message.seq);
    assert!(
        all.iter()
            .zip(first..)
            .all(|(message, seq)| message.seq == seq),
        "the seqs of {channel} have a hole"
    );
    let by_id: BTreeMap<MessageId, u64> = all
        .iter()
        .map(|message| (message.id.clone(), message.number))
        .collect();
    assert_eq!(
        by_id.len(),
        all.len(),
        "a message of {channel} is there twice"
    );
    by_id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_under_load_every_acknowledged_message_is_stored_once() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--demo", "off", "--limit", "requests_per_second=0"];
    let (mut node, address) = Chaos::node(folder.path(), &flags).await;
    let mut shop = Shop::open(address, &admin_key(folder.path())).await;
    for channel in ["north", "south"] {
        shop.group(channel, &["alice", "bob", "carol"]).await;
    }
    let receipts = LANES.map(|_| Receipts::default());
    for life in 1..=3 {
        let count = Arc::new(AtomicUsize::new(0));
        let mut senders = Vec::new();
        for (lane, receipts) in LANES.iter().zip(&receipts) {
            let (session, _) = shop
                .connects(lane.user, Encoding::ALL[lane.index as usize % 2])
                .await;
            senders.push(tokio::spawn(lane.sends(
                session,
                life,
                receipts.clone(),
                count.clone(),
            )));
        }
        until("enough is acknowledged", || async {
            count.load(Ordering::Relaxed) >= ACKNOWLEDGED
        })
        .await;
        node.kill9().await;
        for sender in senders {
            sender.await.unwrap();
        }
        let address;
        (node, address) = Chaos::node(folder.path(), &flags).await;
        shop = shop.moved(address);
        for channel in ["north", "south"] {
            let found = whole_channel(&shop, channel).await;
            let lanes = || {
                LANES
                    .iter()
                    .zip(&receipts)
                    .filter(|(lane, _)| lane.channel == channel)
            };
            for (_, receipts) in lanes() {
                for (id, number) in receipts
                    .lock()
                    .iter()
                    .filter_map(|(id, number)| Some((id, (*number)?)))
                {
                    assert_eq!(found.get(id), Some(&number), "{id} was acknowledged");
                }
            }
            // Unanswered sends are repeated.
            for (lane, receipts) in lanes() {
                let (session, _) = shop.connects(lane.user, Encoding::MessagePack).await;
                let unanswered: Vec<_> = receipts
                    .lock()
                    .iter()
                    .filter(|(_, number)| number.is_none())
                    .map(|(id, _)| id.clone())
                    .collect();
                for id in unanswered {
                    let number = session
                        .call::<MessageSend>(&lane.channel(), &said(&id))
                        .await
                        .unwrap()
                        .number;
                    assert!(
                        found.get(&id).is_none_or(|before| *before == number),
                        "{id} was there as another"
                    );
                    receipts.lock().insert(id, Some(number));
                }
            }
            let found = whole_channel(&shop, channel).await;
            let tried: usize = lanes().map(|(_, receipts)| receipts.lock().len()).sum();
            assert_eq!(
                found.len(),
                tried,
                "each message that was ever sent in {channel}, once"
            );
        }
    }
    assert!(!node.log().contains("panicked"), "{}", node.log());
}

/// Runs a start that fails with exit code 2 and no output, and returns its sentence.
pub(crate) async fn refuses_to_start(arguments: &[&str]) -> String {
    refuses_to_start_by(&[], arguments).await
}

/// Like `refuses_to_start`, by a program that executes the node.
pub(crate) async fn refuses_to_start_by(starter: &[&str], arguments: &[&str]) -> String {
    let mut node = Chaos::spawn_by(starter, arguments);
    let status = node.ends().await;
    let log = node.log();
    assert_eq!(status.code(), Some(2), "{arguments:?}: {log}");
    assert_eq!(node.said(), Vec::<String>::new(), "{arguments:?}");
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("chaos: "))
        .collect();
    assert_eq!(lines.len(), 1, "{arguments:?}: {log}");
    assert_eq!(
        log.lines().last(),
        lines.first().copied(),
        "{arguments:?}: {log}"
    );
    lines[0].to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_start_ends_with_one_sentence_and_exit_code_2() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (node, address) = Chaos::node(folder.path(), &["--demo", "off"]).await;
    let (data, elsewhere) = (
        folder.path().display().to_string(),
        other.path().display().to_string(),
    );
    let address = address.to_string();

    let sentence = refuses_to_start(&["--listen", &address, "--data", &elsewhere]).await;
    assert!(
        sentence.contains(&address) && sentence.contains("--listen"),
        "{sentence}"
    );
    let sentence = refuses_to_start(&["--listen", "127.0.0.1:0", "--data", &data]).await;
    assert!(
        sentence.contains(&data) && sentence.contains("another"),
        "{sentence}"
    );

    let broken = other.path().join("broken.toml");
    std::fs::write(&broken, "listen = [\n").unwrap();
    let missing = other.path().join("missing.toml").display().to_string();
    let broken = broken.display().to_string();
    let a_file = other.path().join("a-file");
    std::fs::write(&a_file, "not a folder").unwrap();
    let a_file = a_file.display().to_string();
    for (arguments, names) in [
        (vec!["--config", &broken], &broken[..]),
        (vec!["--config", &missing], &missing),
        (vec!["--listen", "everywhere"], "listen"),
        (vec!["--limit", "frobs=3"], "frobs"),
        (vec!["--limit", "page=many"], "page"),
        (vec!["--data", &a_file], &a_file),
        (vec!["--redis", "http://127.0.0.1"], "redis"),
        (vec!["--redis", "redis://127.0.0.1:1"], "admin-key"),
        (vec!["--admin-key-file", &missing], &missing),
        (
            vec!["--secret-key-file", &a_file, "--data", &elsewhere],
            &a_file,
        ),
    ] {
        let sentence = refuses_to_start(&arguments).await;
        assert!(sentence.contains(names), "{sentence}");
    }
    drop(node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_close_sessions_with_1001_and_end_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let folder = tempfile::tempdir().unwrap();
        let (mut node, address) = Chaos::node(folder.path(), &["--demo", "off"]).await;
        let shop = Shop::open(address, &admin_key(folder.path())).await;
        shop.group("general", &["alice", "bob"]).await;
        let (alice, mut alices) = shop.connects("alice", Encoding::MessagePack).await;
        let (_bob, mut bobs) = shop.connects("bob", Encoding::Json).await;
        let body = SendMessage {
            text: Some("before the end".into()),
            ..SendMessage::default()
        };
        alice
            .call::<MessageSend>(&"general".parse().unwrap(), &body)
            .await
            .unwrap();
        for events in [&mut alices, &mut bobs] {
            let event = tokio::time::timeout(crate::story::TIMEOUT, events.next())
                .await
                .unwrap()
                .unwrap();
            assert_eq!(event.event, "message.created");
        }
        node.signal(signal).await;
        for events in [&mut alices, &mut bobs] {
            let mut names = Vec::new();
            while let Some(event) = tokio::time::timeout(crate::story::TIMEOUT, events.next())
                .await
                .unwrap()
            {
                names.push(event.event);
            }
            assert_eq!(
                events.closed().close_code(),
                Some(CloseCode::GoingAway),
                "{}",
                events.closed()
            );
            assert_eq!(names, ["server.draining"]);
        }
        assert_eq!(node.ends().await.code(), Some(0), "{}", node.log());
        assert!(!node.log().contains("panicked"), "{}", node.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_start_says_where_to_chat_and_two_people_chat_in_their_terminals() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("chaos-data");
    let (node, address) = Chaos::node(&data, &[]).await;
    assert!(
        node.says("WebSocket")
            .await
            .contains(&format!("ws://{address}/v1/ws"))
    );
    node.says("chaos chat --user alice").await;
    node.says("chaos chat --user bob").await;
    let key = data.join("admin-key");
    assert!(
        node.says("Admin key")
            .await
            .contains(&key.display().to_string())
    );
    for file in ["admin-key", "secret-key", "demo.json"] {
        let mode = std::fs::metadata(data.join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    let key = admin_key(&data);
    assert!(key.starts_with("adm_"));
    assert!(!node.said().join("\n").contains(&key) && !node.log().contains(&key));

    let (url, data) = (format!("ws://{address}/v1/ws"), data.display().to_string());
    let chat = |user: &str| Chaos::spawn(&["chat", "--url", &url, "--data", &data, "--user", user]);
    let (mut alice, mut bob) = (chat("alice"), chat("bob"));
    alice.says("You are Alice in General").await;
    bob.says("You are Bob in General").await;
    alice.types("hello, bob").await;
    bob.says("Alice: hello, bob").await;
    bob.types("good morning").await;
    alice.says("Bob: good morning").await;
    // Each user sees their own lines once.
    bob.says("Bob: good morning").await;
    let count = |who: &Chaos, line: &str| who.said().iter().filter(|said| *said == line).count();
    assert_eq!(count(&alice, "Alice: hello, bob"), 1);
    // A third user who connects later sees the messages.
    let mut late = chat("alice");
    late.says("Bob: good morning").await;
    for person in [&mut alice, &mut bob, &mut late] {
        person.hangs_up();
        assert_eq!(person.ends().await.code(), Some(0), "{}", person.log());
    }
    let mut nobody = Chaos::spawn(&[
        "chat", "--url", &url, "--data", "nowhere", "--user", "alice",
    ]);
    assert_eq!(nobody.ends().await.code(), Some(2));
}
