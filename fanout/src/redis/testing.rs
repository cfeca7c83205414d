//! Real Redis processes for tests: a server, a Cluster, a Sentinel trio, on free loopback ports, in folders of their own,
//! killed when dropped. Everything here panics where a test could not go on.
//!
//! Needs `redis-server` (which is also the Sentinel) on the path.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    fs::File,
    future::Future,
    hash::BuildHasher,
    net::TcpListener,
    ops::Range,
    process::{Child, Command, Stdio},
    time::Duration,
};

use redis::{RedisResult, Value};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{Address, Credentials, Deployment, SLOTS, dial, slot};

/// How long anything here may take to come about.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server process. Its data survives [`kill9`](Self::kill9) and [`restart`](Self::restart), and is gone with it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    sentinel: bool,
}

impl Server {
    /// A server with AOF synced at every write, that evicts nothing.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with further arguments (`--requirepass`, `x`).
    pub async fn start_with(arguments: &[&str]) -> Self {
        let mut all = vec![
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
            "--repl-diskless-sync-delay",
            "0",
        ];
        all.extend(arguments);
        Self::launch(&all, None).await
    }

    async fn launch(arguments: &[&str], sentinel: Option<&str>) -> Self {
        // Another process may take the port between our look and the server's, hence several tries.
        for _ in 0..5 {
            let folder = TempDir::with_prefix("chaos-redis-").expect("a temporary folder");
            let port = free_port();
            let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
            if let Some(configuration) = sentinel {
                std::fs::write(folder.path().join("sentinel.conf"), configuration)
                    .expect("a writable folder");
            }
            let sentinel = sentinel.is_some();
            let child = spawn(&folder, port, &arguments, sentinel);
            let mut server = Self {
                child,
                folder,
                port,
                arguments,
                sentinel,
            };
            if server.comes_up().await {
                return server;
            }
        }
        panic!("redis-server does not start: {:?}", arguments);
    }

    /// Where it listens.
    pub fn address(&self) -> Address {
        Address {
            host: "127.0.0.1".to_owned(),
            port: self.port,
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// The deployment that it is.
    pub fn deployment(&self) -> Deployment {
        self.url().parse().expect("our own URL")
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it without warning.
    pub fn kill9(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Starts it again on the same port with the same data, killing it before if it runs. Returns when it answers.
    pub async fn restart(&mut self) {
        self.kill9();
        self.child = spawn(&self.folder, self.port, &self.arguments, self.sentinel);
        assert!(self.comes_up().await, "redis-server does not start again");
    }

    /// Makes it hang (SIGSTOP): its sockets stay open and nothing answers.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Lets it go on (SIGCONT).
    pub fn cont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("a shell");
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// Runs a command on a connection of its own.
    pub async fn command(&self, words: &[&str]) -> RedisResult<Value> {
        let mut connection = dial::open(&self.address(), &Credentials::default(), 0).await?;
        let mut cmd = redis::Cmd::new();
        cmd.arg(words);
        cmd.query_async(&mut connection).await
    }

    async fn must(&self, words: &[&str]) -> Value {
        self.command(words)
            .await
            .unwrap_or_else(|error| panic!("{words:?} at {}: {error}", self.port))
    }

    async fn text(&self, words: &[&str]) -> String {
        match self.command(words).await {
            Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => text,
            _ => String::new(),
        }
    }

    async fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("our own child").is_some() {
                return false;
            }
            // LOADING and NOAUTH are answers too, but only the latter means that it is up.
            match self.command(&["PING"]).await {
                Ok(_) => return true,
                Err(error) if error.code() == Some("NOAUTH") => return true,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Masters with an equal share of the slots each, and replicas if asked for.
#[derive(Debug)]
pub struct Cluster {
    /// The masters, in the order of their first slots.
    pub masters: Vec<Server>,
    /// One for each master, in their order; empty without.
    pub replicas: Vec<Server>,
}

impl Cluster {
    /// A Cluster of so many masters without replicas, when every node finds it whole.
    pub async fn start(masters: usize) -> Self {
        Self::assemble(masters, false).await
    }

    /// The same, each master with a replica that takes over within some seconds.
    pub async fn start_with_replicas(masters: usize) -> Self {
        Self::assemble(masters, true).await
    }

    async fn assemble(count: usize, with_replicas: bool) -> Self {
        let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
        let mut masters = Vec::new();
        let mut replicas = Vec::new();
        for index in 0..count {
            let server = Server::start_with(&settings).await;
            let Range { start, end } = share(index, count);
            server
                .must(&[
                    "CLUSTER",
                    "ADDSLOTSRANGE",
                    &start.to_string(),
                    &(end - 1).to_string(),
                ])
                .await;
            server
                .must(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()])
                .await;
            masters.push(server);
            if with_replicas {
                replicas.push(Server::start_with(&settings).await);
            }
        }
        let cluster = Self { masters, replicas };
        let first = cluster.masters[0].port.to_string();
        for server in cluster.nodes().skip(1) {
            server.must(&["CLUSTER", "MEET", "127.0.0.1", &first]).await;
        }
        for (replica, master) in cluster.replicas.iter().zip(&cluster.masters) {
            let id = master.text(&["CLUSTER", "MYID"]).await;
            until("a replica knows its master", || async {
                replica
                    .command(&["CLUSTER", "REPLICATE", &id])
                    .await
                    .is_ok()
            })
            .await;
            until("a replica follows", || async {
                replica
                    .text(&["INFO", "replication"])
                    .await
                    .contains("master_link_status:up")
            })
            .await;
        }
        cluster.whole().await;
        cluster
    }

    /// Returns when every node that answers sees all slots served, and all nodes.
    pub async fn whole(&self) {
        let known = format!("cluster_known_nodes:{}\r", self.nodes().count());
        for server in self.nodes() {
            until("the Cluster is whole", || async {
                let info = server.text(&["CLUSTER", "INFO"]).await;
                info.contains("cluster_state:ok") && info.contains(&known)
            })
            .await;
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &Server> {
        self.masters.iter().chain(&self.replicas)
    }

    /// Its URL, naming all masters as seeds.
    pub fn url(&self) -> String {
        let seeds: Vec<_> = self
            .masters
            .iter()
            .map(|server| server.address().to_string())
            .collect();
        format!("redis+cluster://{}", seeds.join(","))
    }

    /// The deployment that it is.
    pub fn deployment(&self) -> Deployment {
        self.url().parse().expect("our own URL")
    }

    /// Kills a master until its replica has taken over, starts it again, and returns when it follows the new one. Each is found
    /// in the other's place afterwards.
    pub async fn fail_over(&mut self, shard: usize) {
        self.masters[shard].kill9();
        let replica = &self.replicas[shard];
        until("a replica takes over", || async {
            replica
                .text(&["INFO", "replication"])
                .await
                .contains("role:master")
        })
        .await;
        self.masters[shard].restart().await;
        self.know_roles().await;
    }

    /// Finds out who is a master by now, when every shard is whole: after one was away its replica may have taken over.
    pub async fn know_roles(&mut self) {
        for (master, replica) in self.masters.iter_mut().zip(&mut self.replicas) {
            until("a master with its replica", || async {
                let (one, other) = (
                    master.text(&["INFO", "replication"]).await,
                    replica.text(&["INFO", "replication"]).await,
                );
                let follows = |text: &str| {
                    text.contains("role:slave") && text.contains("master_link_status:up")
                };
                one.contains("role:master") && follows(&other)
                    || other.contains("role:master") && follows(&one)
            })
            .await;
            if replica
                .text(&["INFO", "replication"])
                .await
                .contains("role:master")
            {
                std::mem::swap(master, replica);
            }
        }
        self.whole().await;
    }

    /// The slots that hold keys like this, in their order.
    pub async fn slots_of(&self, pattern: &str) -> Vec<u16> {
        let mut slots = BTreeSet::new();
        for server in &self.masters {
            let found = server
                .must(&["SCAN", "0", "MATCH", pattern, "COUNT", "1000000"])
                .await;
            let (_, keys): (String, Vec<String>) =
                redis::from_redis_value(found).expect("a cursor and names of keys");
            slots.extend(keys.iter().map(|key| slot(key)));
        }
        slots.into_iter().collect()
    }

    /// The index of the master that has a slot now, by its own account.
    pub async fn owner(&self, slot: u16) -> usize {
        for (index, server) in self.masters.iter().enumerate() {
            let nodes = server.text(&["CLUSTER", "NODES"]).await;
            let myself = nodes
                .lines()
                .find(|line| line.contains("myself"))
                .unwrap_or_default();
            let has = myself
                .split_ascii_whitespace()
                .skip(8)
                .filter(|range| !range.starts_with('['))
                .any(|range| {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    (first.parse().unwrap_or(u16::MAX)..=last.parse().unwrap_or(0)).contains(&slot)
                });
            if has {
                return index;
            }
        }
        panic!("no master has slot {slot}")
    }

    /// Moves a slot with its keys to another master, unless it is there, while everything runs, in the steps of an operator's tool.
    pub async fn migrate(&self, slot: u16, to: usize) {
        let from = self.owner(slot).await;
        if from == to {
            return;
        }
        self.begin_migration(slot, from, to).await;
        self.move_keys(slot, from, to).await;
        self.finish_migration(slot, from, to).await;
    }

    /// The first step: from now on keys that the source does not have are answered with ASK.
    pub async fn begin_migration(&self, slot: u16, from: usize, to: usize) {
        let (source, target, number) = (&self.masters[from], &self.masters[to], slot.to_string());
        let (source_id, target_id) = (
            source.text(&["CLUSTER", "MYID"]).await,
            target.text(&["CLUSTER", "MYID"]).await,
        );
        target
            .must(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source_id])
            .await;
        source
            .must(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target_id])
            .await;
    }

    /// The second step, in batches of ten keys.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (source, port) = (&self.masters[from], self.masters[to].port.to_string());
        loop {
            let keys = match source
                .must(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), "10"])
                .await
            {
                Value::Array(keys) if keys.is_empty() => return,
                keys => redis::from_redis_value::<Vec<String>>(keys).expect("names of keys"),
            };
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            source.must(&words).await;
        }
    }

    /// The last step: the slot is the target's. Returns when everybody knows, for a further move before that can leave a slot without an owner.
    pub async fn finish_migration(&self, slot: u16, from: usize, to: usize) {
        let target_id = self.masters[to].text(&["CLUSTER", "MYID"]).await;
        let others = (0..self.masters.len()).filter(|index| *index != to && *index != from);
        for index in [to, from].into_iter().chain(others) {
            self.masters[index]
                .must(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &target_id])
                .await;
        }
        until("all nodes agree", || async {
            let mut views = BTreeSet::new();
            for server in &self.masters {
                let nodes = server.text(&["CLUSTER", "NODES"]).await;
                // Of each node its id, its epoch and its slots.
                let view: BTreeSet<Vec<String>> = nodes
                    .lines()
                    .map(|line| {
                        line.split_ascii_whitespace()
                            .enumerate()
                            .filter(|(n, _)| matches!(n, 0 | 6 | 8..))
                            .map(|(_, word)| word.to_owned())
                            .collect()
                    })
                    .collect();
                views.insert(view);
            }
            views.len() == 1
        })
        .await;
    }
}

/// A master, a replica, and three Sentinels that agree by two and fail over within some seconds.
#[derive(Debug)]
pub struct Sentinel {
    /// The two data servers; the first is the master at the beginning.
    pub servers: Vec<Server>,
    /// The three Sentinels.
    pub sentinels: Vec<Server>,
}

impl Sentinel {
    /// Starts all five and returns when every Sentinel knows the others and the replica.
    pub async fn start() -> Self {
        let master = Server::start().await;
        let replica =
            Server::start_with(&["--replicaof", "127.0.0.1", &master.port.to_string()]).await;
        until("the replica follows", || async {
            replica
                .text(&["INFO", "replication"])
                .await
                .contains("master_link_status:up")
        })
        .await;
        let configuration = format!(
            "sentinel monitor main 127.0.0.1 {} 2\nsentinel down-after-milliseconds main 800\nsentinel failover-timeout main 4000\n",
            master.port
        );
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Server::launch(&[], Some(&configuration)).await);
        }
        for sentinel in &sentinels {
            until("the Sentinels know each other", || async {
                let info = sentinel.text(&["INFO", "sentinel"]).await;
                info.contains("slaves=1,sentinels=3") && info.contains("status=ok")
            })
            .await;
        }
        Self {
            servers: vec![master, replica],
            sentinels,
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self
            .sentinels
            .iter()
            .map(|server| server.address().to_string())
            .collect();
        format!("redis+sentinel://{}/main", addresses.join(","))
    }

    /// The deployment that it is.
    pub fn deployment(&self) -> Deployment {
        self.url().parse().expect("our own URL")
    }

    /// The index of the server that the Sentinels call the master.
    pub async fn master(&self) -> usize {
        let address = dial::current_master(&self.deployment())
            .await
            .expect("a Sentinel answers");
        self.servers
            .iter()
            .position(|server| server.port == address.port)
            .expect("one of ours")
    }

    /// Returns when all Sentinels name another master than this one, and it takes writes. Before that the old one must not come back:
    /// whoever has not heard of its successor would take it for the master still.
    pub async fn failed_over(&self, from: usize) {
        until("a failover", || async {
            match self.named().await {
                Some(master) if master != from => self.servers[master]
                    .text(&["INFO", "replication"])
                    .await
                    .contains("role:master"),
                _ => false,
            }
        })
        .await;
    }

    /// Returns when all Sentinels name the same master, and the other server follows it and has all that it has. A former master that
    /// comes back is told to follow: the Sentinels would do so too, some ten seconds later. Whatever else they are about is left to them.
    pub async fn settled(&self) {
        until("one master and its replica", || async {
            let Some(master) = self.named().await else {
                return false;
            };
            let (master, other) = (&self.servers[master], &self.servers[1 - master]);
            if !master
                .text(&["INFO", "replication"])
                .await
                .contains("role:master")
            {
                return false;
            }
            let port = master.port.to_string();
            let info = other.text(&["INFO", "replication"]).await;
            if info.contains("role:master") {
                // What fails while the Sentinels have their say is said again.
                let _ = other.command(&["REPLICAOF", "127.0.0.1", &port]).await;
            }
            info.contains(&format!("master_port:{port}\r"))
                && info.contains("master_link_status:up")
        })
        .await;
    }

    /// The index of the server that every Sentinel holds for the master, if they agree.
    async fn named(&self) -> Option<usize> {
        let mut names = BTreeSet::new();
        for sentinel in &self.sentinels {
            let info = sentinel.text(&["INFO", "sentinel"]).await;
            names.insert(
                self.servers.iter().position(|server| {
                    info.contains(&format!("address=127.0.0.1:{},", server.port))
                }),
            );
        }
        if names.len() == 1 {
            names.pop_first().flatten()
        } else {
            None
        }
    }
}

/// Polls until something holds; panics when it has not after a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn share(index: usize, count: usize) -> Range<usize> {
    let slots = usize::from(SLOTS);
    slots * index / count..slots * (index + 1) / count
}

fn spawn(folder: &TempDir, port: u16, arguments: &Vec<String>, sentinel: bool) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("log"))
        .expect("a writable folder");
    let mut command = Command::new("redis-server");
    if sentinel {
        command.arg(folder.path().join("sentinel.conf"));
    }
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(folder.path())
        .args(arguments);
    if sentinel {
        command.arg("--sentinel");
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("redis-server is installed")
}

/// A port that is free, with the Cluster's own port 10,000 above it, both below the range of outgoing connections.
fn free_port() -> u16 {
    loop {
        let port =
            11_000 + u16::try_from(RandomState::new().hash_one(()) % 11_000).expect("below 11,000");
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}
