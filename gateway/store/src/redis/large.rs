//! Large reads: they have their own connection, run a few at a time, and take turns between
//! tenants.
//!
//! A server replies to the commands of a connection in order, so a commit sent after twenty pages
//! of messages would wait for all of their replies.

use std::{collections::HashMap, io, sync::Arc};

use chaos_redis::{Address, CommandReply, Commands};
use fanout::fair::FairPermits;
use parking_lot::Mutex;
use redis::{Cmd, RedisResult};

use crate::{MAX_WAITING_READS, Order, Read, StoreError, Table, turn};

/// Maximum number of concurrent large reads of this node per server.
pub(super) const MAX_LARGE_READS: usize = 16;
/// Maximum weight of a small read.
const SMALL_READ_WEIGHT: usize = 48;
/// Weight of a numbered document: a message may be as long as a frame, so a read of two of them is
/// large.
const NUMBERED_WEIGHT: usize = 31;

/// The size class of a read, which determines its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Small,
    Large,
}

impl Size {
    /// The size of a batch of reads.
    pub(super) fn of_reads(reads: &[Read]) -> Self {
        let documents = reads.iter().flat_map(|read| {
            read.documents
                .iter()
                .map(|(table, _)| *table)
                .chain(read.newest)
        });
        Self::of_weight(reads.len() + documents.map(weight).sum::<usize>())
    }

    /// The size of a read of `rows` documents of a table.
    pub(super) fn of_rows(table: Table, rows: usize) -> Self {
        Self::of_weight(rows.saturating_mul(weight(table)))
    }

    /// The size of a read of `entries` events of a log.
    pub(super) fn of_entries(entries: usize) -> Self {
        Self::of_weight(entries)
    }

    fn of_weight(weight: usize) -> Self {
        if weight > SMALL_READ_WEIGHT {
            Self::Large
        } else {
            Self::Small
        }
    }
}

fn weight(table: Table) -> usize {
    match table.order {
        Order::Numbers => NUMBERED_WEIGHT,
        Order::None | Order::Keys => 1,
    }
}

/// The connection for large reads, with permits.
pub(super) struct LargeReads {
    commands: Commands,
    /// Permits by server, so that a slow server does not use up those of the others.
    permits: Mutex<HashMap<Option<Arc<Address>>, Arc<FairPermits>>>,
}

impl LargeReads {
    pub(super) fn new(commands: &Commands) -> Self {
        Self {
            commands: commands.large_reads(),
            permits: Mutex::default(),
        }
    }

    /// Runs a command on a key when it is the turn of the request's user.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if its turn does not come.
    pub(super) async fn run(
        &self,
        key: &str,
        cmd: Cmd,
    ) -> Result<RedisResult<CommandReply>, StoreError> {
        let permit = turn(&self.permits_of(key)).await?;
        let commands = self.commands.clone();
        let reply = tokio::spawn(async move {
            // Held until the reply arrives, even if the caller stops waiting.
            let _permit = permit;
            commands.run(&cmd).await
        });
        Ok(reply
            .await
            .unwrap_or_else(|error| Err(io::Error::other(error).into())))
    }

    pub(super) fn permits_of(&self, key: &str) -> Arc<FairPermits> {
        let permits = &mut *self.permits.lock();
        Arc::clone(
            permits
                .entry(self.commands.owner(key))
                .or_insert_with(|| FairPermits::with_queue(MAX_LARGE_READS, MAX_WAITING_READS)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Partition;

    #[test]
    fn reads_of_several_messages_are_large() {
        let (messages, people) = (Table::numbered("m"), Table::listed("p"));
        assert_eq!(Size::of_rows(messages, 1), Size::Small);
        assert_eq!(Size::of_rows(messages, 2), Size::Large);
        assert_eq!(Size::of_rows(people, 20), Size::Small);
        let read = |count: usize| Read {
            partition: Partition::new("channel:room"),
            documents: (0..count)
                .map(|n| (messages, n.to_string().into()))
                .chain([(people, "a".into())])
                .collect(),
            newest: None,
        };
        assert_eq!(Size::of_reads(&[read(1)]), Size::Small);
        assert_eq!(Size::of_reads(&[read(2)]), Size::Large);
        assert_eq!(Size::of_reads(&[read(1), read(1)]), Size::Large);
    }
}
