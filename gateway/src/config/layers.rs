//! Flags, environment, file: which of them gave a setting. What the values mean is `check`'s.

use std::{collections::BTreeMap, fmt, fs};

use protocol::Limits;

use super::{
    ConfigError,
    settings::{Flags, SETTINGS, Setting, Settings},
};

/// Reads an environment variable; tests bring their own.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    Flag(&'static str),
    Environment(&'static str),
    File { path: String, key: String },
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(name) => f.write_str(name),
            Self::File { path, key } => write!(f, "{key} in {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting's text, if any layer gave one, and which.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) text: Option<String>,
    pub(super) source: Source,
}

/// The limits that were given: name, text, source. Layers are merged name by name.
pub(super) type GivenLimits = BTreeMap<&'static str, (String, Source)>;

/// Asks the layers for every setting: flags before the environment before the file. An empty variable counts as absent, so that
/// a compose file may pass on what it does not have.
pub(super) fn gather(flags: Flags, env: Environment<'_>) -> Result<Settings, ConfigError> {
    let env = |name: &str| env(name).filter(|value| !value.is_empty());
    let mut file = match flags.config.clone().or_else(|| env("CHAOS_CONFIG")) {
        Some(path) => File::read(&path)?,
        None => File::default(),
    };

    let mut limits = std::mem::take(&mut file.limits);
    if let Some(list) = env("CHAOS_LIMITS") {
        for pair in list
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty())
        {
            take_limit(&mut limits, pair, Source::Environment("CHAOS_LIMITS"))?;
        }
    }
    for pair in &flags.limit {
        take_limit(&mut limits, pair, Source::Flag("limit"))?;
    }

    Ok(Settings::gather(flags, limits, |setting, flag| {
        let flag = flag.map(|text| (text, Source::Flag(setting.flag)));
        let given =
            flag.or_else(|| env(setting.env).map(|text| (text, Source::Environment(setting.env))));
        match given.or_else(|| file.values.remove(setting.name)) {
            Some((text, source)) => Given {
                setting,
                text: Some(text),
                source,
            },
            None => Given {
                setting,
                text: None,
                source: Source::Default,
            },
        }
    }))
}

fn take_limit(limits: &mut GivenLimits, pair: &str, source: Source) -> Result<(), ConfigError> {
    let Some((name, value)) = pair.split_once('=') else {
        return Err(ConfigError::new(format!(
            "{source} has {pair:?}: give NAME=VALUE, such as page=100"
        )));
    };
    limits.insert(
        limit_name(name.trim(), &source)?,
        (value.trim().to_owned(), source),
    );
    Ok(())
}

fn limit_name(name: &str, source: &Source) -> Result<&'static str, ConfigError> {
    let names = || Limits::ALL.iter().map(|(name, _, _)| *name);
    names().find(|known| *known == name).ok_or_else(|| {
        let hint = close(name, names()).unwrap_or_else(|| "`chaos --help` lists them".to_owned());
        ConfigError::new(format!(
            "{source} names the limit {name:?}, which does not exist: {hint}"
        ))
    })
}

/// What the TOML file gave.
#[derive(Default)]
struct File {
    values: BTreeMap<String, (String, Source)>,
    limits: GivenLimits,
}

impl File {
    fn read(path: &str) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError::new(format!("the configuration file {path} cannot be read ({error}): mend the path or its permissions"))
        })?;
        Self::parse(path, &text)
    }

    fn parse(path: &str, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            // The parser's full message quotes the line, which may hold a secret.
            ConfigError::new(format!(
                "{path} is not TOML at line {line}: {}",
                error.message().replace('\n', ", ")
            ))
        })?;
        let mut file = Self::default();
        for (key, value) in table {
            let source = Source::File {
                path: path.to_owned(),
                key: key.clone(),
            };
            match (key.as_str(), value) {
                ("limits", toml::Value::Table(table)) => {
                    for (name, value) in table {
                        let source = Source::File {
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
                    let hint = close(name, names)
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

/// The text that the other layers would give for a TOML value.
fn flat(value: toml::Value, source: &Source) -> Result<String, ConfigError> {
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
            "{source} is a {}: give a string, a whole number or a list of strings",
            other.type_str()
        ))),
    }
}

/// "did you mean …" of the names that differ in a few letters, or share a word.
fn close<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let near = |known: &&str| {
        distance(&name, known) <= 2
            || (name.len() > 3 && (known.contains(&name) || name.contains(known)))
    };
    let names: Vec<_> = known.filter(near).map(|name| format!("{name:?}")).collect();
    (!names.is_empty()).then(|| format!("did you mean {}?", names.join(" or ")))
}

/// Letters to add, remove or change between two words (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.chars().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.pop().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_far_apart_as_their_letters() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("page", "page"), 0);
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_close_ones() {
        let hint = close("conections", Limits::ALL.iter().map(|(name, _, _)| *name));
        assert_eq!(hint.as_deref(), Some("did you mean \"connections\"?"));
        assert_eq!(close("zzzzzzzz", ["page"].into_iter()), None);
    }
}
