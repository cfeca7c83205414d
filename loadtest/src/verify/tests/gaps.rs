//! Gaps, divergence and what a durable store guarantees.

use super::*;

#[test]
fn message_within_a_gap_is_not_lost() {
    let mut channel = channel(4);
    all_received_by(&mut channel, ALICE, 1..=4);
    all_received_by(&mut channel, BOB, [1]);
    channel.gap_received(BOB, 5);
    all_received_by(&mut channel, BOB, [4]);
    let tally = channel.finish();
    assert_eq!((tally.gaps, tally.delivered), (1, 6));
    assert!(tally.violations.is_none(), "{:?}", tally.evidence);
}

/// A store that lost messages 2 and 3, and stored messages 4 and 5 at their numbers.
fn diverged_channel(bob_is_informed: bool) -> ChannelChecker {
    let mut channel = channel(1);
    all_received_by(&mut channel, ALICE, [1]);
    all_received_by(&mut channel, BOB, [1]);
    for message in 2..=3 {
        channel.sending(message, ALICE);
        channel.message_received(ALICE, stored(message));
        channel.message_received(BOB, stored(message));
    }
    channel.divergence_received(ALICE, 3);
    if bob_is_informed {
        channel.divergence_received(BOB, 3);
    }
    for (message, location) in [(4, stored(2)), (5, stored(3)), (6, stored(4))] {
        channel.sending(message, BOB);
        let observed = ObservedMessage {
            message: Some(message),
            ..location
        };
        channel.acknowledged(message, observed);
        channel.message_received(ALICE, observed);
        if bob_is_informed || message == 6 {
            channel.message_received(BOB, observed);
        }
    }
    channel.listed([
        stored(1),
        observed(4, 4, 2),
        observed(5, 5, 3),
        observed(6, 6, 4),
    ]);
    channel
}

#[test]
fn divergence_must_be_reported_to_every_subscriber() {
    assert_found(diverged_channel(true), Violations::default());
    assert_found(
        diverged_channel(false),
        Violations {
            reordered: 2,
            ..Violations::default()
        },
    );
}

#[test]
fn acknowledged_message_gone_after_a_divergence_is_lost() {
    let mut channel = channel(3);
    for subscriber in [ALICE, BOB] {
        all_received_by(&mut channel, subscriber, 1..=3);
        channel.divergence_received(subscriber, 3);
    }
    channel.listed([stored(1)]);
    assert_found(
        channel,
        Violations {
            lost: 2,
            ..Violations::default()
        },
    );
}

#[test]
fn changes_read_after_a_trimmed_gap_must_be_complete() {
    for (read, expected) in [(2..=4, 0), (3..=4, 1)] {
        let mut channel = channel(4);
        all_received_by(&mut channel, ALICE, 1..=4);
        all_received_by(&mut channel, BOB, [1]);
        channel.gap_received(BOB, 6);
        channel.changes_read(BOB, 3, 6, read.map(stored));
        assert_found(
            channel,
            Violations {
                lost: expected,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn needless_gap_is_found() {
    for (seen, needless) in [(1, 1), (0, 0)] {
        let mut channel = channel(4).with_guarantees(GUARANTEES);
        all_received_by(&mut channel, ALICE, 1..=4);
        all_received_by(&mut channel, BOB, 1..=seen);
        channel.gap_received(BOB, 6);
        assert_found(
            channel,
            Violations {
                needless,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn divergence_of_a_durable_store_is_found() {
    for (may_diverge, needless) in [(false, 1), (true, 0)] {
        let mut channel = channel(1).with_guarantees(Guarantees {
            may_diverge,
            ..GUARANTEES
        });
        all_received_by(&mut channel, ALICE, [1]);
        all_received_by(&mut channel, BOB, [1]);
        channel.listed([stored(1)]);
        channel.divergence_received(BOB, 3);
        assert_found(
            channel,
            Violations {
                needless,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn refused_and_unanswered_messages_are_found_with_guarantees() {
    for (guarantees, denied) in [(None, 0), (Some(GUARANTEES), 2)] {
        let mut channel = channel(0);
        channel.guarantees = guarantees;
        channel.sending(1, ALICE);
        channel.sending(2, ALICE);
        channel.denied(1, "not_found");
        assert_found(
            channel,
            Violations {
                denied,
                ..Violations::default()
            },
        );
    }
}
