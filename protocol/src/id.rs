//! Ids: a prefix for the kind, `_`, and 16 lower-case hex characters. Apps may also choose the ids
//! of users and channels.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The prefixes of all kinds. A chosen id may begin with one only if it is a complete id of that
/// kind.
pub const PREFIXES: [&str; 11] = [
    "org_", "app_", "usr_", "chn_", "prt_", "msg_", "upl_", "ses_", "key_", "tk_", "hook_",
];

/// Maximum length of a chosen id, in bytes.
pub const MAX_CHOSEN: usize = 64;

/// The reason why a string is not an id of a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidId(String);

fn is_hex16(s: &str) -> bool {
    s.len() == 16
        && s.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn check_full(s: &str, prefix: &str) -> Result<(), InvalidId> {
    match s.strip_prefix(prefix) {
        Some(rest) if is_hex16(rest) => Ok(()),
        _ => Err(InvalidId(format!(
            "an id of this kind is `{prefix}` and 16 lower-case hex characters"
        ))),
    }
}

fn check_chosen(s: &str, prefix: &str) -> Result<(), InvalidId> {
    if let Some(reserved) = PREFIXES.iter().find(|p| s.starts_with(**p)) {
        return if *reserved == prefix {
            check_full(s, prefix)
        } else {
            Err(InvalidId(format!(
                "an id that begins with `{reserved}` is reserved for another kind"
            )))
        };
    }
    let first = s.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = s
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-@+|:".contains(&b));
    if first && rest && s.len() <= MAX_CHOSEN {
        Ok(())
    } else {
        Err(InvalidId("a chosen id has 1 to 64 of `A-Z a-z 0-9 . _ - @ + | :` and starts with a letter or a digit".into()))
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Prefix of generated ids of this kind.
            pub const PREFIX: &str = $prefix;

            /// Returns the id of these 64 bits, which are random or derived from a value.
            pub fn from_bits(bits: u64) -> Self {
                Self(format!("{}{bits:016x}", Self::PREFIX).into())
            }

            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the id as shared text.
            pub fn shared(&self) -> Arc<str> {
                self.0.clone()
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                $check(s, Self::PREFIX)?;
                Ok(Self(s.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "an id like `{}…`", $prefix)
                    }
                    fn visit_str<E: de::Error>(self, s: &str) -> Result<$name, E> {
                        s.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::schema::Object::builder()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(pattern(stringify!($check), $prefix)))
                    .build()
                    .into()
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $name {}
    };
}

#[cfg(feature = "schema")]
fn pattern(check: &str, prefix: &str) -> String {
    if check == "check_full" {
        return format!("^{prefix}[0-9a-f]{{16}}$");
    }
    let others: Vec<_> = PREFIXES.iter().map(|p| p.trim_end_matches('_')).collect();
    format!(
        "^({prefix}[0-9a-f]{{16}}|(?!({})_)[A-Za-z0-9][A-Za-z0-9._@+|:-]{{0,63}})$",
        others.join("|")
    )
}

id!(
    /// Id of an organization.
    OrganizationId, "org_", check_full);
id!(
    /// Id of an app.
    AppId, "app_", check_full);
id!(
    /// Id of a user; may be chosen by the app.
    UserId, "usr_", check_chosen);
id!(
    /// Id of a channel; may be chosen by the app.
    ChannelId, "chn_", check_chosen);
id!(
    /// Id of a participant.
    ParticipantId, "prt_", check_full);
id!(
    /// Id of a message; may be chosen by its sender, so that a retry is safe.
    MessageId, "msg_", check_full);
id!(
    /// Id of an uploaded file.
    UploadId, "upl_", check_full);
id!(
    /// Id of a session: a WebSocket connection after `connect`.
    SessionId, "ses_", check_full);
id!(
    /// Id of an organization key, app key or access key.
    KeyId, "key_", check_full);
id!(
    /// Id of a token key.
    TokenKeyId, "tk_", check_full);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chosen_id_follows_the_grammar() {
        for good in [
            "a",
            "0",
            "alice@example.org",
            "a.b_c-d+e|f:g",
            &"x".repeat(64),
            "usr_0123456789abcdef",
            "user_1",
        ] {
            assert!(good.parse::<UserId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "_a",
            ".a",
            "a b",
            "ä",
            &"x".repeat(65),
            "usr_1",
            "usr_0123456789ABCDEF",
            "msg_0123456789abcdef",
            "hook_x",
            "a{b}",
            "a/b",
        ] {
            assert!(bad.parse::<UserId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_made_id_has_its_prefix_and_16_hex_characters() {
        let id = MessageId::from_bits(0xab);
        assert_eq!(id.as_str(), "msg_00000000000000ab");
        assert_eq!("msg_00000000000000ab".parse(), Ok(id));
        assert!("msg_00000000000000aB".parse::<MessageId>().is_err());
    }
}
