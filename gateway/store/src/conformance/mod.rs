//! The conformance suite: the tests that every engine passes.
//!
//! Each test is a function over a [`Bench`], which the engine provides. [`conformance!`] lists the
//! functions and generates a `#[test]` for each; the compiler reports a function that is not listed
//! as dead code. Engine-specific tests (files, cluster redirections) are in the engines.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub(crate) mod concurrency;
pub(crate) mod counters;
pub(crate) mod leases;
pub(crate) mod life;
pub(crate) mod log;
pub(crate) mod pages;
mod partition_copy;
pub(crate) mod preconditions;
pub(crate) mod reads;
pub(crate) mod records;
mod story;
pub(crate) mod transfer;
pub(crate) mod values;
pub(crate) mod writes;

use std::sync::Arc;

use bytes::Bytes;
use fanout::Topic;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Keep, Store, transfer::Transfer};

/// An engine under test, with an empty store of its own.
pub(crate) trait Bench: Send + Sync + Sized + 'static {
    /// Starts an empty store with this default retention of logs.
    fn start(keep: Keep) -> impl Future<Output = Self> + Send;

    fn store(&self) -> Arc<dyn Store>;

    /// Returns the same store as opened by another node, with empty caches.
    fn another_node(&self) -> Arc<dyn Store> {
        self.store()
    }

    fn transfer(&self) -> Arc<dyn Transfer>;

    /// Subscribes to a topic. The receiver gets all records published after this returns, in order.
    fn listen(&self, topic: &Topic) -> impl Future<Output = UnboundedReceiver<Bytes>> + Send;

    /// Moves the store's clock by milliseconds, possibly negative. Leases may ignore it.
    fn step_clock(&self, millis: i64);
}

/// Generates the tests for a [`Bench`]: `conformance!(EmbeddedBench);` in an engine's test module.
macro_rules! conformance {
    ($bench:ty) => {
        $crate::conformance::conformance! { @tests $bench;
            preconditions: [
                absent_document_satisfies_only_absent
                present_document_satisfies_present_and_its_version
                changed_requires_the_last_event_including_touches
                conflict_changes_nothing_and_returns_every_failure
            ]
            writes: [
                put_increments_version_and_keeps_created_at
                marks_set_their_timestamp_and_later_puts_keep_it
                put_without_event_keeps_seq
                document_created_after_deletion_is_new
                recreated_document_never_reuses_a_version
                deleting_or_touching_an_absent_document_has_no_effect
                touch_sets_seq_and_keeps_version
                new_documents_are_numbered_in_order_of_writes
                commit_without_events_keeps_the_head
                outcome_lists_every_write_in_order
                empty_commit_does_nothing
            ]
            values: [
                same_key_in_other_table_or_partition_is_another_document
                values_of_any_bytes_are_preserved
                values_of_64_kib_are_preserved
                keys_can_be_any_unicode_up_to_256_bytes
            ]
            counters: [
                counters_add_up_and_are_removed_at_zero
                counters_do_not_fall_below_zero
                counter_above_its_max_is_a_conflict
                max_also_applies_to_decrements
                document_has_at_most_max_names_counters
                increments_of_a_commit_apply_in_order
                increment_of_an_absent_document_is_a_conflict
                deleted_mark_drops_the_counters
                counters_of_a_document_are_in_byte_order
                large_counters_are_exact
                edit_keeps_the_counters
            ]
            records: [
                batch_is_published_in_order_and_once
                record_has_the_timestamp_of_the_previous_event
                written_document_is_published_with_its_stamps
                written_document_is_published_with_its_counters
                bytes_are_published_with_the_count
                controls_are_published
                bodies_of_any_bytes_are_published
                conflict_publishes_nothing
                ephemeral_records_are_published_unchanged
            ]
            reads: [
                absent_partition_is_all_zero
                heads_are_those_of_the_logs
                documents_are_returned_in_requested_order
                documents_stop_at_the_byte_limit_but_include_the_first
                document_requested_twice_is_returned_twice_or_cut_off
                several_partitions_are_read_together
                newest_document_has_the_highest_number
                snapshot_is_consistent_during_commits
                page_and_head_are_consistent_during_commits
            ]
            pages: [
                pages_by_key_are_in_byte_order_and_report_more
                page_by_key_can_start_after_a_deleted_key
                page_stops_at_the_byte_limit_but_has_one_document
                pages_before_a_number
                pages_after_a_number
                pages_by_change_are_ordered_by_last_seq
                document_changed_twice_is_listed_once
                pages_cross_hash_boundaries
                paged_documents_are_complete
            ]
            log: [
                log_is_read_from_a_position
                start_is_continuous_until_events_are_trimmed
                position_without_an_event_has_diverged
                position_before_the_floor_is_trimmed
                log_is_trimmed_by_events
                log_is_trimmed_by_bytes
                newest_event_is_never_trimmed
                batch_longer_than_the_retention_keeps_its_end
                commit_can_set_its_own_retention
                timestamps_of_a_partition_do_not_decrease
                references_of_any_bytes_are_preserved
            ]
            life: [
                expired_partition_is_absent
                later_commit_keeps_or_changes_the_expiry
                purge_removes_a_table_in_steps
                purge_removes_a_numbered_table_and_keeps_the_head
                purged_table_can_be_written_again
                purge_with_a_failed_precondition_removes_nothing
                clock_is_the_wall_clock
            ]
            leases: [
                members_are_counted_over_all_nodes
                lease_sets_counts_and_zero_removes
                release_removes_the_members_of_the_node
                ended_lease_is_not_counted
                each_member_of_an_ended_lease_is_swept_once
                renewal_reports_an_ended_lease
            ]
            transfer: [
                loaded_partition_equals_the_original
                loaded_partition_accepts_commits_like_the_original
                large_partition_is_loaded_in_pieces
                purged_partition_is_loaded_unchanged
                partly_loaded_partition_is_invisible
                load_does_not_overwrite_an_existing_partition
                loaded_partition_expires
                partitions_are_listed_by_prefix
                remove_partitions_removes_complete_and_partly_loaded_partitions_of_a_prefix
                every_commit_updates_last_commit_at
            ]
            concurrency: [
                acknowledged_events_have_unique_seqs_and_are_published_once
                numbers_have_no_holes_under_contention
                one_of_many_commits_with_the_same_key_wins
                concurrent_increments_are_not_lost
                partitions_are_independent
            ]
        }
    };
    (@tests $bench:ty; $($module:ident: [$($test:ident)*])*) => {
        $(mod $module {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                $crate::conformance::$module::$test::<$bench>().await;
            })*
        })*
    };
}
pub(crate) use conformance;
