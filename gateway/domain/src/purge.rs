//! Removes the documents and the log of a deleted partition, in pieces.

use std::time::Duration;

use store::{Commit, Counter, Expected, Increment, Keep, Partition, Require};
use tokio::time::Instant;

use crate::{
    Services,
    document::PutValue,
    error::Result,
    schema::{self, ENTITY, ONLY, PARTICIPANT_COUNT, TOMBSTONE},
};

/// Maximum number of documents that one purge removes.
const DOCUMENTS_PER_PIECE: usize = 500;

/// Time that a dropped partition is kept, so that requests in flight see its tombstone.
const DROP_AFTER: Duration = Duration::from_secs(60);

/// Retention of the log of a deleted channel or user: the event at the head.
const NEWEST_EVENT: Keep = Keep {
    events: 1,
    bytes: 0,
};

/// The outcome of a purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purge {
    /// Nothing is left.
    Done,
    /// More is left.
    More,
    /// The requirement does not hold any more.
    Overtaken,
}

/// Removes the documents of all tables of a partition that a deletion clears.
pub(super) async fn purge_tables(
    services: &Services,
    partition: &Partition,
    require: Option<Require>,
    until: Instant,
) -> Result<Purge> {
    for table in schema::cleared_tables(partition) {
        loop {
            match services
                .store
                .purge(partition, table, require.clone(), DOCUMENTS_PER_PIECE)
                .await?
            {
                Ok(true) => break,
                Ok(false) if Instant::now() >= until => return Ok(Purge::More),
                Ok(false) => {}
                Err(_) => return Ok(Purge::Overtaken),
            }
        }
    }
    Ok(Purge::Done)
}

/// Trims a partition's log to its newest event, while the tombstone is as expected.
pub(super) async fn trim_log(
    services: &Services,
    partition: &Partition,
    tombstone: Option<Expected>,
    until: Instant,
) -> Result<Purge> {
    loop {
        let head = services.snapshot(partition.clone(), Vec::new()).await?.head;
        if head.seq <= head.floor.seq + 1 {
            return Ok(Purge::Done);
        }
        let mut trim = Commit {
            keep: Some(NEWEST_EVENT),
            ..Commit::default().frees()
        };
        if let Some(is) = tombstone {
            trim = trim.require(TOMBSTONE, ONLY, is);
        }
        if services.commit(partition, trim).await?.is_err() {
            return Ok(Purge::Overtaken);
        }
        if Instant::now() >= until {
            return Ok(Purge::More);
        }
    }
}

/// Clears a whole partition, and has the store drop the rest of it after a while.
pub(super) async fn drop_partition(
    services: &Services,
    partition: &Partition,
    until: Instant,
) -> Result<Purge> {
    let mut buried = Commit::default()
        .delete(ENTITY, ONLY)
        .put_value(TOMBSTONE, ONLY, &true)
        .frees();
    buried.increment.push(no_participants());
    services.commit_or_busy(partition, buried).await?;
    if purge_tables(services, partition, None, until).await? == Purge::More {
        return Ok(Purge::More);
    }
    let commit = Commit {
        expire: Some(DROP_AFTER),
        ..Commit::default().put_value(TOMBSTONE, ONLY, &true).frees()
    };
    services.commit_or_busy(partition, commit).await?;
    Ok(Purge::Done)
}

/// Returns the change that sets a channel's count of participants to zero.
pub(super) fn no_participants() -> Increment {
    let by = -(protocol::MAX_INTEGER as i64);
    Increment {
        counter: Counter::Partition(PARTICIPANT_COUNT),
        by,
        max: None,
        max_names: None,
    }
}
