//! Presence events of watched users.

use protocol::{
    Encoding, UserId,
    event::Event,
    operation::{presence::PresenceWatch, session::Connect, user::UserIds},
};

use crate::story::{Person, StoreKind, World};

impl Person {
    /// Watches users, and returns those who are online.
    async fn watches(&self, users: &[&str]) -> Vec<UserId> {
        let users = users.iter().map(|user| user.parse().unwrap()).collect();
        let presence = self
            .session
            .call::<PresenceWatch>((), UserIds { user_ids: users })
            .await
            .unwrap()
            .presence;
        presence
            .into_iter()
            .filter(|(_, presence)| presence.online)
            .map(|(user, _)| user)
            .collect()
    }

    /// Receives the next event, which must report this user online or offline.
    async fn sees_online(&mut self, user: &str) {
        match self.next().await.read().unwrap() {
            Event::PresenceChanged(data) => {
                assert_eq!((data.user_id.as_str(), data.online), (user, true))
            }
            other => panic!("{other:?} is nobody's presence"),
        }
    }
}

on_both_stores! {
    async fn user_watched_twice_is_reported_once(world: World) {
        world.people(&["alice", "bob", "carol"]).await;
        let mut bob = world.connects("bob").await;
        assert!(bob.watches(&["alice", "carol", "alice"]).await.is_empty());
        assert!(bob.watches(&["carol", "alice", "carol"]).await.is_empty());
        let _alice = world.connects("alice").await;
        bob.sees_online("alice").await;
        let _carol = world.connects("carol").await;
        bob.sees_online("carol").await;
        assert_eq!(bob.watches(&["carol", "alice"]).await.len(), 2);
    }

    async fn user_who_connects_during_a_watch_is_in_the_reply_or_an_event(world: World) {
        world.people(&["bob"]).await;
        let mut bob = world.connects("bob").await;
        let mut others = Vec::new();
        for i in 0..20 {
            let name = format!("friend-{i}");
            world.people(&[&name]).await;
            let asked = [name.as_str()];
            let (online, friend) = tokio::join!(bob.watches(&asked), world.connects(&name));
            while online.is_empty() && bob.receives("presence.changed").await.data["user_id"] != name {}
            others.push(friend);
        }
    }

    async fn later_of_two_concurrent_watches_applies(world: World) {
        world.people(&["bob"]).await;
        let mut bob = world.connects("bob").await;
        let mut others = Vec::new();
        for i in 0..20 {
            let (first, second) = (format!("first-{i}"), format!("second-{i}"));
            world.people(&[&first, &second]).await;
            let (one, other) = ([first.as_str()], [second.as_str()]);
// Requested in this order on one connection.
            tokio::join!(biased; bob.watches(&one), bob.watches(&other));
            others.push(world.connects(&first).await);
            others.push(world.connects(&second).await);
            bob.sees_online(&second).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn user_who_moves_from_a_drained_node_stays_online() {
    let mut world = World::with(StoreKind::Redis, 2, &[]).await;
    world.people(&["alice", "bob"]).await;
    let mut bob = world
        .connects_to(1, "bob", Encoding::MessagePack, Connect::default())
        .await;
    assert!(bob.watches(&["alice"]).await.is_empty());
    let mut alice = world.connects("alice").await;
    bob.sees_online("alice").await;
    let token = world.token("alice").await;
    world.nodes.remove(0).drain().await;
    assert_eq!(alice.is_closed().await, 1001);
    assert_eq!(
        bob.watches(&["alice"]).await.len(),
        1,
        "the grace lasts longer than the drain"
    );
    let connector = client::Connector::new(&world.url(0), Encoding::MessagePack).unwrap();
    let _alice = connector
        .connect(&Connect {
            token,
            ..Connect::default()
        })
        .await
        .unwrap();
    bob.receives_nothing().await;
}
