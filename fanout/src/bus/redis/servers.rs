//! The servers that are subscribed at, and the server of each topic.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use chaos_redis::{Address, Deployment, Names, Target, Topology, slot};
use tokio::{sync::mpsc::UnboundedSender, task::JoinSet};

use super::link::{Link, LinkCommand, LinkEvent};
use crate::bus::Listener;

/// One link to the master, or on a Cluster to each master that has slots. A link exists whether or
/// not it has topics, so that the node knows whether records would arrive before the first join.
pub(super) struct Servers {
    deployment: Arc<Deployment>,
    names: Names,
    listener: Arc<dyn Listener>,
    events: UnboundedSender<LinkEvent>,
    links: HashMap<Target, LinkState>,
    last_link: u64,
    /// `None` unless the deployment is a Cluster.
    topology: Option<Arc<Topology>>,
    /// The running refresh of the topology, if any.
    refresh: JoinSet<Result<(), String>>,
}

struct LinkState {
    id: u64,
    link: Link,
    is_connected: bool,
}

impl Servers {
    pub(super) fn new(
        deployment: Deployment,
        names: Names,
        listener: Arc<dyn Listener>,
        events: UnboundedSender<LinkEvent>,
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
            names,
            listener,
            events,
            links: HashMap::new(),
            last_link: 0,
            topology,
            refresh: JoinSet::new(),
        }
    }

    /// Starts connecting.
    pub(super) fn connect(&mut self) {
        if self.topology.is_some() {
            self.refresh_topology();
        } else {
            self.link(&Target::Master);
        }
    }

    /// Returns the server of a topic, if it is known.
    pub(super) fn target_of(&self, topic: &str) -> Option<Target> {
        match &self.topology {
            None => Some(Target::Master),
            Some(topology) => topology
                .owner(slot(&self.names.channel(topic)))
                .map(Target::Node),
        }
    }

    /// Sends a command to the link of a server, which is opened if there is none.
    pub(super) fn send(&mut self, target: &Target, command: LinkCommand) {
        self.link(target).send(command);
    }

    /// Returns whether records of all topics arrive.
    pub(super) fn are_connected(&self) -> bool {
        !self.links.is_empty() && self.links.values().all(|state| state.is_connected)
    }

    /// Returns whether records of some topics arrive.
    pub(super) fn is_any_connected(&self) -> bool {
        self.links.values().any(|state| state.is_connected)
    }

    pub(super) fn set_connected(&mut self, link: u64) {
        if let Some((_, state)) = self.find(link) {
            state.is_connected = true;
        }
    }

    /// Notes that a link is not connected and returns its server; `None` if the link was replaced.
    pub(super) fn set_disconnected(&mut self, link: u64) -> Option<Target> {
        let (target, state) = self.find(link)?;
        state.is_connected = false;
        Some(target.clone())
    }

    /// Learns the new owner of a slot from a `MOVED` error. Returns whether it was one.
    pub(super) fn learn(&self, error: &str) -> bool {
        match (parse_moved(error), &self.topology) {
            (Some((slot, owner)), Some(topology)) => {
                topology.learn(slot, owner);
                true
            }
            _ => false,
        }
    }

    /// Starts to refresh the topology in the background, unless a refresh is running. Does nothing
    /// without a Cluster.
    pub(super) fn refresh_topology(&mut self) {
        let Some(topology) = &self.topology else {
            return;
        };
        if self.refresh.is_empty() {
            let topology = topology.clone();
            self.refresh
                .spawn(async move { topology.refresh().await.map_err(|error| error.to_string()) });
        }
    }

    /// Waits for the running refresh; `None` at once if there is none. Cancel safe.
    pub(super) async fn topology_refreshed(&mut self) -> Option<Result<(), String>> {
        let refreshed = self.refresh.join_next().await?;
        Some(refreshed.unwrap_or_else(|error| Err(error.to_string())))
    }

    /// Opens a link to every master and closes those to other servers. Topics must have been moved
    /// before.
    pub(super) fn follow_masters(&mut self) {
        let Some(topology) = &self.topology else {
            return;
        };
        let masters: HashSet<Target> = topology.masters().into_iter().map(Target::Node).collect();
        for target in &masters {
            self.link(target);
        }
        self.links.retain(|target, _| masters.contains(target));
    }

    fn link(&mut self, target: &Target) -> &Link {
        let state = self.links.entry(target.clone()).or_insert_with(|| {
            self.last_link += 1;
            let id = self.last_link;
            let (deployment, names, listener) = (
                self.deployment.clone(),
                self.names.clone(),
                self.listener.clone(),
            );
            let link = Link::open(
                id,
                target.clone(),
                deployment,
                names,
                listener,
                self.events.clone(),
            );
            LinkState {
                id,
                link,
                is_connected: false,
            }
        });
        &state.link
    }

    fn find(&mut self, link: u64) -> Option<(&Target, &mut LinkState)> {
        self.links.iter_mut().find(|(_, state)| state.id == link)
    }
}

/// Parses `MOVED slot host:port`.
fn parse_moved(error: &str) -> Option<(u16, Address)> {
    let mut words = error.strip_prefix("MOVED ")?.split_ascii_whitespace();
    let slot = words.next()?.parse().ok()?;
    Some((slot, Address::from_server(words.next()?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_error_names_slot_and_server() {
        assert_eq!(
            parse_moved("MOVED 7 h:1"),
            Some((
                7,
                Address {
                    host: "h".into(),
                    port: 1
                }
            ))
        );
        assert_eq!(
            parse_moved("MOVED 7 ::1:1"),
            Some((
                7,
                Address {
                    host: "::1".into(),
                    port: 1
                }
            ))
        );
        assert_eq!(parse_moved("CLUSTERDOWN Hash slot not served"), None);
    }
}
