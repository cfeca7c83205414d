//! Where things are kept: the names of partitions and tables, in one place.

use protocol::{AppId, ChannelId, OrganizationId, TokenKeyId, UserId, entity::Environment};
use serde::{Deserialize, Serialize};
use store::{Partition, Table};

/// An app and one of its environments: the wall between tenants. It comes from a credential and
/// from nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The app.
    pub app: AppId,
    /// The environment.
    pub environment: Environment,
}

impl Scope {
    /// The indexes of the app's users and channels in this environment.
    pub fn index(&self) -> Partition {
        Partition::new(format!("e:{}:{}", self.app, self.environment))
    }

    /// A channel: document, participants, reads, messages, log.
    pub fn channel(&self, id: &ChannelId) -> Partition {
        Partition::new(self.channels() + id.as_str())
    }

    /// A user: document, index of its channels, own log.
    pub fn user(&self, id: &UserId) -> Partition {
        Partition::new(self.users() + id.as_str())
    }

    /// How the names of all its users begin; an id follows.
    pub fn users(&self) -> String {
        format!("u:{}:{}:", self.app, self.environment)
    }

    /// How the names of all its channels begin; an id follows.
    pub fn channels(&self) -> String {
        format!("c:{}:{}:", self.app, self.environment)
    }

    /// The topic on which a user's coming and going is told. It has no log.
    pub fn presence(&self, id: &UserId) -> store::Topic {
        format!("p:{}:{}:{id}", self.app, self.environment).into()
    }

    /// A user's name among the members of a node's lease.
    pub fn member(&self, id: &UserId) -> String {
        format!("{}:{}:{id}", self.app, self.environment)
    }
}

/// What a topic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A channel, by its id.
    Channel(&'a str),
    /// A user's own stream, by the user's id.
    User(&'a str),
    /// Something else.
    Other,
}

/// Reads a topic's name.
pub fn subject(topic: &str) -> Subject<'_> {
    // The app and the environment hold no colon; an id may.
    let mut parts = topic.splitn(4, ':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("c"), Some(_), Some(_), Some(id)) => Subject::Channel(id),
        (Some("u"), Some(_), Some(_), Some(id)) => Subject::User(id),
        _ => Subject::Other,
    }
}

/// The scope of a channel's or a user's topic.
pub fn scope(topic: &str) -> Option<Scope> {
    let mut parts = topic.splitn(4, ':').skip(1);
    scope_of(parts.next()?, parts.next()?)
}

/// Reads what [`Scope::member`] made.
pub fn parse_member(member: &str) -> Option<(Scope, UserId)> {
    let mut parts = member.splitn(3, ':');
    let scope = scope_of(parts.next()?, parts.next()?)?;
    Some((scope, parts.next()?.parse().ok()?))
}

fn scope_of(app: &str, environment: &str) -> Option<Scope> {
    let environment = match environment {
        "live" => Environment::Live,
        "test" => Environment::Test,
        _ => return None,
    };
    Some(Scope {
        app: app.parse().ok()?,
        environment,
    })
}

/// What belongs to the whole deployment: its organizations, its jobs, and the log of ended
/// sessions.
pub fn deployment() -> Partition {
    Partition::new("d")
}

/// An organization: document, keys, apps.
pub fn organization(id: &OrganizationId) -> Partition {
    Partition::new(format!("o:{id}"))
}

/// An app: document, keys, token keys.
pub fn app(id: &AppId) -> Partition {
    Partition::new(format!("a:{id}"))
}

/// A key, by the hash of its secret.
pub fn credential(hash: &str) -> Partition {
    Partition::new(format!("k:{hash}"))
}

/// A token key.
pub fn token_key(id: &TokenKeyId) -> Partition {
    Partition::new(format!("t:{id}"))
}

/// A request with an `Idempotency-Key`, by its HMAC.
pub fn idempotency(hmac: &str) -> Partition {
    Partition::new(format!("i:{hmac}"))
}

/// How the names of all that an app has in its environments begin: indexes, users, channels.
pub fn of_environments(app: &AppId) -> [String; 3] {
    ["e", "u", "c"].map(|kind| format!("{kind}:{app}:"))
}

/// Whether this is the name of a key or token key.
pub fn is_credential(name: &str) -> bool {
    name.starts_with("k:") || name.starts_with("t:")
}

/// An import of an app of this organization that is under way: the newest attempt. Two at once
/// would take away what the other brings of the organization.
pub fn import(organization: &OrganizationId) -> Partition {
    Partition::new(format!("m:{organization}"))
}

/// The key of a document that stands alone in its table.
pub const ONLY: &str = "";

/// The entity that a partition is about, under [`ONLY`].
pub const ENTITY: Table = Table::plain("e");
/// What remains of a deleted entity, under [`ONLY`], while (channels) or forever after (users) it
/// was cleared away.
pub const TOMBSTONE: Table = Table::plain("x");

/// Of a channel or user that was made under a chosen id: the bits of the request that made it,
/// under [`ONLY`]. A request with an `Idempotency-Key` that is done again knows its own work by
/// them.
pub const MADE_BY: Table = Table::plain("b");

/// Of the deployment: its organizations, by id.
pub const ORGANIZATIONS: Table = Table::listed("o");
/// Of the deployment: deletions and revocations that are not finished ([`jobs`](super::jobs)), by
/// the name of what they are of.
pub const JOBS: Table = Table::listed("j");
/// Of the deployment: the fingerprint of the secret key that everything sealed in it is sealed
/// under, under [`ONLY`].
pub const SECRET_KEY: Table = Table::plain("v");
/// Of an organization: its apps, by id.
pub const APPS: Table = Table::listed("a");
/// Of an organization or app: its keys, by id.
pub const KEYS: Table = Table::listed("k");
/// Of an app: its token keys, by id.
pub const TOKEN_KEYS: Table = Table::listed("t");
/// Of an organization or app: the credentials of keys and token keys that are being made, by the
/// names of their partitions. What stands here belongs to a creation that is under way, or that
/// stopped half way.
pub const NEW_CREDENTIALS: Table = Table::listed("n");
/// Of an app: the token key with which nodes sign, by environment.
pub const SIGNING: Table = Table::plain("s");

/// Of an app's environment: its users, by id.
pub const USERS: Table = Table::listed("u");
/// Of an app's environment: its channels, by id. Of a user: the channels that it may be in, by id.
pub const CHANNELS: Table = Table::listed("c");
/// Of an app's environment: the channels that every user may find, by id.
pub const PUBLIC_CHANNELS: Table = Table::listed("p");
/// Of an app's environment: the users that were deleted and cleared, by id. Their partitions keep a
/// tombstone, and go with the app.
pub const DELETED_USERS: Table = Table::listed("du");
/// Of an app's environment: the channels that were deleted and cleared, by id, also those that were
/// made anew. Their partitions keep a head, and go with the app.
pub const DELETED_CHANNELS: Table = Table::listed("dc");

/// Of a user: since when its tokens count, under [`ONLY`].
pub const REVOCATION: Table = Table::plain("r");
/// Of a user: when its last session ended, under [`ONLY`].
pub const SEEN: Table = Table::plain("l");

/// Of a channel: its participants, by user id.
pub const PARTICIPANTS: Table = Table::listed("p");
/// Of a channel: how many owners it has, under [`ONLY`]: a document, so that two who leave at once
/// meet.
pub const OWNERS: Table = Table::plain("w");
/// Of a channel: read positions, by user id.
pub const READS: Table = Table::plain("r");
/// Of a channel: its messages.
pub const MESSAGES: Table = Table::numbered("m");
/// Of a channel: which reactions a user gave to a message, by `number:user`.
pub const REACTIONS: Table = Table::plain("k");

/// The tables of a partition. One that is missing here would stay behind when an app moves to
/// another store.
pub fn tables(partition: &Partition) -> &'static [Table] {
    match partition
        .name()
        .split_once(':')
        .map_or(partition.name(), |(kind, _)| kind)
    {
        "d" => &[ORGANIZATIONS, JOBS, SECRET_KEY],
        "o" => &[ENTITY, TOMBSTONE, KEYS, NEW_CREDENTIALS, APPS],
        "a" => &[
            ENTITY,
            TOMBSTONE,
            KEYS,
            TOKEN_KEYS,
            NEW_CREDENTIALS,
            SIGNING,
        ],
        "e" => &[
            USERS,
            CHANNELS,
            PUBLIC_CHANNELS,
            DELETED_USERS,
            DELETED_CHANNELS,
        ],
        "u" => &[ENTITY, TOMBSTONE, MADE_BY, REVOCATION, SEEN, CHANNELS],
        "c" => &[
            ENTITY,
            TOMBSTONE,
            MADE_BY,
            OWNERS,
            PARTICIPANTS,
            READS,
            REACTIONS,
            MESSAGES,
        ],
        _ => &[ENTITY],
    }
}

/// The counter of the lines in a user's index of channels.
pub const CHANNEL_COUNT: &str = "channels";

/// The counter of a channel's participants.
pub const PARTICIPANT_COUNT: &str = "participants";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_table_belongs_to_a_partition_and_none_has_two_of_a_name() {
        let code = include_str!("scope.rs");
        let made = |line: &&str| line.starts_with("pub const ") && line.contains(": Table = ");
        let listed = code
            .split("pub fn tables(")
            .nth(1)
            .and_then(|rest| rest.split("\n}").next())
            .unwrap_or_default();
        for line in code.lines().filter(made) {
            let name = line
                .trim_start_matches("pub const ")
                .split(':')
                .next()
                .unwrap_or_default();
            assert!(
                listed.contains(&format!("[{name}")) || listed.contains(&format!(" {name}")),
                "{name} would stay behind"
            );
        }
        for kind in [
            "d",
            "o:1",
            "a:1",
            "e:1:live",
            "u:1:live:1",
            "c:1:live:1",
            "k:1",
            "t:1",
        ] {
            let tables = tables(&Partition::new(kind));
            assert_eq!(
                tables
                    .iter()
                    .map(|table| table.name)
                    .collect::<HashSet<_>>()
                    .len(),
                tables.len(),
                "{kind}"
            );
        }
    }
}
