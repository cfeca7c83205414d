//! Whole runs against a node: what is kept is said to be kept, and each defect that is planted is found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod lying;
mod planted;

use std::{net::SocketAddr, sync::Arc};

use clap::Parser;
use fanout::redis::testing::{Server, until};
use gateway::{
    config::{self, Command},
    node::Node,
};
use loadtest::{
    cli::Cli,
    report::{self, Report, Verdict},
    scenario,
    verify::Violations,
};
use lying::{Lie, Path};
use planted::{Defect, Planted};
use tempfile::TempDir;

/// A node in this process, and the folder with its keys, and its data where that is not in Redis.
struct World {
    node: Node,
    data: TempDir,
}

impl World {
    /// With an embedded store.
    async fn new() -> Self {
        Self::with(None, None).await
    }

    /// Over this Redis, or an embedded store, with this defect.
    async fn with(redis: Option<&Server>, defect: Option<Defect>) -> Self {
        let data = tempfile::tempdir().unwrap();
        let file = |name: &str| data.path().join(name).display().to_string();
        let mut line = format!(
            "chaos --listen 127.0.0.1:0 --data {}",
            data.path().display()
        );
        if let Some(redis) = redis {
            std::fs::write(
                file("admin-key"),
                format!("adm_{:032x}", rand::random::<u128>()),
            )
            .unwrap();
            std::fs::write(file("secret-key"), "5a".repeat(32)).unwrap();
            let (url, admin, secret) = (redis.url(), file("admin-key"), file("secret-key"));
            line = format!(
                "chaos --listen 127.0.0.1:0 --redis {url} --admin-key-file {admin} --secret-key-file {secret}"
            );
        }
        let Command::Serve(config) = config::parse(line.split(' '), &|_| None).unwrap() else {
            panic!("a node is served")
        };
        let node = Node::start_over(*config, |engine| match defect {
            Some(defect) => Arc::new(Planted { engine, defect }),
            None => engine,
        });
        Self {
            node: node.await.unwrap(),
            data,
        }
    }

    /// Runs what this command line asks for, against this address.
    async fn run(&self, address: SocketAddr, arguments: &str) -> Report {
        let line = format!(
            "chaos-loadtest {arguments} --wait 2 --url ws://{address} --data {}",
            self.data.path().display()
        );
        let scenario = Cli::parse_from(line.split(' ')).scenario;
        scenario.check().unwrap();
        scenario::run(&scenario).await.unwrap().report
    }

    async fn ends(self) {
        self.node.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_in_both_encodings_keeps_every_promise() {
    let world = World::new().await;
    let report = world
        .run(
            world.node.address,
            "chat --channels 3 --members 4 --rate 60 --seconds 1.5 --encoding both",
        )
        .await;
    assert_eq!(
        (report.verdict, report.violations),
        (Verdict::Kept, Violations::default()),
        "{:?}",
        report.evidence
    );
    let counts = report.counts;
    assert_eq!(
        (
            counts.connections,
            counts.sent,
            counts.acknowledged,
            counts.listed,
            counts.unknown
        ),
        (12, 90, 90, 90, 0)
    );
    assert_eq!(
        (counts.delivered, report.latency.delivery.count),
        (360, 360)
    );
    assert!(report::text::of(&report).contains("every promise was kept"));
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_of_stored_messages_and_of_passing_events_is_measured_beside_the_floor() {
    let world = World::new().await;
    for kind in ["", " --passing"] {
        let arguments = format!(
            "fanout --subscribers 20 --publishers 4 --in-flight 4 --seconds 1 --pid {}{kind}",
            std::process::id()
        );
        let report = world.run(world.node.address, &arguments).await;
        assert_eq!(
            (report.verdict, report.violations),
            (Verdict::Kept, Violations::default()),
            "{:?}",
            report.evidence
        );
        let counts = report.counts;
        assert_eq!(
            (counts.sent, counts.delivered),
            (
                counts.acknowledged + counts.rate_limited,
                counts.acknowledged * 20
            )
        );
        assert_eq!(
            counts.listed,
            if kind.is_empty() {
                counts.acknowledged
            } else {
                0
            }
        );
        assert!(
            report.floor.unwrap().cpu_seconds_per_million > 0.0
                && report.server.unwrap().times_floor.unwrap() > 0.0
        );
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_skips_doubles_or_swaps_a_record_is_found() {
    let world = World::new().await;
    let none = Violations::default();
    for (lie, expected) in [
        (
            Lie::Drop,
            Violations {
                lost: 1,
                holes: 1,
                ..none
            },
        ),
        (Lie::Double, Violations { doubled: 1, ..none }),
        (
            Lie::Swap,
            Violations {
                reordered: 1,
                holes: 1,
                ..none
            },
        ),
    ] {
        let path = Path::to(world.node.address, lie).await;
        let report = world
            .run(
                path.address,
                "chat --channels 2 --members 3 --rate 40 --seconds 1",
            )
            .await;
        assert_eq!(
            (report.verdict, report.violations),
            (Verdict::Broken, expected),
            "{lie:?}: {:?}",
            report.evidence
        );
        assert!(!report.evidence.is_empty());
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_resumed_without_loss() {
    let world = World::new().await;
    for lie in [Lie::Cut, Lie::CutReply] {
        let path = Path::to(world.node.address, lie).await;
        let report = world
            .run(
                path.address,
                "chat --channels 2 --members 3 --rate 40 --seconds 2",
            )
            .await;
        assert_eq!(
            (report.verdict, report.violations),
            (Verdict::Kept, Violations::default()),
            "{lie:?}: {:?}",
            report.evidence
        );
        assert_eq!(
            (report.counts.reconnects, report.counts.acknowledged),
            (1, 80),
            "{lie:?}"
        );
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_forgets_the_ids_of_messages_is_found() {
    let world = World::with(None, Some(Defect::ForgetsIds)).await;
    let path = Path::to(world.node.address, Lie::CutReply).await;
    let report = world
        .run(
            path.address,
            "chat --channels 2 --members 3 --rate 40 --seconds 2",
        )
        .await;
    assert_eq!(report.verdict, Verdict::Broken);
    assert!(report.violations.doubled > 0, "{:?}", report.evidence);
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_tells_on_who_was_removed_is_found() {
    let world = World::new().await;
    for (lie, verdict) in [
        (Lie::Nothing, Verdict::Kept),
        (Lie::AfterRemoval, Verdict::Broken),
    ] {
        let path = Path::to(world.node.address, lie).await;
        let report = world
            .run(
                path.address,
                "verify --running --faults none --channels 1 --members 3 --rate 40 --seconds 4",
            )
            .await;
        assert_eq!(
            (report.verdict, report.violations.after_removal > 0),
            (verdict, lie != Lie::Nothing),
            "{:?}",
            report.evidence
        );
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_replays_the_text_of_a_deleted_message_is_found() {
    let world = World::new().await;
    let path = Path::to(world.node.address, Lie::Undelete).await;
    let report = world
        .run(
            path.address,
            "verify --running --faults none --channels 1 --members 3 --rate 40 --seconds 4",
        )
        .await;
    assert_eq!(report.verdict, Verdict::Broken);
    assert!(report.violations.undeleted > 0, "{:?}", report.evidence);
    world.ends().await;
}

/// A run over a Redis that keeps what it had when it was told to save, and forgets the rest when it is killed: what was
/// acknowledged meanwhile was not on its disk.
async fn run_over_a_forgetful_redis(defect: Option<Defect>) -> Report {
    let mut redis = Server::start_with(&["--appendonly", "no"]).await;
    let world = World::with(Some(&redis), defect).await;
    let path = Path::to(world.node.address, Lie::Nothing).await;
    let kill = async {
        until("everybody hears", || async { path.created() > 60 }).await;
        redis.command(&["SAVE"]).await.unwrap();
        let saved = path.created();
        until("more is acknowledged", || async {
            path.created() > saved + 30
        })
        .await;
        redis.restart().await;
    };
    let (report, ()) = tokio::join!(
        world.run(
            path.address,
            "chat --channels 2 --members 3 --rate 40 --seconds 6"
        ),
        kill
    );
    world.ends().await;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_acknowledges_before_it_has_synced_is_found() {
    let report = run_over_a_forgetful_redis(None).await;
    assert_eq!(report.verdict, Verdict::Broken);
    let Violations { lost, .. } = report.violations;
    assert_eq!(
        report.violations,
        Violations {
            lost,
            ..Violations::default()
        },
        "and everybody was told: {:?}",
        report.evidence
    );
    assert!(
        lost > 0 && report.counts.gaps_told > 0,
        "{:?}",
        report.evidence
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_accepts_a_reused_number_is_found() {
    let report = run_over_a_forgetful_redis(Some(Defect::AcceptsReusedNumbers)).await;
    assert_eq!(report.verdict, Verdict::Broken);
    assert!(report.violations.reordered > 0, "{:?}", report.evidence);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_said_to_be() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let line = format!("chaos-loadtest chat --admin-key adm_x --url ws://{free}");
    let error = scenario::run(&Cli::parse_from(line.split(' ')).scenario)
        .await
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("No node answers at") && error.contains(&free.to_string()),
        "{error}"
    );
}
