//! When the client reconnects, with which token, and when it gives up a connection.

use std::time::Duration;

use client::{
    Closed, ConnectError, DisconnectCause, SendError, SendFailure, Settings, TokenUnavailable,
    Update,
    machine::{ClientReply, ClientRequest, MachineAction, MachineInput},
};
use protocol::ErrorCode;
use serde_json::json;

use crate::{
    scripted::{ScriptedClient, closed, entry, error, event_at},
    server::SimulatedServer,
    simulation::Simulation,
};

#[test]
fn backoff_doubles_from_500_ms_to_30_s_and_each_attempt_uses_the_next_address() {
    let mut client = ScriptedClient::new(Settings::default());
    client.tick();
    client.actions();
    client.input(MachineInput::Token(Ok("t".into())));
    let mut bound = Duration::from_millis(500);
    let (mut before, mut sum) = (client.connect_attempt().0, Duration::ZERO);
    for _ in 0..40 {
        client.input(MachineInput::Failed(ConnectError::Timeout));
        let waited = client.wait_until_due();
        assert!(waited <= bound, "{waited:?} of {bound:?}");
        bound = (bound * 2).min(Duration::from_secs(30));
        let address = client.connect_attempt().0;
        assert_ne!(address, before);
        (before, sum) = (address, sum + waited);
    }
    assert!(
        sum > Duration::from_secs(34 * 30) / 3,
        "the delays are too short: {sum:?}"
    );
}

#[test]
fn hint_delays_the_reconnect_and_a_final_close_fails_all_messages() {
    let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([]));
    client.input(MachineInput::Ended(Closed {
        code: Some(4012),
        reason: "full retry_after_ms=90000".into(),
    }));
    assert!(client.wait_until_due() >= Duration::from_secs(90));
    client.connect_attempt();
    client.reply_to_connect(json!([]));
    let (first, second) = (client.send("c").unwrap(), client.send("c").unwrap());
    client.input(closed(4004));
    match &client.updates()[..] {
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
            Update::Ended(DisconnectCause::Closed(end)),
        ] => {
            assert_eq!((one, other, end.code), (&first, &second, Some(4004)));
            assert_eq!(
                (was, was_not),
                (
                    &SendFailure::Ended { was_sent: true },
                    &SendFailure::Ended { was_sent: false }
                )
            );
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(
        (client.machine.due(client.now), client.send("c")),
        (None, Err(SendError::Ended))
    );
}

#[test]
fn draining_node_is_left_within_its_window_unless_it_closes_first() {
    for is_closed in [false, true] {
        let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([]));
        client.event(json!({ "event": "server.draining", "data": { "reconnect_after_ms": 4000 } }));
        let began = client.now;
        if is_closed {
            client.input(closed(1001));
        }
        let mut actions = Vec::new();
        while actions.is_empty() || !matches!(actions.last(), Some(MachineAction::Connect { .. })) {
            client.wait_until_due();
            actions.extend(client.actions());
        }
        let left = actions
            .iter()
            .filter(|action| **action == MachineAction::Leave)
            .count();
        assert_eq!(left, usize::from(!is_closed));
        assert!(
            client.now - began <= Duration::from_secs(4),
            "{:?}",
            client.now - began
        );
        assert!(client.now > began, "the client must not leave immediately");
    }
}

#[test]
fn sessions_that_end_immediately_are_followed_by_a_backoff() {
    let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([]));
    let began = client.now;
    for _ in 0..20 {
        client.input(closed(1001));
        client.wait_until_due();
        client.connect_attempt();
        client.reply_to_connect(json!([]));
    }
    assert!(client.now - began > Duration::from_secs(60));
    // After a stable session the client reconnects immediately.
    client.now += Duration::from_secs(10);
    client.input(closed(1001));
    assert_eq!(client.wait_until_due(), Duration::ZERO);
}

#[test]
fn expired_token_is_replaced_immediately_and_a_permanent_failure_ends_the_client() {
    let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([]));
    client.input(closed(4003));
    assert_eq!(client.wait_until_due(), Duration::ZERO);
    assert_eq!(client.actions(), [MachineAction::AskToken]);
    client.input(MachineInput::Token(Err(TokenUnavailable::Later(
        "away".into(),
    ))));
    client.wait_until_due();
    assert_eq!(client.actions(), [MachineAction::AskToken]);
    client.input(MachineInput::Token(Ok("new".into())));
    assert_eq!(client.connect_attempt().1.token, "new");
    client.reply_to_connect(json!([]));
    client.input(closed(4003));
    client.wait_until_due();
    client.actions();
    client.input(MachineInput::Token(Err(TokenUnavailable::Never(
        "signed out".into(),
    ))));
    assert!(matches!(
        client.updates().pop(),
        Some(Update::Ended(DisconnectCause::TokenUnavailable(_)))
    ));
}

#[test]
fn expiring_token_is_replaced_after_a_quarter_to_half_of_the_time_left() {
    for left in [60_000, 4000] {
        let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([]));
        let mut expires_at = 1_000_000 + left;
        client.event(json!({ "event": "token.expiring", "data": { "expires_at": expires_at } }));
        for turn in 0u64..5 {
            let (request_id, request) = client.request();
            assert_eq!(
                request,
                ClientRequest::Ping,
                "the client requests the server's clock"
            );
            let warned = client.now;
            client.input(MachineInput::Reply(
                request_id,
                Ok(ClientReply::Ping(expires_at - left)),
            ));
            loop {
                client.wait_until_due();
                match &mut client.actions()[..] {
                    [MachineAction::AskToken] => break,
                    // No frame arrived for a heartbeat.
                    [MachineAction::Request(request_id, ClientRequest::Ping)] => {
                        let request_id = *request_id;
                        client.input(MachineInput::Reply(request_id, Ok(ClientReply::Ping(0))));
                    }
                    other => panic!("{other:?}"),
                }
            }
            let waited = u64::try_from((client.now - warned).as_millis()).unwrap();
            assert!(
                (left / 4..=left / 2).contains(&waited),
                "{waited} of {left}"
            );
            client.input(MachineInput::Token(Ok(format!("{turn}"))));
            let (request_id, request) = client.request();
            assert_eq!(request, ClientRequest::TokenRefresh(format!("{turn}")));
            // A temporary error: the token is sent again.
            client.input(MachineInput::Reply(
                request_id,
                Err(error(ErrorCode::Unavailable, None)),
            ));
            client.wait_until_due();
            let (request_id, request) = client.request();
            assert_eq!(request, ClientRequest::TokenRefresh(format!("{turn}")));
            // The server warns of a short token as well: before the reply, after it, or not at all
            // if it expires no later.
            let next = if turn == 4 {
                1 << 50
            } else {
                expires_at + 1_000_000
            };
            let warning = json!({ "event": "token.expiring", "data": { "expires_at": next } });
            match turn {
                4 => client.input(MachineInput::Reply(
                    request_id,
                    Ok(ClientReply::TokenRefresh(next)),
                )),
                0 => {
                    client.event(warning);
                    client.input(MachineInput::Reply(
                        request_id,
                        Ok(ClientReply::TokenRefresh(next)),
                    ));
                }
                1 => {
                    client.input(MachineInput::Reply(
                        request_id,
                        Ok(ClientReply::TokenRefresh(next)),
                    ));
                    client.event(warning);
                }
                _ => {
                    client.input(MachineInput::Reply(
                        request_id,
                        Ok(ClientReply::TokenRefresh(expires_at)),
                    ));
                    continue;
                }
            }
            expires_at = next;
        }
        // The next session uses the last token.
        client.input(closed(4009));
        client.wait_until_due();
        assert_eq!(client.connect_attempt().1.token, "4");
    }
}

#[test]
fn silent_connection_is_pinged_and_dropped_and_a_late_reply_is_only_retried() {
    let (mut client, _) = ScriptedClient::connected(Settings::default(), json!([entry("c", 1)]));
    let id = client.send("c").unwrap();
    let (late, _) = client.request();
    client.now += Duration::from_secs(5);
    client.event(event_at("c", 2));
    assert_eq!(client.wait_until_due(), Duration::from_secs(5));
    assert_eq!(
        client.actions(),
        [],
        "the session continues, and the request is retried after a backoff"
    );
    client.wait_until_due();
    let (request_id, request) = client.request();
    assert!(
        matches!(request, ClientRequest::MessageSend { message, .. } if message.message_id.as_ref() == Some(&id))
    );
    client.updates();
    // A reply to the first request arrives late, and is ignored.
    client.input(MachineInput::Reply(
        late,
        Err(error(ErrorCode::Forbidden, None)),
    ));
    assert!(client.updates().is_empty());
    let message = json!({ "id": id, "channel_id": "c", "number": 1, "seq": 3, "kind": "text", "text": "hi", "attachments": [],
        "mention_ids": [], "metadata": {} });
    client.input(MachineInput::Reply(
        request_id,
        Ok(ClientReply::MessageSend(
            serde_json::from_value(message).unwrap(),
        )),
    ));
    assert!(matches!(&client.updates()[..], [Update::Acknowledged(_)]));
    // While the application does not read its updates the client does not read its socket, and
    // silence means nothing.
    client.event(event_at("c", 3));
    for _ in 0..10 {
        client.wait_until_due();
    }
    assert_eq!((client.actions(), client.updates().len()), (vec![], 1));
    let last = client.now;
    client.wait_until_due();
    assert_eq!(
        (client.now - last, client.request().1),
        (Duration::from_secs(25), ClientRequest::Ping)
    );
    client.wait_until_due();
    assert_eq!(
        (client.now - last, client.actions()),
        (Duration::from_secs(35), vec![MachineAction::Cut])
    );
    assert!(matches!(
        &client.updates()[..],
        [Update::Away {
            why: DisconnectCause::Silent,
            ..
        }]
    ));
}

#[test]
fn session_without_faults_has_no_reconnect_gap_or_renewal() {
    let mut simulation = Simulation::new(SimulatedServer::new(2), Settings::default(), 1);
    simulation.run_without_faults(Duration::from_secs(1));
    for round in 0..50 {
        simulation.send(round % 2);
        simulation.server.post(1, None, "hi", true);
        simulation.run_without_faults(Duration::from_secs(30));
    }
    simulation.assert_nothing_missing();
    assert_eq!(
        (
            simulation.attempts,
            simulation.disconnects.len(),
            simulation.gaps.len(),
            simulation.renewals
        ),
        (1, 0, 0, 0)
    );
}
