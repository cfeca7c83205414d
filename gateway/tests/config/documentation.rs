//! The help and the sample file.

use super::*;

#[test]
fn the_help_names_every_setting_and_every_limit() {
    let Err(CommandLineError::Usage(help)) = run(&["--help"], &[]) else {
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
fn documentation_names_only_what_exists() {
    let Err(CommandLineError::Usage(help)) = run(&["--help"], &[]) else {
        panic!("no help")
    };
    let help = help.to_string();
    let read = |path: &str| {
        fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let pages = [
        "README.md",
        "deploy/README.md",
        "deploy/operating.md",
        "gateway/README.md",
    ]
    .map(|path| (path, read(path)));
    let document = gateway::rest::document().to_string();
    let sample = sample();
    let others = [("help", &help), ("sample", &sample), ("OpenAPI", &document)];
    for (name, text) in others
        .into_iter()
        .chain(pages.iter().map(|(path, text)| (*path, text)))
    {
        for word in ["console", "rediss:", "banned", "webhook"] {
            assert!(!text.to_lowercase().contains(word), "{name}: {word}");
        }
    }
    // Flags that are alone between backticks belong to this program.
    for (_, text) in &pages {
        for flag in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|code| code.starts_with("--"))
        {
            let flag = flag.split([' ', '=']).next().unwrap();
            let subcommands = [
                "--user",
                "--url",
                "--channel",
                "--token",
                "--ready",
                "--to",
                "--from",
                "--app",
            ];
            let load_test = ["--seed", "--store", "--node-flag"];
            let known = help.contains(&format!("{flag} <"))
                || subcommands.contains(&flag)
                || load_test.contains(&flag);
            assert!(known, "{flag}");
        }
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
            // These refer to files of the reader's machine.
            "redis" | "admin_key" | "admin_key_file" | "secret_key_file" => {
                let sentence = refuses(&["--config", &file], &[]);
                assert!(
                    !sentence.contains("is no setting") && !sentence.contains("not TOML"),
                    "{sentence}"
                );
            }
            "ops_listen" | "trusted_proxies" | "outbox_total_bytes" | "requests_total_bytes" => {
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
