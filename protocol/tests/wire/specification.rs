//! The specification lists everything that the code has, and its examples are valid frames.

use protocol::{
    CloseCode, Encoding, ErrorCode, EventKind, Limits, bounds,
    event::Event,
    frame::{Request, ServerFrame, encode_request},
    id::PREFIXES,
    operation::{descriptions, methods},
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
fn specification_lists_every_method_event_and_prefix() {
    for method in methods() {
        assert!(section("Methods").contains(&quoted(method)), "{}", method);
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

/// Words between backticks.
fn code_words() -> impl Iterator<Item = &'static str> {
    README.split('`').skip(1).step_by(2)
}

#[test]
fn specification_names_no_unknown_method_event_prefix_or_limit() {
    let is_dotted = |word: &&str| {
        word.split('.').count() == 2
            && word
                .bytes()
                .all(|c| c.is_ascii_lowercase() || c == b'.' || c == b'_')
    };
    let files = ["json", "md", "seq"];
    for word in code_words()
        .filter(is_dotted)
        .filter(|word| !files.iter().any(|file| word.ends_with(&format!(".{file}"))))
    {
        let is_limit = word
            .strip_prefix("limits.")
            .is_some_and(|name| Limits::ALL.iter().any(|(limit, _, _)| *limit == name));
        let is_known = descriptions()
            .iter()
            .any(|operation| operation.name == word)
            || EventKind::ALL.iter().any(|kind| kind.as_str() == word);
        let is_error_field = word.starts_with("details.");
        assert!(is_known || is_limit || is_error_field, "{word}");
    }
    let rows = section("Limits")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in rows {
        assert!(
            Limits::ALL.iter().any(|(limit, _, _)| *limit == name),
            "{name}"
        );
    }
    for word in ["console", "banned", "webhook", "rediss", "/uploads"] {
        assert!(!README.contains(word), "{word} is not there yet");
    }
}

#[test]
fn specification_lists_every_code_with_its_status() {
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
fn specification_lists_every_limit_with_its_default() {
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
fn specification_lists_every_fixed_bound() {
    let limits = section("Limits");
    for bound in [
        format!("{} attachments", bounds::ATTACHMENTS),
        format!("{} mentions", bounds::MENTIONS),
        format!("{} bytes in a reaction", bounds::EMOJI_BYTES),
        format!(
            "{} channels in one `connect` or `channel.subscribe`",
            bounds::SUBSCRIBED_CHANNELS
        ),
        format!(
            "{} ids in one `GET /v1/channels?ids=`",
            bounds::SEARCHED_IDS
        ),
        format!(
            "{} ids or items in one request",
            bounds::USER_IDS.max(bounds::BATCH_ITEMS)
        ),
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
            anything::read_params(request.method, &request).expect(line);
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
