//! The plan of a commit: reads and checks everything first, and collects the changes, so that a
//! conflict leaves nothing half written.

mod changes;
mod draft;

use bytes::Bytes;

use self::draft::Draft;
pub(super) use self::{
    changes::{Changes, NEXT_PARTITION, replay},
    draft::holds,
};
use super::{
    fault::Fault,
    layout::{self, LayoutState},
    tree::Tree,
    trees::Trees,
    validate,
    view::View,
};
use crate::{Commit, Conflict, Keep, Outcome, Partition, Position};

/// The effects of a commit without conflicts.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) outcome: Outcome,
    /// Records for the partition's topic.
    pub(super) records: Vec<Bytes>,
    changes: Changes,
}

impl Plan {
    /// A plan without records.
    pub(super) fn of(changes: Changes) -> Self {
        Self {
            changes,
            ..Self::default()
        }
    }

    /// Takes the changes out.
    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }
}

/// Plans a commit, or returns why it conflicts.
pub(super) fn plan(
    trees: Trees<'_>,
    now: u64,
    keep: Keep,
    partition: &Partition,
    commit: &Commit,
) -> Result<Result<Plan, Conflict>, Fault> {
    validate::commit(partition, commit)?;
    let view = View::new(trees, now);
    let stored = view.stored(partition)?;
    let expired = stored
        .as_ref()
        .filter(|state| view.has_expired(state))
        .cloned();
    let state = if expired.is_some() {
        LayoutState::default()
    } else {
        stored.unwrap_or_default()
    };
    let mut draft = Draft::new(view, state);

    let mut conflict = Conflict {
        require: draft.failed_requirements(commit)?,
        increment: Vec::new(),
    };
    let counts = draft.increment(commit, &mut conflict)?;
    if conflict != Conflict::default() {
        return Ok(Err(conflict));
    }

    let at = now.max(draft.state.at);
    let head = draft.state.head;
    let first_seq = if commit.append.is_empty() {
        head.seq
    } else {
        head.seq + 1
    };
    let mut plan = Plan {
        outcome: Outcome {
            at,
            first_seq,
            written: Vec::new(),
            counts,
        },
        ..Plan::default()
    };
    if commit.write.is_empty()
        && commit.increment.is_empty()
        && commit.append.is_empty()
        && commit.expire.is_none()
        && commit.keep.is_none()
    {
        return Ok(Ok(plan));
    }
    for write in &commit.write {
        plan.outcome
            .written
            .push(draft.write(write, at, first_seq)?);
    }
    for (index, append) in commit.append.iter().enumerate() {
        let before = if index == 0 { head.at } else { at };
        let position = Position {
            seq: first_seq + index as u64,
            at,
        };
        plan.records.push(
            draft
                .record(commit, append, position, before, &plan.outcome)
                .encode(),
        );
    }

    let changes = &mut plan.changes;
    if let Some(expired) = expired {
        drop_entries(changes, &expired);
    }
    if draft.state.id == 0 {
        draft.state.id = changes.allocate_partition(&trees)?;
    }
    draft.append(commit, at, keep, changes)?;
    draft.finish(partition, commit, at, changes);
    Ok(Ok(plan))
}

/// Drops a partition: removes its name and leaves its entries to later sweeps.
pub(super) fn drop_partition(changes: &mut Changes, partition: &Partition, state: &LayoutState) {
    drop_entries(changes, state);
    changes.delete(Tree::Partitions, partition.name().as_bytes());
}

/// Marks the entries of a partition for removal, and removes its expiry.
pub(super) fn drop_entries(changes: &mut Changes, state: &LayoutState) {
    changes.delete(Tree::Expiries, layout::by_expiry(state.expires, state.id));
    changes.put(Tree::Dropped, state.id.to_be_bytes(), []);
}
