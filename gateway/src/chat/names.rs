//! Display names of users.

use std::collections::HashMap;

use protocol::{UserId, entity::User};

use crate::terminal::escape;

const MAX_NAMES: usize = 4096;

/// The known display names.
#[derive(Debug, Default)]
pub(super) struct UserNames {
    by_id: HashMap<UserId, String>,
    /// Number of users for each name in lower case.
    users_by_name: HashMap<String, usize>,
}

impl UserNames {
    /// Adds or replaces the name of a user.
    pub(super) fn learn(&mut self, id: UserId, name: String) {
        if self.by_id.len() >= MAX_NAMES {
            *self = Self::default();
        }
        *self.users_by_name.entry(name.to_lowercase()).or_default() += 1;
        if let Some(before) = self.by_id.insert(id, name).map(|name| name.to_lowercase())
            && let Some(count) = self.users_by_name.get_mut(&before)
        {
            *count -= 1;
        }
    }

    pub(super) fn knows(&self, id: &UserId) -> bool {
        self.by_id.contains_key(id)
    }

    /// Returns the name of a user, followed by the id if other users have the same name.
    pub(super) fn of(&self, id: &UserId) -> String {
        match self.by_id.get(id) {
            None => id.to_string(),
            Some(name)
                if name == id.as_str()
                    || self.users_by_name.get(&name.to_lowercase()) == Some(&1) =>
            {
                name.clone()
            }
            Some(name) => format!("{name} ({id})"),
        }
    }
}

/// Returns the name of a user's profile, or the id if the name could be mistaken for something
/// else: if it begins with a mark of this program (`*`, `!`, `│`) or contains a colon.
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
    fn ambiguous_name_is_replaced_by_the_id() {
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
    fn users_with_equal_names_are_shown_with_their_ids() {
        let mut names = UserNames::default();
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
