//! Settings: layers, contradictions, error sentences, and the
//! the sample file.

#![allow(clippy::unwrap_used, reason = "a test")]

mod documentation;
mod refused;

use std::{collections::HashMap, fs};

use gateway::config::{
    Command, CommandLineError, Config, DemoMode, LogFormat, SETTINGS, StoreConfig, parse, sample,
};
use protocol::Limits;

const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/chaos.toml");

fn run(args: &[&str], env: &[(&str, &str)]) -> Result<Command, CommandLineError> {
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

/// Returns the sentence of a failed start.
fn refuses(args: &[&str], env: &[(&str, &str)]) -> String {
    match run(args, env) {
        Err(CommandLineError::Setting(error)) => {
            let sentence = error.to_string();
            assert!(!sentence.contains('\n'), "{sentence}");
            sentence
        }
        other => panic!("{args:?} {env:?}: {other:?}"),
    }
}

/// Configurations are equal if their debug output is equal, which omits only
/// secrets.
fn printed(config: &Config) -> String {
    format!("{config:?}")
}

/// A folder with an admin key, a secret key, and files of the test.
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
fn without_settings_the_documented_defaults_apply() {
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
    assert_eq!(config.demo, DemoMode::Auto);
    assert_eq!(config.drain_window.as_secs(), 10);
    assert_eq!(config.heartbeat.as_millis(), 25_000);
    assert_eq!(
        (config.log_filter.as_str(), config.log_format),
        ("info", LogFormat::Text)
    );
    assert!(config.trusted_proxies.is_empty() && config.warnings.is_empty());
    let (outbox, incoming) = (
        config.limits.outbox_total_bytes,
        config.limits.requests_total_bytes,
    );
    assert!(incoming > 0 && outbox / 2 == incoming, "parts of memory");
    assert_eq!(
        Limits {
            outbox_total_bytes: 0,
            requests_total_bytes: 0,
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
    assert_eq!((config.listen.port(), config.demo), (1, DemoMode::On));
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
        DemoMode::On
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

/// A valid value other than the default for every setting, and the settings that it requires.
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
        ("http_idle", alone("100s")),
        ("data", alone(&files.path("data"))),
        (
            "redis",
            ("redis://:canary@127.0.0.1:6379".to_owned(), keys.clone()),
        ),
        (
            "redis_prefix",
            (
                "chaos-2".to_owned(),
                [
                    keys.clone(),
                    vec![("CHAOS_REDIS", "redis://h:1".to_owned())],
                ]
                .concat(),
            ),
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
        let limits = serves(&["--limit", &format!("{name}=2_345_678")], &[]).limits;
        assert_eq!(limits.get(name), Some(2_345_678));
    }
}

#[test]
fn printed_settings_hide_secrets_and_can_be_parsed() {
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
    let misplaced = shows(&["config", "--data", "redis://me:canary@h"], &[]);
    assert!(
        !misplaced.contains("canary") && misplaced.contains("redis://***@h"),
        "{misplaced}"
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
fn no_redis_password_is_shown_whatever_characters_it_holds() {
    let files = Files::new();
    let secret = files.path("secret");
    let keys = [
        "--admin-key",
        "adm_0123456789abcdef0123456789abcdef",
        "--secret-key-file",
        &*secret,
    ];
    for password in [
        "zqxj",
        "zq?xj",
        "zq#xj",
        "zq/xj",
        "zq@xj",
        "zq%40xj",
        "zq:xj",
        "1?zqxj",
        "1/zqxj",
        "%zzzqxj",
        "?a=zqxj",
        "a?b=c&zqxj",
    ] {
        for url in [
            format!("redis://app:{password}@10.0.0.5:6379/0"),
            format!("redis://:{password}@10.0.0.5"),
            format!("redis://{password}@10.0.0.5"),
            format!("redis://app:{}", password.replace('@', "")),
            format!("redis+sentinel://app:{password}@10.0.0.5:1,10.0.0.6:2/main/3"),
            format!("redis+sentinel://10.0.0.5,10.0.0.6/main?sentinel_password={password}"),
            format!(
                "redis+sentinel://app:x@10.0.0.5/main?sentinel_user=me&sentinel_password={password}"
            ),
            format!("redis+cluster://app:{password}@10.0.0.5:1,10.0.0.6:2"),
            format!("rediss://app:{password}@10.0.0.5"),
            format!("app:{password}@10.0.0.5"),
        ] {
            let flags = [&["--redis", &*url], &keys[..]].concat();
            let shown = match run(&[&["config"], &flags[..]].concat(), &[]) {
                Ok(Command::Config(text)) => format!("{text} {:?}", serves(&flags, &[])),
                Err(CommandLineError::Setting(error)) => error.to_string(),
                other => panic!("{other:?}"),
            };
            let logged =
                gateway::log::scrub(&format!("cannot connect to {url}: refused")).into_owned();
            for part in ["zq", "xj"] {
                assert!(!shown.contains(part), "{url}: {shown}");
                // Without `://` it is no URL, and without `@` or a name nothing separates a
                // password from a host.
                assert!(
                    !url.contains("://")
                        || !(url.contains('@') || url.contains("password="))
                        || !logged.contains(part),
                    "{url}: {logged}"
                );
            }
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
    assert!(before.contains("the command's flags after it"), "{before}");
    for usage in [
        &["export"][..],
        &["export", "--app", "nonsense"],
        &["import", "--listen", "127.0.0.1:1"],
    ] {
        assert!(
            matches!(run(usage, &[]), Err(CommandLineError::Usage(_))),
            "{usage:?}"
        );
    }
}
