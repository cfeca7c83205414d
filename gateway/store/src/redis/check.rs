//! The check of a Redis deployment when a node starts.

use std::time::{Duration, Instant};

use chaos_redis::{AdminConnection, connect_to_masters, refused_subscription, unfitness};
use parking_lot::Mutex;
use redis::{ErrorKind, RedisError, ServerErrorKind, Value, cmd};

use super::{
    Redis,
    policy::{self, Eviction},
    probe,
    script::{self, text},
};
use crate::StoreError;

/// Problems of a deployment that a node can run with, as messages for the operator.
pub type Warnings = Vec<String>;

/// Why a deployment cannot be used, or cannot be checked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unfit {
    /// A problem and its remedy. A retry does not help.
    #[error("{0}")]
    Settings(String),
    /// The deployment does not respond. A retry may help.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether the user may run every command of the scripts. While it may not, commits are refused: the
/// server would stop them after their first writes.
#[derive(Debug, Default)]
pub(super) struct Permissions {
    state: Mutex<PermissionsState>,
}

#[derive(Debug, Default)]
struct PermissionsState {
    checked: Option<Instant>,
    refusal: Option<StoreError>,
}

/// Minimum time between two checks of the permissions.
const PERMISSIONS_INTERVAL: Duration = Duration::from_millis(900);

impl Permissions {
    /// Returns whether the permissions have not been checked for [`PERMISSIONS_INTERVAL`], and
    /// counts the time from now.
    pub(super) fn are_due(&self) -> bool {
        let mut state = self.state.lock();
        let is_due = state
            .checked
            .is_none_or(|checked| checked.elapsed() >= PERMISSIONS_INTERVAL);
        if is_due {
            state.checked = Some(Instant::now());
        }
        is_due
    }

    /// Sets the commands that the user may not run.
    pub(super) fn set(&self, forbidden: &[String]) {
        self.state.lock().refusal = (!forbidden.is_empty()).then(|| {
            StoreError::Unavailable(format!(
                "Redis does not let the node's user run {}: grant it (+@read +@write), nothing is stored until then",
                forbidden.join(", ")
            ))
        });
    }

    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the last check found a command that the user may not run.
    pub(super) fn suffice(&self) -> Result<(), StoreError> {
        self.state.lock().refusal.clone().map_or(Ok(()), Err)
    }
}

/// The oldest version with the commands of the scripts (`SET PXAT`, `HRANDFIELD`).
const MIN_VERSION: (u32, u32) = (6, 2);

/// The oldest version with sharded channels, which carry the records on a Cluster.
const MIN_CLUSTER_VERSION: (u32, u32) = (7, 0);

/// Does [`Redis::check`].
pub(super) async fn check(redis: &Redis) -> Result<Warnings, Unfit> {
    let mut warnings = Vec::new();
    for mut master in connect_to_masters(redis.deployment())
        .await
        .map_err(|error| unreachable(redis, error))?
    {
        let name = master.address.to_string();
        match allowed(redis, master.run(&cmd("INFO")).await)? {
            Some(info) => {
                let info = text(&info);
                examine(&name, &info, redis.deployment().is_cluster(), &mut warnings)
                    .map_err(Unfit::Settings)?;
                warnings.extend(
                    redis
                        .replicas
                        .and_then(|replicas| missing_replicas(&name, &info, replicas.count)),
                );
                warnings.extend(policy::evicting_replicas(redis.deployment(), &info).await);
            }
            None => examine_without_info(redis, &mut master, &mut warnings).await?,
        }
        check_permissions(redis, &mut master).await?;
    }
    Ok(warnings)
}

/// Tries `CONFIG GET` where `INFO` is not allowed: some services allow only one of them.
async fn examine_without_info(
    redis: &Redis,
    master: &mut AdminConnection,
    warnings: &mut Warnings,
) -> Result<(), Unfit> {
    let name = master.address.to_string();
    let asked = allowed(redis, master.run(&policy::config_get()).await)?;
    match asked.as_ref().map(Eviction::of_config) {
        Some(Eviction::Never) => {}
        Some(Eviction::Policy(policy)) => return Err(Unfit::Settings(policy::evicts(&name, &policy))),
        Some(Eviction::Unknown) | None => warnings.push(format!(
            "{name} allows this user neither INFO nor CONFIG GET, so it is unknown whether it evicts keys: grant +info, \
             or make sure that maxmemory-policy is noeviction. Any other policy silently LOSES messages when memory is full"
        )),
    }
    Ok(())
}

/// Runs every command of the scripts and subscribes once, as a node does.
async fn check_permissions(redis: &Redis, master: &mut AdminConnection) -> Result<(), Unfit> {
    let name = master.address.to_string();
    let forbidden = |what: &str| Unfit::Settings(forbidden(redis, &name, what));
    let publish = redis.publish_command();
    let commands = forbidden_commands(redis, master).await?;
    match &commands[..] {
        [] => {}
        [command] if command == publish => return Err(forbidden("publish on its channels")),
        commands => return Err(forbidden(&format!("run {}", commands.join(", ")))),
    }
    match refused_subscription(
        redis.deployment(),
        &master.address,
        &redis.names.channel("probe"),
    )
    .await
    {
        Ok(Some(why)) if why.starts_with("NOPERM") => Err(forbidden("subscribe to its channels")),
        Ok(_) => Ok(()),
        Err(error) => Err(Unfit::Store(script::unavailable(error))),
    }
}

/// Tries every command of the scripts on a key of the master, and returns those that the user may
/// not run. Returns none if the master cannot tell: it has no slots, or takes no writes.
async fn forbidden_commands(
    redis: &Redis,
    master: &mut AdminConnection,
) -> Result<Vec<String>, Unfit> {
    for attempt in 0..probe::MAX_PARTITIONS {
        let partition = probe::partition(attempt);
        let mut eval = cmd("EVAL");
        eval.arg(script::NOW.code())
            .arg(1)
            .arg(redis.names.key(&partition, "now"))
            .arg("1")
            .arg(redis.publish_command())
            .arg(redis.names.channel(&partition));
        return match master.run(&eval).await {
            Ok(Value::Array(answer)) => Ok(answer.iter().skip(2).map(text).collect()),
            Ok(_) => Ok(Vec::new()),
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => continue,
            Err(error) if is_forbidden(&error) => Err(Unfit::Settings(forbidden(
                redis,
                &master.address.to_string(),
                "run scripts on its keys",
            ))),
            Err(error) if error.is_io_error() || error.is_timeout() => {
                Err(unreachable(redis, error))
            }
            Err(_) => Ok(Vec::new()),
        };
    }
    Ok(Vec::new())
}

/// Returns the reply, or `None` if the user may not run the command.
fn allowed(redis: &Redis, answer: Result<Value, RedisError>) -> Result<Option<Value>, Unfit> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if is_forbidden(&error) => Ok(None),
        // The command may be renamed in the server's configuration.
        Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) => Ok(None),
        Err(error) => Err(unreachable(redis, error)),
    }
}

/// Distinguishes an operator's mistake from an outage.
fn unreachable(redis: &Redis, error: RedisError) -> Unfit {
    if let Some(sentence) = unfitness(&error) {
        return Unfit::Settings(sentence.to_owned());
    }
    let sentence = match (error.kind(), error.code()) {
        (ErrorKind::AuthenticationFailed, _) | (_, Some("WRONGPASS")) => {
            "Redis refuses the user or the password: mend them in --redis, as redis://USER:PASSWORD@HOST"
        }
        (_, Some("NOAUTH")) => {
            "Redis wants a password: give it in --redis, as redis://:PASSWORD@HOST or redis://USER:PASSWORD@HOST"
        }
        _ if error.to_string().contains("switch database") => {
            "Redis has no database of that number: mend the end of the URL in --redis"
        }
        _ if is_forbidden(&error) => {
            return Unfit::Settings(forbidden(redis, "Redis", "connect and find its master"));
        }
        _ => return Unfit::Store(script::unavailable(error)),
    };
    Unfit::Settings(sentence.to_owned())
}

fn forbidden(redis: &Redis, name: &str, what: &str) -> String {
    let user = redis
        .deployment()
        .credentials()
        .user
        .as_deref()
        .unwrap_or("default")
        .to_owned();
    format!(
        "{name} does not let the user {user} {what}: grant it with ACL SETUSER {user} {}",
        grants(redis)
    )
}

/// Returns the ACL rules that a node's user needs.
fn grants(redis: &Redis) -> String {
    let (keys, channels) = (redis.names.keys_of("*"), redis.names.channel("*"));
    let (keys, channels) = (
        keys.trim_end_matches('*').trim_end_matches('{'),
        channels.trim_end_matches("{*}"),
    );
    format!(
        "~{keys}* &{channels}* +@read +@write +@scripting +@pubsub +@connection +info +time +wait +role +cluster"
    )
}

/// A command inside a script is refused with the code ERR.
fn is_forbidden(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm)
        || error
            .detail()
            .is_some_and(|detail| detail.contains("user executing the script can't"))
}

/// Checks the server's `INFO`.
fn examine(name: &str, info: &str, cluster: bool, warnings: &mut Warnings) -> Result<(), String> {
    let field = |field: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
            .map(str::trim)
    };

    let oldest = if cluster {
        MIN_CLUSTER_VERSION
    } else {
        MIN_VERSION
    };
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
            "{name} does not report its version: CHAOS needs Redis {}.{} or a compatible server",
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
    match Eviction::of_info(info) {
        Eviction::Never => {}
        Eviction::Policy(policy) => return Err(policy::evicts(name, &policy)),
        Eviction::Unknown => warnings
            .push(format!("{name} does not report its maxmemory-policy: make sure that it is noeviction, or messages are lost silently")),
    }
    match field("aof_enabled") {
        Some("1") => {}
        Some(_) => warnings.push(format!(
            "{name} keeps no append-only file: what was acknowledged since its last snapshot is LOST when it stops. \
             Set appendonly yes (and appendfsync always, if not even a second may be lost)"
        )),
        None => warnings.push(format!("{name} does not report whether it has an append-only file: make sure of its durability")),
    }
    Ok(())
}

/// Returns a warning if a master has fewer replicas than commits wait for.
fn missing_replicas(name: &str, info: &str, wanted: u32) -> Option<String> {
    let connected = info.lines().find_map(|line| {
        line.strip_prefix("connected_slaves:")?
            .trim()
            .parse::<u32>()
            .ok()
    })?;
    (connected < wanted).then(|| {
        format!(
            "{name} has {connected} of the {wanted} replicas that --redis-wait requires, and acknowledges no commit until they are connected: \
             start them, or lower --redis-wait"
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
    fn durable_server_passes() {
        assert_eq!(verdict(FINE, false), (Ok(()), vec![]));
    }

    #[test]
    fn missing_replicas_cause_a_warning() {
        let warning = missing_replicas("r:1", "connected_slaves:1\r\n", 2).unwrap();
        assert!(
            warning.contains("1 of the 2") && warning.contains("--redis-wait"),
            "{warning}"
        );
        assert_eq!(missing_replicas("r:1", "connected_slaves:2\r\n", 2), None);
    }

    #[test]
    fn eviction_is_refused_with_the_remedy() {
        let error = verdict(&FINE.replace("noeviction", "allkeys-lru"), false)
            .0
            .unwrap_err();
        assert!(
            error.contains("allkeys-lru") && error.contains("set maxmemory-policy noeviction"),
            "{error}"
        );
    }

    #[test]
    fn old_versions_and_wrong_modes_are_refused() {
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
    fn missing_append_only_file_and_missing_fields_cause_warnings() {
        assert_eq!(
            verdict(&FINE.replace("aof_enabled:1", "aof_enabled:0"), false)
                .1
                .len(),
            1
        );
        assert_eq!(verdict("", false).1.len(), 3);
    }
}
