//! A Redis Cluster.

use std::{collections::BTreeSet, ops::Range};

use chaos_redis::{Deployment, SLOTS, slot};
use redis::Value;

use crate::{ClientPath, Server, until};

/// A Cluster: masters with equal shares of the slots, and optional replicas.
#[derive(Debug)]
pub struct Cluster {
    /// Masters, in the order of their first slots.
    pub masters: Vec<Server>,
    /// One replica for each master, in the same order; or none.
    pub replicas: Vec<Server>,
}

/// The servers of a Cluster to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterShape {
    /// Number of masters.
    pub masters: usize,
    /// Whether each master has a replica that takes over within seconds.
    pub has_replicas: bool,
    /// How clients and replicas reach the servers.
    pub path: ClientPath,
}

impl Cluster {
    /// Starts a Cluster without replicas. Returns when every node sees all slots served.
    pub async fn start(masters: usize) -> Self {
        Self::start_as(ClusterShape {
            masters,
            has_replicas: false,
            path: ClientPath::Direct,
        })
        .await
    }

    /// Starts a Cluster in which each master has a replica that takes over within seconds.
    pub async fn start_with_replicas(masters: usize) -> Self {
        Self::start_as(ClusterShape {
            masters,
            has_replicas: true,
            path: ClientPath::Direct,
        })
        .await
    }

    /// Starts a Cluster of this shape. Returns when every node sees all slots served.
    pub async fn start_as(shape: ClusterShape) -> Self {
        let ClusterShape {
            masters: count,
            path,
            ..
        } = shape;
        let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
        let mut masters = Vec::new();
        let mut replicas = Vec::new();
        for index in 0..count {
            let server = Server::start_on(path, &settings).await;
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
            if shape.has_replicas {
                replicas.push(Server::start_on(path, &settings).await);
            }
        }
        let cluster = Self { masters, replicas };
        let first = cluster.masters[0].port().to_string();
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

    /// Waits until every reachable node knows all nodes and sees all slots served.
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

    /// Returns the URL, with all masters as seeds.
    pub fn url(&self) -> String {
        let seeds: Vec<_> = self
            .masters
            .iter()
            .map(|server| server.client_address().to_string())
            .collect();
        format!("redis+cluster://{}", seeds.join(","))
    }

    /// Returns the deployment.
    pub fn deployment(&self) -> Deployment {
        self.url().parse().expect("our own URL")
    }

    /// Kills a master, waits until its replica has taken over, restarts the killed server, and
    /// waits until it follows the new master. The two servers swap their places in `masters` and
    /// `replicas`.
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

    /// Waits until every shard has a master and a replica. Then updates `masters` and `replicas`,
    /// because a replica may have taken over from a master that was down.
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

    /// Returns the slots of the keys that match `pattern`, sorted.
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

    /// Returns the index of the master that reports a slot as its own.
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

    /// Moves a slot with its keys to another master, in the steps of `redis-cli --cluster reshard`.
    pub async fn migrate(&self, slot: u16, to: usize) {
        let from = self.owner(slot).await;
        if from == to {
            return;
        }
        self.begin_migration(slot, from, to).await;
        self.move_keys(slot, from, to).await;
        self.finish_migration(slot, from, to).await;
    }

    /// First step: the source replies with ASK for keys that it does not have.
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

    /// Second step: moves the keys in batches of ten.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize) {
        let (source, port) = (&self.masters[from], self.masters[to].port().to_string());
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

    /// Last step: assigns the slot to the target. Waits until all nodes know the new owner: moving
    /// the slot again before that can leave it without an owner.
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
                // Id, epoch and slots of each node.
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

fn share(index: usize, count: usize) -> Range<usize> {
    let slots = usize::from(SLOTS);
    slots * index / count..slots * (index + 1) / count
}
