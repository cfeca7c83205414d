//! What every engine promises, as tests.
//!
//! Owned here: one function per promise, named after it, over a [`Bench`] that an engine provides; the list of them, from
//! which [`conformance!`] makes one test each. A promise that is missing in the list is dead code, and the compiler says so.
//! Left out: what only one engine has (files, a cluster's redirections).

#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub(crate) mod commits;
pub(crate) mod concurrency;
pub(crate) mod counters;
pub(crate) mod leases;
pub(crate) mod life;
pub(crate) mod log;
pub(crate) mod pages;
pub(crate) mod reads;
pub(crate) mod records;
mod story;
pub(crate) mod transfer;

use std::sync::Arc;

use bytes::Bytes;
use fanout::Topic;
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Keep, Store, transfer::Transfer};

/// An engine under test: one store of its own, empty at the start.
pub(crate) trait Bench: Send + Sync + Sized + 'static {
    /// An empty store that keeps this much of its logs.
    fn start(keep: Keep) -> impl Future<Output = Self> + Send;

    /// The store.
    fn store(&self) -> Arc<dyn Store>;

    /// The same, as one whose partitions go out and in whole.
    fn transfer(&self) -> Arc<dyn Transfer>;

    /// What is published on a topic from the moment this returns, in the order of publishing.
    fn listen(&self, topic: &Topic) -> impl Future<Output = UnboundedReceiver<Bytes>> + Send;

    /// Moves the store's clock by this many milliseconds, backwards when negative. Leases need not follow it.
    fn step_clock(&self, millis: i64);
}

/// One test per promise for a [`Bench`]: `conformance!(EmbeddedBench);` inside an engine's module of tests.
macro_rules! conformance {
    ($bench:ty) => {
        $crate::store::conformance::conformance! { @tests $bench;
            commits: [
                an_absent_document_meets_absent_alone
                a_present_document_meets_present_and_its_own_version
                changed_asks_for_the_last_event_and_so_counts_touches
                a_conflict_changes_nothing_and_names_every_failure
                a_put_counts_versions_and_keeps_when_it_was_made
                marks_set_their_instant_and_later_puts_keep_it
                a_put_without_an_event_keeps_the_seq
                a_document_made_again_after_its_deletion_is_new
                a_document_made_again_has_no_version_of_an_earlier_life
                deleting_or_touching_what_is_absent_is_nothing
                a_touch_sets_the_seq_and_leaves_the_version
                new_documents_are_numbered_in_the_order_of_the_writes
                a_commit_without_events_leaves_the_head
                an_outcome_tells_of_every_write_in_order
                equal_keys_in_other_tables_and_partitions_are_other_documents
                any_bytes_come_back_as_they_were
                values_of_64_kib_come_back_as_they_were
                keys_may_be_any_unicode_up_to_256_bytes
                an_empty_commit_does_nothing
            ]
            counters: [
                counters_count_and_at_zero_are_gone
                counters_never_fall_below_zero
                a_counter_beyond_its_max_is_a_conflict
                a_max_bounds_what_taking_away_leaves
                a_document_has_no_more_names_than_allowed
                increments_of_one_commit_follow_each_other
                a_counter_of_an_absent_document_is_a_conflict
                deleting_by_mark_drops_the_counters
                counters_of_a_document_come_in_the_byte_order_of_their_names
                large_counters_are_exact
                an_edit_keeps_the_counters
            ]
            records: [
                a_batch_is_published_in_order_each_event_once
                the_first_event_after_another_names_its_instant
                a_written_document_is_published_with_its_stamps
                a_written_document_is_published_with_its_counters
                plain_bytes_are_published_with_the_count
                controls_are_published
                bodies_of_any_bytes_are_published
                a_conflict_publishes_nothing
                passing_records_are_published_as_they_are
            ]
            reads: [
                a_partition_that_never_was_is_all_zero
                documents_come_in_the_order_asked
                several_partitions_are_read_at_once
                the_newest_is_the_highest_number
                a_snapshot_is_of_one_instant
                a_page_and_its_head_are_of_one_instant
            ]
            pages: [
                pages_by_key_are_in_byte_order_and_say_whether_there_is_more
                a_page_by_key_may_start_at_a_key_that_is_gone
                pages_before_a_number
                pages_after_a_number
                pages_by_change_follow_the_last_seq
                a_document_changed_twice_is_in_the_pages_once
                pages_cross_thousands
                paged_documents_come_whole
            ]
            log: [
                the_log_reads_on_from_a_position
                the_beginning_is_continuous_until_something_is_trimmed
                a_position_where_no_event_stands_has_diverged
                a_position_before_the_floor_is_trimmed
                the_log_is_trimmed_by_events
                the_log_is_trimmed_by_bytes
                the_newest_event_is_never_trimmed
                a_batch_longer_than_the_log_leaves_its_end
                a_commit_may_bring_its_own_bound
                time_never_runs_backwards_in_a_partition
                references_of_any_bytes_come_back
            ]
            life: [
                an_expired_partition_never_was
                a_later_commit_leaves_the_expiry_or_moves_it
                a_purge_takes_a_table_in_bites
                a_purge_takes_a_numbered_table_and_keeps_the_head
                a_purged_table_can_be_written_again
                a_purge_takes_nothing_once_what_it_requires_has_ended
                the_clock_is_the_wall_clock
            ]
            leases: [
                members_are_counted_over_nodes
                a_lease_sets_counts_and_zero_removes
                a_released_node_takes_its_members_along
                an_ended_lease_counts_no_more
                each_member_of_an_ended_lease_is_swept_once
                a_renewal_says_whether_the_lease_had_ended
            ]
            transfer: [
                a_partition_goes_out_and_in_as_it_is
                what_went_in_goes_on_like_its_original
                a_large_partition_goes_in_pieces
                a_purged_partition_goes_in_as_it_is
                what_is_half_loaded_is_not_there
                a_partition_that_is_there_is_not_loaded_over
                what_expires_does_so_where_it_went
                partitions_are_found_by_how_their_names_begin
                a_wipe_takes_what_is_whole_and_what_is_half_loaded_and_no_more
                every_commit_moves_what_touched_it
            ]
            concurrency: [
                every_acknowledged_event_has_its_own_seq_and_is_published_once
                numbers_have_no_holes_under_contention
                of_many_with_the_same_id_one_wins
                increments_do_not_lose_each_other
                partitions_do_not_disturb_each_other
            ]
        }
    };
    (@tests $bench:ty; $($module:ident: [$($promise:ident)*])*) => {
        $(mod $module {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                $crate::store::conformance::$module::$promise::<$bench>().await;
            })*
        })*
    };
}
pub(crate) use conformance;
