//! Reads of the log, in turns between parties.

use super::super::shared::Shared;
use super::*;
use crate::sync::Mutex;

#[tokio::test]
async fn reads_of_one_party_do_not_hold_up_those_of_another() {
    let node = node();
    let config = HubConfig {
        max_concurrent_reads: 1,
        ..HubConfig::default()
    };
    let shared = Shared::new(node.world.clone(), config);
    let read = async |shared: &Shared, topic: &str| {
        let topic = topic.into();
        let page = shared.read(&topic, Position::default(), usize::MAX, || {});
        page.await.map(drop)
    };
    let topic = "a:held".into();
    let reading = shared.read(&topic, Position::default(), usize::MAX, || {});
    let held = reading.await.unwrap_or_else(|error| panic!("{error}"));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut reads = Vec::new();
    for topic in ["a:1", "a:2", "a:3", "bb:1"] {
        let (shared, order) = (Arc::clone(&shared), Arc::clone(&order));
        reads.push(tokio::spawn(async move {
            read(&shared, topic).await.unwrap();
            order.lock().push(topic);
        }));
        tokio::task::yield_now().await;
    }
    drop(held);
    for read in reads {
        read.await.unwrap();
    }
    assert_eq!(*order.lock(), ["a:1", "bb:1", "a:2", "a:3"]);
}
