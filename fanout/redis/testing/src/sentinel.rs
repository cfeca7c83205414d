//! A master and its replica under three Sentinels.

use std::collections::BTreeSet;

use chaos_redis::Deployment;

use crate::{ClientPath, Server, until};

/// A master, a replica, and three Sentinels with a quorum of two, which fail over within seconds.
#[derive(Debug)]
pub struct Sentinel {
    /// The two data servers; the first is the initial master.
    pub servers: Vec<Server>,
    /// The three Sentinels.
    pub sentinels: Vec<Server>,
}

impl Sentinel {
    /// Starts all five servers. Returns when every Sentinel knows the others and the replica.
    pub async fn start() -> Self {
        Self::start_on(ClientPath::Direct).await
    }

    /// Starts all five servers. Clients reach the two data servers on this path.
    pub async fn start_on(path: ClientPath) -> Self {
        let master = Server::start_on(path, &[]).await;
        let port = master.client_address().port;
        let replica =
            Server::start_on(path, &["--replicaof", "127.0.0.1", &port.to_string()]).await;
        until("the replica follows", || async {
            replica
                .text(&["INFO", "replication"])
                .await
                .contains("master_link_status:up")
        })
        .await;
        let configuration = format!(
            "sentinel monitor main 127.0.0.1 {port} 2\nsentinel down-after-milliseconds main 800\nsentinel failover-timeout main 4000\n"
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

    /// Returns the URL.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self
            .sentinels
            .iter()
            .map(|server| server.address().to_string())
            .collect();
        format!("redis+sentinel://{}/main", addresses.join(","))
    }

    /// Returns the deployment.
    pub fn deployment(&self) -> Deployment {
        self.url().parse().expect("our own URL")
    }

    /// Waits until all Sentinels name the same master and returns its index.
    pub async fn master(&self) -> usize {
        until("the Sentinels agree on a master", || async {
            self.named().await.is_some()
        })
        .await;
        self.named().await.expect("they agree")
    }

    /// Waits until all Sentinels name another master than this one, and it accepts writes. The old
    /// master must not restart before: a Sentinel that does not know the new one would still name
    /// the old one.
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

    /// Waits until all Sentinels name the same master, and the other server replicates it
    /// completely. Makes a restarted former master a replica, as the Sentinels would do some ten
    /// seconds later.
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
            let port = master.client_address().port.to_string();
            let info = other.text(&["INFO", "replication"]).await;
            if info.contains("role:master") {
                // Fails while the Sentinels reconfigure the server; the next iteration retries.
                let _ = other.command(&["REPLICAOF", "127.0.0.1", &port]).await;
            }
            info.contains(&format!("master_port:{port}\r"))
                && info.contains("master_link_status:up")
        })
        .await;
    }

    /// Returns the index of the server that all Sentinels name as the master, if they agree.
    async fn named(&self) -> Option<usize> {
        let mut names = BTreeSet::new();
        for sentinel in &self.sentinels {
            let info = sentinel.text(&["INFO", "sentinel"]).await;
            names.insert(self.servers.iter().position(|server| {
                info.contains(&format!("address={},", server.client_address()))
            }));
        }
        if names.len() == 1 {
            names.pop_first().flatten()
        } else {
            None
        }
    }
}
