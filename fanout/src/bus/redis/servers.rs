//! The servers that are listened to, and which of them a topic belongs to.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::{sync::mpsc::UnboundedSender, task::JoinSet};

use super::link::{Link, Order, Place, Report};
use crate::{
    bus::Listener,
    redis::{Address, Deployment, Topology, channel, slot},
};

/// One link to each server: to the master, or on a Cluster to every master that has slots, with topics or without, so
/// that a node knows whether it hears before anybody asks.
pub(super) struct Servers {
    deployment: Arc<Deployment>,
    listener: Arc<dyn Listener>,
    reports: UnboundedSender<Report>,
    links: HashMap<Place, Linked>,
    last_link: u64,
    /// On a Cluster.
    topology: Option<Arc<Topology>>,
    reading: JoinSet<Result<(), String>>,
}

struct Linked {
    number: u64,
    link: Link,
    state: State,
}

enum State {
    Connecting,
    Up,
    /// For the reason that was logged last.
    Down(String),
}

impl Servers {
    pub(super) fn new(
        deployment: Deployment,
        listener: Arc<dyn Listener>,
        reports: UnboundedSender<Report>,
    ) -> Self {
        let topology = match &deployment {
            Deployment::Cluster { seeds, credentials } => {
                Some(Arc::new(Topology::new(seeds.clone(), credentials.clone())))
            }
            _ => None,
        };
        let deployment = Arc::new(deployment);
        Self {
            deployment,
            listener,
            reports,
            links: HashMap::new(),
            last_link: 0,
            topology,
            reading: JoinSet::new(),
        }
    }

    /// Starts connecting.
    pub(super) fn begin(&mut self) {
        if self.topology.is_some() {
            self.read_map();
        } else {
            self.link(&Place::Master);
        }
    }

    /// Where a topic belongs, as far as is known.
    pub(super) fn home(&self, topic: &str) -> Option<Place> {
        match &self.topology {
            None => Some(Place::Master),
            Some(topology) => topology.owner(slot(&channel(topic))).map(Place::Shard),
        }
    }

    /// Tells the link to a place, which is opened if there is none.
    pub(super) fn order(&mut self, place: &Place, order: Order) {
        self.link(place).order(order);
    }

    /// Whether everything is heard.
    pub(super) fn are_up(&self) -> bool {
        !self.links.is_empty()
            && self
                .links
                .values()
                .all(|linked| matches!(linked.state, State::Up))
    }

    /// Notes that a link is up.
    pub(super) fn is_up(&mut self, number: u64) {
        if let Some((place, linked)) = self.find(number) {
            tracing::info!(%place, "the bus is connected");
            linked.state = State::Up;
        }
    }

    /// Notes that a link is down, and says where it went; `None` if it is one of earlier.
    pub(super) fn is_down(&mut self, number: u64, why: &str) -> Option<Place> {
        let (place, linked) = self.find(number)?;
        // Every attempt is reported, each new reason is logged.
        if !matches!(&linked.state, State::Down(known) if known == why) {
            tracing::warn!(%place, why, "the bus is not connected");
            linked.state = State::Down(why.to_owned());
        }
        Some(place.clone())
    }

    /// Learns from a refusal where a slot has gone; false if it says nothing of the kind.
    pub(super) fn learn(&self, why: &str) -> bool {
        match (moved_to(why), &self.topology) {
            (Some((slot, owner)), Some(topology)) => {
                topology.learn(slot, owner);
                true
            }
            _ => false,
        }
    }

    /// Begins to read the slot map beside everything else, unless that is under way. Of no effect without a Cluster.
    pub(super) fn read_map(&mut self) {
        let Some(topology) = &self.topology else {
            return;
        };
        if self.reading.is_empty() {
            let topology = topology.clone();
            self.reading
                .spawn(async move { topology.refresh().await.map_err(|error| error.to_string()) });
        }
    }

    /// Waits for the slot map that is being read; `None` at once if none is.
    pub(super) async fn map_read(&mut self) -> Option<Result<(), String>> {
        let read = self.reading.join_next().await?;
        Some(read.unwrap_or_else(|error| Err(error.to_string())))
    }

    /// Opens a link to every master of the map, and lets go of servers that are none. Topics must have been moved before.
    pub(super) fn keep_masters_only(&mut self) {
        let Some(topology) = &self.topology else {
            return;
        };
        let masters: HashSet<Place> = topology.masters().into_iter().map(Place::Shard).collect();
        for place in &masters {
            self.link(place);
        }
        self.links.retain(|place, _| masters.contains(place));
    }

    fn link(&mut self, place: &Place) -> &Link {
        let linked = self.links.entry(place.clone()).or_insert_with(|| {
            self.last_link += 1;
            let number = self.last_link;
            let link = Link::open(
                number,
                place.clone(),
                self.deployment.clone(),
                self.listener.clone(),
                self.reports.clone(),
            );
            Linked {
                number,
                link,
                state: State::Connecting,
            }
        });
        &linked.link
    }

    fn find(&mut self, number: u64) -> Option<(&Place, &mut Linked)> {
        self.links
            .iter_mut()
            .find(|(_, linked)| linked.number == number)
    }
}

/// Reads `MOVED slot host:port`.
fn moved_to(why: &str) -> Option<(u16, Address)> {
    let mut words = why.strip_prefix("MOVED ")?.split_ascii_whitespace();
    let slot = words.next()?.parse().ok()?;
    Some((slot, Address::from_server(words.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirection_names_slot_and_server() {
        assert_eq!(
            moved_to("MOVED 7 h:1"),
            Some((
                7,
                Address {
                    host: "h".into(),
                    port: 1
                }
            ))
        );
        assert_eq!(
            moved_to("MOVED 7 ::1:1"),
            Some((
                7,
                Address {
                    host: "::1".into(),
                    port: 1
                }
            ))
        );
        assert_eq!(moved_to("CLUSTERDOWN Hash slot not served"), None);
    }
}
