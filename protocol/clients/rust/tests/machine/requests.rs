//! The requests that the client makes, their limits, and what it does when the server breaks a
//! promise.

use std::time::Duration;

use client::{
    Anomaly, Position, SendError, SendFailure, Settings, Update,
    machine::{ClientReply, ClientRequest, MachineAction, MachineInput},
};
use protocol::{
    ChannelId, Cursor, ErrorCode, EventMessage,
    entity::{EntryResult, FailedEntry, Gap},
    operation::{channel::EntryList, session::Watch},
};
use serde_json::{Value, json};

use crate::{
    scripted::{ScriptedClient, closed, entry, error, event_at, positions},
    server::id_of,
};

#[test]
fn latest_200_channels_are_resumed_and_the_others_subscribed_to_in_batches() {
    let cursor = |n: u64| Cursor::After(n, 1000 + n);
    let channels = (0..450).map(|n| (id_of(n), cursor(n as u64))).collect();
    let mut entries: Vec<Value> = (250..450)
        .map(|n| entry(id_of(n).as_str(), n as u64))
        .collect();
    // The server selects a channel that was not resumed. Its events are replayed after its
    // subscription.
    entries.push(entry(id_of(3).as_str(), 9));
    let (mut client, params) = ScriptedClient::connected(
        Settings {
            channels,
            ..Settings::default()
        },
        entries.into(),
    );
    assert_eq!(params.resume.len(), 200);
    assert!((250..450).all(|n| params.resume[&id_of(n)] == cursor(n as u64)));
    client.event(event_at(id_of(3).as_str(), 10));
    assert!(client.updates().is_empty());
    let mut sizes = Vec::new();
    for _ in 0..2 {
        let (request_id, request) = client.request();
        let ClientRequest::ChannelSubscribe(batch) = request else {
            panic!("{request:?}")
        };
        sizes.push(batch.len());
        assert!(batch.get(&id_of(3)).is_none_or(|from| *from == cursor(3)));
        let entries = batch
            .keys()
            .map(|id| serde_json::from_value(entry(id.as_str(), 500)).unwrap())
            .collect();
        client.input(MachineInput::Reply(
            request_id,
            Ok(ClientReply::ChannelSubscribe(entries)),
        ));
    }
    assert_eq!((sizes, client.actions()), (vec![200, 50], vec![]));
    client.updates();
    client.event(event_at(id_of(3).as_str(), 4));
    assert!(matches!(&client.updates()[..], [Update::Event(event)] if event.seq == Some(4)));
}

#[test]
fn entries_with_positions_alone_are_read_from_the_list_until_all_are_known() {
    let settings = Settings {
        channels: [(id_of(0), Cursor::After(1, 1))].into(),
        ..Settings::default()
    };
    let page = |ids: &[usize], cursor: Option<&str>| {
        let items = ids
            .iter()
            .map(|n| serde_json::from_value(entry(id_of(*n).as_str(), 5)).unwrap())
            .collect();
        Ok(ClientReply::ChannelList(EntryList {
            items,
            cursor: cursor.map(str::to_owned),
        }))
    };
    let short = |n| positions(id_of(n).as_str(), 5);
    let reply = json!([short(0), entry(id_of(1).as_str(), 5), short(2), short(3)]);
    let (mut client, _) = ScriptedClient::connected(settings, reply);
    client.event(event_at(id_of(2).as_str(), 6));
    assert!(
        matches!(&client.updates()[..], [Update::Event(_)]),
        "it is subscribed to"
    );
    let (request_id, request) = client.request();
    assert!(
        matches!(request, ClientRequest::ChannelList(ref page) if page.cursor.is_none()),
        "{request:?}"
    );
    client.input(MachineInput::Reply(request_id, page(&[1, 2], Some("next"))));
    assert!(matches!(&client.updates()[..], [Update::Channels(items)] if items.len() == 2));
    let (request_id, request) = client.request();
    assert!(
        matches!(request, ClientRequest::ChannelList(ref page) if page.cursor.as_deref() == Some("next")),
        "{request:?}"
    );
    client.input(MachineInput::Reply(request_id, page(&[3], Some("later"))));
    assert!(
        matches!(&client.updates()[..], [Update::Channels(_)]),
        "no gap was told, so none is recovered from"
    );
    assert_eq!(
        client.actions(),
        [],
        "channel 0 was resumed, so the application knows it"
    );
}

#[test]
fn temporarily_refused_channel_is_retried_and_permanently_refused_one_is_reported() {
    let channels = [(id_of(0), Cursor::Now), (id_of(1), Cursor::After(5, 5))].into();
    let mut client = ScriptedClient::new(Settings {
        watch: Watch::None,
        channels,
        ..Settings::default()
    });
    client.tick();
    client.input(MachineInput::Token(Ok("t".into())));
    client.connect_attempt();
    let failed = |n, code| {
        EntryResult::Failed(FailedEntry {
            channel_id: id_of(n),
            error: error(code, None),
        })
    };
    let updates = client.reply_to_connect(
        serde_json::to_value([
            failed(0, ErrorCode::Unavailable),
            failed(1, ErrorCode::NotFound),
        ])
        .unwrap(),
    );
    assert!(
        matches!(&updates[..], [_, Update::Lost { channel_id, .. }] if *channel_id == id_of(1))
    );
    // A reply without the channel counts as no reply.
    for _ in 0..2 {
        client.wait_until_due();
        let (request_id, request) = client.request();
        assert_eq!(
            request,
            ClientRequest::ChannelSubscribe([(id_of(0), Cursor::Now)].into())
        );
        client.input(MachineInput::Reply(
            request_id,
            Ok(ClientReply::ChannelSubscribe(Vec::new())),
        ));
    }
}

#[test]
fn outbox_is_bounded_and_each_channel_has_one_message_in_flight() {
    let mut client = ScriptedClient::new(Settings {
        outbox: 3,
        ..Settings::default()
    });
    let ids: Vec<_> = (0..3).map(|_| client.send("c").unwrap()).collect();
    assert_eq!(client.send("c"), Err(SendError::Full));
    client.tick();
    client.actions();
    client.input(MachineInput::Token(Ok("t".into())));
    client.connect_attempt();
    client.reply_to_connect(json!([]));
    let (request_id, request) = client.request();
    assert!(
        matches!(request, ClientRequest::MessageSend { message, .. } if message.message_id.as_ref() == Some(&ids[0]))
    );
    // After `rate_limited` no request is made before the hint, for any channel.
    client.input(MachineInput::Reply(
        request_id,
        Err(error(ErrorCode::RateLimited, Some(3000))),
    ));
    client
        .machine
        .follow("d".parse().unwrap(), Cursor::Now, client.now);
    client.now += Duration::from_millis(2999);
    client.tick();
    assert_eq!(client.actions(), []);
    client.now += Duration::from_secs(4);
    client.tick();
    let mut actions = client.actions();
    assert!(matches!(
        actions.remove(0),
        MachineAction::Request(_, ClientRequest::ChannelSubscribe(_))
    ));
    let MachineAction::Request(request_id, request) = actions.remove(0) else {
        panic!("{actions:?}")
    };
    assert!(
        matches!(request, ClientRequest::MessageSend { message, .. } if message.message_id.as_ref() == Some(&ids[0]))
    );
    client.input(MachineInput::Reply(
        request_id,
        Err(error(ErrorCode::TooLarge, None)),
    ));
    assert!(
        matches!(&client.updates()[..], [Update::Failed { why: SendFailure::Refused(_), message_id, .. }] if *message_id == ids[0])
    );
    assert!(client.send("d").is_ok());
    assert_eq!(
        client.actions().len(),
        2,
        "the next message of this channel, and the first one of another"
    );
}

#[test]
fn anomalies_are_reported_and_missing_events_are_recovered() {
    let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([entry("c", 5)]));
    let at = |seq| Position { seq, at: seq };
    let event = |seq| serde_json::from_value::<EventMessage>(event_at("c", seq)).unwrap();
    client.event(event_at("c", 5));
    client.event(event_at("d", 1));
    client.event(event_at("c", 8));
    match &client.updates()[..] {
        [
            Update::Anomaly(repeated),
            Update::Anomaly(Anomaly::Foreign(foreign)),
            Update::Anomaly(hole),
            Update::Event(event_update),
        ] => {
            assert_eq!(
                *repeated,
                Anomaly::Repeated {
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
            assert_eq!(*event_update, event(8));
        }
        other => panic!("{other:?}"),
    }
    match client.request() {
        (_, ClientRequest::MessageList { which, .. }) => assert_eq!(which.changed_after, Some(5)),
        other => panic!("{other:?}"),
    }
    // A reason of a later version is handled like `trimmed`.
    client.event(json!({ "event": "channel.gap", "channel_id": "c", "data": { "reason": "eaten", "seq": 20, "at": 20 } }));
    assert!(
        matches!(&client.updates()[..], [Update::Gap { gap: Gap::Trimmed, to, .. }] if *to == at(20))
    );
    client.event(event_at("c", 21));
    assert!(matches!(&client.updates()[..], [Update::Event(_)]));
}

#[test]
fn client_reconnects_with_its_position_after_a_gap_in_the_users_own_stream() {
    let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([entry("c", 5)]));
    client.event(
        json!({ "event": "channel.gap", "data": { "reason": "diverged", "seq": 3, "at": 9 } }),
    );
    assert!(matches!(
        &client.updates()[..],
        [Update::Away {
            why: client::DisconnectCause::UserStreamGap,
            ..
        }]
    ));
    assert_eq!(client.actions(), [MachineAction::Leave]);
    client.wait_until_due();
    let params = client.connect_attempt().1;
    assert_eq!(
        params.user_position,
        Some(Cursor::After(1, 1)),
        "the position before the gap"
    );
    assert_eq!(
        params.resume,
        [("c".parse().unwrap(), Cursor::After(5, 5))].into()
    );
}

#[test]
fn channel_is_followed_and_unfollowed_at_any_time() {
    let (mut client, _) = ScriptedClient::connected(
        Settings {
            watch: Watch::None,
            ..Settings::default()
        },
        json!([]),
    );
    let c: ChannelId = "c".parse().unwrap();
    client
        .machine
        .follow(c.clone(), Cursor::After(3, 3), client.now);
    let (request_id, request) = client.request();
    assert_eq!(
        request,
        ClientRequest::ChannelSubscribe([(c.clone(), Cursor::After(3, 3))].into())
    );
    client.input(MachineInput::Reply(
        request_id,
        Ok(ClientReply::ChannelSubscribe(vec![
            serde_json::from_value(entry("c", 4)).unwrap(),
        ])),
    ));
    client.event(event_at("c", 4));
    assert!(matches!(
        &client.updates()[..],
        [Update::Joined(_), Update::Event(_)]
    ));
    client.machine.unfollow(&c, client.now);
    let (request_id, request) = client.request();
    assert_eq!(request, ClientRequest::ChannelUnsubscribe(vec![c.clone()]));
    // The event was on its way when the channel was unfollowed.
    client.event(event_at("c", 5));
    assert!(client.updates().is_empty());
    client.input(MachineInput::Reply(
        request_id,
        Ok(ClientReply::ChannelUnsubscribe),
    ));
    client.input(closed(4009));
    client.wait_until_due();
    assert!(client.connect_attempt().1.resume.is_empty());
}
