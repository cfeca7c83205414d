//! Names and URLs that other users' screens show.

use protocol::ErrorCode;
use serde_json::{Value, json};

use crate::story::{World, refusal};

/// Control characters, and characters that break or reorder lines.
const HOSTILE: [&str; 7] = [
    "a\u{1b}[2Jb",
    "a\u{7}b",
    "a\u{9b}31mb",
    "a\rb",
    "a\u{2028}b",
    "a\u{202e}b",
    "a\u{2066}b",
];

on_both_stores! {
    async fn names_refuse_control_characters_line_separators_and_bidirectional_overrides(world: World) {
        world.people(&["alice"]).await;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let (admin, owner, team) = (world.backend(&world.admin_key), world.backend(&world.organization_key), world.team());
        let (organization, app) = (&world.organization, &world.app);
        for hostile in HOSTILE.into_iter().chain(["a\nb"]) {
            let multi_line = hostile == "a\nb";
            for (caller, path, field, body) in [
                (&admin, "/v1/organizations".to_owned(), "name", json!({ "name": hostile, "email": "a@b.example" })),
                (&admin, "/v1/organizations".to_owned(), "email", json!({ "name": "Acme", "email": format!("{hostile}@b.example") })),
                (&owner, format!("/v1/organizations/{organization}/keys"), "name", json!({ "name": hostile })),
                (&owner, format!("/v1/organizations/{organization}/apps"), "name", json!({ "name": hostile })),
                (&owner, format!("/v1/organizations/{organization}/apps/{app}/keys"), "name", json!({ "environment": "live", "name": hostile })),
                (&team, "/v1/users".to_owned(), "username", json!({ "username": hostile })),
                (&team, "/v1/users".to_owned(), "first_name", json!({ "first_name": hostile })),
                (&team, "/v1/users".to_owned(), "last_name", json!({ "last_name": hostile })),
                (&team, "/v1/users".to_owned(), "bio", json!({ "bio": hostile })),
                (&team, "/v1/channels".to_owned(), "name", json!({ "type": "group", "name": hostile })),
                (&team, "/v1/channels".to_owned(), "description", json!({ "type": "group", "description": hostile })),
                (&team, format!("/v1/channels/{general}/messages"), "attachments.name", json!({
                    "sender_id": "alice", "attachments": [{ "type": "file", "url": "https://example.org/a", "name": hostile }],
                })),
            ] {
                let may = matches!(field, "bio" | "description") && (multi_line || hostile.contains('\u{2028}'));
                match caller.post::<Value>(&path, &body).await {
                    Ok(_) if may => {}
                    answer => {
                        let sentence = format!("{answer:?}");
                        assert_eq!(refusal(answer), (400, ErrorCode::BadRequest), "{field} {hostile:?}");
                        assert!(sentence.contains(&format!("`{field}`")), "{sentence}");
                    }
                }
            }
            for (method, body) in [
                ("user.update", json!({ "first_name": hostile })),
                ("channel.update", json!({ "channel_id": general, "name": hostile })),
                ("channel.create", json!({ "type": "group", "name": hostile })),
            ] {
                assert_eq!(alice.is_refused(method, body).await, ErrorCode::BadRequest, "{method:?} {hostile:?}");
            }
        }
// Valid text: other scripts, their marks and joiners, emoji.
        for name in ["Ольга Ñandú", "שלום\u{200f}!", "نا\u{200c}م", "👩\u{200d}🚀 Ada"] {
            alice.asks("user.update", json!({ "first_name": name, "bio": format!("{name}\nand more") })).await;
        }
    }

    async fn pictures_are_http_addresses(world: World) {
        world.people(&["alice"]).await;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        let (admin, team) = (world.backend(&world.admin_key), world.team());
        for (address, is_one) in [
            ("https://example.org/a.png", true),
            ("HTTP://example.org", true),
            ("http://[::1]:80/a?b#c", true),
            ("javascript:alert(1)", false),
            ("data:image/png;base64,AAAA", false),
            ("//example.org/a.png", false),
            ("https://", false),
            ("https:///a.png", false),
            ("http://[::1", false),
            ("http://[::g]/", false),
            ("http://example.org:99999/", false),
            ("http://a\\b.example/", false),
            ("https://ada@example.org/a.png", false),
            ("https://ada:secret@example.org/a.png", false),
            ("https://:@example.org/a.png", false),
            ("ftp://example.org/a.png", false),
            ("https://example.org/a b", false),
            ("https://example.org/\u{1b}[2J", false),
            ("https://example.org/\u{202e}gnp.a", false),
            ("", false),
        ] {
            let answers = [
                ("avatar", team.post::<Value>("/v1/users", &json!({ "avatar": address })).await),
                ("icon", team.post("/v1/channels", &json!({ "type": "group", "icon": address })).await),
                ("banner", team.post("/v1/channels", &json!({ "type": "group", "banner": address })).await),
                ("banner", admin.post("/v1/organizations", &json!({ "name": "a", "email": "a@b.example", "banner": address })).await),
                ("attachments.url", team.post(&format!("/v1/channels/{general}/messages"), &json!({
                    "sender_id": "alice", "attachments": [{ "type": "image", "url": address }],
                })).await),
                ("avatar", alice.session.request("user.update", &json!({ "avatar": address })).await.map_err(|error| match error {
                    client::RequestError::Refused(error) => client::BackendError::Refused { status: error.code.status(), error },
                    other => panic!("{other}"),
                })),
            ];
            for (field, answer) in answers {
                if is_one {
                    assert!(answer.is_ok(), "{field} {address:?}: {answer:?}");
                    continue;
                }
                let sentence = format!("{answer:?}");
                assert_eq!(refusal(answer), (400, ErrorCode::BadRequest), "{field} {address:?}");
                assert!(sentence.contains(&format!("`{field}`")), "{sentence}");
            }
        }
    }
}
