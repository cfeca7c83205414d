//! The eviction policies of the servers. A server that evicts keys loses acknowledged messages when
//! its memory is full, and its policy may change while nodes run: by `CONFIG SET`, by a restart, or
//! by a failover to a server with another configuration.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use chaos_redis::{Address, Commands, Deployment, connect_to_replica};
use parking_lot::Mutex;
use redis::{Cmd, RedisResult, Value, cmd};

use super::script::text;
use crate::StoreError;

/// Minimum time between two checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(900);

/// Time between two checks while the user may not ask for the policy: the server logs each refusal.
const UNKNOWN_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// Maximum time that a check waits for a master.
const CHECK_TIMEOUT: Duration = Duration::from_millis(500);

/// Whether a server evicts keys when its memory is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Eviction {
    Never,
    /// It does, by this policy.
    Policy(String),
    /// The server does not tell.
    Unknown,
}

impl Eviction {
    fn of(policy: Option<&str>) -> Self {
        match policy {
            Some("noeviction") => Self::Never,
            Some(policy) => Self::Policy(policy.to_owned()),
            None => Self::Unknown,
        }
    }

    /// Reads a reply to `INFO`.
    pub(super) fn of_info(info: &str) -> Self {
        let policy = info
            .lines()
            .find_map(|line| line.strip_prefix("maxmemory_policy:"));
        Self::of(policy.map(str::trim))
    }

    /// Reads a reply to [`config_get`].
    pub(super) fn of_config(reply: &Value) -> Self {
        let policy = match reply {
            Value::Array(pair) => pair.get(1).map(text),
            Value::Map(pairs) => pairs.first().map(|(_, policy)| text(policy)),
            _ => None,
        };
        Self::of(policy.as_deref())
    }
}

/// Returns the command that asks for the policy alone.
pub(super) fn config_get() -> Cmd {
    let mut config = cmd("CONFIG");
    config.arg("GET").arg("maxmemory-policy");
    config
}

/// Returns the message for the operator about a master that evicts.
pub(super) fn evicts(name: &str, policy: &str) -> String {
    format!(
        "{name} evicts keys when its memory is full (maxmemory-policy {policy}), which would silently lose messages: \
         set maxmemory-policy noeviction"
    )
}

/// Asks the replicas that a master names in its `INFO`. Returns a warning for each that evicts or
/// does not tell: it may become the master.
pub(super) async fn evicting_replicas(deployment: &Deployment, info: &str) -> Vec<String> {
    let mut warnings = Vec::new();
    for address in replicas(info) {
        match replica_eviction(deployment, address.clone()).await {
            Ok(Eviction::Never) => {}
            Ok(Eviction::Policy(policy)) => warnings.push(format!(
                "the replica {address} evicts keys when its memory is full (maxmemory-policy {policy}): set maxmemory-policy noeviction, \
                 or nothing is stored after a failover to it"
            )),
            Ok(Eviction::Unknown) => warnings.push(format!(
                "the replica {address} does not report its maxmemory-policy: make sure that it is noeviction"
            )),
            Err(error) => warnings.push(format!(
                "the replica {address} cannot be asked for its maxmemory-policy ({error}): make sure that it is noeviction"
            )),
        }
    }
    warnings
}

async fn replica_eviction(deployment: &Deployment, address: Address) -> RedisResult<Eviction> {
    let mut replica = connect_to_replica(deployment, address).await?;
    let info = replica.run(cmd("INFO").arg("memory")).await?;
    Ok(Eviction::of_info(&text(&info)))
}

/// Returns the connected replicas in a master's `INFO`.
fn replicas(info: &str) -> Vec<Address> {
    let address = |line: &str| {
        let (name, fields) = line.trim().split_once(':')?;
        name.strip_prefix("slave")?.parse::<u32>().ok()?;
        let field = |field: &str| {
            fields
                .split(',')
                .find_map(|pair| pair.strip_prefix(field)?.strip_prefix('='))
        };
        Some(Address {
            host: field("ip")?.to_owned(),
            port: field("port")?.parse().ok()?,
        })
    };
    info.lines().filter_map(address).collect()
}

/// The masters that evicted keys when they were last asked. Commits to them are refused.
#[derive(Debug, Default)]
pub(super) struct EvictingMasters {
    state: Mutex<WatchState>,
}

#[derive(Debug, Default)]
struct WatchState {
    next_check: Option<Instant>,
    /// The policies of the masters that evict, by name.
    policies: BTreeMap<String, String>,
}

impl EvictingMasters {
    /// Asks every master for its policy, unless that was done just now. A master that does not reply
    /// keeps its last policy.
    pub(super) async fn refresh(&self, commands: &Commands) {
        if !self.is_due() {
            return;
        }
        let Ok(replies) = commands
            .on_each_master(cmd("INFO").arg("memory"), CHECK_TIMEOUT)
            .await
        else {
            return;
        };
        let mut found: Vec<_> = replies
            .into_iter()
            .map(|(name, reply)| (name, reply.ok().map(|info| Eviction::of_info(&text(&info)))))
            .collect();
        if found
            .iter()
            .any(|(_, eviction)| *eviction == Some(Eviction::Unknown))
        {
            // Some services allow only one of the two commands.
            let config = commands.on_each_master(&config_get(), CHECK_TIMEOUT).await;
            for (name, reply) in config.unwrap_or_default() {
                if let (Some((_, eviction)), Ok(reply)) = (
                    found.iter_mut().find(|(known, eviction)| {
                        *known == name && *eviction == Some(Eviction::Unknown)
                    }),
                    reply,
                ) {
                    *eviction = Some(Eviction::of_config(&reply));
                }
            }
        }
        self.note(found);
    }

    /// Returns whether a check is due, and counts the time from now.
    fn is_due(&self) -> bool {
        let mut state = self.state.lock();
        let now = Instant::now();
        let is_due = state.next_check.is_none_or(|next| next <= now);
        if is_due {
            state.next_check = Some(now + CHECK_INTERVAL);
        }
        is_due
    }

    /// Notes the policies of all masters; `None` for one that did not reply. Logs changes.
    fn note(&self, found: Vec<(String, Option<Eviction>)>) {
        let mut state = self.state.lock();
        let before = std::mem::take(&mut state.policies);
        for (name, eviction) in found {
            let policy = match eviction {
                Some(Eviction::Policy(policy)) => policy,
                Some(Eviction::Never) => {
                    if before.contains_key(&name) {
                        tracing::info!(master = name, "Redis evicts no keys any more");
                    }
                    continue;
                }
                Some(Eviction::Unknown) => {
                    state.next_check = Some(Instant::now() + UNKNOWN_CHECK_INTERVAL);
                    continue;
                }
                None => match before.get(&name) {
                    Some(policy) => policy.clone(),
                    None => continue,
                },
            };
            if before.get(&name) != Some(&policy) {
                tracing::warn!(
                    "{}. Until then only reads, deletions and revocations succeed",
                    evicts(&name, &policy)
                );
            }
            state.policies.insert(name, policy);
        }
    }

    /// # Errors
    ///
    /// [`StoreError::Full`] if the named master evicts; without a name, if any does. The message has
    /// no address.
    pub(super) fn admit(&self, master: impl FnOnce() -> Option<String>) -> Result<(), StoreError> {
        let state = self.state.lock();
        if state.policies.is_empty() {
            return Ok(());
        }
        let policy = match master() {
            Some(name) => state.policies.get(&name),
            None => state.policies.values().next(),
        };
        policy.map_or(Ok(()), |policy| {
            Err(StoreError::Full(evicts("Redis", policy)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never_after(before: Vec<Option<Eviction>>) -> bool {
        let masters = EvictingMasters::default();
        for eviction in before {
            masters.note(vec![("a:1".to_owned(), eviction)]);
        }
        masters.admit(|| Some("a:1".to_owned())).is_ok()
    }

    #[test]
    fn master_that_does_not_reply_keeps_its_policy() {
        let lru = || Some(Eviction::Policy("allkeys-lru".to_owned()));
        assert!(never_after(vec![None]));
        assert!(!never_after(vec![lru(), None]));
        assert!(never_after(vec![lru(), None, Some(Eviction::Never)]));
        assert!(never_after(vec![lru(), Some(Eviction::Unknown)]));
    }

    #[test]
    fn only_commits_to_the_evicting_master_are_refused() {
        let masters = EvictingMasters::default();
        masters.note(vec![
            ("a:1".to_owned(), Some(Eviction::Never)),
            (
                "b:1".to_owned(),
                Some(Eviction::Policy("volatile-ttl".to_owned())),
            ),
        ]);
        assert!(masters.admit(|| Some("a:1".to_owned())).is_ok());
        let refused = masters.admit(|| Some("b:1".to_owned()));
        assert!(
            matches!(&refused, Err(StoreError::Full(why)) if why.contains("volatile-ttl") && !why.contains("b:1")),
            "{refused:?}"
        );
        assert!(masters.admit(|| None).is_err());
    }

    #[test]
    fn replicas_are_read_from_info() {
        let info = "role:master\r\nconnected_slaves:1\r\nslave0:ip=10.0.0.2,port=6380,state=online,offset=14,lag=0\r\nslave_expires_tracked_keys:0\r\n";
        assert_eq!(
            replicas(info),
            [Address {
                host: "10.0.0.2".to_owned(),
                port: 6380
            }]
        );
    }
}
