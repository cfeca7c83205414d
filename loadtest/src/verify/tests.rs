//! Each violation is planted, and found.

use super::*;

const ALICE: usize = 0;
const BOB: usize = 1;

fn shown(message: Index, seq: u64, number: u64) -> Shown {
    Shown {
        message: Some(message),
        seq,
        number,
        intact: true,
        deleted: false,
    }
}

/// A channel of alice and bob behind its two `participant.added`, with messages 1, 2, … sent by alice and acknowledged.
fn channel(messages: u32) -> Channel {
    let mut channel = Channel::new("room", ["alice", "bob"]);
    channel.starts(ALICE, 2, 0);
    channel.starts(BOB, 2, 0);
    for message in 1..=messages {
        channel.sending(message, ALICE);
        channel.acknowledged(message, at(message));
    }
    channel
}

/// Where message n stands: number n, behind two other events.
fn at(message: Index) -> Shown {
    shown(message, u64::from(message) + 2, message.into())
}

fn all_seen_by(channel: &mut Channel, who: usize, messages: impl IntoIterator<Item = Index>) {
    messages
        .into_iter()
        .for_each(|message| channel.saw(who, at(message)));
}

fn found(channel: Channel, expected: Violations) {
    let tally = channel.finish();
    assert_eq!(tally.violations, expected, "{:?}", tally.evidence);
    assert_eq!(tally.evidence.is_empty(), expected.is_none());
}

#[test]
fn a_run_without_a_fault_has_no_violations() {
    let mut channel = channel(5);
    all_seen_by(&mut channel, ALICE, 1..=5);
    assert!(!channel.is_complete());
    all_seen_by(&mut channel, BOB, 1..=5);
    assert!(channel.is_complete());
    channel.listed((1..=5).map(at));
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
fn events_may_come_before_the_reply() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.saw(BOB, at(1));
    channel.saw(ALICE, at(1));
    channel.acknowledged(1, at(1));
    found(channel, Violations::default());
}

#[test]
fn other_durable_events_take_a_seq_and_no_number() {
    let mut channel = channel(1);
    all_seen_by(&mut channel, ALICE, [1]);
    all_seen_by(&mut channel, BOB, [1]);
    for who in [ALICE, BOB] {
        channel.saw_other(who, 4, "channel.updated");
    }
    channel.sending(2, ALICE);
    channel.acknowledged(2, shown(2, 5, 2));
    for who in [ALICE, BOB] {
        channel.saw(who, shown(2, 5, 2));
    }
    found(channel, Violations::default());
}

#[test]
fn a_message_that_never_comes_is_lost() {
    let mut channel = channel(3);
    all_seen_by(&mut channel, ALICE, 1..=3);
    all_seen_by(&mut channel, BOB, 1..=2);
    assert!(!channel.is_complete());
    found(
        channel,
        Violations {
            lost: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn a_message_left_out_is_a_hole_and_lost() {
    let mut channel = channel(3);
    all_seen_by(&mut channel, ALICE, 1..=3);
    all_seen_by(&mut channel, BOB, [1, 3]);
    assert!(!channel.is_complete());
    found(
        channel,
        Violations {
            holes: 1,
            lost: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn a_message_that_comes_late_is_a_hole_and_reordered_but_not_lost() {
    let mut channel = channel(4);
    all_seen_by(&mut channel, ALICE, 1..=4);
    all_seen_by(&mut channel, BOB, [1, 3, 2, 4]);
    found(
        channel,
        Violations {
            holes: 1,
            reordered: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn an_event_that_comes_again_is_doubled() {
    let mut channel = channel(2);
    all_seen_by(&mut channel, ALICE, 1..=2);
    all_seen_by(&mut channel, BOB, [1, 1, 2]);
    found(
        channel,
        Violations {
            doubled: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn a_message_that_stands_twice_is_doubled() {
    let mut channel = channel(1);
    all_seen_by(&mut channel, ALICE, [1]);
    all_seen_by(&mut channel, BOB, [1]);
    channel.saw(BOB, shown(1, 4, 2));
    found(
        channel,
        Violations {
            doubled: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn subscribers_with_different_orders_are_found() {
    let mut channel = channel(2);
    all_seen_by(&mut channel, ALICE, 1..=2);
    channel.saw(BOB, shown(2, 3, 1));
    channel.saw(BOB, shown(1, 4, 2));
    found(
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
    all_seen_by(&mut channel, ALICE, [1]);
    channel.sending(2, BOB);
    channel.saw(BOB, shown(2, 3, 1));
    found(
        channel,
        Violations {
            reordered: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn a_number_left_out_is_a_hole_even_where_seq_has_none() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.saw(ALICE, shown(1, 3, 2));
    found(
        channel,
        Violations {
            holes: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn a_message_of_another_channel_is_foreign() {
    let mut channel = channel(0);
    channel.saw(ALICE, shown(77, 3, 1));
    channel.saw(
        ALICE,
        Shown {
            message: None,
            ..shown(0, 4, 2)
        },
    );
    channel.saw_foreign(BOB, "typing in another channel");
    found(
        channel,
        Violations {
            foreign: 3,
            ..Violations::default()
        },
    );
}

#[test]
fn a_refused_message_that_comes_all_the_same_is_foreign() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.refused(1);
    channel.saw(BOB, at(1));
    found(
        channel,
        Violations {
            foreign: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn a_refused_message_that_does_not_come_is_fine() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.refused(1);
    assert!(channel.is_complete());
    found(channel, Violations::default());
}

#[test]
fn another_text_or_sender_is_found() {
    let mut channel = channel(1);
    channel.saw(
        ALICE,
        Shown {
            intact: false,
            ..at(1)
        },
    );
    channel.saw(BOB, at(1));
    found(
        channel,
        Violations {
            altered: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn what_a_told_gap_covers_is_not_lost() {
    let mut channel = channel(4);
    all_seen_by(&mut channel, ALICE, 1..=4);
    all_seen_by(&mut channel, BOB, [1]);
    channel.told_gap(BOB, 5);
    all_seen_by(&mut channel, BOB, [4]);
    let tally = channel.finish();
    assert_eq!((tally.gaps, tally.delivered), (1, 6));
    assert!(tally.violations.is_none(), "{:?}", tally.evidence);
}

#[test]
fn one_sessions_messages_are_numbered_in_the_order_sent() {
    let swapped = |retried| {
        let mut channel = channel(0);
        channel.sending(1, ALICE);
        channel.sending(2, ALICE);
        if retried {
            channel.retrying(1);
        }
        for who in [ALICE, BOB] {
            channel.saw(who, shown(2, 3, 1));
            channel.saw(who, shown(1, 4, 2));
        }
        channel
    };
    found(
        swapped(false),
        Violations {
            reordered: 1,
            ..Violations::default()
        },
    );
    found(swapped(true), Violations::default());
}

#[test]
fn an_unanswered_message_is_unknown_and_may_stand_or_not() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.sending(2, ALICE);
    for who in [ALICE, BOB] {
        channel.saw(who, shown(2, 3, 1));
    }
    channel.listed([shown(2, 3, 1)]);
    let tally = channel.finish();
    assert_eq!(
        (tally.unknown, tally.violations),
        (2, Violations::default())
    );
}

#[test]
fn a_list_without_an_acknowledged_message_is_found() {
    let mut channel = channel(3);
    all_seen_by(&mut channel, ALICE, 1..=3);
    all_seen_by(&mut channel, BOB, 1..=3);
    channel.listed([at(1), at(3)]);
    found(
        channel,
        Violations {
            lost: 1,
            holes: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn a_list_with_a_message_twice_or_a_foreign_one_or_an_altered_one_is_found() {
    let mut channel = channel(2);
    all_seen_by(&mut channel, ALICE, 1..=2);
    all_seen_by(&mut channel, BOB, 1..=2);
    channel.listed([
        at(1),
        Shown {
            intact: false,
            ..at(2)
        },
        shown(2, 5, 3),
        shown(77, 6, 4),
    ]);
    found(
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
fn a_wide_hole_costs_no_memory_for_its_width() {
    let mut channel = channel(0);
    channel.sending(1, ALICE);
    channel.saw(ALICE, shown(1, 1 << 50, 1));
    found(
        channel,
        Violations {
            holes: 1,
            ..Violations::default()
        },
    );
}

#[test]
fn evidence_is_short_however_many_violations_there_are() {
    let mut channel = channel(100);
    all_seen_by(&mut channel, ALICE, 1..=100);
    let mut total = channel.finish();
    let mut other = super::Channel::new("hall", ["carol"]);
    other.saw_foreign(0, "a stranger");
    total.add(other.finish());
    assert_eq!((total.violations.lost, total.violations.foreign), (100, 1));
    assert_eq!(total.evidence.len(), 4);
    assert!(total.evidence[0].1.contains("bob") && total.evidence[3].1.contains("carol"));
}

/// Alice sees bob removed at seq 4 and added again at seq 6.
fn coming_and_going() -> Channel {
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
        .for_each(|(seq, event)| channel.saw_other(ALICE, seq, event));
    channel.removal(BOB, 4);
    channel.addition(BOB, 6);
    channel
}

#[test]
fn an_event_after_a_removal_is_found() {
    for (sees, after_removal) in [(&[] as &[u64], 0), (&[3], 0), (&[3, 4], 1), (&[3, 4, 5], 1)] {
        let mut channel = coming_and_going();
        sees.iter()
            .for_each(|seq| channel.saw_other(BOB, *seq, "an event"));
        channel.removed(BOB);
        channel.starts(BOB, 6, 0);
        channel.saw_other(BOB, 7, "an event");
        found(
            channel,
            Violations {
                after_removal,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn what_comes_behind_the_word_of_a_removal_must_stand_before_it_or_behind_the_return() {
    for (stray, after_removal) in [(3, 0), (4, 1), (5, 1), (6, 0), (7, 0)] {
        let mut channel = coming_and_going();
        channel.removed(BOB);
        channel.saw_other(BOB, stray, "an event");
        channel.starts(BOB, 6, 0);
        channel.saw_other(BOB, 7, "an event");
        found(
            channel,
            Violations {
                after_removal,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn the_text_of_a_deleted_message_is_found_in_a_later_session_and_in_the_list() {
    let mut channel = channel(2);
    let gone = |n| Shown {
        deleted: true,
        ..at(n)
    };
    all_seen_by(&mut channel, ALICE, 1..=2);
    for message in 1..=2 {
        channel.deleting(message);
        channel.deleted(message);
    }
    // On its way before the deletion.
    channel.saw(BOB, at(1));
    channel.connects(BOB);
    channel.goes_on(BOB, 6);
    channel.saw(BOB, at(2));
    channel.listed([Shown { seq: 5, ..gone(1) }, at(2)]);
    found(
        channel,
        Violations {
            undeleted: 2,
            ..Violations::default()
        },
    );
}

#[test]
fn a_message_shown_as_deleted_that_nobody_deleted_is_found() {
    let mut channel = channel(1);
    all_seen_by(&mut channel, ALICE, [1]);
    channel.saw(
        BOB,
        Shown {
            deleted: true,
            ..at(1)
        },
    );
    found(
        channel,
        Violations {
            altered: 1,
            ..Violations::default()
        },
    );
}

/// A store that went back from message 3 to message 1, and gave the numbers after it again to messages 4 and 5.
fn gone_back(bob_is_told: bool) -> Channel {
    let mut channel = channel(1);
    all_seen_by(&mut channel, ALICE, [1]);
    all_seen_by(&mut channel, BOB, [1]);
    for message in 2..=3 {
        channel.sending(message, ALICE);
        channel.saw(ALICE, at(message));
        channel.saw(BOB, at(message));
    }
    channel.told_diverged(ALICE, 3);
    if bob_is_told {
        channel.told_diverged(BOB, 3);
    }
    for (message, place) in [(4, at(2)), (5, at(3)), (6, at(4))] {
        channel.sending(message, BOB);
        let shown = Shown {
            message: Some(message),
            ..place
        };
        channel.acknowledged(message, shown);
        channel.saw(ALICE, shown);
        if bob_is_told || message == 6 {
            channel.saw(BOB, shown);
        }
    }
    channel.listed([at(1), shown(4, 4, 2), shown(5, 5, 3), shown(6, 6, 4)]);
    channel
}

#[test]
fn a_store_that_went_back_must_have_told_everybody() {
    found(gone_back(true), Violations::default());
    found(
        gone_back(false),
        Violations {
            reordered: 2,
            ..Violations::default()
        },
    );
}

#[test]
fn what_was_acknowledged_and_is_gone_with_a_store_that_went_back_is_lost() {
    let mut channel = channel(3);
    for who in [ALICE, BOB] {
        all_seen_by(&mut channel, who, 1..=3);
        channel.told_diverged(who, 3);
    }
    channel.listed([at(1)]);
    found(
        channel,
        Violations {
            lost: 2,
            ..Violations::default()
        },
    );
}

#[test]
fn what_is_read_after_a_trimmed_gap_is_complete() {
    for (read, expected) in [(2..=4, 0), (3..=4, 1)] {
        let mut channel = channel(4);
        all_seen_by(&mut channel, ALICE, 1..=4);
        all_seen_by(&mut channel, BOB, [1]);
        channel.told_gap(BOB, 6);
        channel.read_changes(BOB, 3, 6, read.map(at));
        found(
            channel,
            Violations {
                lost: expected,
                ..Violations::default()
            },
        );
    }
}

const TERMS: Terms = Terms {
    log_events: 4,
    may_diverge: false,
};

#[test]
fn a_gap_that_need_not_be_is_found() {
    for (seen, needless) in [(1, 1), (0, 0)] {
        let mut channel = channel(4).on(TERMS);
        all_seen_by(&mut channel, ALICE, 1..=4);
        all_seen_by(&mut channel, BOB, 1..=seen);
        channel.told_gap(BOB, 6);
        found(
            channel,
            Violations {
                needless,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn a_divergence_of_a_store_that_loses_nothing_is_found() {
    for (may_diverge, needless) in [(false, 1), (true, 0)] {
        let mut channel = channel(1).on(Terms {
            may_diverge,
            ..TERMS
        });
        all_seen_by(&mut channel, ALICE, [1]);
        all_seen_by(&mut channel, BOB, [1]);
        channel.listed([at(1)]);
        channel.told_diverged(BOB, 3);
        found(
            channel,
            Violations {
                needless,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn what_is_refused_or_never_answered_is_found_where_everything_is_to_be_taken() {
    for (terms, denied) in [(None, 0), (Some(TERMS), 2)] {
        let mut channel = channel(0);
        channel.terms = terms;
        channel.sending(1, ALICE);
        channel.sending(2, ALICE);
        channel.denied(1, "not_found");
        found(
            channel,
            Violations {
                denied,
                ..Violations::default()
            },
        );
    }
}

#[test]
fn who_is_in_again_and_was_not_told_so_is_found() {
    for told in [false, true] {
        let mut channel = channel(0).on(TERMS);
        channel.removed(BOB);
        assert!(!channel.is_complete());
        if told {
            channel.starts(BOB, 4, 0);
        }
        assert_eq!(channel.is_complete(), told);
        found(
            channel,
            Violations {
                denied: u64::from(!told),
                ..Violations::default()
            },
        );
    }
}
