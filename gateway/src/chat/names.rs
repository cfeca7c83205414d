//! What people are called on the screen.

use std::collections::HashMap;

use protocol::{UserId, entity::User};

use crate::terminal::escape;

/// Users that are remembered at once.
const MAX_NAMES: usize = 4096;

/// The names of users that were asked for.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_id: HashMap<UserId, String>,
    /// How many users have a name, in lower case.
    bearers: HashMap<String, usize>,
}

impl Names {
    /// Remembers what a user is called.
    pub(super) fn learn(&mut self, id: UserId, name: String) {
        if self.by_id.len() >= MAX_NAMES {
            *self = Self::default();
        }
        *self.bearers.entry(name.to_lowercase()).or_default() += 1;
        if let Some(before) = self.by_id.insert(id, name).map(|name| name.to_lowercase())
            && let Some(count) = self.bearers.get_mut(&before)
        {
            *count -= 1;
        }
    }

    pub(super) fn knows(&self, id: &UserId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Returns what to show for a user: the name where it tells one user from the others, with the
    /// id where it does not.
    pub(super) fn of(&self, id: &UserId) -> String {
        match self.by_id.get(id) {
            None => id.to_string(),
            Some(name)
                if name == id.as_str() || self.bearers.get(&name.to_lowercase()) == Some(&1) =>
            {
                name.clone()
            }
            Some(name) => format!("{name} ({id})"),
        }
    }
}

/// Returns the name that a user chose, or the id where there is none that can stand in front of a
/// message: one that begins with a sign of this program's own (`*`, `!`, `│`), or holds a colon,
/// could pass for something else.
pub(super) fn name_of(user: &User) -> String {
    let full = [&user.first_name, &user.last_name]
        .into_iter()
        .flatten()
        .map(|part| part.trim())
        .filter(|part| !part.is_empty());
    let full = full.collect::<Vec<_>>().join(" ");
    let username = user.username.as_deref().map(str::trim).unwrap_or_default();
    let name = escape(if full.is_empty() { username } else { &full }).into_owned();
    let is_clear = name.starts_with(|c: char| c.is_alphanumeric() || !c.is_ascii() && c != '│')
        && !name.contains(':');
    if is_clear { name } else { user.id.to_string() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    fn user(id: &str, first: &str, last: &str) -> User {
        let name = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        User {
            id: id.parse().unwrap(),
            username: None,
            first_name: name(first),
            last_name: name(last),
            avatar: None,
            bio: None,
            bot: false,
            metadata: Default::default(),
            created_at: 0,
        }
    }

    #[test]
    fn a_name_that_could_pass_for_something_else_is_not_shown() {
        assert_eq!(name_of(&user("ada", "Ada", "Lovelace")), "Ada Lovelace");
        assert_eq!(
            name_of(&User {
                username: Some("countess".into()),
                ..user("ada", " ", "")
            }),
            "countess"
        );
        for name in ["", "* Bob left", "Bob: hi, Ada", "! lost", "│ more"] {
            assert_eq!(name_of(&user("ada", name, "")), "ada", "{name}");
        }
        assert_eq!(name_of(&user("ada", "A\u{1b}[2J", "")), "A\\u001b[2J");
    }

    #[test]
    fn two_users_of_one_name_are_told_apart_by_their_ids() {
        let mut names = Names::default();
        let [ada, eve] = ["ada", "eve"].map(|id| id.parse::<UserId>().unwrap());
        assert_eq!(names.of(&ada), "ada");
        names.learn(ada.clone(), "Ada".into());
        assert_eq!(names.of(&ada), "Ada");
        names.learn(eve.clone(), "ADA".into());
        assert_eq!(
            (names.of(&ada), names.of(&eve)),
            ("Ada (ada)".into(), "ADA (eve)".into())
        );
        names.learn(eve.clone(), "Eve".into());
        assert_eq!(
            (names.of(&ada), names.of(&eve)),
            ("Ada".into(), "Eve".into())
        );
    }
}
