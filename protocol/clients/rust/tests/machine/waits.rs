//! When the client comes back and with what, how much it asks at once, and what it does with what must not happen.

use std::time::{Duration, Instant};

use client::{
    Anomaly, Closed, ConnectError, Failure, NoToken, Position, SendError, Settings, Update, Why,
    machine::{Action, Answer, Ask, Input, Machine, Ticket},
};
use protocol::{
    ChannelId, ErrorBody, ErrorCode, EventMessage,
    model::{EntryResult, FailedEntry, Gap},
    params::{Connect, Cursor, SendMessage, Watch},
};
use serde_json::{Value, json};

use crate::{
    server::{Server, id_of},
    story::Story,
};

/// A client whose other side the test plays by hand.
struct Hand {
    machine: Machine,
    now: Instant,
}

impl Hand {
    fn new(settings: Settings) -> Self {
        let now = Instant::now();
        Self { machine: Machine::new(settings, 2, 7, now), now }
    }

    /// Through the first token and the first connection, with these channels in the answer.
    fn connected(settings: Settings, entries: Value) -> (Self, Box<Connect>) {
        let mut hand = Self::new(settings);
        hand.ticks();
        assert_eq!(hand.acts(), [Action::AskToken]);
        hand.takes(Input::Token(Ok("t".into())));
        let params = hand.attempt().1;
        hand.answers_connect(entries);
        (hand, params)
    }

    fn answers_connect(&mut self, entries: Value) -> Vec<Update> {
        let connected = json!({ "session_id": "ses_0000000000000001", "user": { "id": "alice" }, "app_id": "app_0000000000000001",
            "environment": "test", "features": [], "heartbeat_ms": 25000, "limits": { "page": 200 }, "user_position": [1, 1],
            "channels": entries, "more": false });
        self.takes(Input::Connected(serde_json::from_value(connected).unwrap()));
        let told = self.told();
        assert!(told.iter().any(|update| matches!(update, Update::Connected(_))));
        told
    }

    fn takes(&mut self, input: Input) {
        self.machine.handle(input, self.now);
    }

    fn ticks(&mut self) {
        self.machine.tick(self.now);
    }

    fn acts(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.machine.action()).collect()
    }

    fn told(&mut self) -> Vec<Update> {
        std::iter::from_fn(|| self.machine.update()).collect()
    }

    /// The one request that was made.
    fn asks(&mut self) -> (Ticket, Ask) {
        match &mut self.acts()[..] {
            [Action::Ask(ticket, ask)] => (*ticket, ask.clone()),
            other => panic!("{other:?} is not one request"),
        }
    }

    fn attempt(&mut self) -> (usize, Box<Connect>) {
        match self.acts().pop() {
            Some(Action::Connect { address, params }) => (address, params),
            other => panic!("{other:?} is no attempt"),
        }
    }

    /// Waits until the client wants to be woken; how long it was.
    fn waits(&mut self) -> Duration {
        let due = self.machine.due(self.now).expect("it wants to be woken");
        let waited = due.saturating_duration_since(self.now);
        self.now = self.now.max(due);
        self.ticks();
        waited
    }

    fn hears(&mut self, event: Value) {
        self.takes(Input::Event(serde_json::from_value(event).unwrap()));
    }

    fn sends(&mut self, channel: &str) -> Result<protocol::MessageId, SendError> {
        let message = SendMessage { text: Some("hi".into()), ..SendMessage::default() };
        self.machine.send(channel.parse().unwrap(), message, self.now)
    }
}

fn entry(channel: &str, seq: u64) -> Value {
    json!({ "channel_id": channel, "seq": seq, "at": seq, "number": 0, "read": 0 })
}

fn posted(channel: &str, seq: u64) -> Value {
    json!({ "event": "later", "channel_id": channel, "seq": seq, "at": seq, "data": {} })
}

fn error(code: ErrorCode, retry_after_ms: Option<u64>) -> ErrorBody {
    ErrorBody { retry_after_ms, ..ErrorBody::new(code, "no") }
}

fn closed(code: u16) -> Input {
    Input::Ended(Closed { code: Some(code), reason: String::new() })
}

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
    assert!(sum > Duration::from_secs(34 * 30) / 3, "it is a random part, and no small one: {sum:?}");
}

#[test]
fn a_hint_is_waited_for_and_an_end_without_return_is_told_with_the_fate_of_all_messages() {
    let (mut hand, _) = Hand::connected(Settings::default(), json!([]));
    hand.takes(Input::Ended(Closed { code: Some(4012), reason: "full retry_after_ms=90000".into() }));
    assert!(hand.waits() >= Duration::from_secs(90));
    hand.attempt();
    hand.answers_connect(json!([]));
    let (first, second) = (hand.sends("c").unwrap(), hand.sends("c").unwrap());
    hand.takes(closed(4004));
    match &hand.told()[..] {
        [
            Update::Failed { message_id: one, why: was, .. },
            Update::Failed { message_id: other, why: was_not, .. },
            Update::Over(Why::Closed(end)),
        ] => {
            assert_eq!((one, other, end.code), (&first, &second, Some(4004)));
            assert_eq!((was, was_not), (&Failure::Over { was_sent: true }, &Failure::Over { was_sent: false }));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((hand.machine.due(hand.now), hand.sends("c")), (None, Err(SendError::Over)));
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
        assert!(hand.now - began <= Duration::from_secs(4), "{:?}", hand.now - began);
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
fn with_many_channels_the_latest_200_are_resumed_and_the_others_subscribed_to_200_at_a_time() {
    let cursor = |n: u64| Cursor::After(n, 1000 + n);
    let channels = (0..450).map(|n| (id_of(n), cursor(n as u64))).collect();
    let mut entries: Vec<Value> = (250..450).map(|n| entry(id_of(n).as_str(), n as u64)).collect();
    // The server's own choice is one that was not resumed; its events come again once it is.
    entries.push(entry(id_of(3).as_str(), 9));
    let (mut hand, params) = Hand::connected(Settings { channels, ..Settings::default() }, entries.into());
    assert_eq!(params.resume.len(), 200);
    assert!((250..450).all(|n| params.resume[&id_of(n)] == cursor(n as u64)));
    hand.hears(posted(id_of(3).as_str(), 10));
    assert!(hand.told().is_empty());
    let mut sizes = Vec::new();
    for _ in 0..2 {
        let (ticket, ask) = hand.asks();
        let Ask::ChannelSubscribe(batch) = ask else { panic!("{ask:?}") };
        sizes.push(batch.len());
        assert!(batch.get(&id_of(3)).is_none_or(|from| *from == cursor(3)));
        let entries = batch.keys().map(|id| serde_json::from_value(entry(id.as_str(), 500)).unwrap()).collect();
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
    let mut hand = Hand::new(Settings { watch: Watch::None, channels, ..Settings::default() });
    hand.ticks();
    hand.takes(Input::Token(Ok("t".into())));
    hand.attempt();
    let failed = |n, code| EntryResult::Failed(FailedEntry { channel_id: id_of(n), error: error(code, None) });
    let told = hand.answers_connect(serde_json::to_value([failed(0, ErrorCode::Unavailable), failed(1, ErrorCode::NotFound)]).unwrap());
    assert!(matches!(&told[..], [_, Update::Lost { channel_id, .. }] if *channel_id == id_of(1)));
    // An answer that leaves it out is no answer.
    for _ in 0..2 {
        hand.waits();
        let (ticket, ask) = hand.asks();
        assert_eq!(ask, Ask::ChannelSubscribe([(id_of(0), Cursor::Now)].into()));
        hand.takes(Input::Reply(ticket, Ok(Answer::ChannelSubscribe(Vec::new()))));
    }
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
    assert!(matches!(hand.told().pop(), Some(Update::Over(Why::NoToken(_)))));
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
            assert!((left / 4..=left / 2).contains(&waited), "{waited} of {left}");
            hand.takes(Input::Token(Ok(format!("{turn}"))));
            let (ticket, ask) = hand.asks();
            assert_eq!(ask, Ask::TokenRefresh(format!("{turn}")));
            // For now it cannot be taken; it is handed over again.
            hand.takes(Input::Reply(ticket, Err(error(ErrorCode::Unavailable, None))));
            hand.waits();
            let (ticket, ask) = hand.asks();
            assert_eq!(ask, Ask::TokenRefresh(format!("{turn}")));
            // A short one is warned of, too, before the answer or after it, or not at all if it ends no later.
            let next = if turn == 4 { 1 << 50 } else { expires_at + 1_000_000 };
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
    assert_eq!(hand.acts(), [], "it lives; the request is asked again after a pause");
    hand.waits();
    let (ticket, ask) = hand.asks();
    assert!(matches!(ask, Ask::MessageSend { message, .. } if message.message_id.as_ref() == Some(&id)));
    hand.told();
    // The first reply comes after all: the second is the one that counts.
    hand.takes(Input::Reply(late, Err(error(ErrorCode::Forbidden, None))));
    assert!(hand.told().is_empty());
    let message = json!({ "id": id, "channel_id": "c", "number": 1, "seq": 3, "kind": "text", "text": "hi", "attachments": [],
        "mention_ids": [], "metadata": {} });
    hand.takes(Input::Reply(ticket, Ok(Answer::MessageSend(serde_json::from_value(message).unwrap()))));
    assert!(matches!(&hand.told()[..], [Update::Acknowledged(_)]));
    // An application that does not take what it is told keeps the client from reading: silence says nothing then.
    hand.hears(posted("c", 3));
    for _ in 0..10 {
        hand.waits();
    }
    assert_eq!((hand.acts(), hand.told().len()), (vec![], 1));
    let last = hand.now;
    hand.waits();
    assert_eq!((hand.now - last, hand.asks().1), (Duration::from_secs(25), Ask::Ping));
    hand.waits();
    assert_eq!((hand.now - last, hand.acts()), (Duration::from_secs(35), vec![Action::Cut]));
    assert!(matches!(&hand.told()[..], [Update::Away { why: Why::Silent, .. }]));
}

#[test]
fn the_outbox_is_bounded_and_each_channel_has_one_message_under_way() {
    let mut hand = Hand::new(Settings { outbox: 3, ..Settings::default() });
    let ids: Vec<_> = (0..3).map(|_| hand.sends("c").unwrap()).collect();
    assert_eq!(hand.sends("c"), Err(SendError::Full));
    hand.ticks();
    hand.acts();
    hand.takes(Input::Token(Ok("t".into())));
    hand.attempt();
    hand.answers_connect(json!([]));
    let (ticket, ask) = hand.asks();
    assert!(matches!(ask, Ask::MessageSend { message, .. } if message.message_id.as_ref() == Some(&ids[0])));
    // Too fast: nothing is asked before the hint, of any channel.
    hand.takes(Input::Reply(ticket, Err(error(ErrorCode::RateLimited, Some(3000)))));
    hand.machine.follow("d".parse().unwrap(), Cursor::Now, hand.now);
    hand.now += Duration::from_millis(2999);
    hand.ticks();
    assert_eq!(hand.acts(), []);
    hand.now += Duration::from_secs(4);
    hand.ticks();
    let mut acts = hand.acts();
    assert!(matches!(acts.remove(0), Action::Ask(_, Ask::ChannelSubscribe(_))));
    let Action::Ask(ticket, ask) = acts.remove(0) else { panic!("{acts:?}") };
    assert!(matches!(ask, Ask::MessageSend { message, .. } if message.message_id.as_ref() == Some(&ids[0])));
    hand.takes(Input::Reply(ticket, Err(error(ErrorCode::TooLarge, None))));
    assert!(matches!(&hand.told()[..], [Update::Failed { why: Failure::Refused(_), message_id, .. }] if *message_id == ids[0]));
    assert!(hand.sends("d").is_ok());
    assert_eq!(hand.acts().len(), 2, "the next one of this channel, and the first of another");
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
        [Update::Anomaly(again), Update::Anomaly(Anomaly::Foreign(foreign)), Update::Anomaly(hole), Update::Event(told)] => {
            assert_eq!(*again, Anomaly::Again { at: at(5), event: event(5) });
            assert_eq!(foreign.channel_id, Some("d".parse().unwrap()));
            assert_eq!(*hole, Anomaly::Hole { at: at(5), event: event(8) });
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
    assert!(matches!(&hand.told()[..], [Update::Gap { gap: Gap::Trimmed, to, .. }] if *to == at(20)));
    hand.hears(posted("c", 21));
    assert!(matches!(&hand.told()[..], [Update::Event(_)]));
}

#[test]
fn a_channel_is_followed_and_left_at_any_time() {
    let (mut hand, _) = Hand::connected(Settings { watch: Watch::None, ..Settings::default() }, json!([]));
    let c: ChannelId = "c".parse().unwrap();
    hand.machine.follow(c.clone(), Cursor::After(3, 3), hand.now);
    let (ticket, ask) = hand.asks();
    assert_eq!(ask, Ask::ChannelSubscribe([(c.clone(), Cursor::After(3, 3))].into()));
    hand.takes(Input::Reply(ticket, Ok(Answer::ChannelSubscribe(vec![serde_json::from_value(entry("c", 4)).unwrap()]))));
    hand.hears(posted("c", 4));
    assert!(matches!(&hand.told()[..], [Update::Joined(_), Update::Event(_)]));
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
    assert_eq!((story.attempts, story.aways.len(), story.gaps.len(), story.renewals), (1, 0, 0, 0));
}
