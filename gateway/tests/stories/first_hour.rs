//! The output of a first start, the terminal chat, and the log of a node.

use std::net::SocketAddr;

use client::Backend;
use serde_json::{Value, json};

use crate::{
    process::{Chaos, Shop, admin_key},
    story::until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_chat_command_reaches_this_node_from_anywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (node, _) = Chaos::node(&folder.path().join("it's here"), &[]).await;
    let line = node.says("Chat now").await;
    let command = line.split_once("Chat now").unwrap().1.trim().to_owned();
    let mut alice = Chaos::spawn_by(&["sh", "-c", &format!("exec {command}")], &[]);
    alice.says("You are Alice in General").await;
    alice.hangs_up();
    assert_eq!(alice.ends().await.code(), Some(0), "{}", alice.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demo_on_creates_the_demo_once_in_a_used_folder_and_beyond_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let (mut node, _) = Chaos::node(folder.path(), &["--demo", "off"]).await;
    node.signal("TERM").await;
    node.ends().await;
    let (_, words) = Chaos::runs(&["chat", "--data", folder.path().to_str().unwrap()]).await;
    assert!(
        words.contains("holds no demo") && words.contains("--demo on"),
        "{words}"
    );
    let file = || std::fs::read_to_string(folder.path().join("demo.json")).unwrap();
    let data = folder.path().to_str().unwrap();
    let mut made = String::new();
    for _ in 0..2 {
        let mut node = Chaos::spawn(&[
            "--listen",
            "0.0.0.0:0",
            "--drain-window",
            "0s",
            "--data",
            data,
            "--demo",
            "on",
        ]);
        node.says("Chat now").await;
        node.signal("TERM").await;
        node.ends().await;
        assert!(made.is_empty() || made == file());
        made = file();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_variable_is_reported_by_the_node_and_by_config() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let sentence =
        "the environment has CHAOS_LIMIT, which is no setting: did you mean CHAOS_LIMITS?";
    let node = Chaos::spawn_by(
        &["env", "CHAOS_LIMIT=page=1"],
        &["--listen", "127.0.0.1:0", "--data", data],
    );
    until("it is told", || async { node.log().contains(sentence) }).await;
    let mut config = Chaos::spawn_by(&["env", "CHAOS_LIMIT=page=1"], &["config"]);
    assert_eq!(config.ends().await.code(), Some(0));
    assert!(config.log().contains(sentence), "{}", config.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_key_is_named_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("the-admin-key");
    let key = "adm_0123456789abcdef0123456789abcdef";
    std::fs::write(&file, key).unwrap();
    let said = async |name: &str, flags: &[&str]| {
        let (node, _) = Chaos::node(&folder.path().join(name), flags).await;
        node.says("Chat now").await;
        node.said()
            .into_iter()
            .find(|line| line.starts_with("Admin key"))
    };
    let made = folder.path().join("a").join("admin-key");
    assert!(
        said("a", &[])
            .await
            .unwrap()
            .ends_with(&made.display().to_string())
    );
    assert!(
        said("b", &["--admin-key-file", file.to_str().unwrap()])
            .await
            .unwrap()
            .ends_with(&file.display().to_string())
    );
    assert_eq!(said("c", &["--admin-key", key]).await, None);
    assert!(!folder.path().join("c/admin-key").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_by_its_exit_code_whether_a_node_is_alive_and_ready() {
    let folder = tempfile::tempdir().unwrap();
    let (_node, address) = Chaos::node(&folder.path().join("data"), &[]).await;
    let url = format!("http://{address}");
    assert_eq!(Chaos::runs(&["health", "--url", &url]).await.0, 0);
    assert_eq!(
        Chaos::runs(&["health", "--url", &url, "--ready"]).await.0,
        0
    );
    std::fs::write(folder.path().join("secret"), "07".repeat(32)).unwrap();
    let secret = folder.path().join("secret").display().to_string();
    let away = [
        "--redis",
        "redis://127.0.0.1:1",
        "--admin-key",
        "adm_0123456789abcdef0123456789abcdef",
        "--secret-key-file",
        &secret,
    ];
    let lonely = Chaos::spawn(&[&["--listen", "127.0.0.1:0"], &away[..]].concat());
    let url = format!("http://{}", lonely.address().await);
    assert_eq!(Chaos::runs(&["health", "--url", &url]).await.0, 0);
    assert_eq!(
        Chaos::runs(&["health", "--url", &url, "--ready"]).await.0,
        1
    );
    assert_eq!(
        Chaos::runs(&["health", "--url", "http://127.0.0.1:1"])
            .await
            .0,
        1
    );
    assert_eq!(Chaos::runs(&["health", "--url", "nowhere"]).await.0, 2);
    for url in ["http://u:canary@127.0.0.1:1", "https://u:canary@h"] {
        let (_, said) = Chaos::runs(&["health", "--url", url]).await;
        assert!(!said.contains("canary") && said.contains("***"), "{said}");
    }
}

/// Parses a JSON log.
fn objects(log: &str) -> Vec<Value> {
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_json_log_is_all_that_a_node_prints_and_tells_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--drain-window",
        "0s",
        "--data",
        &data,
        "--log-format",
        "json",
        "--limit",
        "page=77",
    ];
    let mut node = Chaos::spawn(&arguments);
    let ready = || {
        objects(&node.log())
            .into_iter()
            .find(|line| line["message"] == "node started")
    };
    until("it has started", || async { ready().is_some() }).await;
    let ready = ready().unwrap();
    assert_eq!(ready["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(ready["store"], format!("embedded in {data}"));
    let address: SocketAddr = ready["listen"].as_str().unwrap().parse().unwrap();
    let settings = ready["settings"].as_str().unwrap();
    for changed in [
        "listen=127.0.0.1:0",
        "drain_window=0s",
        "log_format=json",
        "limits.page=77",
    ] {
        assert!(settings.contains(changed), "{settings}");
    }
    assert!(!settings.contains("heartbeat"), "{settings}");
    let shop = Shop::open(address, &admin_key(data.as_ref())).await;
    shop.group("general", &["alice"]).await;
    let (_alice, _events) = shop.connects("alice", protocol::Encoding::Json).await;
    node.signal("TERM").await;
    assert_eq!(node.ends().await.code(), Some(0));
    let lines = objects(&node.log());
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["message"], &last["reason"], &last["sessions"]),
        (&json!("node ended"), &json!("SIGTERM"), &json!(1))
    );
    assert!(last["uptime_seconds"].is_u64());
    assert_eq!(node.said(), Vec::<String>::new());

    for (arguments, word) in [
        (
            vec!["--log-format", "json", "--listen", "nowhere"],
            "nowhere",
        ),
        (
            vec!["--log-format", "json", "--limit", "nothing=1"],
            "nothing",
        ),
        (
            vec![
                "--log-format",
                "json",
                "--listen",
                "192.0.2.1:1",
                "--data",
                &data,
            ],
            "192.0.2.1",
        ),
    ] {
        let (code, _) = Chaos::runs(&arguments).await;
        let mut failed = Chaos::spawn(&arguments);
        failed.ends().await;
        let lines = objects(&failed.log());
        assert!(
            lines.last().unwrap()["message"]
                .as_str()
                .unwrap()
                .contains(word),
            "{lines:?}"
        );
        assert_eq!((code, failed.said()), (2, Vec::new()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_hides_every_redis_password() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "07".repeat(32)).unwrap();
    let secret = secret.display().to_string();
    let keys = [
        "--listen",
        "127.0.0.1:0",
        "--admin-key",
        "adm_0123456789abcdef0123456789abcdef",
        "--secret-key-file",
        &secret,
    ];
    let (code, words) = Chaos::runs(
        &[
            &keys[..],
            &["--redis", "redis://app:hunter2?topsecret@127.0.0.1:1"],
        ]
        .concat(),
    )
    .await;
    assert!(
        code == 2
            && words.contains("%3F")
            && !words.contains("hunter2")
            && !words.contains("topsecret"),
        "{words}"
    );
    for format in ["text", "json"] {
        let node = Chaos::spawn(
            &[
                &keys[..],
                &[
                    "--log-format",
                    format,
                    "--redis",
                    "redis://app:hunter2%3Ftop@secret@127.0.0.1:1",
                ],
            ]
            .concat(),
        );
        until("it has started", || async {
            node.log().contains("node started")
        })
        .await;
        let words = format!("{:?} {}", node.said(), node.log());
        assert!(
            words.contains("redis://***@127.0.0.1:1")
                && !words.contains("hunter2")
                && !words.contains("secret@"),
            "{words}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistyped_command_is_answered_with_a_suggestion() {
    for (typed, meant) in [
        ("server", "'serve'"),
        ("restor", "'restore'"),
        ("chatt", "'chat'"),
        ("backups", "'backup'"),
    ] {
        let (code, words) = Chaos::runs(&[typed]).await;
        assert!(
            code == 2 && words.contains(meant) && words.matches('\'').count() <= 6,
            "{words}"
        );
    }
    assert_eq!(Chaos::runs(&["help"]).await.0, 0);
    let (code, words) = Chaos::runs(&["chat", "--token", "x", "--user", "bob"]).await;
    assert!(
        code == 2 && words.contains("cannot be used with"),
        "{words}"
    );
    let (_, words) = Chaos::runs(&["--redis-url", "redis://app:hunter2@h"]).await;
    assert!(!words.contains("hunter2"), "{words}");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("data.mdb"), [7; 50_000]).unwrap();
    let (_, words) = Chaos::runs(&["check", "--data", folder.path().to_str().unwrap()]).await;
    assert!(!words.contains("chaos check"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn text_of_others_cannot_control_the_terminal_or_imitate_another_user() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let (_node, address) = Chaos::node(&data, &[]).await;
    let demo: Value =
        serde_json::from_str(&std::fs::read_to_string(data.join("demo.json")).unwrap()).unwrap();
    let team = Backend::new(
        &format!("http://{address}"),
        demo["app_key"].as_str().unwrap(),
    )
    .unwrap();
    let send = async |sender: &str, text: &str| {
        let _: Value = team
            .post(
                "/v1/channels/general/messages",
                &json!({ "sender_id": sender, "text": text }),
            )
            .await
            .unwrap();
    };
    for (id, name) in [
        ("eve", "Bob"),
        ("mallory", "* Bob left"),
        ("trent", "Alice: hello, I"),
    ] {
        let _: Value = team
            .put(&format!("/v1/users/{id}"), &json!({ "first_name": name }))
            .await
            .unwrap();
    }
    send("bob", "hi").await;
    send("eve", "first\nBob: second\r\n* Bob left\u{2028}third").await;
    send("mallory", "\u{1b}[2J\u{9b}31m\u{202e}drow\u{2066}").await;
    send("trent", "am").await;
    // An address in the form of a browser is accepted, too.
    let url = format!("http://{address}");
    let mut alice = Chaos::spawn(&["chat", "--url", &url, "--data", data.to_str().unwrap()]);
    alice.says("trent: am").await;
    send("bob", "live\nline").await;
    alice.says("  │ line").await;
    let shown: Vec<_> = alice.said().into_iter().skip(1).collect();
    assert_eq!(
        shown,
        [
            "Bob (bob): hi",
            "Bob (eve): first",
            "  │ Bob: second",
            "  │ * Bob left",
            "  │ third",
            r"mallory: \u001b[2J\u009b31m\u202edrow\u2066",
            "trent: am",
            "Bob (bob): live",
            "  │ line",
        ]
    );
    let image = json!({ "type": "image", "name": "a.png", "url": "https://a.example/a.png" });
    for body in [
        json!({ "sender_id": "bob", "attachments": [image] }),
        json!({ "kind": "system", "text": "Bob has a\nbirthday" }),
    ] {
        let _: Value = team
            .post("/v1/channels/general/messages", &body)
            .await
            .unwrap();
    }
    alice
        .says("Bob (bob): [image: a.png https://a.example/a.png]")
        .await;
    alice.says("* Bob has a").await;
    alice.says("  │ birthday").await;
    alice.hangs_up();
    assert_eq!(alice.ends().await.code(), Some(0), "{}", alice.log());

    for (url, words) in [
        ("wss://example.org", "TLS"),
        ("example.org:7400", "ws://"),
        ("ftp://example.org", "ws://"),
    ] {
        let (code, said) = Chaos::runs(&["chat", "--url", url, "--token", "x"]).await;
        assert!(code == 2 && said.contains(words), "{said}");
    }
}
