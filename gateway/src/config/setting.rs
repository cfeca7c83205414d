//! One setting: its names, its default and its description.

/// The default of a setting.
#[derive(Debug, Clone, Copy)]
pub enum SettingDefault {
    /// A value, as the text of a flag.
    Value(&'static str),
    /// A description of a default that is not a fixed value.
    Rule(&'static str),
}

/// A row of the table of settings.
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
    /// Heading in the help and in the sample file.
    pub group: &'static str,
    /// The default.
    pub default: SettingDefault,
    /// An example value in TOML.
    pub example: &'static str,
    /// Description for the help and the sample file.
    pub about: &'static str,
}

impl Setting {
    pub(super) fn help(about: &str, env: &str, default: SettingDefault) -> String {
        let default = match default {
            SettingDefault::Value(value) => value,
            SettingDefault::Rule(rule) => rule,
        };
        format!("{about}\n[env: {env}] [default: {default}]")
    }
}
