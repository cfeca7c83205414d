//! Property tests with any order of acts, and orders that once failed.

use proptest::prelude::*;

use super::{
    pending::{MAX_RETRY_PAUSES, RETRY_PAUSE},
    *,
};

fn act() -> impl Strategy<Value = Act> {
    let n = 0..CHANNELS;
    prop_oneof![
        3 => n.clone().prop_map(Act::Post),
        3 => n.clone().prop_map(Act::Add),
        1 => n.clone().prop_map(Act::Remove),
        2 => n.clone().prop_map(Act::RemoveHalf),
        1 => n.clone().prop_map(Act::CompleteRemoval),
        1 => n.clone().prop_map(Act::LoseRemoval),
        1 => n.clone().prop_map(Act::AddWithoutNotice),
        1 => Just(Act::Compare),
        5 => Just(Act::DeliverNotice),
        5 => n.clone().prop_map(Act::Deliver),
        2 => n.clone().prop_map(Act::Subscribe),
        1 => n.prop_map(Act::Unsubscribe),
        1 => Just(Act::Read),
        4 => Just(Act::Finish),
        1 => Just(Act::Fail),
        1 => Just(Act::Postpone),
        4 => Just(Act::Work),
        1 => Just(Act::RecoverEnded),
        1 => Just(Act::Open),
        2 => (0..5_000u64).prop_map(Act::Pass),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn every_event_of_a_users_channels_is_received_once_and_in_order(
        acts in proptest::collection::vec(act(), 0..80),
    ) {
        let mut world = World::new(0);
        for act in acts {
            world.act(act);
        }
        world.finish_all();
        for n in 0..CHANNELS {
            let (channel, live) = (&world.channels[n], world.live(n));
            let listens = live.as_ref().map(|subscription| subscription.cursor.get());
            if !channel.is_participant.get() {
                prop_assert_eq!(listens, None, "channel {} is received by a user who is not in it", n);
                let is_recovery = world.machine.pending.contains_key(&id(n));
                prop_assert!(!is_recovery, "a confirmed removal is pending");
            } else if !world.has_left[n] {
                prop_assert_eq!(listens, Some(channel.head()), "channel {} is not received", n);
            }
        }
        drop_all(world.machine.close());
        prop_assert!((0..CHANNELS).all(|n| world.live(n).is_none()));
    }

    #[test]
    fn session_has_at_most_its_limit_of_subscriptions(
        acts in proptest::collection::vec(act(), 0..80),
    ) {
        let mut world = World::new(2);
        for act in acts {
            world.act(act);
            let live = (0..CHANNELS).filter(|n| world.live(*n).is_some()).count();
            prop_assert!(live <= 2);
        }
    }
}

#[test]
fn comparison_skips_unsubscribed_channel_until_the_user_is_added_again() {
    let mut world = World::new(0);
    world.finish_all();
    world.act(Act::Add(0));
    world.finish_all();
    assert!(world.live(0).is_some());
    world.act(Act::Unsubscribe(0));
    world.act(Act::Compare);
    world.finish_all();
    assert!(
        world.live(0).is_none(),
        "it is subscribed to against the client's will"
    );
    world.act(Act::Remove(0));
    world.finish_all();
    world.act(Act::AddWithoutNotice(0));
    world.finish_all();
    assert!(
        world.live(0).is_some(),
        "the new membership is not subscribed to"
    );
}

#[test]
fn session_without_additions_does_not_compare() {
    let mut machine = Subscriptions::<Subscription>::new(false, 0);
    let now = Instant::now();
    machine.opened(now);
    machine.compare(now);
    assert!(!machine.has_steps());
}

#[test]
fn failed_step_is_retried_after_a_jittered_pause_that_grows_to_a_bound() {
    let (mut machine, start) = (Subscriptions::<Subscription>::new(true, 0), Instant::now());
    machine.opened(start);
    let (channel, why) = (id(0), SubscribeReason::Added(Position { seq: 1, at: 1 }));
    machine.added(channel.clone(), why.position(), start);
    let mut now = start;
    for attempt in 0..15u32 {
        let step = SubscriptionStep::Subscribe {
            id: channel.clone(),
            why,
            is_retry: attempt > 0,
        };
        assert_eq!(machine.next(now), Next::Now(vec![step]));
        machine.retry(&channel, why, now, |pause| pause / 2);
        let pause = RETRY_PAUSE * (attempt + 1).min(MAX_RETRY_PAUSES) / 2;
        assert_eq!(machine.next(now), Next::At(now + pause));
        now += pause;
    }
}

#[test]
fn entry_that_was_read_before_a_removal_is_not_told_after_it() {
    use Act::*;
    let mut world = World::new(0);
    let before = [Add(0), Open, DeliverNotice, Subscribe(0), Read];
    let removed = [Remove(0), Add(0), DeliverNotice, Finish, DeliverNotice];
    before
        .into_iter()
        .chain(removed)
        .for_each(|act| world.act(act));
    world.act(Post(0));
    world.finish_all();
    let received = world.live(0).map(|subscription| subscription.cursor.get());
    assert_eq!(received, Some(world.channels[0].head()));
}

#[test]
fn addition_beside_an_interrupted_request_repeats_no_event() {
    use Act::*;
    let before = [Open, Add(0), Post(0), Subscribe(0), Finish, Subscribe(0)];
    for after in [[Fail, DeliverNotice], [DeliverNotice, Fail]] {
        let mut world = World::new(0);
        let acts = before.iter().chain(&after).cloned();
        acts.for_each(|act| world.act(act));
        world.finish_all();
        let received = world.live(0).map(|subscription| subscription.cursor.get());
        assert_eq!(received, Some(world.channels[0].head()));
    }
}

#[test]
fn refused_request_keeps_a_pending_addition() {
    use Act::*;
    let mut world = World::new(0);
    let (before, after) = (
        [
            Add(0),
            Open,
            DeliverNotice,
            Post(0),
            Subscribe(0),
            Remove(0),
        ],
        [Finish, Post(0), Add(0), Work, Finish, Deliver(0)],
    );
    before
        .into_iter()
        .chain(after)
        .for_each(|act| world.act(act));
    world.finish_all();
    let received = world.live(0).map(|subscription| subscription.cursor.get());
    assert_eq!(received, Some(world.channels[0].head()));
}
