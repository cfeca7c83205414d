//! Leases: the live nodes and the members with sessions on them.
//!
//! Keys are `<prefix>:{leases}:` + `nodes` (a set), `node:<node>` (a string that expires with the
//! lease), `members:<node>` (a hash from member to number of sessions), `ended` (a set: members of
//! ended leases that no sweep has returned yet). All are in one slot, so one shard serves presence.

use std::time::Duration;

use super::{
    Redis,
    keys::Keys,
    script::{self, Items, Script},
};
use crate::StoreError;

/// Maximum number of attempts to run a script over all nodes. It fails if a node joined meanwhile.
const MAX_ATTEMPTS: usize = 16;

pub(super) async fn renew_lease(
    redis: &Redis,
    node: &str,
    ttl: Duration,
    members: Vec<(String, u32)>,
) -> Result<bool, StoreError> {
    let leases = Keys::of_leases(&redis.names);
    let names = [
        leases.key("nodes"),
        lease(leases, node),
        members_of(leases, node),
        leases.key("ended"),
        leases.room(),
    ];
    let mut args = Vec::with_capacity(2 + 2 * members.len());
    args.extend([node.to_owned(), ttl.as_millis().max(1).to_string()]);
    // Removals come last: they may delete the key, which a script on a migrating slot must not
    // use again.
    let (removed, present): (Vec<_>, Vec<_>) = members
        .into_iter()
        .partition(|(_, sessions)| *sessions == 0);
    for (member, sessions) in present.into_iter().chain(removed) {
        args.extend([member, sessions.to_string()]);
    }
    let answer = script::LEASE.run(&redis.commands, &names, &args).await?;
    Ok(answer.value == redis::Value::Int(1))
}

pub(super) async fn release_lease(redis: &Redis, node: &str) -> Result<(), StoreError> {
    let leases = Keys::of_leases(&redis.names);
    let names = [
        leases.key("nodes"),
        lease(leases, node),
        members_of(leases, node),
    ];
    script::RELEASE
        .run(&redis.commands, &names, &[node])
        .await
        .map(|_| ())
}

pub(super) async fn count_sessions(
    redis: &Redis,
    members: &[String],
) -> Result<Vec<u32>, StoreError> {
    if members.is_empty() {
        return Ok(Vec::new());
    }
    let sums = over_nodes(redis, &script::MEMBERS, members).await?.ints()?;
    Ok(sums
        .into_iter()
        .map(|sum| u32::try_from(sum).unwrap_or(u32::MAX))
        .collect())
}

pub(super) async fn sweep_ended(redis: &Redis) -> Result<Vec<String>, StoreError> {
    over_nodes(redis, &script::SWEEP, &[]).await?.texts()
}

/// Runs a script that uses the keys of all nodes, which must be declared.
async fn over_nodes(redis: &Redis, script: &Script, rest: &[String]) -> Result<Items, StoreError> {
    let leases = Keys::of_leases(&redis.names);
    for _ in 0..MAX_ATTEMPTS {
        let nodes = redis.nodes.lock().clone();
        let mut names = vec![leases.key("nodes"), leases.key("ended")];
        let mut args = vec![nodes.len().to_string()];
        for node in &nodes {
            names.extend([lease(leases, node), members_of(leases, node)]);
            args.push(node.clone());
        }
        args.extend_from_slice(rest);
        let mut items = Items::of(script.run(&redis.commands, &names, &args).await?.value)?;
        if items.int()? == 0 {
            return Ok(items);
        }
        *redis.nodes.lock() = items.texts()?;
    }
    Err(StoreError::Unavailable(
        "nodes join and leave too fast to read their leases".to_owned(),
    ))
}

fn lease(leases: Keys<'_>, node: &str) -> String {
    leases.key(&format!("node:{node}"))
}

fn members_of(leases: Keys<'_>, node: &str) -> String {
    leases.key(&format!("members:{node}"))
}
