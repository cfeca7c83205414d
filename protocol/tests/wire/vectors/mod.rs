//! The vectors: frames in both encodings beside what they mean, for the tests of clients in any
//! language.
//!
//! Every method has a request and a reply, made from its declaration; some show more by hand. The
//! frames of `requests.json` and `replies.json` are numbered by their place. A frame keeps the
//! place that it has in the file; new ones follow at the end.
//!
//! `CHAOS_VECTORS=write cargo test -p chaos-protocol vectors` writes the files.

mod draft;
mod events;
mod example;
mod failures;
mod replies;
mod requests;

use std::{collections::BTreeSet, fs, path::PathBuf, sync::Once};

use protocol::{
    CloseCode, Encoding, ErrorCode, EventKind,
    codec::{from_msgpack, to_msgpack},
    event::Event,
    frame::{Request, ServerFrame},
    operation::methods,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use self::draft::{numbered, with_all_methods};
use crate::anything;

/// 2026-01-01T00:00:00Z, in milliseconds.
const NOW: u64 = 1_767_225_600_000;

/// A frame.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    name: String,
    description: String,
    direction: Direction,
    /// The frame as a text message of a JSON session holds it; the order of keys means nothing.
    json: Value,
    /// The same as a binary message of a MessagePack session holds it, in hex.
    msgpack: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Direction {
    #[serde(rename = "client to server")]
    ClientToServer,
    #[serde(rename = "server to client")]
    ServerToClient,
}

impl Vector {
    fn new(
        name: &str,
        description: &str,
        direction: Direction,
        frame: impl Fn(Encoding) -> Vec<u8>,
    ) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            direction,
            json: serde_json::from_slice(&frame(Encoding::Json)).unwrap(),
            msgpack: hex(&frame(Encoding::MessagePack)),
        }
    }
}

/// Bytes that are not a request: the connection closes with 4000.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Refused {
    name: String,
    description: String,
    encoding: String,
    /// The message's payload, in hex.
    bytes: String,
}

/// A close code.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Close {
    code: u16,
    reason: String,
    description: String,
    reconnect: String,
}

fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn path(group: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("vectors")
        .join(format!("{group}.json"))
}

fn read<T: DeserializeOwned>(group: &str) -> Vec<T> {
    files();
    serde_json::from_str(&fs::read_to_string(path(group)).unwrap()).unwrap()
}

fn text_of<T: Serialize>(vectors: &[T]) -> String {
    serde_json::to_string_pretty(vectors).unwrap() + "\n"
}

/// Returns the contents of the files as the code makes them. Writes them first if requested.
fn files() -> Vec<(&'static str, String)> {
    static WRITING: Once = Once::new();
    let mut files: Vec<_> = frames()
        .iter()
        .map(|(group, vectors)| (*group, text_of(vectors)))
        .collect();
    files.push(("refused", text_of(&failures::refused())));
    files.push(("close", text_of(&failures::close())));
    WRITING.call_once(|| {
        if std::env::var_os("CHAOS_VECTORS").is_some_and(|v| v == "write") {
            for (group, text) in &files {
                fs::write(path(group), text).unwrap();
            }
        }
    });
    files
}

fn requests() -> Vec<Vector> {
    let drafts = with_all_methods(requests::all(), Direction::ClientToServer);
    numbered("requests", drafts)
}

fn replies() -> Vec<Vector> {
    let drafts = with_all_methods(replies::all(), Direction::ServerToClient);
    numbered("replies", drafts)
}

fn frames() -> [(&'static str, Vec<Vector>); 4] {
    [
        ("requests", requests()),
        ("replies", replies()),
        ("events", events::all()),
        ("errors", failures::errors()),
    ]
}

#[test]
fn vectors_are_what_the_code_encodes() {
    for (group, text) in files() {
        let kept = fs::read_to_string(path(group)).unwrap_or_default();
        assert!(
            kept == text,
            "vectors/{group}.json has changed: CHAOS_VECTORS=write cargo test -p chaos-protocol vectors"
        );
    }
    for (group, vectors) in frames() {
        let names: BTreeSet<_> = vectors.iter().map(|v| &v.name).collect();
        assert_eq!(names.len(), vectors.len(), "names in {group} are unique");
    }
}

#[test]
fn every_vector_decodes_to_its_json() {
    for (group, vectors) in frames() {
        assert_eq!(read::<Vector>(group), vectors);
        for vector in &vectors {
            let (json, msgpack) = (
                serde_json::to_vec(&vector.json).unwrap(),
                unhex(&vector.msgpack),
            );
            assert_eq!(
                from_msgpack::<Value>(&msgpack).unwrap(),
                vector.json,
                "{}",
                vector.name
            );
            // Another encoder orders keys as it likes.
            let foreign = to_msgpack(&vector.json);
            let frames = [
                (Encoding::Json, &json),
                (Encoding::MessagePack, &msgpack),
                (Encoding::MessagePack, &foreign),
            ];
            for (encoding, bytes) in frames {
                match vector.direction {
                    Direction::ClientToServer => {
                        let request = Request::decode(encoding, bytes).unwrap();
                        assert_eq!(request.method, vector.json["method"], "{}", vector.name);
                        let params = vector
                            .json
                            .get("params")
                            .cloned()
                            .unwrap_or_else(|| serde_json::json!({}));
                        assert_eq!(
                            request.params::<Value>().unwrap(),
                            params,
                            "{}",
                            vector.name
                        );
                        anything::read_params(request.method, &request).unwrap();
                    }
                    Direction::ServerToClient => {
                        match ServerFrame::decode(encoding, bytes).unwrap() {
                            ServerFrame::Reply { id, .. } => {
                                assert_eq!(id, vector.json["id"], "{}", vector.name)
                            }
                            ServerFrame::Event(event) => {
                                let known = EventKind::ALL
                                    .iter()
                                    .any(|kind| kind.as_str() == event.event);
                                assert_eq!(
                                    event.read().unwrap() != Event::Unknown,
                                    known,
                                    "{}",
                                    vector.name
                                );
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_method_event_and_code_has_a_vector() {
    let requests = requests();
    let asked: BTreeSet<_> = requests
        .iter()
        .filter_map(|v| v.json["method"].as_str())
        .collect();
    let replies = replies();
    let answered: BTreeSet<_> = replies
        .iter()
        .filter_map(|v| v.name.split(' ').next())
        .collect();
    for method in methods() {
        assert!(asked.contains(method), "a request of {}", method);
        assert!(answered.contains(method), "a reply to {}", method);
    }
    let events = events::all();
    let told: BTreeSet<_> = events
        .iter()
        .filter_map(|v| v.json["event"].as_str())
        .collect();
    for kind in EventKind::ALL {
        assert!(told.contains(kind.as_str()), "{}", kind.as_str());
    }
    let errors = failures::errors();
    let refused: BTreeSet<_> = errors
        .iter()
        .filter_map(|v| v.json["error"]["code"].as_str())
        .collect();
    for code in ErrorCode::ALL {
        assert!(refused.contains(code.as_str()), "{code}");
    }
    assert_eq!(
        failures::close().iter().map(|c| c.code).collect::<Vec<_>>(),
        CloseCode::ALL.iter().map(|c| c.code()).collect::<Vec<_>>()
    );
}

#[test]
fn refused_vectors_are_refused() {
    for refused in read::<Refused>("refused") {
        let encoding = if refused.encoding == "json" {
            Encoding::Json
        } else {
            Encoding::MessagePack
        };
        assert!(
            Request::decode(encoding, &unhex(&refused.bytes)).is_err(),
            "{}",
            refused.name
        );
    }
}
