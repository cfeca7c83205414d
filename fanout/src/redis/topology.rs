//! Which master of a Cluster has which slot, as far as is known.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::RwLock;
use redis::{ErrorKind, RedisError, RedisResult, Value};
use tokio::time::{sleep, timeout};

use super::{Address, CONNECT_TIMEOUT, Credentials, SLOTS, dial::open};

/// A map of slots that is corrected by what servers say (`MOVED`) and read anew when that does not help.
#[derive(Debug)]
pub(crate) struct Topology {
    seeds: Vec<Address>,
    credentials: Credentials,
    owners: RwLock<Vec<Option<Arc<Address>>>>,
    /// When the map was last read; the lock lets one reader through at a time.
    read_at: tokio::sync::Mutex<Option<Instant>>,
}

impl Topology {
    /// An empty map. Connects to nothing.
    pub(crate) fn new(seeds: Vec<Address>, credentials: Credentials) -> Self {
        let owners = RwLock::new(vec![None; usize::from(SLOTS)]);
        Self {
            seeds,
            credentials,
            owners,
            read_at: tokio::sync::Mutex::new(None),
        }
    }

    /// The master of a slot.
    pub(crate) fn owner(&self, slot: u16) -> Option<Arc<Address>> {
        self.owners.read().get(usize::from(slot)).cloned().flatten()
    }

    /// Takes a server's word (`MOVED`) for one slot.
    pub(crate) fn learn(&self, slot: u16, owner: Address) {
        if let Some(place) = self.owners.write().get_mut(usize::from(slot)) {
            *place = Some(Arc::new(owner));
        }
    }

    /// All masters that have slots, in a fixed order.
    pub(crate) fn masters(&self) -> Vec<Arc<Address>> {
        self.owners
            .read()
            .iter()
            .flatten()
            .cloned()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Reads the map from whichever node answers first, unless somebody did while this call waited for its turn.
    pub(crate) async fn refresh(&self) -> RedisResult<()> {
        let asked_at = Instant::now();
        let mut read_at = self.read_at.lock().await;
        if read_at.is_some_and(|at| at >= asked_at) {
            return Ok(());
        }
        let known = self.masters();
        let candidates: BTreeSet<&Address> =
            known.iter().map(|a| &**a).chain(&self.seeds).collect();
        // One that hangs must not hold up the others, so each gets a head start of a moment and no more.
        let mut answers: FuturesUnordered<_> = candidates
            .into_iter()
            .enumerate()
            .map(|(turn, address)| async move {
                sleep(Duration::from_millis(50) * u32::try_from(turn).unwrap_or(u32::MAX)).await;
                timeout(CONNECT_TIMEOUT, self.ask(address))
                    .await
                    .unwrap_or_else(|_| Err(super::dial::timed_out(address).into()))
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
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, node: &Address) -> RedisResult<Vec<Option<Arc<Address>>>> {
        let mut connection = open(node, &self.credentials, 0).await?;
        let mut questions = redis::pipe();
        questions
            .cmd("CLUSTER")
            .arg("INFO")
            .cmd("CLUSTER")
            .arg("SLOTS");
        let (info, answer): (String, Value) = questions.query_async(&mut connection).await?;
        // A node that was cut off from the others goes on answering with the map of that day, but knows that it was.
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

/// Reads `[[first, last, [host, port, …], replica…], …]`. An empty host means the node that was asked.
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
