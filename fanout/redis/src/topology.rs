//! The slot map of a Cluster: the known owner of each slot.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::RwLock;
use redis::{ErrorKind, RedisError, RedisResult, Value, cmd};
use tokio::time::{sleep, timeout};

use crate::{
    Address, CONNECT_TIMEOUT, Credentials, SLOTS,
    dial::{is_unknown_command, open, unfit, unfitness},
};

/// A slot map that is corrected by `MOVED` replies, and refreshed when that is not enough.
#[derive(Debug)]
pub struct Topology {
    seeds: Vec<Address>,
    credentials: Credentials,
    owners: RwLock<Vec<Option<Arc<Address>>>>,
    /// Time of the last refresh. The lock allows one refresh at a time.
    read_at: tokio::sync::Mutex<Option<Instant>>,
}

impl Topology {
    /// Returns an empty map, without connecting.
    pub fn new(seeds: Vec<Address>, credentials: Credentials) -> Self {
        let owners = RwLock::new(vec![None; usize::from(SLOTS)]);
        Self {
            seeds,
            credentials,
            owners,
            read_at: tokio::sync::Mutex::new(None),
        }
    }

    /// Returns the known owner of a slot.
    pub fn owner(&self, slot: u16) -> Option<Arc<Address>> {
        self.owners.read().get(usize::from(slot)).cloned().flatten()
    }

    /// Updates the owner of one slot from a `MOVED` reply.
    pub fn learn(&self, slot: u16, owner: Address) {
        if let Some(place) = self.owners.write().get_mut(usize::from(slot)) {
            *place = Some(Arc::new(owner));
        }
    }

    /// Returns all masters that own slots, in a fixed order.
    pub fn masters(&self) -> Vec<Arc<Address>> {
        self.owners
            .read()
            .iter()
            .flatten()
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Reads the map from the node that answers first, unless another call did so while this one
    /// waited.
    pub async fn refresh(&self) -> RedisResult<()> {
        let asked_at = Instant::now();
        let mut read_at = self.read_at.lock().await;
        if read_at.is_some_and(|at| at >= asked_at) {
            return Ok(());
        }
        let known = self.masters();
        let candidates: BTreeSet<&Address> =
            known.iter().map(|a| &**a).chain(&self.seeds).collect();
        // Nodes are asked 50 ms apart, so that one that hangs does not delay the others.
        let mut answers: FuturesUnordered<_> = candidates
            .into_iter()
            .enumerate()
            .map(|(turn, address)| async move {
                sleep(Duration::from_millis(50) * u32::try_from(turn).unwrap_or(u32::MAX)).await;
                timeout(CONNECT_TIMEOUT, self.ask(address))
                    .await
                    .unwrap_or_else(|_| Err(crate::dial::timed_out(address).into()))
            })
            .collect();
        let mut last =
            RedisError::from((ErrorKind::InvalidClientConfig, "the Cluster has no seeds"));
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(owners) => {
                    *self.owners.write() = owners;
                    *read_at = Some(Instant::now());
                    return Ok(());
                }
                Err(error) if unfitness(&last).is_none() => last = error,
                Err(_) => {}
            }
        }
        Err(last)
    }

    async fn ask(&self, node: &Address) -> RedisResult<Vec<Option<Arc<Address>>>> {
        let mut connection = open(node, &self.credentials, 0).await?;
        // Not a pipeline: its errors quote all commands.
        let info: String = cmd("CLUSTER")
            .arg("INFO")
            .query_async(&mut connection)
            .await
            .map_err(|error| {
                let is_none = error.to_string().contains("cluster support disabled")
                    || is_unknown_command(&error);
                if is_none {
                    unfit(format!("{node} is no Cluster: use redis://"))
                } else {
                    error
                }
            })?;
        let answer: Value = cmd("CLUSTER")
            .arg("SLOTS")
            .query_async(&mut connection)
            .await?;
        // A partitioned node still returns its old map, but reports the Cluster as down.
        if !info.contains("cluster_state:ok") {
            return Err((ErrorKind::Client, "the Cluster is down").into());
        }
        let owners = parse(answer, node).ok_or((
            ErrorKind::UnexpectedReturnType,
            "CLUSTER SLOTS answered what this version cannot read",
        ))?;
        if owners.iter().all(Option::is_none) {
            return Err((ErrorKind::Client, "the Cluster has no slots assigned").into());
        }
        Ok(owners)
    }
}

/// Parses `[[first, last, [host, port, …], replica…], …]`. An empty host means the node that
/// replied.
fn parse(answer: Value, asked: &Address) -> Option<Vec<Option<Arc<Address>>>> {
    let mut owners = vec![None; usize::from(SLOTS)];
    let Value::Array(ranges) = answer else {
        return None;
    };
    for range in ranges {
        let Value::Array(range) = range else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = &range[..]
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = &master[..] else {
            return None;
        };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => {
                String::from_utf8(host.clone()).ok()?
            }
            _ => asked.host.clone(),
        };
        let owner = Arc::new(Address {
            host,
            port: u16::try_from(*port).ok()?,
        });
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        owners.get_mut(first..=last)?.fill(Some(owner));
    }
    Some(owners)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn node(host: &str, port: i64) -> Value {
        Value::Array(vec![
            Value::BulkString(host.into()),
            Value::Int(port),
            Value::BulkString("id".into()),
            Value::Array(vec![]),
        ])
    }

    #[test]
    fn a_slot_map_is_read_with_the_asked_host_where_none_is_given() {
        let answer = Value::Array(vec![
            Value::Array(vec![
                Value::Int(0),
                Value::Int(1),
                node("a", 1),
                node("replica", 2),
            ]),
            Value::Array(vec![Value::Int(5), Value::Int(5), node("", 3)]),
        ]);
        let owners = parse(
            answer,
            &Address {
                host: "asked".into(),
                port: 9,
            },
        )
        .unwrap();
        let at = |slot: usize| owners[slot].as_ref().map(|a| a.to_string());
        assert_eq!(
            (at(0), at(1), at(2), at(5)),
            (
                Some("a:1".into()),
                Some("a:1".into()),
                None,
                Some("asked:3".into())
            )
        );
    }

    #[test]
    fn a_map_beyond_the_slots_is_refused() {
        for (first, last) in [(0, 16_384), (5, 4), (-1, 2)] {
            let answer = Value::Array(vec![Value::Array(vec![
                Value::Int(first),
                Value::Int(last),
                node("a", 1),
            ])]);
            let read = parse(
                answer,
                &Address {
                    host: "x".into(),
                    port: 1,
                },
            );
            assert!(
                read.is_none_or(|owners| owners.iter().all(Option::is_none)),
                "{first}..={last}"
            );
        }
    }
}
