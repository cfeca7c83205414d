#![allow(clippy::unwrap_used, reason = "a test may panic")]
use std::sync::Arc;

use fanout::bus::{Local, conformance::Recorder};
use protocol::{Limits, entity::Environment};
use redis_testing::Server;
use store::{Keep, Store, embedded::Embedded, redis::Redis};
use tokio::time::Instant;

use super::{run::SLICE, *};
use crate::{credential::SecretKey, schema::ENTITY, sessions, together};

const KEEP: Keep = Keep {
    events: 0,
    bytes: 0,
};

fn services_over(store: Arc<dyn Store>) -> Services {
    Services::new(store, Limits::default(), SecretKey::new([7; 32]), "node")
}

/// A request that revokes the tokens of a user, one step at a time.
struct Revocation<'a> {
    services: &'a Services,
    task: Task,
    done: usize,
}

impl Revocation<'_> {
    async fn step(&mut self) {
        let Task::Tokens { scope, user } = &self.task else {
            panic!()
        };
        match self.done {
            0 => note_job(self.services, &self.task).await.unwrap(),
            1 => sessions::revoke_tokens(self.services, scope, user)
                .await
                .unwrap(),
            _ => end_sessions_of(self.services, &self.task).await.unwrap(),
        }
        self.done += 1;
    }
}

/// How far the log of ended sessions is.
async fn ended(services: &Services) -> u64 {
    services
        .snapshot(schema::deployment(), Vec::new())
        .await
        .unwrap()
        .head
        .seq
}

/// Returns all orders of the steps of two requests: `true` for a step of the first one.
fn orders(first: usize, second: usize) -> Vec<Vec<bool>> {
    if (first, second) == (0, 0) {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (is_first, left) in [
        (true, first.checked_sub(1).zip(Some(second))),
        (false, Some(first).zip(second.checked_sub(1))),
    ] {
        let Some((first, second)) = left else {
            continue;
        };
        for mut order in orders(first, second) {
            order.push(is_first);
            all.push(order);
        }
    }
    all
}

/// Two revocations of one user's tokens, each of which may stop after any step.
async fn every_committed_revocation_ends_the_sessions_before_it(services: Services) {
    let scope = Scope {
        app: AppId::from_bits(1),
        environment: Environment::Live,
    };
    let stops = (0..=3).flat_map(|first| (0..=3).map(move |second| (first, second)));
    for (number, order) in stops
        .flat_map(|(first, second)| orders(first, second))
        .enumerate()
    {
        let user: UserId = format!("user-{number}").parse().unwrap();
        services
            .commit(
                &scope.user(&user),
                Commit::default().put_value(ENTITY, ONLY, &true),
            )
            .await
            .unwrap()
            .unwrap();
        let request = || Revocation {
            services: &services,
            task: Task::Tokens {
                scope: scope.clone(),
                user: user.clone(),
            },
            done: 0,
        };
        let (mut requests, mut last_revoked) = ([request(), request()], None);
        for is_first in &order {
            let request = &mut requests[usize::from(!is_first)];
            request.step().await;
            if request.done == 2 {
                last_revoked = Some(ended(&services).await);
            }
        }
        run::run_jobs(&services).await.unwrap();
        if let Some(before) = last_revoked {
            assert!(
                ended(&services).await > before,
                "no session is told of the last revocation: {order:?}"
            );
        }
    }
    let now = services.clock.machine_ms();
    services.clock.adjust(now + 2 * MAX_REQUEST_MS, now);
    run::run_jobs(&services).await.unwrap();
    assert_eq!(
        services
            .all_keys(&schema::deployment(), JOBS)
            .await
            .unwrap(),
        Vec::<DocumentKey>::new(),
        "no job is left for ever"
    );
}

#[tokio::test]
async fn every_committed_revocation_ends_the_sessions_before_it_on_the_embedded_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), KEEP, Local::new(Recorder::new())).unwrap();
    every_committed_revocation_ends_the_sessions_before_it(services_over(Arc::new(store))).await;
}

#[tokio::test]
async fn every_committed_revocation_ends_the_sessions_before_it_on_redis() {
    let server = Server::start().await;
    let store = Redis::open(&server.url().parse().unwrap(), KEEP);
    every_committed_revocation_ends_the_sessions_before_it(services_over(Arc::new(store))).await;
}

/// Deletes a channel, and leaves everything else to its job.
async fn delete_channel(services: &Services, app: u64, channel: usize) -> Task {
    let scope = Scope {
        app: AppId::from_bits(app),
        environment: Environment::Live,
    };
    let id: ChannelId = format!("channel-{channel}").parse().unwrap();
    let partition = scope.channel(&id);
    let task = Task::Channel { scope, id };
    note_job(services, &task).await.unwrap();
    let tombstone = Commit::default().put_value(schema::TOMBSTONE, ONLY, &true);
    services
        .commit(&partition, tombstone)
        .await
        .unwrap()
        .unwrap();
    task
}

#[tokio::test]
async fn many_deletions_of_a_tenant_do_not_delay_another_tenants() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), KEEP, Local::new(Recorder::new())).unwrap();
    let services = services_over(Arc::new(store));
    together::run((0..2_000).map(|channel| delete_channel(&services, 1, channel))).await;
    let other = delete_channel(&services, 2, 0).await;
    run::run_jobs(&services).await.unwrap();
    assert!(pending_job(&services, &other).await.unwrap().is_none());
    let left = services
        .all_keys(&schema::deployment(), JOBS)
        .await
        .unwrap();
    assert!(left.len() >= 1_000, "{} jobs are left", left.len());
    while run::run_jobs(&services).await.unwrap().unfinished > 0 {}
    let left = services
        .all_keys(&schema::deployment(), JOBS)
        .await
        .unwrap();
    assert_eq!(left, Vec::<DocumentKey>::new());
}

#[tokio::test]
async fn deletion_that_begins_while_its_namesake_is_cleared_keeps_its_job() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path(), KEEP, Local::new(Recorder::new())).unwrap();
    let services = services_over(Arc::new(store));
    let scope = Scope {
        app: AppId::from_bits(1),
        environment: Environment::Live,
    };
    let task = Task::Channel {
        scope: scope.clone(),
        id: "general".parse().unwrap(),
    };
    note_job(&services, &task).await.unwrap();
    let held = pending_job(&services, &task).await.unwrap().unwrap();
    // The channel was cleared, a request created it again, and a second deletion is about to begin.
    note_job(&services, &task).await.unwrap();
    let step = run::work_on(
        &services,
        held,
        services.clock.now_ms(),
        Instant::now() + SLICE,
    )
    .await
    .unwrap();
    assert_eq!(step, JobStep::Done);
    assert!(
        pending_job(&services, &task).await.unwrap().is_some(),
        "the second deletion has a job"
    );
}
