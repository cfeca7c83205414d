//! Settings as text: the effective ones with their sources, and the sample file. Both are TOML.

use protocol::Limits;

use super::{
    secret::without_password,
    settings::{LIMITS, NodeSettings, SETTINGS, SettingDefault},
    value::SettingValue,
};
use crate::log::scrub;

/// Width of the comments in the sample file.
const COMMENT_WIDTH: usize = 110;

/// Returns the effective settings as TOML, each with its source, secrets as `***`.
pub(super) fn effective(settings: &NodeSettings, limits: &Limits) -> String {
    let mut out = String::new();
    for value in settings.all() {
        let name = value.setting.name;
        if name == "data" && settings.redis.text.is_some() {
            out.push_str("# data: not used with redis\n");
            continue;
        }
        let line = match (displayed(value), value.setting.default) {
            (Some(text), _) => format!("{name} = {}", quoted(&text)),
            (None, SettingDefault::Value(text)) => format!("{name} = {}", quoted(text)),
            (None, SettingDefault::Rule(rule)) => {
                out.push_str(&format!("# {name}: {rule}\n"));
                continue;
            }
        };
        out.push_str(&format!("{line:<60} # {}\n", value.source));
    }
    out.push_str("\n[limits]\n");
    for (name, _, _) in Limits::ALL {
        let line = format!("{name} = {}", limits.get(name).unwrap_or(0));
        let source = settings
            .limits
            .get(name)
            .map_or_else(|| "default".to_owned(), |(_, source)| source.to_string());
        out.push_str(&format!("{line:<60} # {source}\n"));
    }
    out
}

/// Returns the settings that differ from their defaults as `name=value`, secrets as `***`.
pub(super) fn changed(settings: &NodeSettings, limits: &Limits) -> String {
    let is_default = |value: &SettingValue| matches!((&value.text, value.setting.default), (Some(text), SettingDefault::Value(default)) if text == default);
    let values = settings
        .all()
        .into_iter()
        .filter(|value| !is_default(value));
    let mut changed: Vec<_> = values
        .filter_map(|value| Some(format!("{}={}", value.setting.name, displayed(value)?)))
        .collect();
    for (name, default, _) in Limits::ALL {
        let value = limits.get(name).unwrap_or(0);
        if settings.limits.contains_key(name) && value != *default {
            changed.push(format!("limits.{name}={value}"));
        }
    }
    changed.join(" ")
}

/// Returns the text of a setting without secrets.
fn displayed(value: &SettingValue) -> Option<String> {
    let text = value.text.as_ref()?;
    Some(match value.setting.name {
        "admin_key" => "***".to_owned(),
        "redis" => without_password(text),
        // Any other setting may contain a misplaced secret.
        _ => scrub(text).into_owned(),
    })
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Returns the sample file: every setting with its description, commented out, with its default or,
/// if that is a rule, with an example.
pub fn sample() -> String {
    let mut out = String::from(
        "# A sample configuration of CHAOS: every setting, commented out, at its default or at an example.\n\
         # Use it by `chaos --config chaos.toml`; flags and the environment come first. `chaos config` shows what is in force.\n\
         # Relative paths begin where the node is started.\n\
         # (In the repository of CHAOS it is generated: CHAOS_WRITE_SAMPLE=1 cargo test -p chaos-gateway --test config. A copy is yours to edit.)\n",
    );
    let mut group = "";
    for setting in SETTINGS {
        if group != setting.group {
            group = setting.group;
            out.push_str(&format!("\n# ---- {group} ----\n"));
        }
        out.push('\n');
        comment(&mut out, &format!("{}.", setting.about));
        let shown = match setting.default {
            SettingDefault::Value(text) => quoted(text),
            SettingDefault::Rule(rule) => {
                comment(&mut out, &format!("Default: {rule}."));
                setting.example.to_owned()
            }
        };
        out.push_str(&format!(
            "# Flag --{}, environment {}.\n# {} = {shown}\n",
            setting.flag, setting.env, setting.name
        ));
    }
    out.push_str(&format!("\n# ---- {LIMITS} ----\n\n# Flag --limit NAME=VALUE, environment CHAOS_LIMITS=NAME=VALUE,… ; 0 means none; each is per node.\n[limits]\n"));
    for (name, default, about) in Limits::ALL {
        out.push('\n');
        comment(
            &mut out,
            &format!("{}{}.", about[..1].to_uppercase(), &about[1..]),
        );
        let shown = match *name {
            "outbox_total_bytes" => "1073741824".to_owned(),
            "requests_total_bytes" => "536870912".to_owned(),
            _ => default.to_string(),
        };
        out.push_str(&format!("# {name} = {shown}\n"));
    }
    out
}

/// Appends comment lines, wrapped at words.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > COMMENT_WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}
