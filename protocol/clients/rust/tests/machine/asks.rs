//! What the client asks for, how much at once, and what it does with what must not happen.

use std::time::Duration;

use client::{
    Anomaly, Failure, Position, SendError, Settings, Update,
    machine::{Action, Answer, Ask, Input},
};
use protocol::{
    ChannelId, ErrorCode, EventMessage,
    model::{EntryResult, FailedEntry, Gap},
    params::{Cursor, Watch},
};
use serde_json::{Value, json};

use crate::{
    hand::{Hand, closed, entry, error, posted},
    server::id_of,
};

#[test]
fn with_many_channels_the_latest_200_are_resumed_and_the_others_subscribed_to_200_at_a_time() {
    let cursor = |n: u64| Cursor::After(n, 1000 + n);
    let channels = (0..450).map(|n| (id_of(n), cursor(n as u64))).collect();
    let mut entries: Vec<Value> = (250..450)
        .map(|n| entry(id_of(n).as_str(), n as u64))
        .collect();
    // The server's own choice is one that was not resumed; its events come again once it is.
    entries.push(entry(id_of(3).as_str(), 9));
    let (mut hand, params) = Hand::connected(
        Settings {
            channels,
            ..Settings::default()
        },
        entries.into(),
    );
    assert_eq!(params.resume.len(), 200);
    assert!((250..450).all(|n| params.resume[&id_of(n)] == cursor(n as u64)));
    hand.hears(posted(id_of(3).as_str(), 10));
    assert!(hand.told().is_empty());
    let mut sizes = Vec::new();
    for _ in 0..2 {
        let (ticket, ask) = hand.asks();
        let Ask::ChannelSubscribe(batch) = ask else {
            panic!("{ask:?}")
        };
        sizes.push(batch.len());
        assert!(batch.get(&id_of(3)).is_none_or(|from| *from == cursor(3)));
        let entries = batch
            .keys()
            .map(|id| serde_json::from_value(entry(id.as_str(), 500)).unwrap())
            .collect();
        hand.takes(Input::Reply(ticket, Ok(Answer::ChannelSubscribe(entries))));
    }
    assert_eq!((sizes, hand.acts()), (vec![200, 50], vec![]));
    hand.told();
    hand.hears(posted(id_of(3).as_str(), 4));
    assert!(matches!(&hand.told()[..], [Update::Event(event)] if event.seq == Some(4)));
}

#[test]
fn a_channel_that_is_refused_for_now_is_asked_for_again_and_one_refused_for_good_is_told() {
    let channels = [(id_of(0), Cursor::Now), (id_of(1), Cursor::After(5, 5))].into();
    let mut hand = Hand::new(Settings {
        watch: Watch::None,
        channels,
        ..Settings::default()
    });
    hand.ticks();
    hand.takes(Input::Token(Ok("t".into())));
    hand.attempt();
    let failed = |n, code| {
        EntryResult::Failed(FailedEntry {
            channel_id: id_of(n),
            error: error(code, None),
        })
    };
    let told = hand.answers_connect(
        serde_json::to_value([
            failed(0, ErrorCode::Unavailable),
            failed(1, ErrorCode::NotFound),
        ])
        .unwrap(),
    );
    assert!(matches!(&told[..], [_, Update::Lost { channel_id, .. }] if *channel_id == id_of(1)));
    // An answer that leaves it out is no answer.
    for _ in 0..2 {
        hand.waits();
        let (ticket, ask) = hand.asks();
        assert_eq!(ask, Ask::ChannelSubscribe([(id_of(0), Cursor::Now)].into()));
        hand.takes(Input::Reply(
            ticket,
            Ok(Answer::ChannelSubscribe(Vec::new())),
        ));
    }
}

#[test]
fn the_outbox_is_bounded_and_each_channel_has_one_message_under_way() {
    let mut hand = Hand::new(Settings {
        outbox: 3,
        ..Settings::default()
    });
    let ids: Vec<_> = (0..3).map(|_| hand.sends("c").unwrap()).collect();
    assert_eq!(hand.sends("c"), Err(SendError::Full));
    hand.ticks();
    hand.acts();
    hand.takes(Input::Token(Ok("t".into())));
    hand.attempt();
    hand.answers_connect(json!([]));
    let (ticket, ask) = hand.asks();
    assert!(
        matches!(ask, Ask::MessageSend { message, .. } if message.message_id.as_ref() == Some(&ids[0]))
    );
    // Too fast: nothing is asked before the hint, of any channel.
    hand.takes(Input::Reply(
        ticket,
        Err(error(ErrorCode::RateLimited, Some(3000))),
    ));
    hand.machine
        .follow("d".parse().unwrap(), Cursor::Now, hand.now);
    hand.now += Duration::from_millis(2999);
    hand.ticks();
    assert_eq!(hand.acts(), []);
    hand.now += Duration::from_secs(4);
    hand.ticks();
    let mut acts = hand.acts();
    assert!(matches!(
        acts.remove(0),
        Action::Ask(_, Ask::ChannelSubscribe(_))
    ));
    let Action::Ask(ticket, ask) = acts.remove(0) else {
        panic!("{acts:?}")
    };
    assert!(
        matches!(ask, Ask::MessageSend { message, .. } if message.message_id.as_ref() == Some(&ids[0]))
    );
    hand.takes(Input::Reply(ticket, Err(error(ErrorCode::TooLarge, None))));
    assert!(
        matches!(&hand.told()[..], [Update::Failed { why: Failure::Refused(_), message_id, .. }] if *message_id == ids[0])
    );
    assert!(hand.sends("d").is_ok());
    assert_eq!(
        hand.acts().len(),
        2,
        "the next one of this channel, and the first of another"
    );
}

#[test]
fn what_a_server_must_not_do_is_handed_on_and_what_is_missing_is_read() {
    let (mut hand, _) = Hand::connected(Settings::default(), json!([entry("c", 5)]));
    let at = |seq| Position { seq, at: seq };
    let event = |seq| serde_json::from_value::<EventMessage>(posted("c", seq)).unwrap();
    hand.hears(posted("c", 5));
    hand.hears(posted("d", 1));
    hand.hears(posted("c", 8));
    match &hand.told()[..] {
        [
            Update::Anomaly(again),
            Update::Anomaly(Anomaly::Foreign(foreign)),
            Update::Anomaly(hole),
            Update::Event(told),
        ] => {
            assert_eq!(
                *again,
                Anomaly::Again {
                    at: at(5),
                    event: event(5)
                }
            );
            assert_eq!(foreign.channel_id, Some("d".parse().unwrap()));
            assert_eq!(
                *hole,
                Anomaly::Hole {
                    at: at(5),
                    event: event(8)
                }
            );
            assert_eq!(*told, event(8));
        }
        other => panic!("{other:?}"),
    }
    match hand.asks() {
        (_, Ask::MessageList { which, .. }) => assert_eq!(which.changed_after, Some(5)),
        other => panic!("{other:?}"),
    }
    // A reason of a later version counts as `trimmed`.
    hand.hears(json!({ "event": "channel.gap", "channel_id": "c", "data": { "reason": "eaten", "seq": 20, "at": 20 } }));
    assert!(
        matches!(&hand.told()[..], [Update::Gap { gap: Gap::Trimmed, to, .. }] if *to == at(20))
    );
    hand.hears(posted("c", 21));
    assert!(matches!(&hand.told()[..], [Update::Event(_)]));
}

#[test]
fn who_missed_something_of_its_own_stream_comes_back_and_asks_what_changed() {
    let (mut hand, _) = Hand::connected(Settings::default(), json!([entry("c", 5)]));
    hand.hears(
        json!({ "event": "channel.gap", "data": { "reason": "diverged", "seq": 3, "at": 9 } }),
    );
    assert!(matches!(
        &hand.told()[..],
        [Update::Away {
            why: client::Why::Missed,
            ..
        }]
    ));
    assert_eq!(hand.acts(), [Action::Leave]);
    hand.waits();
    let params = hand.attempt().1;
    assert_eq!(
        params.user_position,
        Some(Cursor::After(1, 1)),
        "as it stood before"
    );
    assert_eq!(
        params.resume,
        [("c".parse().unwrap(), Cursor::After(5, 5))].into()
    );
}

#[test]
fn a_channel_is_followed_and_left_at_any_time() {
    let (mut hand, _) = Hand::connected(
        Settings {
            watch: Watch::None,
            ..Settings::default()
        },
        json!([]),
    );
    let c: ChannelId = "c".parse().unwrap();
    hand.machine
        .follow(c.clone(), Cursor::After(3, 3), hand.now);
    let (ticket, ask) = hand.asks();
    assert_eq!(
        ask,
        Ask::ChannelSubscribe([(c.clone(), Cursor::After(3, 3))].into())
    );
    hand.takes(Input::Reply(
        ticket,
        Ok(Answer::ChannelSubscribe(vec![
            serde_json::from_value(entry("c", 4)).unwrap(),
        ])),
    ));
    hand.hears(posted("c", 4));
    assert!(matches!(
        &hand.told()[..],
        [Update::Joined(_), Update::Event(_)]
    ));
    hand.machine.unfollow(&c, hand.now);
    let (ticket, ask) = hand.asks();
    assert_eq!(ask, Ask::ChannelUnsubscribe(vec![c.clone()]));
    // On its way already, and not wanted any more.
    hand.hears(posted("c", 5));
    assert!(hand.told().is_empty());
    hand.takes(Input::Reply(ticket, Ok(Answer::ChannelUnsubscribe)));
    hand.takes(closed(4009));
    hand.waits();
    assert!(hand.attempt().1.resume.is_empty());
}
