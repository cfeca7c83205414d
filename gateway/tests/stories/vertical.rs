//! One message from socket to socket, on both stores.

use crate::story::{StoreKind, World};
use protocol::{
    Encoding,
    operation::{
        message::MessageList,
        participant::{AddParticipant, ParticipantAdd},
        session::Connect,
    },
};

on_both_stores! {
    async fn a_message_reaches_everybody_in_the_channel(world: World) {
        let general = world.channel("group", "general", &["alice", "bob"]).await;
        let mut alice = world.connects("alice").await;
        let mut bob = world.connects_to(0, "bob", Encoding::Json, Connect::default()).await;
        let sent = alice.sends(&general, "hi").await;
        assert_eq!((sent.number, sent.text.as_str()), (1, "hi"));
        let seen = bob.sees("hi").await;
        assert_eq!(seen, sent);
        assert_eq!(alice.sees("hi").await, sent);
        let listed = bob.session.call::<MessageList>(&general, &Default::default()).await.unwrap();
        assert_eq!(listed.items.iter().map(|m| &m.id).collect::<Vec<_>>(), [&sent.id]);
    }

    async fn added_user_is_subscribed_at_once(world: World) {
        world.people(&["alice", "bob"]).await;
        let mut bob = world.connects("bob").await;
        let general = world.channel("group", "general", &["alice"]).await;
        let alice = world.connects("alice").await;
        alice.session.call::<ParticipantAdd>(&general, AddParticipant { user_id: "bob".parse().unwrap(), role: None }).await.unwrap();
        let added = bob.next().await;
        assert_eq!(added.event, "channel.added");
        let seq = added.data["entry"]["seq"].as_u64().unwrap();
        alice.sends(&general, "welcome").await;
        let next = bob.next().await;
        assert_eq!((next.event.as_str(), next.seq), ("message.created", Some(seq + 1)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_over_one_redis_share_all_data() {
    let world = World::with(StoreKind::Redis, 2, &[]).await;
    let general = world.channel("group", "general", &["alice", "bob"]).await;
    let alice = world
        .connects_to(0, "alice", Encoding::MessagePack, Connect::default())
        .await;
    let mut bob = world
        .connects_to(1, "bob", Encoding::MessagePack, Connect::default())
        .await;
    for count in 0..20 {
        alice.sends(&general, &format!("message {count}")).await;
    }
    for count in 0..20 {
        bob.sees(&format!("message {count}")).await;
    }
}
