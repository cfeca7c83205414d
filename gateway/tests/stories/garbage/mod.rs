//! Invalid input: it is answered by an error, a close code or an HTTP status, and
//! leaves no cost behind.

mod http;
mod websocket;

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use protocol::{Encoding, Limits, frame::encode_request, operation::methods};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use serde_json::{Value, json};

use crate::{
    operations::{self, Kind, Place},
    process::{Chaos, Shop, admin_key},
    story::until,
    wire::{BINARY, Outcome, Raw, TEXT, declared, frame, http},
};

/// Maximum size of random input.
const MUTATIONS: usize = 1500;
/// Number of connections that each hold the maximum.
const HOLDERS: usize = 300;

/// A node process whose memory and log are checked.
struct Node {
    chaos: Chaos,
    shop: Shop,
    token: String,
    _folder: tempfile::TempDir,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut flags = vec!["--demo", "off"];
        for limit in [
            "requests_per_second=0",
            "unauthenticated_per_ip=0",
            "key_requests_per_second=0",
            "connections_per_user=0",
        ] {
            flags.extend(["--limit", limit]);
        }
        let (chaos, address) = Chaos::node(folder.path(), &flags).await;
        let shop = Shop::open(address, &admin_key(folder.path())).await;
        shop.group("general", &["alice", "bob"]).await;
        let token = shop.token("alice").await;
        Self {
            chaos,
            shop,
            token,
            _folder: folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.shop.address
    }

    async fn session(&self, encoding: Encoding) -> Raw {
        Raw::session(self.address(), encoding, &self.token).await
    }

    /// Checks that it did not panic, and that it serves requests.
    async fn is_well(&self) {
        assert!(
            !self.chaos.log().contains("panicked"),
            "{}",
            self.chaos.log()
        );
        // In a new channel, since random input may have been a request to leave the old one.
        static ROUNDS: AtomicUsize = AtomicUsize::new(0);
        let channel = format!("round-{}", ROUNDS.fetch_add(1, Ordering::Relaxed));
        self.shop.group(&channel, &["alice"]).await;
        let mut session = self.session(Encoding::MessagePack).await;
        let body = json!({ "channel_id": channel, "text": "still there" });
        session
            .message(&encode_request(
                Encoding::MessagePack,
                9,
                "message.send",
                &body,
            ))
            .await;
        assert_eq!(session.outcome().await, Outcome::Reply(9, None));
        assert_eq!(
            http(self.address(), b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await,
            Some(200)
        );
    }
}

fn ids(place: &Place) -> Option<String> {
    Some(match (place.name.as_str(), place.kind) {
        (_, Kind::User) => "bob".into(),
        (_, Kind::Channel) => "general".into(),
        (_, Kind::Cursor) => "1.general".into(),
        ("message_id", _) => "msg_00000000000000aa".into(),
        _ => "msg_00000000000000bb".into(),
    })
}

/// Returns valid parameters of a method.
fn params(method: &str) -> Value {
    operations::named(method).params(&mut ids)
}

/// Returns a request with a null at this level of nesting.
fn nested(encoding: Encoding, levels: usize) -> Vec<u8> {
    match encoding {
        Encoding::Json => {
            let (open, close) = ("[".repeat(levels), "]".repeat(levels));
            format!(r#"{{"id":5,"method":"ping","params":{{"a":{open}null{close}}}}}"#).into_bytes()
        }
        Encoding::MessagePack => {
            let mut bytes = b"\x83\xa2id\x05\xa6method\xa4ping\xa6params\x81\xa1a".to_vec();
            bytes.extend(std::iter::repeat_n(0x91, levels));
            bytes.push(0xc0);
            bytes
        }
    }
}

fn show(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(300).collect()
}
