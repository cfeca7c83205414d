#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::sync::Arc;

use fanout::bus::{Local, conformance::Recorder};
use protocol::{AppId, ErrorCode, Limits, entity::Environment};
use store::{Keep, embedded::Embedded};

use super::*;
use crate::credential::SecretKey;

fn services(channels_per_user: u64) -> (tempfile::TempDir, Services) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(
        folder.path(),
        Keep {
            events: 0,
            bytes: 0,
        },
        Local::new(Recorder::new()),
    )
    .unwrap();
    let limits = Limits {
        channels_per_user,
        ..Limits::default()
    };
    let services = Services::new(Arc::new(store), limits, SecretKey::new([7; 32]), "node");
    (folder, services)
}

#[tokio::test]
async fn old_lines_behind_many_others_do_not_use_up_the_channels_of_a_user() {
    let lines = LINES_PER_REPAIR + 200;
    let (_folder, services) = services(lines as u64 + 1);
    let scope = Scope {
        app: AppId::from_bits(1),
        environment: Environment::Live,
    };
    let alice: UserId = "alice".parse().unwrap();
    let mut index = Commit::default().put_value(ENTITY, ONLY, &true);
    for line in 0..lines {
        index = index.put_value(CHANNELS, format!("channel-{line:05}"), &Indexed::Confirmed);
    }
    index.increment.push(counted(lines as i64));
    services
        .commit(&scope.user(&alice), index)
        .await
        .unwrap()
        .unwrap();
    let begins = async |channel: &str| {
        index_channel(
            &services,
            &scope,
            &alice,
            &channel.parse().unwrap(),
            Additions::Own,
        )
        .await
    };
    assert!(matches!(begins("z-last").await.unwrap(), Coming::Ready(_)));
    assert_eq!(
        begins("another").await.unwrap_err().code(),
        ErrorCode::LimitReached
    );

    let now = services.clock.machine_ms();
    services.clock.adjust(now + 2 * OLD_LINE_MS, now);
    assert!(matches!(begins("another").await.unwrap(), Coming::Ready(_)));
}

#[tokio::test]
async fn old_lines_of_failed_requests_do_not_use_up_the_channels_of_a_user() {
    let (_folder, services) = services(2);
    let scope = Scope {
        app: AppId::from_bits(1),
        environment: Environment::Live,
    };
    let alice: UserId = "alice".parse().unwrap();
    services
        .commit(
            &scope.user(&alice),
            Commit::default().put_value(ENTITY, ONLY, &true),
        )
        .await
        .unwrap()
        .unwrap();
    let begins = async |channel: &str| {
        index_channel(
            &services,
            &scope,
            &alice,
            &channel.parse().unwrap(),
            Additions::Own,
        )
        .await
    };
    for channel in ["one", "two"] {
        assert!(matches!(begins(channel).await.unwrap(), Coming::Ready(_)));
    }
    assert_eq!(
        begins("three").await.unwrap_err().code(),
        ErrorCode::LimitReached
    );

    let now = services.clock.machine_ms();
    services.clock.adjust(now + 2 * OLD_LINE_MS, now);
    assert!(matches!(begins("three").await.unwrap(), Coming::Ready(_)));
    assert_eq!(
        channel_ids_of(&services, &scope, &alice).await.unwrap(),
        ["three".parse().unwrap()]
    );
}
