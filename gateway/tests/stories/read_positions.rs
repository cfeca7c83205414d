//! Read positions, over both transports: forwards by `read.mark`, to anywhere by `read.unmark`, and
//! the events that sessions and other participants receive.

use futures_util::future::join_all;
use protocol::{
    ChannelId, Cursor, Encoding, ErrorCode,
    operation::session::{Connect, Watch},
};
use serde_json::{Value, json};

use crate::story::{Person, World};

/// Returns the read position of a participant, after checking that whatever shows it agrees.
async fn position(world: &World, name: &str, channel: &ChannelId) -> u64 {
    let path = format!("/v1/channels/{channel}/participants/{name}");
    let participant: Value = world.team().get(&path).await.unwrap();
    let read = participant["read"].as_u64().unwrap();
    let person = world.connects(name).await;
    let entry = person.entry(channel);
    assert_eq!(entry.read, read, "a new session");
    let resume = [(channel.clone(), Cursor::After(entry.seq, entry.at))].into();
    let resumed = world
        .connects_to(
            0,
            name,
            Encoding::Json,
            Connect {
                resume,
                ..Connect::default()
            },
        )
        .await;
    assert_eq!(resumed.entry(channel).read, read, "a session that resumes");
    let unread: Value = world
        .team()
        .get(&format!("/v1/users/{name}/unread"))
        .await
        .unwrap();
    assert_eq!(unread["unread"], entry.number - read);
    for session in [person, resumed] {
        session.session.close(1000, "").await;
    }
    read
}

/// Takes the version out of a `read.marked`.
fn take_version(event: &mut Value) -> u64 {
    let data = event["data"].as_object_mut().unwrap();
    data.remove("version").unwrap().as_u64().unwrap()
}

async fn unmark(person: &Person, channel: &ChannelId, number: u64) -> u64 {
    let answer = person
        .asks(
            "read.unmark",
            json!({ "channel_id": channel, "number": number }),
        )
        .await;
    answer["read"].as_u64().unwrap()
}

on_both_stores! {
    async fn unmarking_moves_the_read_position_to_just_before_a_message(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        assert_eq!(unmark(&bob, &general, 7).await, 0, "a channel without messages");
        for _ in 0..5 {
            alice.sends(&general, "x").await;
        }
        bob.asks("read.mark", json!({ "channel_id": general, "number": 5 })).await;
        for (number, read) in [(4, 3), (2, 1), (2, 1), (5, 4), (1, 0), (6, 5), (3, 2), (1_000_000, 5), (1, 0)] {
            assert_eq!(unmark(&bob, &general, number).await, read, "from number {number} on");
            assert_eq!(position(&world, "bob", &general).await, read);
        }
        let refused = bob.is_refused("read.unmark", json!({ "channel_id": general, "number": 0 })).await;
        assert_eq!(refused, ErrorCode::BadRequest, "messages are counted from 1");
        bob.asks("read.mark", json!({ "channel_id": general, "number": 2 })).await;
        assert_eq!(position(&world, "bob", &general).await, 2, "marking goes on from there");
        assert_eq!(position(&world, "alice", &general).await, 0, "others have their own");
    }

    async fn unmarking_is_delivered_to_the_users_sessions_and_the_participants(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let mut alice = world.connects("alice").await;
        for _ in 0..3 {
            alice.sends(&general, "x").await;
        }
        let mut bob = world.connects("bob").await;
        bob.asks("read.mark", json!({ "channel_id": general, "number": 3 })).await;
        alice.receives_raw("read.marked").await;
        bob.receives_raw("read.marked").await;
        let unsubscribed = Connect { watch: Watch::None, ..Connect::default() };
        let unsubscribed = world.connects_to(0, "bob", Encoding::Json, unsubscribed).await;
        let mut sessions = [bob, unsubscribed, alice];
        // A repeat that changes nothing publishes no event.
        for (number, data) in [
            (2, json!({ "user_id": "bob", "number": 1, "back": true })),
            (2, Value::Null),
            (3, json!({ "user_id": "bob", "number": 2 })),
            (1, json!({ "user_id": "bob", "number": 0, "back": true })),
        ] {
            unmark(&sessions[0], &general, number).await;
            for session in sessions.iter_mut().filter(|_| !data.is_null()) {
                let mut event = session.receives_raw("read.marked").await;
                assert_eq!(event["channel_id"], json!(general));
                assert!(take_version(&mut event) > 0);
                assert_eq!(event["data"], data);
            }
        }
    }

    async fn read_positions_move_over_http_by_the_same_rules(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        for _ in 0..5 {
            alice.sends(&general, "x").await;
        }
        let mut bob = world.connects("bob").await;
        let path = format!("/v1/channels/{general}/read");
        let (team, own) = (world.team(), world.backend(&world.token("bob").await));
        for (mark, number, read, event) in [
            (true, 3, 3, json!({ "user_id": "bob", "number": 3 })),
            (true, 2, 3, Value::Null),
            (false, 2, 1, json!({ "user_id": "bob", "number": 1, "back": true })),
            (true, 1_000_000, 5, json!({ "user_id": "bob", "number": 5 })),
            (false, 1, 0, json!({ "user_id": "bob", "number": 0, "back": true })),
            (false, 1, 0, Value::Null),
            (false, 1_000_000, 5, json!({ "user_id": "bob", "number": 5 })),
            (false, 3, 2, json!({ "user_id": "bob", "number": 2, "back": true })),
        ] {
// Alternates between an app key and the user's token.
            let answer: Value = match (mark, number % 2 == 0) {
                (true, true) => team.put(&path, &json!({ "number": number, "user_id": "bob" })).await.unwrap(),
                (true, false) => own.put(&path, &json!({ "number": number })).await.unwrap(),
                (false, true) => team.delete(&format!("{path}?number={number}&user_id=bob")).await.unwrap(),
                (false, false) => own.delete(&format!("{path}?number={number}")).await.unwrap(),
            };
            assert_eq!(answer, json!({ "read": read }));
            if !event.is_null() {
                let mut told = bob.receives_raw("read.marked").await;
                assert!(take_version(&mut told) > 0);
                assert_eq!(told["data"], event);
            }
            assert_eq!(position(&world, "bob", &general).await, read);
        }
    }

    async fn a_read_position_is_a_participants(world: World) {
        let group = world.channel("group", "group", &["alice", "bob"]).await;
        let open = world.channel("open", "open", &["alice"]).await;
        let alice = world.connects("alice").await;
        for channel in [&group, &open] {
            alice.sends(channel, "x").await;
        }
        world.people(&["carol"]).await;
        let watcher = json!({ "user_id": "carol", "role": "observer" });
        let carol = world.connects("carol").await;
        for method in ["read.mark", "read.unmark"] {
            let params = |channel: &str| json!({ "channel_id": channel, "number": 1 });
            assert_eq!(carol.is_refused(method, params("group")).await, ErrorCode::NotFound, "{method}");
            assert_eq!(carol.is_refused(method, params("open")).await, ErrorCode::Forbidden, "{method}");
            assert_eq!(carol.is_refused(method, params("nowhere")).await, ErrorCode::NotFound, "{method}");
        }
        let _: Value = world.team().post(&format!("/v1/channels/{group}/participants"), &watcher).await.unwrap();
        assert_eq!(unmark(&carol, &group, 1).await, 0, "an observer");
        alice.asks("channel.delete", json!({ "channel_id": open })).await;
        let _: Value = world.team().delete(&format!("/v1/channels/{group}")).await.unwrap();
        for (person, channel) in [(&alice, &open), (&carol, &group)] {
            for method in ["read.mark", "read.unmark"] {
                let params = json!({ "channel_id": channel, "number": 1 });
                assert_eq!(person.is_refused(method, params).await, ErrorCode::NotFound, "{method} in a deleted channel");
            }
        }
    }

    async fn marking_and_unmarking_at_once_leave_one_of_both_positions(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let alice = world.connects("alice").await;
        for _ in 0..5 {
            alice.sends(&general, "x").await;
        }
        let (near, far) = (world.connects("bob").await, world.connects("bob").await);
        for _ in 0..5 {
            let mark = async || near.asks("read.mark", json!({ "channel_id": general, "number": 5 })).await["read"].as_u64().unwrap();
            let (marked, unmarked) =
                futures_util::join!(join_all([mark(), mark()]), join_all([unmark(&far, &general, 3), unmark(&far, &general, 3)]));
            assert_eq!((marked, unmarked), (vec![5, 5], vec![2, 2]));
            let read = position(&world, "bob", &general).await;
            assert!([2, 5].contains(&read), "{read}");
        }
    }

    async fn of_two_events_of_a_read_position_the_one_with_the_greater_version_is_the_newer(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let mut alice = world.connects("alice").await;
        for _ in 0..5 {
            alice.sends(&general, "x").await;
        }
        let (near, far) = (world.connects("bob").await, world.connects("bob").await);
        for _ in 0..10 {
            let mark = async || near.asks("read.mark", json!({ "channel_id": general, "number": 5 })).await;
            futures_util::join!(mark(), unmark(&far, &general, 3), mark(), unmark(&far, &general, 4));
            let read = position(&world, "bob", &general).await;
// All other requests are answered before this event.
            unmark(&far, &general, 1).await;
            let mut told = Vec::new();
            loop {
                let data = alice.receives_raw("read.marked").await["data"].take();
                if data["user_id"] == "bob" {
                    told.push((data["version"].as_u64().unwrap(), data["number"].as_u64().unwrap()));
                    if data["number"] == 0 {
                        break;
                    }
                }
            }
            let last = told.pop().unwrap();
            assert_eq!(told.iter().max().map(|(_, number)| *number), Some(read), "{told:?}");
            assert!(told.iter().all(|(version, _)| *version < last.0), "{told:?} {last:?}");
        }
    }
}
