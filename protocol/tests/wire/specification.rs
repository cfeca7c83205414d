//! The specification names everything that the code has, and its examples are frames.

use protocol::{
    CloseCode, Encoding, ErrorCode, EventKind, Limits, Method,
    event::Event,
    frame::{Request, ServerFrame, encode_request},
    id::PREFIXES,
};
use serde_json::Value;

use crate::anything;

const README: &str = include_str!("../../README.md");

/// The section under a heading like `## 7. Methods`.
fn section(name: &str) -> &'static str {
    let mut sections = README.split("\n## ");
    sections
        .find(|s| {
            s.lines()
                .next()
                .is_some_and(|heading| heading.ends_with(name))
        })
        .unwrap_or_else(|| panic!("a section {name}"))
}

fn quoted(word: &str) -> String {
    format!("`{word}`")
}

#[test]
fn every_method_event_and_prefix_stands_in_it() {
    for method in Method::ALL {
        assert!(
            section("Methods").contains(&quoted(method.as_str())),
            "{}",
            method.as_str()
        );
    }
    for kind in EventKind::ALL {
        assert!(
            section("Events").contains(&quoted(kind.as_str())),
            "{}",
            kind.as_str()
        );
    }
    for prefix in PREFIXES {
        assert!(section("Conventions").contains(&quoted(prefix)), "{prefix}");
    }
}

#[test]
fn every_code_stands_in_it_with_its_status() {
    for code in ErrorCode::ALL {
        assert!(
            section("Errors").contains(&format!("| `{code}` | {} |", code.status())),
            "{code}"
        );
    }
    for code in CloseCode::ALL {
        assert!(
            section("Close codes").contains(&format!("\n| {} |", code.code())),
            "{}",
            code.code()
        );
    }
}

#[test]
fn every_limit_stands_in_it_with_its_default() {
    let for_clients = Limits::default().for_clients();
    for (name, default, _) in Limits::ALL {
        let star = if for_clients.contains_key(*name) {
            " *"
        } else {
            ""
        };
        assert!(
            section("Limits").contains(&format!("\n| `{name}`{star} | {default} |")),
            "{name}"
        );
    }
}

#[test]
fn every_bound_that_is_fixed_stands_in_it() {
    let limits = section("Limits");
    for bound in [
        format!("{} attachments", protocol::model::MAX_ATTACHMENTS),
        format!("{} mentions", protocol::model::MAX_MENTIONS),
        format!("{} bytes in a reaction", protocol::model::MAX_EMOJI),
        format!(
            "{} levels and {} bytes of free data",
            protocol::value::MAX_DEPTH,
            protocol::value::MAX_BYTES
        ),
    ] {
        assert!(limits.contains(&bound), "{bound}");
    }
}

#[test]
fn every_example_is_a_frame() {
    let blocks = README
        .split("```json frames\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap());
    let mut examples = 0;
    for line in blocks.flat_map(str::lines) {
        let value: Value = serde_json::from_str(line).expect(line);
        if value.get("method").is_some() {
            let request = Request::decode(Encoding::Json, line.as_bytes()).expect(line);
            let method = Method::of(request.method).expect(line);
            anything::read_params(method, &request).expect(line);
        } else if let ServerFrame::Event(event) =
            ServerFrame::decode(Encoding::Json, line.as_bytes()).expect(line)
        {
            assert_ne!(event.read().expect(line), Event::Unknown);
        }
        examples += 1;
    }
    assert!(examples > 5);
}

#[test]
fn the_example_in_messagepack_is_the_one_in_json() {
    let hex = README
        .split("```hex\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let digits: String = hex.split_whitespace().collect();
    let params = serde_json::json!({ "channel_id": "general", "text": "hi" });
    let frame = encode_request(Encoding::MessagePack, 1, "message.send", &params);
    assert_eq!(
        digits,
        frame
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    );
    assert!(README.contains(&format!("in MessagePack, {} bytes", frame.len())));
}
