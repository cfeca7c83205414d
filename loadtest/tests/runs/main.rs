//! Whole runs against a node: what is kept is said to be kept, and what a faulty path does to the frames is found.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod faulty;

use std::net::SocketAddr;

use clap::Parser;
use faulty::Fault;
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
use tempfile::TempDir;

/// A node with an embedded store of its own.
struct World {
    node: Node,
    data: TempDir,
}

impl World {
    async fn new() -> Self {
        let data = tempfile::tempdir().unwrap();
        let folder = data.path().to_str().unwrap();
        let Command::Serve(config) = config::parse(["chaos", "--listen", "127.0.0.1:0", "--data", folder], &|_| None).unwrap() else {
            panic!("a node is served");
        };
        Self { node: Node::start(*config).await.unwrap(), data }
    }

    /// Runs what this command line asks for, against this address.
    async fn run(&self, address: SocketAddr, arguments: &str) -> Report {
        let line = format!("chaos-loadtest {arguments} --wait 2 --url ws://{address} --data {}", self.data.path().display());
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
    let report = world.run(world.node.address, "chat --channels 3 --members 4 --rate 60 --seconds 1.5 --encoding both").await;
    assert_eq!((report.verdict, report.violations), (Verdict::Kept, Violations::default()), "{:?}", report.evidence);
    let counts = report.counts;
    assert_eq!((counts.connections, counts.sent, counts.acknowledged, counts.listed, counts.unknown), (12, 90, 90, 90, 0));
    assert_eq!((counts.delivered, report.latency.delivery.count), (360, 360));
    assert!(report::text::of(&report).contains("every promise was kept"));
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fan_out_of_stored_messages_and_of_passing_events_is_measured_beside_the_floor() {
    let world = World::new().await;
    for kind in ["", " --passing"] {
        let arguments = format!("fanout --subscribers 20 --publishers 4 --in-flight 4 --seconds 1 --pid {}{kind}", std::process::id());
        let report = world.run(world.node.address, &arguments).await;
        assert_eq!((report.verdict, report.violations), (Verdict::Kept, Violations::default()), "{:?}", report.evidence);
        let counts = report.counts;
        assert_eq!((counts.sent, counts.delivered), (counts.acknowledged + counts.rate_limited, counts.acknowledged * 20));
        assert_eq!(counts.listed, if kind.is_empty() { counts.acknowledged } else { 0 });
        assert!(report.floor.unwrap().cpu_seconds_per_million > 0.0 && report.server.unwrap().times_floor.unwrap() > 0.0);
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_faulty_path_drops_doubles_or_swaps_is_found() {
    let world = World::new().await;
    let none = Violations::default();
    for (fault, expected) in [
        (Fault::Drop, Violations { lost: 1, holes: 1, ..none }),
        (Fault::Double, Violations { doubled: 1, ..none }),
        (Fault::Swap, Violations { reordered: 1, holes: 1, ..none }),
    ] {
        let path = faulty::path(world.node.address, fault).await;
        let report = world.run(path, "chat --channels 2 --members 3 --rate 40 --seconds 1").await;
        assert_eq!((report.verdict, report.violations), (Verdict::Broken, expected), "{fault:?}: {:?}", report.evidence);
        assert!(!report.evidence.is_empty());
    }
    world.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_connection_is_resumed_without_loss() {
    let world = World::new().await;
    let path = faulty::path(world.node.address, Fault::Cut).await;
    let report = world.run(path, "chat --channels 2 --members 3 --rate 40 --seconds 2").await;
    assert_eq!((report.verdict, report.violations), (Verdict::Kept, Violations::default()), "{:?}", report.evidence);
    assert_eq!((report.counts.reconnects, report.counts.acknowledged), (1, 80));
    world.ends().await;
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_is_said_to_be() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let line = format!("chaos-loadtest chat --admin-key adm_x --url ws://{free}");
    let error = scenario::run(&Cli::parse_from(line.split(' ')).scenario).await.map(drop).unwrap_err().to_string();
    assert!(error.contains("No node answers at") && error.contains(&free.to_string()), "{error}");
}
