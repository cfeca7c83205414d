//! One setting: its names, its default and its description.

/// What holds where a setting is not given.
#[derive(Debug, Clone, Copy)]
pub enum Otherwise {
    /// This value, written as one would give it.
    Value(&'static str),
    /// A rule, told in words.
    Rule(&'static str),
}

/// One row of the table.
#[derive(Debug)]
pub struct Setting {
    /// Key in the TOML file.
    pub name: &'static str,
    /// Long flag, without the dashes.
    pub flag: &'static str,
    /// Environment variable.
    pub env: &'static str,
    /// Shape of the value, for the help.
    pub value: &'static str,
    /// Heading that it stands under.
    pub group: &'static str,
    /// What holds without it.
    pub otherwise: Otherwise,
    /// A value as one would give it, in TOML.
    pub example: &'static str,
    /// What it does.
    pub about: &'static str,
}

impl Setting {
    pub(super) fn help(about: &str, env: &str, otherwise: Otherwise) -> String {
        let default = match otherwise {
            Otherwise::Value(value) => value,
            Otherwise::Rule(rule) => rule,
        };
        format!("{about}\n[env: {env}] [default: {default}]")
    }
}
