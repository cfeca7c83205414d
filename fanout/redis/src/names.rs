//! Names of keys and pub/sub channels. Prefixes let several deployments share a server.

use std::{fmt, sync::Arc};

use crate::{BadUrl, Deployment, deployment::bad};

/// The default prefix.
pub const DEFAULT_PREFIX: &str = "chaos";
/// Maximum number of characters of a prefix.
const MAX_PREFIX_CHARS: usize = 32;

/// Names of the keys and pub/sub channels of one deployment.
///
/// A key is `<prefix>:{<partition>}:<rest>`, a channel `<prefix>@<database>:{<topic>}`. Channels
/// contain the number of the database because all databases of a server share their channels. The
/// braces make partition and topic the hash tag: on a Cluster a channel has the slot of the keys of
/// its partition.
#[derive(Clone, PartialEq, Eq)]
pub struct Names {
    prefix: Arc<str>,
    /// The part of a channel name before the topic.
    channels: Arc<str>,
}

impl Names {
    /// Returns names with the prefix [`DEFAULT_PREFIX`].
    pub fn of(deployment: &Deployment) -> Self {
        Self::checked(DEFAULT_PREFIX, deployment)
    }

    /// Returns names with a prefix of 1 to 32 characters of `A-Z a-z 0-9 . _ -`.
    ///
    /// # Errors
    /// The prefix is invalid; the error is for the operator.
    pub fn with_prefix(prefix: &str, deployment: &Deployment) -> Result<Self, BadUrl> {
        check_prefix(prefix)?;
        Ok(Self::checked(prefix, deployment))
    }

    fn checked(prefix: &str, deployment: &Deployment) -> Self {
        Self {
            prefix: prefix.into(),
            channels: format!("{prefix}@{}:{{", deployment.database()).into(),
        }
    }

    /// Returns the pub/sub channel of a topic.
    pub fn channel(&self, topic: &str) -> String {
        [&self.channels, topic, "}"].concat()
    }

    /// Returns the topic of a channel; `None` if the channel has another form.
    pub fn topic<'a>(&self, channel: &'a str) -> Option<&'a str> {
        channel.strip_prefix(&*self.channels)?.strip_suffix('}')
    }

    /// Returns a key of a partition.
    pub fn key(&self, partition: &str, rest: &str) -> String {
        [&self.prefix, ":{", partition, "}:", rest].concat()
    }

    /// Returns the partition of a key with this rest; `None` if the key has another form.
    pub fn partition<'a>(&self, key: &'a str, rest: &str) -> Option<&'a str> {
        key.strip_prefix(&*self.prefix)?
            .strip_prefix(":{")?
            .strip_suffix(rest)?
            .strip_suffix("}:")
    }

    /// Returns the prefix of all keys of partitions whose names begin with `names`.
    pub fn keys_of(&self, names: &str) -> String {
        [&self.prefix, ":{", names].concat()
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Names({}, {}…}})", self.prefix, self.channels)
    }
}

/// Checks that a text is a valid prefix: its characters have no special meaning in a key, a hash
/// tag or a pattern.
///
/// # Errors
/// The prefix is invalid; the error is for the operator.
pub fn check_prefix(prefix: &str) -> Result<(), BadUrl> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match prefix {
        "" => Err(bad(
            "a prefix of Redis keys cannot be empty: leave it out for `chaos`",
        )),
        _ if prefix.len() > MAX_PREFIX_CHARS => Err(bad(format!(
            "a prefix of Redis keys has at most {MAX_PREFIX_CHARS} characters"
        ))),
        _ if !prefix.chars().all(is_plain) => {
            Err(bad("a prefix of Redis keys consists of A-Z a-z 0-9 . _ -"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::slot;

    fn names(prefix: &str, url: &str) -> Names {
        Names::with_prefix(prefix, &url.parse().unwrap()).unwrap()
    }

    #[test]
    fn channel_gives_its_topic_back_to_its_own_deployment_only() {
        let (first, second) = (names("chaos", "redis://a/0"), names("chaos", "redis://a/1"));
        let other = names("chaos2", "redis://a/0");
        assert_eq!(first, Names::of(&"redis://a".parse().unwrap()));
        assert_eq!(first.channel("t"), "chaos@0:{t}");
        assert_eq!(
            first.topic(&first.channel("app_1:chn_2")),
            Some("app_1:chn_2")
        );
        for foreign in [&second, &other] {
            assert_eq!(foreign.topic(&first.channel("t")), None);
            assert_eq!(first.topic(&foreign.channel("t")), None);
        }
        assert_eq!(first.topic(&first.key("a", "head")), None);
        assert_eq!(first.topic("other"), None);
    }

    #[test]
    fn key_gives_its_partition_back() {
        let first = names("chaos", "redis://a");
        assert_eq!(first.key("c:1", "head"), "chaos:{c:1}:head");
        assert_eq!(first.partition("chaos:{c:1}:head", "head"), Some("c:1"));
        assert_eq!(
            names("chaos2", "redis://a").partition("chaos:{c:1}:head", "head"),
            None
        );
        assert_eq!(first.partition("chaos2:{c:1}:head", "head"), None);
    }

    #[test]
    fn channel_and_keys_of_a_partition_share_a_slot() {
        for prefix in ["chaos", "a.b_c-D9"] {
            let names = names(prefix, "redis+cluster://a");
            assert_eq!(slot(&names.channel("t")), slot(&names.key("t", "log")));
            assert_eq!(slot(&names.channel("t")), slot("t"));
        }
    }

    #[test]
    fn prefix_holds_nothing_that_means_something() {
        for wrong in ["", "a{b}", "a:b", "a@1", "a*", "é", "a b", &"a".repeat(33)] {
            assert!(
                check_prefix(wrong).unwrap_err().to_string().contains(' '),
                "{wrong}"
            );
        }
    }
}
