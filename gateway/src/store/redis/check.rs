//! What is asked of a Redis deployment before a node relies on it.

use std::time::Duration;

use deadpool_redis::{
    Config, ConnectionAddr, ConnectionInfo, PoolConfig, RedisConnectionInfo, Runtime, Timeouts,
    redis::{Cmd, aio::ConnectionLike},
    sentinel::{Config as SentinelConfig, SentinelNodeConnectionInfo, SentinelServerType},
};
use fanout::redis::{Address, Credentials, Deployment};

use crate::store::StoreError;

use super::{Redis, in_time, script};

/// What is not as it should be, though a node can run on it: sentences for the operator.
pub type Warnings = Vec<String>;

/// Why a deployment cannot be used, or not be checked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unfit {
    /// What is wrong, and how to mend it. Trying again changes nothing.
    #[error("{0}")]
    Settings(String),
    /// It could not be asked. It can be asked again later.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The oldest server that has what the scripts use (`SET PXAT`, `HRANDFIELD`).
const OLDEST: (u32, u32) = (6, 2);

/// The oldest server with sharded channels, on which a Cluster's records travel.
const OLDEST_CLUSTER: (u32, u32) = (7, 0);

impl Redis {
    /// Asks every master for its version, mode, eviction and durability. Meant for the start of a node, once the deployment
    /// can be reached; uses connections of its own, from a pool.
    pub async fn check(&self) -> Result<Warnings, Unfit> {
        let mut warnings = Vec::new();
        for master in self.masters().await? {
            let info = in_time(async { master.info().await.map_err(script::unavailable) }).await?;
            examine(
                &master.name,
                &info,
                self.deployment().is_cluster(),
                &mut warnings,
            )
            .map_err(Unfit::Settings)?;
            if let Some(replicas) = self.replicas {
                warnings.extend(lacking(&master.name, &info, replicas.count));
            }
        }
        Ok(warnings)
    }

    async fn masters(&self) -> Result<Vec<Master>, StoreError> {
        let deployment = self.deployment();
        let node = node_info(deployment.credentials(), deployment.database());
        match deployment {
            Deployment::Single { address, .. } => Ok(vec![Master::at(address, node)?]),
            Deployment::Sentinel {
                sentinels,
                service,
                sentinel_credentials,
                ..
            } => {
                let sentinel = |address: &Address| ConnectionInfo {
                    addr: tcp(address),
                    redis: node_info(sentinel_credentials, 0),
                };
                let config = SentinelConfig {
                    urls: None,
                    connections: Some(sentinels.iter().map(sentinel).collect()),
                    server_type: SentinelServerType::Master,
                    master_name: service.clone(),
                    node_connection_info: Some(SentinelNodeConnectionInfo {
                        tls_mode: None,
                        redis_connection_info: Some(node),
                    }),
                    pool: Some(pool()),
                };
                let pool = config
                    .create_pool(Some(Runtime::Tokio1))
                    .map_err(script::unavailable)?;
                Ok(vec![Master {
                    name: deployment.to_string(),
                    pool: Pool::Sentinel(pool),
                }])
            }
            Deployment::Cluster { .. } => {
                let named = in_time(async {
                    self.commands
                        .on_masters(&redis::cmd("PING"))
                        .await
                        .map_err(script::unavailable)
                })
                .await?;
                let address = |name: &str| {
                    let (host, port) = name.rsplit_once(':')?;
                    let host = host.trim_matches(['[', ']']).to_owned();
                    Some(Address {
                        host,
                        port: port.parse().ok()?,
                    })
                };
                let masters = named.iter().filter_map(|(name, _)| address(name));
                masters
                    .map(|address| Master::at(&address, node.clone()))
                    .collect()
            }
        }
    }
}

/// A master and the pool of connections for administration.
struct Master {
    name: String,
    pool: Pool,
}

enum Pool {
    Server(deadpool_redis::Pool),
    Sentinel(deadpool_redis::sentinel::Pool),
}

impl Master {
    fn at(address: &Address, node: RedisConnectionInfo) -> Result<Self, StoreError> {
        let config = Config {
            url: None,
            connection: Some(ConnectionInfo {
                addr: tcp(address),
                redis: node,
            }),
            pool: Some(pool()),
        };
        let pool = config
            .create_pool(Some(Runtime::Tokio1))
            .map_err(script::unavailable)?;
        Ok(Self {
            name: address.to_string(),
            pool: Pool::Server(pool),
        })
    }

    async fn info(&self) -> Result<String, String> {
        let mut cmd = Cmd::new();
        cmd.arg("INFO");
        async fn ask(connection: &mut impl ConnectionLike, cmd: &Cmd) -> Result<String, String> {
            cmd.query_async(connection)
                .await
                .map_err(|error| error.to_string())
        }
        match &self.pool {
            Pool::Server(pool) => {
                ask(
                    &mut pool.get().await.map_err(|error| error.to_string())?,
                    &cmd,
                )
                .await
            }
            Pool::Sentinel(pool) => {
                ask(
                    &mut pool.get().await.map_err(|error| error.to_string())?,
                    &cmd,
                )
                .await
            }
        }
    }
}

fn pool() -> PoolConfig {
    let patience = Some(Duration::from_secs(2));
    PoolConfig {
        max_size: 1,
        timeouts: Timeouts {
            wait: patience,
            create: patience,
            recycle: patience,
        },
        ..PoolConfig::default()
    }
}

fn tcp(address: &Address) -> ConnectionAddr {
    ConnectionAddr::Tcp(address.host.clone(), address.port)
}

fn node_info(credentials: &Credentials, db: i64) -> RedisConnectionInfo {
    let Credentials { user, password } = credentials.clone();
    RedisConnectionInfo {
        db,
        username: user,
        password,
        ..RedisConnectionInfo::default()
    }
}

/// Reads what a server says of itself. `INFO` is asked, not `CONFIG`, which managed services forbid.
fn examine(name: &str, info: &str, cluster: bool, warnings: &mut Warnings) -> Result<(), String> {
    let field = |field: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(str::trim)
    };

    let oldest = if cluster { OLDEST_CLUSTER } else { OLDEST };
    match field("redis_version").and_then(version) {
        Some(version) if version < oldest => {
            return Err(format!(
                "{name} is Redis {}.{}, and {} is needed{}: upgrade it",
                version.0,
                version.1,
                format_args!("{}.{}", oldest.0, oldest.1),
                if cluster {
                    " for a Cluster (sharded channels)"
                } else {
                    ""
                },
            ));
        }
        Some(_) => {}
        None => warnings.push(format!(
            "{name} does not tell its version: CHAOS needs what Redis {}.{} can do",
            oldest.0, oldest.1
        )),
    }
    match field("redis_mode") {
        Some("cluster") if !cluster => {
            return Err(format!(
                "{name} is a node of a Cluster: begin the URL with redis+cluster://"
            ));
        }
        Some("standalone") if cluster => {
            return Err(format!(
                "{name} is no node of a Cluster: begin the URL with redis://"
            ));
        }
        Some("sentinel") => {
            return Err(format!(
                "{name} is a Sentinel: begin the URL with redis+sentinel:// and end it with the service's name"
            ));
        }
        _ => {}
    }
    match field("maxmemory_policy") {
        Some("noeviction") => {}
        Some(policy) => {
            return Err(format!(
                "{name} evicts keys when its memory is full (maxmemory-policy {policy}), which would silently lose messages: \
                 set maxmemory-policy noeviction"
            ));
        }
        None => warnings
            .push(format!("{name} does not tell its maxmemory-policy: make sure that it is noeviction, or messages are lost silently")),
    }
    match field("aof_enabled") {
        Some("1") => {}
        Some(_) => warnings.push(format!(
            "{name} keeps no append-only file: what was acknowledged since its last snapshot is LOST when it stops. \
             Set appendonly yes (and appendfsync always, if not even a second may be lost)"
        )),
        None => warnings.push(format!("{name} does not tell whether it keeps an append-only file: make sure of its durability")),
    }
    Ok(())
}

/// What to tell if fewer replicas follow a master than are waited for.
fn lacking(name: &str, info: &str, wanted: u32) -> Option<String> {
    let connected = info.lines().find_map(|line| {
        line.strip_prefix("connected_slaves:")?
            .trim()
            .parse::<u32>()
            .ok()
    })?;
    (connected < wanted).then(|| {
        format!(
            "{name} has {connected} of the {wanted} replicas that --redis-wait asks for: until they follow it nothing is acknowledged. \
             Start them, or lower --redis-wait"
        )
    })
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const FINE: &str = "redis_version:7.0.15\r\nredis_mode:standalone\r\nmaxmemory_policy:noeviction\r\naof_enabled:1\r\n";

    fn verdict(info: &str, cluster: bool) -> (Result<(), String>, Warnings) {
        let mut warnings = Vec::new();
        (examine("r:1", info, cluster, &mut warnings), warnings)
    }

    #[test]
    fn a_durable_server_passes() {
        assert_eq!(verdict(FINE, false), (Ok(()), vec![]));
    }

    #[test]
    fn too_few_replicas_are_warned_of() {
        let told = lacking("r:1", "connected_slaves:1\r\n", 2).unwrap();
        assert!(
            told.contains("1 of the 2") && told.contains("--redis-wait"),
            "{told}"
        );
        assert_eq!(lacking("r:1", "connected_slaves:2\r\n", 2), None);
    }

    #[test]
    fn what_loses_data_silently_is_refused_with_the_cure() {
        let error = verdict(&FINE.replace("noeviction", "allkeys-lru"), false)
            .0
            .unwrap_err();
        assert!(
            error.contains("allkeys-lru") && error.contains("set maxmemory-policy noeviction"),
            "{error}"
        );
    }

    #[test]
    fn too_old_and_the_wrong_kind_are_refused() {
        assert!(verdict(&FINE.replace("7.0.15", "6.0.9"), false).0.is_err());
        assert!(verdict(&FINE.replace("7.0.15", "6.2.0"), false).0.is_ok());
        let sharded = FINE.replace("standalone", "cluster");
        assert!(
            verdict(&sharded.replace("7.0.15", "6.2.0"), true)
                .0
                .unwrap_err()
                .contains("7.0")
        );
        assert!(
            verdict(&sharded, false)
                .0
                .unwrap_err()
                .contains("redis+cluster://")
        );
        assert!(verdict(FINE, true).0.unwrap_err().contains("redis://"));
        assert!(
            verdict(&FINE.replace("standalone", "sentinel"), false)
                .0
                .unwrap_err()
                .contains("redis+sentinel://")
        );
    }

    #[test]
    fn no_append_only_file_and_silence_are_warned_of() {
        assert_eq!(
            verdict(&FINE.replace("aof_enabled:1", "aof_enabled:0"), false)
                .1
                .len(),
            1
        );
        assert_eq!(verdict("", false).1.len(), 3);
    }
}
