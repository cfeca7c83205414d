//! Tables and counters.

use store::{Partition, Table};

use super::PartitionKind;

/// The key of the only document of a table.
pub const ONLY: &str = "";

/// A row of the catalogue.
#[derive(Debug, Clone, Copy)]
pub struct TableRow {
    /// The table: name and order.
    pub table: Table,
    /// The partitions that have such a table.
    pub owners: &'static [PartitionKind],
    /// The treatment of its documents when the partition's entity is deleted.
    pub deletion: Deletion,
}

/// The treatment of a table's documents when the partition's entity is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The deletion job clears them.
    Cleared,
    /// They say what became of the entity: the commit that deletes writes them.
    Kept,
}

macro_rules! tables {
    ($($(#[$doc:meta])* $name:ident = $order:ident($short:literal) in $($owner:ident)|+, $deletion:ident;)*) => {
        $($(#[$doc])* pub const $name: Table = Table::$order($short);)*

        /// Every table. A partition's tables are exported in this order.
        pub const TABLES: &[TableRow] = &[$(TableRow {
            table: $name,
            owners: &[$(PartitionKind::$owner),+],
            deletion: Deletion::$deletion,
        }),*];
    };
}

tables! {
    /// The partition's entity, under [`ONLY`].
    ENTITY = plain("e") in Organization | App | User | Channel | Credential | TokenKey | Idempotency | Import, Kept;
    /// The tombstone of a deleted entity, under [`ONLY`]. A channel's is kept until the channel is
    /// cleared, a user's forever.
    TOMBSTONE = plain("x") in Organization | App | User | Channel, Kept;
    /// The bits of the request that created a channel or user with a chosen id, under [`ONLY`]. A
    /// repeated request with an `Idempotency-Key` recognizes its own work by them.
    MADE_BY = plain("b") in User | Channel, Cleared;

    /// Organizations, by id.
    ORGANIZATIONS = listed("o") in Deployment, Cleared;
    /// Deletions and revocations that are not finished ([`jobs`](crate::jobs)), by the name of
    /// their object's partition.
    JOBS = listed("j") in Deployment, Cleared;
    /// The fingerprint of the deployment's secret key, under [`ONLY`].
    SECRET_KEY = plain("v") in Deployment, Cleared;

    /// Keys, by id.
    KEYS = listed("k") in Organization | App, Cleared;
    /// Token keys, by id.
    TOKEN_KEYS = listed("t") in App, Cleared;
    /// Credentials of keys and token keys whose creation is running or was interrupted, by the
    /// names of their partitions.
    NEW_CREDENTIALS = listed("n") in Organization | App, Cleared;
    /// The token key with which nodes sign, by environment.
    SIGNING = plain("s") in App, Cleared;
    /// Apps, by id.
    APPS = listed("a") in Organization, Cleared;

    /// Users, by id.
    USERS = listed("u") in Environment, Cleared;
    /// The second up to which the user's tokens are refused, under [`ONLY`].
    REVOCATION = plain("r") in User, Cleared;
    /// When the user's last session ended, under [`ONLY`].
    SEEN = plain("l") in User, Cleared;
    /// Channels, by id: of an environment all, of a user those that the user may be in.
    CHANNELS = listed("c") in Environment | User, Cleared;
    /// Channels that every user may find, by id.
    PUBLIC_CHANNELS = listed("p") in Environment, Cleared;
    /// Users that were deleted and cleared, by id. Their partitions keep a tombstone, and go with
    /// the app.
    DELETED_USERS = listed("du") in Environment, Cleared;
    /// Channels that were deleted and cleared, by id, also those that exist again. Their partitions
    /// keep a head, and go with the app.
    DELETED_CHANNELS = listed("dc") in Environment, Cleared;

    /// The number of the channel's owners, under [`ONLY`]. A document, so that two owners who leave
    /// at once conflict.
    OWNERS = plain("w") in Channel, Cleared;
    /// Participants, by user id.
    PARTICIPANTS = listed("p") in Channel, Cleared;
    /// Read positions, by user id.
    READS = plain("r") in Channel, Cleared;
    /// The reactions of a user to a message, by `number:user`.
    REACTIONS = plain("k") in Channel, Cleared;
    /// Messages, by id and number.
    MESSAGES = numbered("m") in Channel, Cleared;
}

/// Returns the tables of a partition.
pub fn tables(partition: &Partition) -> impl Iterator<Item = Table> + use<> {
    rows(partition).map(|row| row.table)
}

/// Returns the tables of a partition that a deletion clears.
pub fn cleared_tables(partition: &Partition) -> impl Iterator<Item = Table> + use<> {
    rows(partition)
        .filter(|row| row.deletion == Deletion::Cleared)
        .map(|row| row.table)
}

fn rows(partition: &Partition) -> impl Iterator<Item = &'static TableRow> + use<> {
    let kind = PartitionKind::of(partition.name());
    TABLES
        .iter()
        .filter(move |row| kind.is_some_and(|kind| row.owners.contains(&kind)))
}

/// Counter of the documents in a user's [`CHANNELS`].
pub const CHANNEL_COUNT: &str = "channels";

/// Counter of a channel's participants.
pub const PARTICIPANT_COUNT: &str = "participants";

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_partition_has_two_tables_of_a_name() {
        for kind in PartitionKind::ALL {
            let names: Vec<_> = TABLES
                .iter()
                .filter(|row| row.owners.contains(kind))
                .map(|row| row.table.name)
                .collect();
            assert!(!names.is_empty(), "{kind:?} holds nothing");
            let distinct: HashSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len(), "{kind:?}: {names:?}");
        }
    }

    #[test]
    fn kind_of_a_partition_is_read_from_its_name() {
        let scope = crate::schema::Scope {
            app: protocol::AppId::from_bits(1),
            environment: protocol::entity::Environment::Live,
        };
        for (partition, kind) in [
            (crate::schema::deployment(), PartitionKind::Deployment),
            (scope.index(), PartitionKind::Environment),
            (
                scope.channel(&"a:b".parse().unwrap_or_else(|_| unreachable!())),
                PartitionKind::Channel,
            ),
            (
                scope.user(&"d".parse().unwrap_or_else(|_| unreachable!())),
                PartitionKind::User,
            ),
            (crate::schema::app(&scope.app), PartitionKind::App),
        ] {
            assert_eq!(PartitionKind::of(partition.name()), Some(kind));
        }
        assert_eq!(PartitionKind::of("z:1"), None);
    }
}
