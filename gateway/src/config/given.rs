//! What was given for a setting, and where.

use std::{collections::BTreeMap, fmt};

use super::setting::Setting;

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
