//! Settings as text: the effective ones with their sources, and the sample file. Both are TOML.

use protocol::Limits;

use super::{
    given::Given,
    secret::without_password,
    settings::{LIMITS, Otherwise, SETTINGS, Settings},
};
use crate::log::scrub;

const WIDTH: usize = 110;

/// The effective settings as TOML, each with its source, secrets as `***`.
pub(super) fn effective(settings: &Settings, limits: &Limits) -> String {
    let mut out = String::new();
    for given in settings.all() {
        let name = given.setting.name;
        if name == "data" && settings.redis.text.is_some() {
            out.push_str("# data: not used with redis\n");
            continue;
        }
        let line = match (value(given), given.setting.otherwise) {
            (Some(text), _) => format!("{name} = {}", quoted(&text)),
            (None, Otherwise::Value(text)) => format!("{name} = {}", quoted(text)),
            (None, Otherwise::Rule(rule)) => {
                out.push_str(&format!("# {name}: {rule}\n"));
                continue;
            }
        };
        out.push_str(&format!("{line:<60} # {}\n", given.source));
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

/// The settings that differ from their defaults, as `name=value`, secrets as `***`.
pub(super) fn changed(settings: &Settings, limits: &Limits) -> String {
    let is_default = |given: &Given| matches!((&given.text, given.setting.otherwise), (Some(text), Otherwise::Value(value)) if text == value);
    let settings_given = settings
        .all()
        .into_iter()
        .filter(|given| !is_default(given));
    let mut changed: Vec<_> = settings_given
        .filter_map(|given| Some(format!("{}={}", given.setting.name, value(given)?)))
        .collect();
    for (name, default, _) in Limits::ALL {
        let value = limits.get(name).unwrap_or(0);
        if settings.limits.contains_key(name) && value != *default {
            changed.push(format!("limits.{name}={value}"));
        }
    }
    changed.join(" ")
}

fn value(given: &Given) -> Option<String> {
    let text = given.text.as_ref()?;
    Some(match given.setting.name {
        "admin_key" => "***".to_owned(),
        "redis" => without_password(text),
        // A secret may stand in the wrong place.
        _ => scrub(text).into_owned(),
    })
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The sample file: every setting with its description, commented out at its default, or at an
/// example where the default is a rule.
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
        let shown = match setting.otherwise {
            Otherwise::Value(text) => quoted(text),
            Otherwise::Rule(rule) => {
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
            "incoming_total_bytes" => "536870912".to_owned(),
            _ => default.to_string(),
        };
        out.push_str(&format!("# {name} = {shown}\n"));
    }
    out
}

/// Comment lines, broken at words.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split(' ') {
        if line.len() + 1 + word.len() > WIDTH {
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
