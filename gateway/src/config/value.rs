//! The text of a setting and its layer.

use std::{collections::BTreeMap, fmt};

use super::setting::Setting;

/// The layer of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ValueSource {
    Flag(&'static str),
    Environment(&'static str),
    File { path: String, key: String },
    Default,
}

impl fmt::Display for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => write!(f, "--{flag}"),
            Self::Environment(name) => f.write_str(name),
            Self::File { path, key } => write!(f, "{key} in {path}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The text of a setting; `None` if no layer has one.
#[derive(Debug)]
pub(super) struct SettingValue {
    pub(super) setting: &'static Setting,
    pub(super) text: Option<String>,
    pub(super) source: ValueSource,
}

/// Limits of all layers, by name: text and source.
pub(super) type LimitValues = BTreeMap<&'static str, (String, ValueSource)>;
