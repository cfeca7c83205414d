//! Whatever happens: each message has one fate, each event is told once and in order, and in the end nothing is missing.

use std::time::Duration;

use client::Settings;
use proptest::{collection::vec, prelude::*};
use protocol::params::{Cursor, Watch};
use serde_json::json;

use crate::{
    server::{Answered, Server, id_of},
    story::Story,
};

const CHANNELS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Sends(usize),
    GoesOn(usize),
    Passes(u64),
    Posts(usize),
    Deletes(usize, usize),
    Cut,
    Unreachable,
    Closes(u16, bool),
    Answers(Answered),
    Trims(usize),
    Skips(usize),
    Restores(usize, usize),
    Drains(u64),
    Expires,
    Warns(u64),
    Removes(usize),
    Adds(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let channel = 0..CHANNELS;
    let answered = prop::sample::select(vec![
        Answered::UnavailableBefore,
        Answered::UnavailableAfter,
        Answered::RateLimited,
        Answered::Internal,
        Answered::Forbidden,
    ]);
    // Codes after which a client comes back.
    let code = prop::sample::select(vec![
        1001, 1005, 4001, 4003, 4008, 4009, 4011, 4012, 4500, 4999,
    ]);
    prop_oneof![
        6 => channel.clone().prop_map(Step::Sends),
        30 => any::<usize>().prop_map(Step::GoesOn),
        4 => (0u64..15_000).prop_map(Step::Passes),
        5 => channel.clone().prop_map(Step::Posts),
        2 => (channel.clone(), any::<usize>()).prop_map(|(channel, draw)| Step::Deletes(channel, draw)),
        3 => Just(Step::Cut),
        1 => Just(Step::Unreachable),
        2 => (code, any::<bool>()).prop_map(|(code, hint)| Step::Closes(code, hint)),
        4 => answered.prop_map(Step::Answers),
        1 => channel.clone().prop_map(Step::Trims),
        1 => channel.clone().prop_map(Step::Skips),
        1 => (channel.clone(), 1usize..4).prop_map(|(channel, lost)| Step::Restores(channel, lost)),
        1 => (0u64..2000).prop_map(Step::Drains),
        1 => Just(Step::Expires),
        1 => (0u64..60_000).prop_map(Step::Warns),
        1 => channel.clone().prop_map(Step::Removes),
        1 => channel.prop_map(Step::Adds),
    ]
}

fn takes(story: &mut Story, step: Step) {
    match step {
        Step::Sends(channel) => story.sends(channel),
        Step::GoesOn(draw) => drop(story.goes_on(draw)),
        Step::Passes(millis) => story.passes(Duration::from_millis(millis)),
        Step::Posts(channel) => drop(story.server.posts(channel, None, "hi", true)),
        Step::Deletes(channel, draw) => story.server.deletes(channel, draw),
        Step::Cut => story.cut(),
        Step::Unreachable => story.unreachable(),
        Step::Closes(code, hint) => story.server.closes(
            code,
            if hint {
                "full retry_after_ms=700"
            } else {
                "bye"
            },
        ),
        Step::Answers(answered) => story.server.answers.push_back(answered),
        Step::Trims(channel) => story.server.trims(channel),
        Step::Skips(channel) => story.server.skips(channel),
        Step::Restores(channel, lost) => story.server.restores(channel, lost),
        Step::Drains(within) => story
            .server
            .tells("server.draining", json!({ "reconnect_after_ms": within })),
        Step::Expires => story.server.oldest_token += 1,
        Step::Warns(left) => story
            .server
            .tells("token.expiring", json!({ "expires_at": left })),
        Step::Removes(channel) => story.server.removes(channel),
        Step::Adds(channel) => story.server.adds(channel),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn every_message_has_one_fate_and_every_event_is_told_once_in_order(
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
        let mut story = Story::new(Server::new(CHANNELS), settings, seed);
        for step in steps {
            takes(&mut story, step);
        }
        // Tokens that were asked for from here on are good, and the server does nothing more to anybody.
        story.server.oldest_token = 0;
        story.server.answers.clear();
        story.heals(Duration::from_secs(300));
        story.is_whole();
        prop_assert!(story.repaired <= story.gaps.len(), "nothing is read but for a gap");
    }
}
