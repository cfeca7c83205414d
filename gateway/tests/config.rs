//! The settings, from outside: layers, what goes together, sentences for what cannot be used, and the sample file.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::HashMap, fs};

use gateway::config::{
    Command, Config, Demo, Failure, LogFormat, SETTINGS, StoreConfig, parse, sample,
};
use protocol::Limits;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chaos.toml");

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Command, Failure> {
    let env: HashMap<_, _> = env.iter().copied().collect();
    parse(["chaos"].iter().chain(args), &|name| {
        env.get(name).map(|value| (*value).to_owned())
    })
}

fn serves(args: &[&str], env: &[(&str, &str)]) -> Config {
    match run(args, env) {
        Ok(Command::Serve(config)) => *config,
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

fn shows(args: &[&str], env: &[(&str, &str)]) -> String {
    match run(args, env) {
        Ok(Command::Config(text)) => text,
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

/// The sentence that ends the start.
fn refuses(args: &[&str], env: &[(&str, &str)]) -> String {
    match run(args, env) {
        Err(Failure::Setting(error)) => {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n'), "{sentence}");
            sentence
        }
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

/// Two configurations are the same when they print the same: nothing in one is left out but secrets.
fn printed(config: &Config) -> String {
    format!("{config:?}")
}

/// A folder with an admin key, a secret key, and whatever else a test writes.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("admin", &format!("adm_{}\n", "f".repeat(32)));
        files.write("secret", &"0f".repeat(32));
        files
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
}

#[test]
fn bare_it_has_the_defaults_of_the_contract() {
    let config = serves(&[], &[]);
    assert_eq!(config.listen.to_string(), "127.0.0.1:7400");
    assert_eq!(config.ops_listen, None);
    assert_eq!(
        config.store,
        StoreConfig::Embedded {
            data: "./chaos-data".into()
        }
    );
    assert!(config.admin_key.is_none() && config.secret_key_file.is_none());
    assert_eq!(config.demo, Demo::Auto);
    assert_eq!(config.drain_window.as_secs(), 10);
    assert_eq!(config.heartbeat.as_millis(), 25_000);
    assert_eq!(
        (config.log_filter.as_str(), config.log_format),
        ("info", LogFormat::Text)
    );
    assert!(config.trusted_proxies.is_empty() && config.warnings.is_empty());
    assert!(config.limits.outbox_total_bytes > 0, "a quarter of memory");
    assert_eq!(
        Limits {
            outbox_total_bytes: 0,
            ..config.limits
        },
        Limits::default()
    );
    assert_eq!(
        printed(&serves(&["serve"], &[])),
        printed(&serves(&[], &[]))
    );
}

#[test]
fn flags_come_before_the_environment_before_the_file() {
    let files = Files::new();
    let file = files.write("chaos.toml", "listen = '127.0.0.1:1'\ndemo = true\n[limits]\npage = 1\nreactions = 1\nsubscriptions = 1\n");
    let env = [
        ("CHAOS_LISTEN", "127.0.0.1:2"),
        ("CHAOS_LIMITS", "page=2, reactions=2"),
        ("CHAOS_DRAIN_WINDOW", ""),
    ];
    let config = serves(&["--config", &file], &[]);
    assert_eq!((config.listen.port(), config.demo), (1, Demo::On));
    let config = serves(&["--config", &file], &env);
    assert_eq!(config.listen.port(), 2);
    let config = serves(
        &[
            "--config",
            &file,
            "--listen",
            "127.0.0.1:3",
            "--limit",
            "page=3",
        ],
        &env,
    );
    assert_eq!(
        (
            config.listen.port(),
            config.limits.page,
            config.limits.reactions,
            config.limits.subscriptions
        ),
        (3, 3, 2, 1)
    );

    let text = shows(
        &[
            "config",
            "--config",
            &file,
            "--listen",
            "127.0.0.1:3",
            "--limit",
            "page=3",
        ],
        &env,
    );
    let source = |name: &str| {
        text.lines()
            .find(|line| line.starts_with(&format!("{name} =")))
            .unwrap()
            .split("# ")
            .nth(1)
            .unwrap()
    };
    assert_eq!(source("listen"), "--listen");
    assert_eq!(source("demo"), format!("demo in {file}"));
    assert_eq!(source("data"), "default");
    assert_eq!(
        (source("page"), source("reactions")),
        ("--limit", "CHAOS_LIMITS")
    );
    assert_eq!(
        source("subscriptions"),
        format!("limits.subscriptions in {file}")
    );

    assert_eq!(serves(&[], &[("CHAOS_CONFIG", &file)]).listen.port(), 1);
}

#[test]
fn flags_may_stand_before_the_subcommand() {
    assert_eq!(
        serves(
            &["--listen", "127.0.0.1:1", "--demo", "serve", "--data", "x"],
            &[]
        )
        .demo,
        Demo::On
    );
    assert_eq!(
        serves(&["--limit", "page=1", "serve", "--limit", "page=2"], &[])
            .limits
            .page,
        2
    );
    assert!(refuses(&["--data", "x", "chat"], &[]).contains("after it"));
    assert!(
        matches!(run(&["chat", "--user", "bob", "--data", "x"], &[]), Ok(Command::Chat(chat)) if chat.user == "bob")
    );
}

/// A variable or flag and its value.
type Pair = (&'static str, String);

/// A usable value other than the default for every setting, and what must stand beside it.
fn others(files: &Files) -> HashMap<&'static str, (String, Vec<Pair>)> {
    let keys = vec![
        ("CHAOS_SECRET_KEY_FILE", files.path("secret")),
        ("CHAOS_ADMIN_KEY_FILE", files.path("admin")),
    ];
    let alone = |value: &str| (value.to_owned(), vec![]);
    HashMap::from([
        ("listen", alone("127.0.0.1:9")),
        ("ops_listen", alone("127.0.0.1:9")),
        ("allowed_origins", alone("https://app.example.com")),
        ("trusted_proxies", alone("10.0.0.0/8")),
        ("data", alone(&files.path("data"))),
        (
            "redis",
            ("redis://:canary@127.0.0.1:6379".to_owned(), keys.clone()),
        ),
        (
            "redis_wait",
            (
                "2".to_owned(),
                [
                    keys.clone(),
                    vec![("CHAOS_REDIS", "redis://h:1".to_owned())],
                ]
                .concat(),
            ),
        ),
        ("redis_wait_timeout", {
            let more = [("CHAOS_REDIS", "redis://h:1"), ("CHAOS_REDIS_WAIT", "1")]
                .map(|(name, value)| (name, value.to_owned()));
            ("250".to_owned(), [keys, more.into()].concat())
        }),
        ("demo", alone("off")),
        ("admin_key_file", alone(&files.path("admin"))),
        ("admin_key", alone(&format!("adm_canary{}", "0".repeat(32)))),
        ("secret_key_file", alone(&files.path("secret"))),
        ("drain_window", alone("3s")),
        ("heartbeat", alone("700")),
        ("log", alone("debug")),
        ("log_format", alone("json")),
    ])
}

#[test]
fn every_setting_does_the_same_as_flag_variable_and_key_and_changes_the_configuration() {
    let files = Files::new();
    let others = others(&files);
    for setting in SETTINGS {
        let (value, beside) = &others[setting.name];
        let beside: Vec<_> = beside
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let flag = printed(&serves(&[&format!("--{}", setting.flag), value], &beside));
        let variable = printed(&serves(
            &[],
            &[beside.clone(), vec![(setting.env, value)]].concat(),
        ));
        let file = files.write("one.toml", &format!("{} = {value:?}\n", setting.name));
        let key = printed(&serves(&["--config", &file], &beside));
        assert_eq!((&flag, &flag), (&variable, &key));
        assert_ne!(
            flag,
            printed(&serves(&[], &[])),
            "{} is read by nothing",
            setting.name
        );
        assert!(!flag.contains("canary"), "{flag}");
    }
    for (name, _, _) in Limits::ALL {
        let limits = serves(&["--limit", &format!("{name}=12_345")], &[]).limits;
        assert_eq!(limits.get(name), Some(12_345));
    }
}

#[test]
fn what_is_shown_hides_secrets_and_can_be_read_again() {
    let files = Files::new();
    let args = [
        "config",
        "--redis",
        "redis://me:canary@h",
        "--admin-key",
        "adm_canary",
        "--secret-key-file",
        &files.path("secret"),
    ];
    let text = shows(&args, &[]);
    assert!(
        !text.contains("canary") && text.contains("redis://***@h") && !text.contains("data ="),
        "{text}"
    );
    let file = files.write(
        "shown.toml",
        &shows(
            &["config", "--listen", "127.0.0.1:5", "--limit", "page=5"],
            &[],
        ),
    );
    let again = serves(&["--config", &file], &[]);
    assert_eq!((again.listen.port(), again.limits.page), (5, 5));
}

#[test]
fn a_setting_that_cannot_be_used_is_told_in_one_sentence_with_its_source_and_what_to_do() {
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
            vec!["--redis-wait", "give --redis too"],
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
fn a_guessable_admin_key_is_warned_of() {
    assert!(serves(&["--admin-key", "adm_x"], &[]).warnings[0].contains("openssl"));
    assert!(
        serves(&["--admin-key", &format!("adm_{}", "f".repeat(32))], &[])
            .warnings
            .is_empty()
    );
}

#[test]
fn the_help_names_every_setting_and_every_limit() {
    let Err(Failure::Usage(help)) = run(&["--help"], &[]) else {
        panic!("no help")
    };
    let help = help.to_string();
    for setting in SETTINGS {
        assert!(
            help.contains(&format!("--{}", setting.flag)) && help.contains(setting.env),
            "{}",
            setting.name
        );
    }
    for (name, _, _) in Limits::ALL {
        assert!(help.contains(name), "{name}");
    }
    for word in ["serve", "config", "chat", "Examples:"] {
        assert!(help.contains(word), "{word}");
    }
}

#[test]
fn the_sample_file_is_written_from_the_defaults() {
    if std::env::var_os("CHAOS_WRITE_SAMPLE").is_some() {
        fs::write(SAMPLE, sample()).unwrap();
    }
    let file = fs::read_to_string(SAMPLE).unwrap();
    assert!(
        file == sample(),
        "deploy/chaos.toml is stale: run CHAOS_WRITE_SAMPLE=1 cargo test -p chaos-gateway --test config"
    );
    assert_eq!(
        printed(&serves(&["--config", SAMPLE], &[])),
        printed(&serves(&[], &[]))
    );
}

#[test]
fn every_line_of_the_sample_file_may_be_uncommented() {
    let files = Files::new();
    let sample = sample();
    let is_key = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let uncommented = sample.lines().filter_map(|line| line.strip_prefix("# "));
    let lines: Vec<_> = uncommented
        .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| is_key(key)))
        .collect();
    assert_eq!(lines.len(), SETTINGS.len() + Limits::ALL.len());
    for line in lines {
        let name = line.split(' ').next().unwrap();
        let table = if Limits::ALL.iter().any(|(known, _, _)| *known == name) {
            "[limits]\n"
        } else {
            ""
        };
        let file = files.write("line.toml", &format!("{table}{line}\n"));
        match name {
            // These name what only the reader's own machine has.
            "redis" | "admin_key" | "admin_key_file" | "secret_key_file" => {
                let sentence = refuses(&["--config", &file], &[]);
                assert!(
                    !sentence.contains("is no setting") && !sentence.contains("not TOML"),
                    "{sentence}"
                );
            }
            "ops_listen" | "trusted_proxies" | "outbox_total_bytes" => {
                assert_ne!(
                    printed(&serves(&["--config", &file], &[])),
                    printed(&serves(&[], &[])),
                    "{line}"
                );
            }
            _ => assert_eq!(
                printed(&serves(&["--config", &file], &[])),
                printed(&serves(&[], &[])),
                "{line}"
            ),
        }
    }
}

#[test]
fn export_and_import_name_their_store_as_a_node_does() {
    let files = Files::new();
    let secret = files.path("secret");
    let app = ["--app", "app_00000000000000a1"];
    match run(&[&["export"], &app[..], &["--data", "there"]].concat(), &[]) {
        Ok(Command::Export(export)) => {
            assert_eq!((export.app.as_str(), export.to), (app[1], None));
            assert_eq!(
                export.store.store,
                StoreConfig::Embedded {
                    data: "there".into()
                }
            );
            assert_eq!(export.store.secret_key_file, None);
        }
        other => panic!("{other:?}"),
    }
    let env = [
        ("CHAOS_REDIS", "redis://10.0.0.5"),
        ("CHAOS_SECRET_KEY_FILE", &*secret),
        ("CHAOS_LISTEN", "nonsense"),
    ];
    match run(&["import", "--from", "app.jsonl"], &env) {
        Ok(Command::Import(import)) => {
            assert_eq!(import.from, Some("app.jsonl".into()));
            assert!(matches!(import.store.store, StoreConfig::Redis { .. }));
            assert_eq!(import.store.secret_key_file, Some(secret.into()));
        }
        other => panic!("{other:?}"),
    }
    let file = files.write("chaos.toml", "data = \"elsewhere\"");
    match run(&["import", "--from", "-", "--config", &file], &[]) {
        Ok(Command::Import(import)) => {
            assert_eq!(
                (import.from, import.store.store),
                (
                    None,
                    StoreConfig::Embedded {
                        data: "elsewhere".into()
                    }
                )
            )
        }
        other => panic!("{other:?}"),
    }
    let both = refuses(
        &["import", "--data", "here", "--redis", "redis://10.0.0.5"],
        &[],
    );
    assert!(both.contains("exclude each other"), "{both}");
    let before = refuses(&["--data", "here", "import"], &[]);
    assert!(before.contains("its own flags after it"), "{before}");
    for usage in [
        &["export"][..],
        &["export", "--app", "nonsense"],
        &["import", "--listen", "127.0.0.1:1"],
    ] {
        assert!(
            matches!(run(usage, &[]), Err(Failure::Usage(_))),
            "{usage:?}"
        );
    }
}
