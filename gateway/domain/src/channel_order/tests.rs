#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::{pin::pin, sync::Arc};

use fanout::bus::{Local, conformance::Recorder};
use protocol::{AppId, ErrorCode, Limits, entity::Environment};
use store::{Commit, Keep, embedded::Embedded};

use super::*;
use crate::{credential::SecretKey, document::PutValue, index::line::Indexed};

const KEEP: Keep = Keep {
    events: 0,
    bytes: 0,
};

#[tokio::test]
async fn connect_waits_for_its_turn_for_less_time_than_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), KEEP, Local::new(Recorder::new())).unwrap();
    let secret = SecretKey::new([7; 32]);
    let services = Services::new(Arc::new(store), Limits::default(), secret, "node");
    let scope = Scope {
        app: AppId::from_bits(1),
        environment: Environment::Live,
    };
    let (busy, alice): (UserId, UserId) = ("busy".parse().unwrap(), "alice".parse().unwrap());
    let lines = (0..=MAX_UNCACHED_CHANNELS).fold(Commit::default(), |commit, channel| {
        commit.put_value(CHANNELS, format!("channel-{channel}"), &Indexed::Confirmed)
    });
    let committed = services.commit(&scope.user(&alice), lines).await.unwrap();
    committed.unwrap();

    let _held = services
        .orders
        .turn(&scope, &busy, LIST_PATIENCE)
        .await
        .unwrap();
    let mut list = pin!(channel_order(&services, &scope, &alice, 0));
    let connect = channels_by_activity(&services, &scope, &alice, 10);
    let refused = tokio::select! {
        _ = &mut list => panic!("the list does not wait"),
        refused = connect => refused.unwrap_err(),
    };
    assert_eq!(refused.code(), ErrorCode::RateLimited);
}
