//! Each kind of violation is constructed and must be found.

mod gaps;
mod participants;

use super::*;

const ALICE: usize = 0;
const BOB: usize = 1;
const GUARANTEES: Guarantees = Guarantees {
    log_events: 4,
    may_diverge: false,
};

fn observed(message: MessageIndex, seq: u64, number: u64) -> ObservedMessage {
    ObservedMessage {
        message: Some(message),
        seq,
        number,
        intact: true,
        deleted: false,
    }
}

/// A channel with alice and bob, after its two `participant.added`, in which alice sent messages 1,
/// 2, … and got replies.
fn channel(messages: u32) -> ChannelChecker {
    let mut channel = ChannelChecker::new("room", ["alice", "bob"]);
    channel.subscribed(ALICE, 2, 0);
    channel.subscribed(BOB, 2, 0);
    for message in 1..=messages {
        channel.sending(message, ALICE);
        channel.acknowledged(message, stored(message));
    }
    channel
}

/// Message n as it is stored: number n, after two other events.
fn stored(message: MessageIndex) -> ObservedMessage {
    observed(message, u64::from(message) + 2, message.into())
}

fn all_received_by(
    channel: &mut ChannelChecker,
    subscriber: usize,
    messages: impl IntoIterator<Item = MessageIndex>,
) {
    messages
        .into_iter()
        .for_each(|message| channel.message_received(subscriber, stored(message)));
}

fn assert_found(channel: ChannelChecker, expected: Violations) {
    let tally = channel.finish();
    assert_eq!(tally.violations, expected, "{:?}", tally.evidence);
    assert_eq!(tally.evidence.is_empty(), expected.is_none());
}

#[test]
fn complete_delivery_has_no_violations() {
    let mut channel = channel(5);
    all_received_by(&mut channel, ALICE, 1..=5);
    assert!(!channel.is_complete());
    all_received_by(&mut channel, BOB, 1..=5);
    assert!(channel.is_complete());
    channel.listed((1..=5).map(stored));
    let tally = channel.finish();
    assert_eq!(
        (
            tally.sent,
            tally.acknowledged,
            tally.delivered,
            tally.listed,
            tally.unknown
        ),
        (5, 5, 10, 5, 0)
    );
    assert!(tally.violations.is_none() && tally.evidence.is_empty());
}

#[test]
fn event_before_the_reply_is_no_violation() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.message_received(BOB, stored(1));
    channel.message_received(ALICE, stored(1));
    channel.acknowledged(1, stored(1));
    assert_found(channel, Violations::default());
}

#[test]
fn other_durable_events_have_a_seq_and_no_number() {
    let mut channel = channel(1);
    all_received_by(&mut channel, ALICE, [1]);
    all_received_by(&mut channel, BOB, [1]);
    for subscriber in [ALICE, BOB] {
        channel.other_received(subscriber, 4, "channel.updated");
    }
    channel.sending(2, ALICE);
    channel.acknowledged(2, observed(2, 5, 2));
    for subscriber in [ALICE, BOB] {
        channel.message_received(subscriber, observed(2, 5, 2));
    }
    assert_found(channel, Violations::default());
}

#[test]
fn missing_last_message_is_lost() {
    let mut channel = channel(3);
    all_received_by(&mut channel, ALICE, 1..=3);
    all_received_by(&mut channel, BOB, 1..=2);
    assert!(!channel.is_complete());
    assert_found(
        channel,
        Violations {
            lost: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn skipped_message_is_a_hole_and_lost() {
    let mut channel = channel(3);
    all_received_by(&mut channel, ALICE, 1..=3);
    all_received_by(&mut channel, BOB, [1, 3]);
    assert!(!channel.is_complete());
    assert_found(
        channel,
        Violations {
            holes: 1,
            lost: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn late_message_is_a_hole_and_reordered_but_not_lost() {
    let mut channel = channel(4);
    all_received_by(&mut channel, ALICE, 1..=4);
    all_received_by(&mut channel, BOB, [1, 3, 2, 4]);
    assert_found(
        channel,
        Violations {
            holes: 1,
            reordered: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn repeated_event_is_doubled() {
    let mut channel = channel(2);
    all_received_by(&mut channel, ALICE, 1..=2);
    all_received_by(&mut channel, BOB, [1, 1, 2]);
    assert_found(
        channel,
        Violations {
            doubled: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn message_stored_twice_is_doubled() {
    let mut channel = channel(1);
    all_received_by(&mut channel, ALICE, [1]);
    all_received_by(&mut channel, BOB, [1]);
    channel.message_received(BOB, observed(1, 4, 2));
    assert_found(
        channel,
        Violations {
            doubled: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn different_orders_at_two_subscribers_are_found() {
    let mut channel = channel(2);
    all_received_by(&mut channel, ALICE, 1..=2);
    channel.message_received(BOB, observed(2, 3, 1));
    channel.message_received(BOB, observed(1, 4, 2));
    assert_found(
        channel,
        Violations {
            reordered: 2,
            ..Violations::default()
        },
    );
}

#[test]
fn two_messages_at_one_seq_are_found() {
    let mut channel = channel(1);
    all_received_by(&mut channel, ALICE, [1]);
    channel.sending(2, BOB);
    channel.message_received(BOB, observed(2, 3, 1));
    assert_found(
        channel,
        Violations {
            reordered: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn skipped_number_is_a_hole_even_without_a_hole_in_seq() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.message_received(ALICE, observed(1, 3, 2));
    assert_found(
        channel,
        Violations {
            holes: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn message_of_another_channel_is_foreign() {
    let mut channel = channel(0);
    channel.message_received(ALICE, observed(77, 3, 1));
    channel.message_received(
        ALICE,
        ObservedMessage {
            message: None,
            ..observed(0, 4, 2)
        },
    );
    channel.foreign_received(BOB, "typing in another channel");
    assert_found(
        channel,
        Violations {
            foreign: 3,
            ..Violations::default()
        },
    );
}

#[test]
fn delivered_refused_message_is_foreign() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.refused(1);
    channel.message_received(BOB, stored(1));
    assert_found(
        channel,
        Violations {
            foreign: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn undelivered_refused_message_is_no_violation() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.refused(1);
    assert!(channel.is_complete());
    assert_found(channel, Violations::default());
}

#[test]
fn altered_text_or_sender_is_found() {
    let mut channel = channel(1);
    channel.message_received(
        ALICE,
        ObservedMessage {
            intact: false,
            ..stored(1)
        },
    );
    channel.message_received(BOB, stored(1));
    assert_found(
        channel,
        Violations {
            altered: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn messages_of_one_session_must_be_stored_in_the_order_sent() {
    let swapped = |retried| {
        let mut channel = channel(0);
        channel.sending(1, ALICE);
        channel.sending(2, ALICE);
        if retried {
            channel.retrying(1);
        }
        for subscriber in [ALICE, BOB] {
            channel.message_received(subscriber, observed(2, 3, 1));
            channel.message_received(subscriber, observed(1, 4, 2));
        }
        channel
    };
    assert_found(
        swapped(false),
        Violations {
            reordered: 1,
            ..Violations::default()
        },
    );
    assert_found(swapped(true), Violations::default());
}

#[test]
fn unanswered_message_may_be_stored_or_not() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.sending(2, ALICE);
    for subscriber in [ALICE, BOB] {
        channel.message_received(subscriber, observed(2, 3, 1));
    }
    channel.listed([observed(2, 3, 1)]);
    let tally = channel.finish();
    assert_eq!(
        (tally.unknown, tally.violations),
        (2, Violations::default())
    );
}

#[test]
fn acknowledged_message_missing_from_the_list_is_lost() {
    let mut channel = channel(3);
    all_received_by(&mut channel, ALICE, 1..=3);
    all_received_by(&mut channel, BOB, 1..=3);
    channel.listed([stored(1), stored(3)]);
    assert_found(
        channel,
        Violations {
            lost: 1,
            holes: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn repeated_foreign_and_altered_messages_in_the_list_are_found() {
    let mut channel = channel(2);
    all_received_by(&mut channel, ALICE, 1..=2);
    all_received_by(&mut channel, BOB, 1..=2);
    channel.listed([
        stored(1),
        ObservedMessage {
            intact: false,
            ..stored(2)
        },
        observed(2, 5, 3),
        observed(77, 6, 4),
    ]);
    assert_found(
        channel,
        Violations {
            altered: 1,
            doubled: 1,
            reordered: 1,
            foreign: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn wide_hole_takes_constant_memory() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.message_received(ALICE, observed(1, 1 << 50, 1));
    assert_found(
        channel,
        Violations {
            holes: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn evidence_is_limited_per_kind() {
    let mut channel = channel(100);
    all_received_by(&mut channel, ALICE, 1..=100);
    let mut total = channel.finish();
    let mut other = super::ChannelChecker::new("other", ["carol"]);
    other.foreign_received(0, "an event");
    total.add(other.finish());
    assert_eq!((total.violations.lost, total.violations.foreign), (100, 1));
    assert_eq!(total.evidence.len(), 4);
    assert!(total.evidence[0].1.contains("bob") && total.evidence[3].1.contains("carol"));
}
