//! Under any sequence of faults each message has one outcome, each event is reported once and in
//! order, and nothing is missing at the end.

use std::time::Duration;

use client::Settings;
use proptest::{collection::vec, prelude::*};
use protocol::{Cursor, operation::session::Watch};
use serde_json::json;

use crate::{
    server::{SendReply, SimulatedServer, id_of},
    simulation::Simulation,
};

const CHANNELS: usize = 3;

#[derive(Debug, Clone)]
enum SimulationStep {
    Send(usize),
    Advance(usize),
    PassTime(u64),
    Post(usize),
    Delete(usize, usize),
    Cut,
    FailConnect,
    Close(u16, bool),
    ReplyWith(SendReply),
    Trim(usize),
    SkipEvents(usize),
    Restore(usize, usize),
    Drain(u64),
    ExpireToken,
    WarnOfExpiry(u64),
    RemoveUser(usize),
    AddUser(usize),
}

fn step() -> impl Strategy<Value = SimulationStep> {
    let channel = 0..CHANNELS;
    let reply = prop::sample::select(vec![
        SendReply::UnavailableBefore,
        SendReply::UnavailableAfter,
        SendReply::RateLimited,
        SendReply::Internal,
        SendReply::Forbidden,
    ]);
    // Codes after which a client reconnects.
    let code = prop::sample::select(vec![
        1001, 1005, 4001, 4003, 4008, 4009, 4011, 4012, 4500, 4999,
    ]);
    prop_oneof![
        6 => channel.clone().prop_map(SimulationStep::Send),
        30 => any::<usize>().prop_map(SimulationStep::Advance),
        4 => (0u64..15_000).prop_map(SimulationStep::PassTime),
        5 => channel.clone().prop_map(SimulationStep::Post),
        2 => (channel.clone(), any::<usize>()).prop_map(|(channel, draw)| SimulationStep::Delete(channel, draw)),
        3 => Just(SimulationStep::Cut),
        1 => Just(SimulationStep::FailConnect),
        2 => (code, any::<bool>()).prop_map(|(code, hint)| SimulationStep::Close(code, hint)),
        4 => reply.prop_map(SimulationStep::ReplyWith),
        1 => channel.clone().prop_map(SimulationStep::Trim),
        1 => channel.clone().prop_map(SimulationStep::SkipEvents),
        1 => (channel.clone(), 1usize..4).prop_map(|(channel, lost)| SimulationStep::Restore(channel, lost)),
        1 => (0u64..2000).prop_map(SimulationStep::Drain),
        1 => Just(SimulationStep::ExpireToken),
        1 => (0u64..60_000).prop_map(SimulationStep::WarnOfExpiry),
        1 => channel.clone().prop_map(SimulationStep::RemoveUser),
        1 => channel.prop_map(SimulationStep::AddUser),
    ]
}

fn perform(simulation: &mut Simulation, step: SimulationStep) {
    match step {
        SimulationStep::Send(channel) => simulation.send(channel),
        SimulationStep::Advance(draw) => drop(simulation.advance(draw)),
        SimulationStep::PassTime(millis) => simulation.pass_time(Duration::from_millis(millis)),
        SimulationStep::Post(channel) => drop(simulation.server.post(channel, None, "hi", true)),
        SimulationStep::Delete(channel, draw) => simulation.server.delete(channel, draw),
        SimulationStep::Cut => simulation.cut(),
        SimulationStep::FailConnect => simulation.fail_connect(),
        SimulationStep::Close(code, hint) => simulation.server.close(
            code,
            if hint {
                "full retry_after_ms=700"
            } else {
                "bye"
            },
        ),
        SimulationStep::ReplyWith(reply) => simulation.server.send_replies.push_back(reply),
        SimulationStep::Trim(channel) => simulation.server.trim(channel),
        SimulationStep::SkipEvents(channel) => simulation.server.skip_events(channel),
        SimulationStep::Restore(channel, lost) => simulation.server.restore(channel, lost),
        SimulationStep::Drain(within) => simulation
            .server
            .send_passing("server.draining", json!({ "reconnect_after_ms": within })),
        SimulationStep::ExpireToken => simulation.server.oldest_token += 1,
        SimulationStep::WarnOfExpiry(left) => simulation
            .server
            .send_passing("token.expiring", json!({ "expires_at": left })),
        SimulationStep::RemoveUser(channel) => simulation.server.remove_user(channel),
        SimulationStep::AddUser(channel) => simulation.server.add_user(channel),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn every_message_has_one_outcome_and_every_event_is_reported_once_in_order(
        seed in any::<u64>(),
        watches_all in any::<bool>(),
        steps in vec(step(), 0..300),
    ) {
        let settings = match watches_all {
            true => Settings::default(),
            false => Settings {
                watch: Watch::None,
                channels: (0..CHANNELS).map(|channel| (id_of(channel), Cursor::Now)).collect(),
                ..Settings::default()
            },
        };
        let mut simulation = Simulation::new(SimulatedServer::new(CHANNELS), settings, seed);
        for step in steps {
            perform(&mut simulation, step);
        }
        // From here on tokens are valid and the server has no faults.
        simulation.server.oldest_token = 0;
        simulation.server.send_replies.clear();
        simulation.run_without_faults(Duration::from_secs(300));
        simulation.assert_nothing_missing();
        prop_assert!(simulation.recovered <= simulation.gaps.len(), "a recovery without a gap");
    }
}
