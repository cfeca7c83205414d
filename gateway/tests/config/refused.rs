//! Settings that cannot be used.

use super::*;

#[test]
fn invalid_setting_is_reported_in_one_sentence_with_source_and_remedy() {
    let files = Files::new();
    let wrong_toml = files.write("wrong.toml", "listen = '127.0.0.1:1'\nadmin_key = canary\n");
    let unknown_toml = files.write("unknown.toml", "listn = 'x'\n");
    let typed_toml = files.write("typed.toml", "drain_window = 1.5\n");
    let limit_toml = files.write("limit.toml", "[limits]\nconection = 1\n");
    let bad_key = files.write("bad", "canary");
    fn redis<'a>(more: &[&'a str]) -> Vec<&'a str> {
        [&["--redis", "redis://127.0.0.1"], more].concat()
    }
    for (args, parts) in [
        (
            vec!["--listen", "nowhere"],
            vec!["--listen", "nowhere", "127.0.0.1:7400"],
        ),
        (
            vec!["--limit", "requests_total_bytes=400000"],
            vec!["requests_total_bytes", "use at least 1966080"],
        ),
        (
            vec!["--ops-listen", "127.0.0.1:7400"],
            vec!["--ops-listen", "another port"],
        ),
        (
            vec!["--allowed-origins", "example.com"],
            vec!["--allowed-origins", "scheme://host"],
        ),
        (
            vec!["--trusted-proxies", "10.0.0.0/99"],
            vec!["--trusted-proxies", "CIDR"],
        ),
        (
            vec!["--data", "x", "--redis", "redis://h"],
            vec!["--data and --redis exclude each other", "leave one"],
        ),
        (
            vec!["--redis", "http://canary"],
            vec!["--redis", "redis+cluster://"],
        ),
        (redis(&[]), vec!["--admin-key-file"]),
        (
            redis(&["--admin-key", "adm_x"]),
            vec!["--secret-key-file", "openssl"],
        ),
        (
            redis(&["--admin-key", "adm_x", "--secret-key-file", &bad_key]),
            vec!["--secret-key-file", "32 bytes in hex"],
        ),
        (vec!["--admin-key", "canary"], vec!["--admin-key", "adm_"]),
        (
            vec!["--admin-key-file", "/nonexistent"],
            vec!["--admin-key-file", "/nonexistent", "path"],
        ),
        (
            vec!["--admin-key-file", &bad_key],
            vec!["--admin-key-file", "adm_"],
        ),
        (
            vec!["--admin-key", "adm_x", "--admin-key-file", "y"],
            vec!["exclude each other"],
        ),
        (
            vec!["--redis-wait", "1"],
            vec!["--redis-wait", "requires --redis"],
        ),
        (
            vec!["--redis-wait", "many"],
            vec!["--redis-wait", "number of replicas"],
        ),
        (
            vec!["--redis-wait-timeout", "4s"],
            vec!["--redis-wait-timeout", "between"],
        ),
        (vec!["--demo", "maybe"], vec!["--demo", "auto, on and off"]),
        (vec!["--drain-window", "2h"], vec!["--drain-window", "10s"]),
        (vec!["--heartbeat", "1ms"], vec!["--heartbeat", "between"]),
        (vec!["--log", "gateway=loud=er"], vec!["--log", "debug"]),
        (vec!["--log", "loud"], vec!["--log", "debug"]),
        (vec!["--log-format", "xml"], vec!["--log-format", "json"]),
        (vec!["--limit", "page"], vec!["--limit", "NAME=VALUE"]),
        (vec!["--limit", "page=many"], vec!["page", "whole number"]),
        (vec!["--limit", "page=-1"], vec!["page", "whole number"]),
        (vec!["--limit", "conections=1"], vec!["\"connections\""]),
        (
            vec!["--config", "/nonexistent.toml"],
            vec!["/nonexistent.toml", "path"],
        ),
        (vec!["--config", &wrong_toml], vec!["wrong.toml", "line 2"]),
        (
            vec!["--config", &unknown_toml],
            vec!["unknown.toml", "\"listen\""],
        ),
        (
            vec!["--config", &typed_toml],
            vec!["drain_window in", "whole number"],
        ),
        (
            vec!["--config", &limit_toml],
            vec!["limits.conection in", "\"connections\""],
        ),
    ] {
        let sentence = refuses(&args, &[]);
        for part in parts {
            assert!(sentence.contains(part), "{args:?}: {sentence}");
        }
        assert!(!sentence.contains("canary"), "{sentence}");
    }
    assert!(refuses(&[], &[("CHAOS_LIMITS", "nonsense=1")]).starts_with("CHAOS_LIMITS"));
    let shared = [
        ("CHAOS_REDIS", "redis://h"),
        ("CHAOS_ADMIN_KEY", "adm_x"),
        ("CHAOS_SECRET_KEY_FILE", &files.path("secret")),
    ];
    assert!(refuses(&["--demo"], &shared).contains("--demo"));
}

#[test]
fn guessable_admin_key_causes_a_warning() {
    assert!(serves(&["--admin-key", "adm_x"], &[]).warnings[0].contains("openssl"));
    assert!(
        serves(&["--admin-key", &format!("adm_{}", "f".repeat(32))], &[])
            .warnings
            .is_empty()
    );
}
