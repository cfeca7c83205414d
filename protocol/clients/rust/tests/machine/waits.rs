//! When the client comes back, with which token, and when it gives a connection up.

use std::time::Duration;

use client::{
    Closed, ConnectError, Failure, NoToken, SendError, Settings, Update, Why,
    machine::{Action, Answer, Ask, Input},
};
use protocol::ErrorCode;
use serde_json::json;

use crate::{
    hand::{Hand, closed, entry, error, posted},
    server::Server,
    story::Story,
};

#[test]
fn waits_double_from_half_a_second_to_30_s_and_each_attempt_goes_to_the_next_address() {
    let mut hand = Hand::new(Settings::default());
    hand.ticks();
    hand.acts();
    hand.takes(Input::Token(Ok("t".into())));
    let mut bound = Duration::from_millis(500);
    let (mut before, mut sum) = (hand.attempt().0, Duration::ZERO);
    for _ in 0..40 {
        hand.takes(Input::Failed(ConnectError::Timeout));
        let waited = hand.waits();
        assert!(waited <= bound, "{waited:?} of {bound:?}");
        bound = (bound * 2).min(Duration::from_secs(30));
        let address = hand.attempt().0;
        assert_ne!(address, before);
        (before, sum) = (address, sum + waited);
    }
    assert!(
        sum > Duration::from_secs(34 * 30) / 3,
        "it is a random part, and no small one: {sum:?}"
    );
}

#[test]
fn a_hint_is_waited_for_and_an_end_without_return_is_told_with_the_fate_of_all_messages() {
    let (mut hand, _) = Hand::connected(Settings::default(), json!([]));
    hand.takes(Input::Ended(Closed {
        code: Some(4012),
        reason: "full retry_after_ms=90000".into(),
    }));
    assert!(hand.waits() >= Duration::from_secs(90));
    hand.attempt();
    hand.answers_connect(json!([]));
    let (first, second) = (hand.sends("c").unwrap(), hand.sends("c").unwrap());
    hand.takes(closed(4004));
    match &hand.told()[..] {
        [
            Update::Failed {
                message_id: one,
                why: was,
                ..
            },
            Update::Failed {
                message_id: other,
                why: was_not,
                ..
            },
            Update::Over(Why::Closed(end)),
        ] => {
            assert_eq!((one, other, end.code), (&first, &second, Some(4004)));
            assert_eq!(
                (was, was_not),
                (
                    &Failure::Over { was_sent: true },
                    &Failure::Over { was_sent: false }
                )
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        (hand.machine.due(hand.now), hand.sends("c")),
        (None, Err(SendError::Over))
    );
}

#[test]
fn a_node_that_drains_is_left_within_its_time_for_another_and_one_that_closes_is_left_then() {
    for is_closed in [false, true] {
        let (mut hand, _) = Hand::connected(Settings::default(), json!([]));
        hand.hears(json!({ "event": "server.draining", "data": { "reconnect_after_ms": 4000 } }));
        let began = hand.now;
        if is_closed {
            hand.takes(closed(1001));
        }
        let mut acts = Vec::new();
        while acts.is_empty() || !matches!(acts.last(), Some(Action::Connect { .. })) {
            hand.waits();
            acts.extend(hand.acts());
        }
        let left = acts.iter().filter(|act| **act == Action::Leave).count();
        assert_eq!(left, usize::from(!is_closed));
        assert!(
            hand.now - began <= Duration::from_secs(4),
            "{:?}",
            hand.now - began
        );
        assert!(hand.now > began, "spread, and not at once");
    }
}

#[test]
fn a_session_that_ends_at_once_again_and_again_is_not_come_back_to_without_pause() {
    let (mut hand, _) = Hand::connected(Settings::default(), json!([]));
    let began = hand.now;
    for _ in 0..20 {
        hand.takes(closed(1001));
        hand.waits();
        hand.attempt();
        hand.answers_connect(json!([]));
    }
    assert!(hand.now - began > Duration::from_secs(60));
    // One that lasted is come back to at once.
    hand.now += Duration::from_secs(10);
    hand.takes(closed(1001));
    assert_eq!(hand.waits(), Duration::ZERO);
}

#[test]
fn an_expired_token_is_replaced_at_once_and_a_provider_without_any_ends_it() {
    let (mut hand, _) = Hand::connected(Settings::default(), json!([]));
    hand.takes(closed(4003));
    assert_eq!(hand.waits(), Duration::ZERO);
    assert_eq!(hand.acts(), [Action::AskToken]);
    hand.takes(Input::Token(Err(NoToken::Later("away".into()))));
    hand.waits();
    assert_eq!(hand.acts(), [Action::AskToken]);
    hand.takes(Input::Token(Ok("new".into())));
    assert_eq!(hand.attempt().1.token, "new");
    hand.answers_connect(json!([]));
    hand.takes(closed(4003));
    hand.waits();
    hand.acts();
    hand.takes(Input::Token(Err(NoToken::Never("signed out".into()))));
    assert!(matches!(
        hand.told().pop(),
        Some(Update::Over(Why::NoToken(_)))
    ));
}

#[test]
fn a_token_that_ends_soon_is_replaced_before_half_of_what_is_left_and_a_short_one_not_at_once() {
    for left in [60_000, 4000] {
        let (mut hand, _) = Hand::connected(Settings::default(), json!([]));
        let mut expires_at = 1_000_000 + left;
        hand.hears(json!({ "event": "token.expiring", "data": { "expires_at": expires_at } }));
        for turn in 0u64..5 {
            let (ticket, ask) = hand.asks();
            assert_eq!(ask, Ask::Ping, "the server is asked for its clock");
            let warned = hand.now;
            hand.takes(Input::Reply(ticket, Ok(Answer::Ping(expires_at - left))));
            loop {
                hand.waits();
                match &mut hand.acts()[..] {
                    [Action::AskToken] => break,
                    // It is quiet for longer than the heartbeat.
                    [Action::Ask(ticket, Ask::Ping)] => {
                        let ticket = *ticket;
                        hand.takes(Input::Reply(ticket, Ok(Answer::Ping(0))));
                    }
                    other => panic!("{other:?}"),
                }
            }
            let waited = u64::try_from((hand.now - warned).as_millis()).unwrap();
            assert!(
                (left / 4..=left / 2).contains(&waited),
                "{waited} of {left}"
            );
            hand.takes(Input::Token(Ok(format!("{turn}"))));
            let (ticket, ask) = hand.asks();
            assert_eq!(ask, Ask::TokenRefresh(format!("{turn}")));
            // For now it cannot be taken; it is handed over again.
            hand.takes(Input::Reply(
                ticket,
                Err(error(ErrorCode::Unavailable, None)),
            ));
            hand.waits();
            let (ticket, ask) = hand.asks();
            assert_eq!(ask, Ask::TokenRefresh(format!("{turn}")));
            // A short one is warned of, too, before the answer or after it, or not at all if it ends no later.
            let next = if turn == 4 {
                1 << 50
            } else {
                expires_at + 1_000_000
            };
            let warning = json!({ "event": "token.expiring", "data": { "expires_at": next } });
            match turn {
                4 => hand.takes(Input::Reply(ticket, Ok(Answer::TokenRefresh(next)))),
                0 => {
                    hand.hears(warning);
                    hand.takes(Input::Reply(ticket, Ok(Answer::TokenRefresh(next))));
                }
                1 => {
                    hand.takes(Input::Reply(ticket, Ok(Answer::TokenRefresh(next))));
                    hand.hears(warning);
                }
                _ => {
                    hand.takes(Input::Reply(ticket, Ok(Answer::TokenRefresh(expires_at))));
                    continue;
                }
            }
            expires_at = next;
        }
        // The next session has the token that was handed over last.
        hand.takes(closed(4009));
        hand.waits();
        assert_eq!(hand.attempt().1.token, "4");
    }
}

#[test]
fn a_connection_that_is_silent_is_asked_and_cut_and_one_that_only_answers_late_is_not() {
    let (mut hand, _) = Hand::connected(Settings::default(), json!([entry("c", 1)]));
    let id = hand.sends("c").unwrap();
    let (late, _) = hand.asks();
    hand.now += Duration::from_secs(5);
    hand.hears(posted("c", 2));
    assert_eq!(hand.waits(), Duration::from_secs(5));
    assert_eq!(
        hand.acts(),
        [],
        "it lives; the request is asked again after a pause"
    );
    hand.waits();
    let (ticket, ask) = hand.asks();
    assert!(
        matches!(ask, Ask::MessageSend { message, .. } if message.message_id.as_ref() == Some(&id))
    );
    hand.told();
    // The first reply comes after all: the second is the one that counts.
    hand.takes(Input::Reply(late, Err(error(ErrorCode::Forbidden, None))));
    assert!(hand.told().is_empty());
    let message = json!({ "id": id, "channel_id": "c", "number": 1, "seq": 3, "kind": "text", "text": "hi", "attachments": [],
        "mention_ids": [], "metadata": {} });
    hand.takes(Input::Reply(
        ticket,
        Ok(Answer::MessageSend(
            serde_json::from_value(message).unwrap(),
        )),
    ));
    assert!(matches!(&hand.told()[..], [Update::Acknowledged(_)]));
    // An application that does not take what it is told keeps the client from reading: silence says nothing then.
    hand.hears(posted("c", 3));
    for _ in 0..10 {
        hand.waits();
    }
    assert_eq!((hand.acts(), hand.told().len()), (vec![], 1));
    let last = hand.now;
    hand.waits();
    assert_eq!(
        (hand.now - last, hand.asks().1),
        (Duration::from_secs(25), Ask::Ping)
    );
    hand.waits();
    assert_eq!(
        (hand.now - last, hand.acts()),
        (Duration::from_secs(35), vec![Action::Cut])
    );
    assert!(matches!(
        &hand.told()[..],
        [Update::Away {
            why: Why::Silent,
            ..
        }]
    ));
}

#[test]
fn an_ordinary_day_is_quiet() {
    let mut story = Story::new(Server::new(2), Settings::default(), 1);
    story.heals(Duration::from_secs(1));
    for round in 0..50 {
        story.sends(round % 2);
        story.server.posts(1, None, "hi", true);
        story.heals(Duration::from_secs(30));
    }
    story.is_whole();
    assert_eq!(
        (
            story.attempts,
            story.aways.len(),
            story.gaps.len(),
            story.renewals
        ),
        (1, 0, 0, 0)
    );
}
