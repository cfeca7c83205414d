//! Partitions and topics: their kinds and their names.

use protocol::{AppId, ChannelId, OrganizationId, TokenKeyId, UserId, entity::Environment};
use serde::{Deserialize, Serialize};
use store::Partition;

/// The kind of a partition. The partition's name begins with the kind's letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PartitionKind {
    /// The whole deployment: its organizations, its jobs, and the log of ended sessions.
    Deployment,
    /// An organization: document, keys, apps.
    Organization,
    /// An app: document, keys, token keys.
    App,
    /// One environment of an app: the indexes of its users and channels.
    Environment,
    /// A user: document, index of its channels, own log.
    User,
    /// A channel: document, participants, read positions, messages, log.
    Channel,
    /// A key, found by the hash of its secret.
    Credential,
    /// A token key.
    TokenKey,
    /// A request with an `Idempotency-Key`, found by its HMAC.
    Idempotency,
    /// The newest attempt to import an app into an organization. Concurrent attempts would delete
    /// each other's documents.
    Import,
}

impl PartitionKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::Deployment,
        Self::Organization,
        Self::App,
        Self::Environment,
        Self::User,
        Self::Channel,
        Self::Credential,
        Self::TokenKey,
        Self::Idempotency,
        Self::Import,
    ];

    const fn letter(self) -> &'static str {
        match self {
            Self::Deployment => "d",
            Self::Organization => "o",
            Self::App => "a",
            Self::Environment => "e",
            Self::User => "u",
            Self::Channel => "c",
            Self::Credential => "k",
            Self::TokenKey => "t",
            Self::Idempotency => "i",
            Self::Import => "m",
        }
    }

    /// Returns the kind of the partition with this name.
    pub fn of(name: &str) -> Option<Self> {
        let letter = name.split_once(':').map_or(name, |(letter, _)| letter);
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.letter() == letter)
    }

    fn named(self, rest: impl std::fmt::Display) -> Partition {
        Partition::new(format!("{}:{rest}", self.letter()))
    }

    /// Returns how the names of an app's partitions of this kind begin, in both environments.
    fn prefix_in_app(self, app: &AppId) -> String {
        format!("{}:{app}:", self.letter())
    }
}

/// An app and one of its environments: the boundary between tenants. Only a credential yields one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// The app.
    pub app: AppId,
    /// The environment.
    pub environment: Environment,
}

impl Scope {
    /// Returns the partition with the indexes of the app's users and channels in this environment.
    pub fn index(&self) -> Partition {
        PartitionKind::Environment.named(format_args!("{}:{}", self.app, self.environment))
    }

    /// Returns the partition of a channel.
    pub fn channel(&self, id: &ChannelId) -> Partition {
        Partition::new(self.channels() + id.as_str())
    }

    /// Returns the partition of a user.
    pub fn user(&self, id: &UserId) -> Partition {
        Partition::new(self.users() + id.as_str())
    }

    /// Returns how the names of its users' partitions begin. The user's id follows.
    pub fn users(&self) -> String {
        PartitionKind::User.prefix_in_app(&self.app) + &format!("{}:", self.environment)
    }

    /// Returns how the names of its channels' partitions begin. The channel's id follows.
    pub fn channels(&self) -> String {
        PartitionKind::Channel.prefix_in_app(&self.app) + &format!("{}:", self.environment)
    }

    /// Returns the topic of a user's presence. It has no log.
    pub fn presence(&self, id: &UserId) -> store::Topic {
        format!("p:{}:{}:{id}", self.app, self.environment).into()
    }

    /// Returns the user's name among the members of a node's lease.
    pub fn member(&self, id: &UserId) -> String {
        format!("{}:{}:{id}", self.app, self.environment)
    }
}

/// The subject of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject<'a> {
    /// A channel, by its id.
    Channel(&'a str),
    /// A user's own stream, by the user's id.
    User(&'a str),
    /// Something else.
    Other,
}

/// Returns the channel or user of a topic.
pub fn subject(topic: &str) -> Subject<'_> {
    // Neither the app nor the environment contains a colon; an id may.
    let Some(id) = topic.splitn(4, ':').nth(3) else {
        return Subject::Other;
    };
    match PartitionKind::of(topic) {
        Some(PartitionKind::Channel) => Subject::Channel(id),
        Some(PartitionKind::User) => Subject::User(id),
        _ => Subject::Other,
    }
}

/// Returns the scope of a channel's or a user's topic.
pub fn scope_of_topic(topic: &str) -> Option<Scope> {
    let mut parts = topic.splitn(4, ':').skip(1);
    scope_of(parts.next()?, parts.next()?)
}

/// Parses a name that [`Scope::member`] returned.
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

/// Returns the partition of the deployment.
pub fn deployment() -> Partition {
    Partition::new(PartitionKind::Deployment.letter())
}

/// Returns the partition of an organization.
pub fn organization(id: &OrganizationId) -> Partition {
    PartitionKind::Organization.named(id)
}

/// Returns the partition of an app.
pub fn app(id: &AppId) -> Partition {
    PartitionKind::App.named(id)
}

/// Returns the partition of a key, by the hash of its secret.
pub fn credential(hash: &str) -> Partition {
    PartitionKind::Credential.named(hash)
}

/// Returns the partition of a token key.
pub fn token_key(id: &TokenKeyId) -> Partition {
    PartitionKind::TokenKey.named(id)
}

/// Returns the partition of a request with an `Idempotency-Key`, by its HMAC.
pub fn idempotency(hmac: &str) -> Partition {
    PartitionKind::Idempotency.named(hmac)
}

/// Returns the partition of an import into an organization.
pub fn import(organization: &OrganizationId) -> Partition {
    PartitionKind::Import.named(organization)
}

/// Returns how the names of an app's partitions in its environments begin: indexes, users,
/// channels.
pub fn of_environments(app: &AppId) -> [String; 3] {
    [
        PartitionKind::Environment,
        PartitionKind::User,
        PartitionKind::Channel,
    ]
    .map(|kind| kind.prefix_in_app(app))
}
