//! Whole runs against a node: a correct node passes, and each kind of defect is found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod defective_proxy;
mod defective_store;

use std::{net::SocketAddr, sync::Arc};

use clap::Parser;
use defective_proxy::{DefectiveProxy, ProxyDefect};
use defective_store::{DefectiveStore, StoreDefect};
use gateway::{
    config::{self, Command},
    node::Node,
};
use loadtest::{
    cli::CommandLine,
    report::{self, RunReport, RunVerdict},
    scenario,
    verify::Violations,
};
use redis_testing::{Server, until};
use tempfile::TempDir;

/// A node in this process, with the folder of its keys and of its embedded store.
struct TestNode {
    node: Node,
    data: TempDir,
}

impl TestNode {
    /// Starts a correct node with the embedded store.
    async fn new() -> Self {
        Self::with(None, None).await
    }

    /// Starts a node with this Redis or the embedded store, and with this defect.
    async fn with(redis: Option<&Server>, defect: Option<StoreDefect>) -> Self {
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
            panic!("not a command that starts a node")
        };
        let node = Node::start_over(*config, |engine| match defect {
            Some(defect) => Arc::new(DefectiveStore { engine, defect }),
            None => engine,
        });
        Self {
            node: node.await.unwrap(),
            data,
        }
    }

    fn address(&self) -> SocketAddr {
        self.node.address
    }

    /// Runs `chaos-loadtest` with these arguments against this address.
    async fn run(&self, address: SocketAddr, arguments: &str) -> RunReport {
        let line = format!(
            "chaos-loadtest {arguments} --wait 2 --url ws://{address} --data {}",
            self.data.path().display()
        );
        let scenario = CommandLine::parse_from(line.split(' ')).scenario;
        scenario.check().unwrap();
        scenario::run(&scenario).await.unwrap().report
    }

    async fn stop(self) {
        self.node.drain().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_in_both_encodings_keeps_every_promise() {
    let node = TestNode::new().await;
    let report = node
        .run(
            node.address(),
            "chat --channels 3 --members 4 --rate 60 --seconds 1.5 --encoding both",
        )
        .await;
    assert_eq!(
        (report.verdict, report.violations),
        (RunVerdict::Kept, Violations::default()),
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
    assert!(report::text::format(&report).contains("every promise was kept"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fanout_of_messages_and_of_passing_events_is_compared_to_the_floor() {
    let node = TestNode::new().await;
    for kind in ["", " --passing"] {
        let arguments = format!(
            "fanout --subscribers 20 --publishers 40 --in-flight 4 --seconds 1 --pid {}{kind}",
            std::process::id()
        );
        let report = node.run(node.address(), &arguments).await;
        assert_eq!(
            (report.verdict, report.violations),
            (RunVerdict::Kept, Violations::default()),
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
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_beside_idle_users_is_measured_for_each_number_of_them() {
    let redis = Server::start().await;
    let node = TestNode::with(Some(&redis), None).await;
    let arguments = format!(
        "idle-users --idle 0,30 --idle-seconds 1 --channels 2 --members 2 --rate 20 --seconds 1 --pid {} --redis-server {}",
        std::process::id(),
        redis.url()
    );
    let report = node.run(node.address(), &arguments).await;
    assert_eq!(report.verdict, RunVerdict::Kept, "{:?}", report.evidence);
    let steps = &report.steps;
    assert_eq!(
        steps
            .iter()
            .map(|step| (step.idle_users, step.delivery.count))
            .collect::<Vec<_>>(),
        [(0, 40), (30, 40)]
    );
    assert!(
        steps
            .iter()
            .all(|step| step.idle_costs.redis.unwrap().commands > 0.0
                && step.idle_costs.node_cpu_ms_per_second.is_some())
    );
    assert!(report::text::format(&report).contains("idle users"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_duplicated_and_swapped_events_are_found() {
    let node = TestNode::new().await;
    let none = Violations::default();
    for (defect, expected) in [
        (
            ProxyDefect::Drop,
            Violations {
                lost: 1,
                holes: 1,
                ..none
            },
        ),
        (ProxyDefect::Duplicate, Violations { doubled: 1, ..none }),
        (
            ProxyDefect::Swap,
            Violations {
                reordered: 1,
                holes: 1,
                ..none
            },
        ),
    ] {
        let proxy = DefectiveProxy::start(node.address(), defect).await;
        let report = node
            .run(
                proxy.address,
                "chat --channels 2 --members 3 --rate 40 --seconds 1",
            )
            .await;
        assert_eq!(
            (report.verdict, report.violations),
            (RunVerdict::Broken, expected),
            "{defect:?}: {:?}",
            report.evidence
        );
        assert!(!report.evidence.is_empty());
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_connection_is_resumed_without_loss() {
    let node = TestNode::new().await;
    for defect in [ProxyDefect::Cut, ProxyDefect::CutReply] {
        let proxy = DefectiveProxy::start(node.address(), defect).await;
        let report = node
            .run(
                proxy.address,
                "chat --channels 2 --members 3 --rate 40 --seconds 2",
            )
            .await;
        assert_eq!(
            (report.verdict, report.violations),
            (RunVerdict::Kept, Violations::default()),
            "{defect:?}: {:?}",
            report.evidence
        );
        assert_eq!(
            (report.counts.reconnects, report.counts.acknowledged),
            (1, 80),
            "{defect:?}"
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_ignores_message_ids_is_found() {
    let node = TestNode::with(None, Some(StoreDefect::IgnoresMessageIds)).await;
    let proxy = DefectiveProxy::start(node.address(), ProxyDefect::CutReply).await;
    let report = node
        .run(
            proxy.address,
            "chat --channels 2 --members 3 --rate 40 --seconds 2",
        )
        .await;
    assert_eq!(report.verdict, RunVerdict::Broken);
    assert!(report.violations.doubled > 0, "{:?}", report.evidence);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_sends_events_to_removed_users_is_found() {
    let node = TestNode::new().await;
    for (defect, verdict) in [
        (ProxyDefect::None, RunVerdict::Kept),
        (ProxyDefect::AfterRemoval, RunVerdict::Broken),
    ] {
        let proxy = DefectiveProxy::start(node.address(), defect).await;
        let report = node
            .run(
                proxy.address,
                "verify --running --faults none --channels 1 --members 3 --rate 40 --seconds 4",
            )
            .await;
        assert_eq!(
            (report.verdict, report.violations.after_removal > 0),
            (verdict, defect != ProxyDefect::None),
            "{:?}",
            report.evidence
        );
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_replays_the_text_of_deleted_messages_is_found() {
    let node = TestNode::new().await;
    let proxy = DefectiveProxy::start(node.address(), ProxyDefect::Undelete).await;
    let report = node
        .run(
            proxy.address,
            "verify --running --faults none --channels 1 --members 3 --rate 40 --seconds 4",
        )
        .await;
    assert_eq!(report.verdict, RunVerdict::Broken);
    assert!(report.violations.undeleted > 0, "{:?}", report.evidence);
    node.stop().await;
}

/// Runs a chat on a Redis that saves once, and is killed after it has acknowledged more: those
/// writes are lost.
async fn run_on_redis_that_loses_writes(defect: Option<StoreDefect>) -> RunReport {
    let mut redis = Server::start_with(&["--appendonly", "no"]).await;
    let node = TestNode::with(Some(&redis), defect).await;
    let proxy = DefectiveProxy::start(node.address(), ProxyDefect::None).await;
    let lose_writes = async {
        until("messages are delivered", || async { proxy.created() > 60 }).await;
        redis.command(&["SAVE"]).await.unwrap();
        let saved = proxy.created();
        until("more messages are delivered", || async {
            proxy.created() > saved + 30
        })
        .await;
        redis.restart().await;
    };
    let (report, ()) = tokio::join!(
        node.run(
            proxy.address,
            "chat --channels 2 --members 3 --rate 40 --seconds 6"
        ),
        lose_writes
    );
    node.stop().await;
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_that_acknowledges_before_it_syncs_is_found() {
    let report = run_on_redis_that_loses_writes(None).await;
    assert_eq!(report.verdict, RunVerdict::Broken);
    let Violations { lost, .. } = report.violations;
    assert_eq!(
        report.violations,
        Violations {
            lost,
            ..Violations::default()
        },
        "every subscriber received `diverged`: {:?}",
        report.evidence
    );
    assert!(
        lost > 0 && report.counts.gaps_told > 0,
        "{:?}",
        report.evidence
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn node_that_accepts_positions_of_replaced_events_is_found() {
    let report = run_on_redis_that_loses_writes(Some(StoreDefect::AcceptsReplacedPositions)).await;
    assert_eq!(report.verdict, RunVerdict::Broken);
    assert!(report.violations.reordered > 0, "{:?}", report.evidence);
}

#[tokio::test]
async fn unreachable_node_is_reported() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let line = format!("chaos-loadtest chat --admin-key adm_x --url ws://{free}");
    let error = scenario::run(&CommandLine::parse_from(line.split(' ')).scenario)
        .await
        .map(drop)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no node answers at") && error.contains(&free.to_string()),
        "{error}"
    );
}
