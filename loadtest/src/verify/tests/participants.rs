//! Subscribers that are removed and added again, and deleted messages.

use super::*;

/// Bob is removed at seq 4 and added again at seq 6.
fn bob_removed_and_added() -> ChannelChecker {
    let mut channel = channel(0);
    let events = [
        "channel.updated",
        "participant.removed",
        "channel.updated",
        "participant.added",
        "channel.updated",
    ];
    (3..)
        .zip(events)
        .for_each(|(seq, event)| channel.other_received(ALICE, seq, event));
    channel.removal_event(BOB, 4);
    channel.addition_event(BOB, 6);
    channel
}

#[test]
fn event_after_a_removal_is_found() {
    for (received, after_removal) in [(&[] as &[u64], 0), (&[3], 0), (&[3, 4], 1), (&[3, 4, 5], 1)]
    {
        let mut channel = bob_removed_and_added();
        received
            .iter()
            .for_each(|seq| channel.other_received(BOB, *seq, "an event"));
        channel.removed(BOB);
        channel.subscribed(BOB, 6, 0);
        channel.other_received(BOB, 7, "an event");
        assert_found(
            channel,
            Violations {
                after_removal,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn event_received_while_removed_must_be_before_the_removal_or_after_the_addition() {
    for (seq, after_removal) in [(3, 0), (4, 1), (5, 1), (6, 0), (7, 0)] {
        let mut channel = bob_removed_and_added();
        channel.removed(BOB);
        channel.other_received(BOB, seq, "an event");
        channel.subscribed(BOB, 6, 0);
        channel.other_received(BOB, 7, "an event");
        assert_found(
            channel,
            Violations {
                after_removal,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn text_of_a_deleted_message_is_found_in_a_later_session_and_in_the_list() {
    let mut channel = channel(2);
    let deleted = |n| ObservedMessage {
        deleted: true,
        ..stored(n)
    };
    all_received_by(&mut channel, ALICE, 1..=2);
    for message in 1..=2 {
        channel.deleting(message);
        channel.deleted(message);
    }
    // It was on its way before the deletion.
    channel.message_received(BOB, stored(1));
    channel.connecting(BOB);
    channel.resumed(BOB, 6);
    channel.message_received(BOB, stored(2));
    channel.listed([
        ObservedMessage {
            seq: 5,
            ..deleted(1)
        },
        stored(2),
    ]);
    assert_found(
        channel,
        Violations {
            undeleted: 2,
            ..Violations::default()
        },
    );
}

#[test]
fn message_marked_as_deleted_without_a_deletion_is_found() {
    let mut channel = channel(1);
    all_received_by(&mut channel, ALICE, [1]);
    channel.message_received(
        BOB,
        ObservedMessage {
            deleted: true,
            ..stored(1)
        },
    );
    assert_found(
        channel,
        Violations {
            altered: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn participant_that_did_not_learn_of_its_addition_is_found() {
    for is_informed in [false, true] {
        let mut channel = channel(0).with_guarantees(GUARANTEES);
        channel.removed(BOB);
        assert!(!channel.is_complete());
        if is_informed {
            channel.subscribed(BOB, 4, 0);
        }
        assert_eq!(channel.is_complete(), is_informed);
        assert_found(
            channel,
            Violations {
                denied: u64::from(!is_informed),
                ..Violations::default()
            },
        );
    }
}
