//! A failover may lose a removal that the node has published already. A user who is in the channel
//! afterwards receives its events again.

use protocol::{Encoding, ErrorCode, entity::Gap, event::Event};
use redis_testing as testing;
use serde_json::{Value, json};

use crate::{
    nodes::{ADMIN, over_redis, secret_key},
    process::{Chaos, Shop},
    story::TIMEOUT,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participant_whose_removal_was_lost_receives_a_gap_and_further_events() {
    receives_after_the_loss_of("/v1/channels/general/participants/alice", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn participant_of_a_channel_whose_deletion_was_lost_receives_a_gap_and_further_events() {
    receives_after_the_loss_of("/v1/channels/general", false).await;
}

/// The removal reaches the channel and its subscribers, but not the user's own stream.
async fn receives_after_the_loss_of(deleted: &str, is_refused: bool) {
    let (_folder, secret) = secret_key();
    let mut forgetful = testing::Server::start_with(&["--appendonly", "no", "--save", ""]).await;
    let url = forgetful.url();
    let node = Chaos::spawn(&over_redis(&url, &secret));
    let shop = Shop::open(node.address().await, ADMIN).await;
    shop.group("general", &["alice", "bob"]).await;
    let (_alice, mut events) = shop.connects("alice", Encoding::MessagePack).await;
    let mut next = async || {
        tokio::time::timeout(TIMEOUT, events.next())
            .await
            .expect("something is told")
            .expect("the session goes on")
    };
    let post = async |text: &str| {
        let body = json!({ "sender_id": "bob", "text": text });
        let posted: Value = shop
            .team()
            .post("/v1/channels/general/messages", &body)
            .await
            .unwrap();
        posted["seq"].as_u64()
    };
    let before = post("before").await;
    assert_eq!(next().await.seq, before);
    forgetful.command(&["SAVE"]).await.unwrap();

    let all_but_users = ["ACL", "SETUSER", "default", "resetkeys", "~chaos:{[^u]*"];
    forgetful.command(&all_but_users).await.unwrap();
    let done = shop.team().delete::<Value>(deleted).await;
    if is_refused {
        let refused = done.unwrap_err().refusal().map(|error| error.code);
        assert_eq!(refused, Some(ErrorCode::Unavailable));
    }
    forgetful.kill9();
    forgetful.restart().await;

    let mut told = next().await;
    if told.event == "channel.deleted" {
        told = next().await;
    }
    let Event::ChannelGap(gap) = told.read().unwrap() else {
        panic!("{told:?} is no gap");
    };
    assert!(
        matches!(gap.reason, Gap::Trimmed | Gap::Diverged),
        "{gap:?}"
    );
    let after = post("after").await;
    assert_eq!(next().await.seq, after);
}
