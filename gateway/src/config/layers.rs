//! Collects the texts of settings from flags, environment and file. `check` parses them.

use std::{collections::BTreeMap, fs};

use domain::nearest::nearest;
use protocol::Limits;

use super::{
    ConfigError,
    settings::{Flags, NodeSettings, SETTINGS},
    value::{LimitValues, SettingValue, ValueSource},
};

/// Prefix of the variables of settings.
const PREFIX: &str = "CHAOS_";
/// The variable with the path of the configuration file.
const CONFIG: &str = "CHAOS_CONFIG";
/// The variable with limits.
const LIMITS: &str = "CHAOS_LIMITS";

/// Returns the value of an environment variable.
pub type EnvironmentReader<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Collects every setting: flags take precedence over the environment, and that over the file.
/// Empty variables count as absent, so that a compose file can pass on unset ones.
///
/// # Errors
/// Fails if the file cannot be read or is not TOML, or if a layer names an unknown setting or
/// limit.
pub(super) fn gather(
    flags: Flags,
    env: EnvironmentReader<'_>,
) -> Result<NodeSettings, ConfigError> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let mut file = match flags.config.clone().or_else(|| env(CONFIG)) {
        Some(path) => File::read(&path)?,
        None => File::default(),
    };

    let mut limits = std::mem::take(&mut file.limits);
    if let Some(list) = env(LIMITS) {
        for pair in list
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            take_limit(&mut limits, pair, ValueSource::Environment(LIMITS))?;
        }
    }
    for pair in &flags.limit {
        take_limit(&mut limits, pair, ValueSource::Flag("limit"))?;
    }

    Ok(NodeSettings::gather(flags, limits, |setting, flag| {
        let flag = flag.map(|text| (text, ValueSource::Flag(setting.flag)));
        let value = flag
            .or_else(|| env(setting.env).map(|text| (text, ValueSource::Environment(setting.env))));
        match value.or_else(|| file.values.remove(setting.name)) {
            Some((text, source)) => SettingValue {
                setting,
                text: Some(text),
                source,
            },
            None => SettingValue {
                setting,
                text: None,
                source: ValueSource::Default,
            },
        }
    }))
}

/// Returns a warning for each variable that begins with `CHAOS_` and is not a setting. Not an
/// error, because other tools use such variables, too.
pub(super) fn unknown_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let is_setting = |name: &str| {
        name == CONFIG || name == LIMITS || SETTINGS.iter().any(|setting| setting.env == name)
    };
    let unknown = names
        .filter_map(|name| name.strip_prefix(PREFIX).map(str::to_owned))
        .filter(|rest| !is_setting(&format!("{PREFIX}{rest}")));
    let sentence = |rest: String| {
        let known = nearest(
            &rest,
            SETTINGS
                .iter()
                .map(|setting| setting.name)
                .chain(["config", "limits"]),
        );
        let hint = known.map_or_else(
            || "`chaos --help` lists them".to_owned(),
            |known| format!("did you mean {PREFIX}{}?", known.to_ascii_uppercase()),
        );
        format!("the environment has {PREFIX}{rest}, which is no setting: {hint}")
    };
    unknown.map(sentence).collect()
}

fn take_limit(
    limits: &mut LimitValues,
    pair: &str,
    source: ValueSource,
) -> Result<(), ConfigError> {
    let Some((name, value)) = pair.split_once('=') else {
        return Err(ConfigError::new(format!(
            "{source} has {pair:?}: use NAME=VALUE, such as page=100"
        )));
    };
    limits.insert(
        limit_name(name.trim(), &source)?,
        (value.trim().to_owned(), source),
    );
    Ok(())
}

fn limit_name(name: &str, source: &ValueSource) -> Result<&'static str, ConfigError> {
    let names = || Limits::ALL.iter().map(|(name, _, _)| *name);
    names().find(|known| *known == name).ok_or_else(|| {
        let hint = hint(name, names()).unwrap_or_else(|| "`chaos --help` lists them".to_owned());
        ConfigError::new(format!(
            "{source} names the limit {name:?}, which does not exist: {hint}"
        ))
    })
}

/// The settings and limits of the TOML file.
#[derive(Default)]
struct File {
    values: BTreeMap<String, (String, ValueSource)>,
    limits: LimitValues,
}

impl File {
    fn read(path: &str) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError::new(format!("the configuration file {path} cannot be read ({error}): check the path and its permissions"))
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            // The parser's full message quotes the line, which may contain a secret.
            ConfigError::new(format!(
                "{path} is not TOML at line {line}: {}",
                error.message().replace('\n', ", ")
            ))
        })?;
        let mut file = Self::default();
        for (key, value) in table {
            let source = ValueSource::File {
                path: path.to_owned(),
                key: key.clone(),
            };
            match (key.as_str(), value) {
                ("limits", toml::Value::Table(table)) => {
                    for (name, value) in table {
                        let source = ValueSource::File {
                            path: path.to_owned(),
                            key: format!("limits.{name}"),
                        };
                        let value = flat(value, &source)?;
                        file.limits
                            .insert(limit_name(&name, &source)?, (value, source));
                    }
                }
                ("limits", _) => {
                    return Err(ConfigError::new(format!(
                        "{source} is no table: write [limits] and below it NAME = VALUE"
                    )));
                }
                (name, value) if SETTINGS.iter().any(|setting| setting.name == name) => {
                    let value = flat(value, &source)?;
                    file.values.insert(key, (value, source));
                }
                (name, _) => {
                    let names = SETTINGS
                        .iter()
                        .map(|setting| setting.name)
                        .chain(["limits"]);
                    let hint = hint(name, names)
                        .unwrap_or_else(|| "deploy/chaos.toml shows every setting".to_owned());
                    return Err(ConfigError::new(format!(
                        "{path} has {name:?}, which is no setting: {hint}"
                    )));
                }
            }
        }
        Ok(file)
    }
}

/// Returns a TOML value as the text that the other layers would have.
fn flat(value: toml::Value, source: &ValueSource) -> Result<String, ConfigError> {
    match value {
        toml::Value::String(text) => Ok(text),
        toml::Value::Integer(number) => Ok(number.to_string()),
        toml::Value::Boolean(on) => Ok(if on { "on" } else { "off" }.to_owned()),
        toml::Value::Array(items) => Ok(items
            .into_iter()
            .map(|item| flat(item, source))
            .collect::<Result<Vec<_>, _>>()?
            .join(",")),
        other => Err(ConfigError::new(format!(
            "{source} is a {}: use a string, a whole number or a list of strings",
            other.type_str()
        ))),
    }
}

fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    nearest(name, known).map(|name| format!("did you mean {name:?}?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_name_is_answered_with_the_nearest() {
        let answer = hint("conections", Limits::ALL.iter().map(|(name, _, _)| *name));
        assert_eq!(answer.as_deref(), Some("did you mean \"connections\"?"));
        assert_eq!(hint("zzzzzzzz", ["page"].into_iter()), None);
    }

    #[test]
    fn variable_that_is_no_setting_is_reported() {
        let names = [
            "CHAOS_LIMIT",
            "CHAOS_LIMITS",
            "CHAOS_LISTEN",
            "CHAOS_CONFIG",
            "CHAOS_ZZZZZZZZ",
            "PATH",
        ];
        let reported = unknown_variables(names.into_iter().map(str::to_owned));
        let expected = [
            "the environment has CHAOS_LIMIT, which is no setting: did you mean CHAOS_LIMITS?",
            "the environment has CHAOS_ZZZZZZZZ, which is no setting: `chaos --help` lists them",
        ];
        assert_eq!(reported, expected);
        for setting in SETTINGS {
            assert_eq!(
                setting.env,
                format!("{PREFIX}{}", setting.name.to_ascii_uppercase())
            );
        }
    }
}
