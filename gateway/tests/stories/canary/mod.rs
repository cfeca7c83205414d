//! Secrets in wrong fields appear in no log, error, close reason or
//! metric.

mod places;

use client::{Backend, ConnectError, Connector, RequestError};
use hyper::{
    Method,
    header::{HeaderName, HeaderValue, ORIGIN, SEC_WEBSOCKET_PROTOCOL},
};
use protocol::{Encoding, operation::session::Connect};
use serde_json::{Value, json};

use crate::{
    process::{Chaos, Shop, admin_key},
    story::until,
    wire::{Outcome, Raw, http_answer},
};
use places::{over_http, over_websocket};

/// A secret, and the part of it that must not be visible.
struct Canary {
    name: &'static str,
    text: String,
    song: String,
}

impl Canary {
    fn key(name: &'static str, text: &str) -> Self {
        let song = text.rsplit('_').next().unwrap();
        assert!(song.len() > 20, "{name}");
        Self {
            name,
            text: text.to_owned(),
            song: song.to_owned(),
        }
    }

    fn token(name: &'static str, text: &str) -> Self {
        // Only the signature of a token is secret.
        Self {
            name,
            text: text.to_owned(),
            song: text.rsplit('.').next().unwrap().to_owned(),
        }
    }
}

/// All answers, to be searched for secrets.
#[derive(Default)]
struct Said(Vec<(String, String)>);

impl Said {
    fn note(&mut self, place: impl Into<String>, what: impl Into<String>) {
        self.0.push((place.into(), what.into()));
    }

    fn is_silent_about(&self, canaries: &[Canary]) {
        let mut sung = Vec::new();
        for (place, what) in &self.0 {
            for canary in canaries {
                if let Some(at) = what.find(&canary.song) {
                    let near: String = what[..at]
                        .chars()
                        .rev()
                        .take(160)
                        .collect::<Vec<_>>()
                        .into_iter()
                        .rev()
                        .collect();
                    sung.push(format!("{place}: the {} after …{near}", canary.name));
                }
            }
        }
        assert_eq!(sung, Vec::<String>::new());
    }
}

async fn canaries(shop: &Shop, secret_key: &str) -> Vec<Canary> {
    let owner = shop.http(&shop.organization_key);
    let base = format!("/v1/organizations/{}/apps/{}", shop.organization, shop.app);
    let secret = |key: &Value| key["secret"].as_str().unwrap().to_owned();
    let access: Value = owner
        .post(&format!("{base}/access"), &json!({ "environment": "live" }))
        .await
        .unwrap();
    let test: Value = owner
        .post(&format!("{base}/keys"), &json!({ "environment": "test" }))
        .await
        .unwrap();
    let body = json!({ "environment": "live", "algorithm": "HS256" });
    let token_key: Value = owner
        .post(&format!("{base}/token-keys"), &body)
        .await
        .unwrap();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let sign = |exp: u64| {
        let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some(token_key["id"].as_str().unwrap().to_owned());
        let key = jsonwebtoken::EncodingKey::from_secret(secret(&token_key).as_bytes());
        jsonwebtoken::encode(
            &header,
            &json!({ "sub": "alice", "iat": now - 3000, "exp": exp }),
            &key,
        )
        .unwrap()
    };
    vec![
        Canary::key("admin key", &shop.admin_key),
        Canary::key("organization key", &shop.organization_key),
        Canary::key("app key", &shop.app_key),
        Canary::key("app key of the other environment", &secret(&test)),
        Canary::key("access key", &secret(&access)),
        Canary::key("secret of a token key", &secret(&token_key)),
        Canary::key("secret key", secret_key),
        Canary::token("minted token", &shop.token("alice").await),
        Canary::token("signed token", &sign(now + 600)),
        Canary::token("expired token", &sign(now - 600)),
        Canary::key(
            "key that never was",
            "sk_live_0000000000CanaryCanaryCanary0000000000000000",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_never_printed_or_returned() {
    let folder = tempfile::tempdir().unwrap();
    let mut flags = vec!["--demo", "off", "--log", "debug", "--log-format", "json"];
    for limit in [
        "requests_per_second=0",
        "unauthenticated_per_ip=0",
        "key_requests_per_second=0",
        "connections_per_user=0",
    ] {
        flags.extend(["--limit", limit]);
    }
    let (mut node, address) = Chaos::node(folder.path(), &flags).await;
    let shop = Shop::open(address, &admin_key(folder.path())).await;
    shop.group("general", &["alice", "bob"]).await;
    let secret_key = std::fs::read_to_string(folder.path().join("secret-key"))
        .unwrap()
        .trim()
        .to_owned();
    let canaries = canaries(&shop, &secret_key).await;
    let mut said = Said::default();
    for canary in &canaries {
        over_http(&shop, canary, &mut said).await;
        over_websocket(&shop, canary, &mut said).await;
    }
    assert!(said.0.len() > 500, "{}", said.0.len());
    let metrics = shop
        .http(&shop.admin_key)
        .request(Method::GET, "/metrics")
        .send()
        .await
        .unwrap();
    assert_eq!(metrics.status, 200);
    said.note("metrics", String::from_utf8_lossy(&metrics.body));
    node.signal("TERM").await;
    assert!(node.ends().await.success());
    let log = node.log();
    assert!(log.lines().count() > 500, "the log says little: {log}");
    for line in log.lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok(),
            "no JSON: {line}"
        );
        said.note("log", line);
    }
    said.note("standard output", node.said().join("\n"));
    assert!(!log.contains("panicked"), "{log}");
    said.is_silent_about(&canaries);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_of_the_command_line_are_not_printed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let file = folder.path().join("secret");
    std::fs::write(&file, "07".repeat(32)).unwrap();
    let file = file.display().to_string();
    let admin = Canary::key("admin key", "adm_CanaryCanaryCanaryCanaryCanaryCanary01");
    let password = Canary {
        name: "password",
        text: "CanaryPassword".into(),
        song: "CanaryPassword".into(),
    };
    let redis = "redis://someone:CanaryPassword@127.0.0.1:1/0";
    let mut said = Said::default();
    for arguments in [
        vec!["config", "--admin-key", &admin.text, "--data", &data],
        vec![
            "config",
            "--admin-key",
            &admin.text,
            "--secret-key-file",
            &file,
            "--redis",
            redis,
        ],
        // The key in place of a path.
        vec!["--admin-key-file", &admin.text, "--data", &data],
        vec!["--secret-key-file", &admin.text, "--data", &data],
        vec!["--redis", "redis://someone:CanaryPassword@127.0.0.1:port"],
        vec!["--redis", "http://someone:CanaryPassword@127.0.0.1"],
        vec![
            "chat",
            "--app-key",
            &admin.text,
            "--url",
            "ws://127.0.0.1:1",
        ],
    ] {
        let mut process = Chaos::spawn(&arguments);
        process.ends().await;
        said.note(
            format!("{arguments:?}"),
            format!("{}\n{}", process.said().join("\n"), process.log()),
        );
    }
    // A node without its Redis logs that repeatedly, without the password.
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--redis",
        redis,
        "--admin-key",
        &admin.text,
        "--secret-key-file",
        &file,
        "--log",
        "debug",
    ];
    let node = Chaos::spawn(&arguments);
    node.says("HTTP API").await;
    until("it complains", || async { node.log().contains("Redis") }).await;
    said.note(
        "a node without its Redis",
        format!("{}\n{}", node.said().join("\n"), node.log()),
    );
    said.is_silent_about(&[admin, password]);
}
