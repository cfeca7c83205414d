//! The probe of the masters while a node runs.

use std::{pin::pin, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

use super::{Redis, script, with_timeout};
use crate::{Availability, Store, StoreError};

/// Maximum number of partitions that are tried until one is in a slot of a Cluster's master. A
/// master with a hundredth of the slots is missed once in 23,000 times.
pub(super) const MAX_PARTITIONS: u32 = 1_000;

/// Time after which the probe ends if a master has replied. The others count as unavailable.
const PATIENCE: Duration = Duration::from_millis(500);

/// Returns the name of a partition for probes. The first is that of [`Store::now`]; on a Cluster the
/// others have other slots.
pub(super) fn partition(index: u32) -> String {
    match index {
        0 => "leases".to_owned(),
        _ => format!("leases{index}"),
    }
}

/// Reads the clock of a partition's master and writes a key there, as `scripts/now.lua` says.
pub(super) async fn run_now(
    redis: &Redis,
    partition: &str,
    tries_commands: bool,
) -> Result<script::Items, StoreError> {
    let answer = with_timeout(script::NOW.run(
        &redis.commands,
        &[redis.names.key(partition, "now")],
        &[
            if tries_commands { "1" } else { "0" },
            redis.publish_command(),
            &redis.names.channel(partition),
        ],
    ))
    .await?;
    script::Items::of(answer.value)
}

/// Does [`Store::probe`].
pub(super) async fn probe(redis: &Redis) -> Result<Availability, StoreError> {
    let (masters, ()) = tokio::join!(
        probe_masters(redis),
        redis.evicting.refresh(&redis.commands)
    );
    redis.permissions.suffice()?;
    let (mut is_usable, mut fault) = (false, None);
    for (name, reply) in masters {
        match reply.and_then(|()| redis.evicting.admit(|| name.clone())) {
            Ok(()) => is_usable = true,
            Err(error) => fault = fault.or(Some((name, error))),
        }
    }
    match fault {
        None => Ok(Availability::Whole),
        Some((name, error)) if is_usable => Ok(Availability::Partial(match name {
            Some(name) => format!("{name}: {error}"),
            None => error.to_string(),
        })),
        Some((_, error)) => Err(error),
    }
}

/// Writes to every master. Returns the name of each, which is `None` unless the deployment is a
/// Cluster, and the error if it cannot be used.
async fn probe_masters(redis: &Redis) -> Vec<(Option<String>, Result<(), StoreError>)> {
    let partitions = partitions(redis);
    let write = async |index: usize, partition: &str| {
        let written = match index {
            0 => redis.now().await.map(drop),
            _ => run_now(redis, partition, false).await.map(drop),
        };
        (index, written)
    };
    let mut pending: FuturesUnordered<_> = partitions
        .iter()
        .enumerate()
        .map(|(index, (_, partition))| write(index, partition))
        .collect();
    let mut results: Vec<Option<Result<(), StoreError>>> = vec![None; partitions.len()];
    let mut patience = pin!(sleep(PATIENCE));
    let mut is_late = false;
    while !(is_late && results.iter().flatten().any(Result::is_ok)) {
        tokio::select! {
            answer = pending.next() => match answer {
                Some((index, written)) => results[index] = Some(written),
                None => break,
            },
            () = &mut patience, if !is_late => is_late = true,
        }
    }
    drop(pending);
    let late = || {
        Err(StoreError::Unavailable(format!(
            "it did not answer within {} ms",
            PATIENCE.as_millis()
        )))
    };
    partitions
        .into_iter()
        .zip(results)
        .map(|((name, _), result)| (name, result.unwrap_or_else(late)))
        .collect()
}

/// Returns each known master of a Cluster with a partition that is there. Otherwise the partition of
/// the leases alone. That is always the first.
fn partitions(redis: &Redis) -> Vec<(Option<String>, String)> {
    let masters = redis.commands.known_masters();
    let mut found: Vec<(Option<String>, String)> = Vec::new();
    for index in 0..MAX_PARTITIONS {
        let partition = partition(index);
        let owner = redis.commands.owner(&redis.names.key(&partition, "now"));
        let name = owner.map(|owner| owner.to_string());
        if index == 0 || (name.is_some() && found.iter().all(|(other, _)| *other != name)) {
            found.push((name, partition));
        }
        if found.len() >= masters {
            break;
        }
    }
    found
}
