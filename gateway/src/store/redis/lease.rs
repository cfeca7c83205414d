//! Leases: which nodes live, and who has sessions there.
//!
//! `chaos:{leases}:` + `nodes` (a set), `node:<node>` (a string that expires with the lease), `members:<node>` (a hash from
//! member to sessions), `ended` (a set: members of ended leases that no sweep has told yet). All in one slot: presence is
//! served by one shard.

use std::time::Duration;

use crate::store::StoreError;

use super::{
    Redis, keys,
    script::{self, Items, Script},
};

/// How often a question over all nodes is asked again because a node came meanwhile.
const ATTEMPTS: usize = 16;

impl Redis {
    pub(super) async fn renew(
        &self,
        node: &str,
        ttl: Duration,
        members: Vec<(String, u32)>,
    ) -> Result<bool, StoreError> {
        let names = [
            keys::leases("nodes"),
            lease(node),
            members_of(node),
            keys::leases("ended"),
        ];
        let mut args = Vec::with_capacity(2 + 2 * members.len());
        args.extend([node.to_owned(), ttl.as_millis().max(1).to_string()]);
        // Zeros come last: what they empty is gone, and on a moving slot must not be touched again.
        let (gone, here): (Vec<_>, Vec<_>) = members
            .into_iter()
            .partition(|(_, sessions)| *sessions == 0);
        for (member, sessions) in here.into_iter().chain(gone) {
            args.extend([member, sessions.to_string()]);
        }
        let answer = script::LEASE.run(&self.commands, &names, &args).await?;
        Ok(answer.value == redis::Value::Int(1))
    }

    pub(super) async fn end(&self, node: &str) -> Result<(), StoreError> {
        let names = [keys::leases("nodes"), lease(node), members_of(node)];
        script::RELEASE
            .run(&self.commands, &names, &[node])
            .await
            .map(|_| ())
    }

    pub(super) async fn count(&self, members: &[String]) -> Result<Vec<u32>, StoreError> {
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let sums = self.over_nodes(&script::MEMBERS, members).await?.ints()?;
        Ok(sums
            .into_iter()
            .map(|sum| u32::try_from(sum).unwrap_or(u32::MAX))
            .collect())
    }

    pub(super) async fn sweep_ended(&self) -> Result<Vec<String>, StoreError> {
        self.over_nodes(&script::SWEEP, &[]).await?.texts()
    }

    /// Runs a script that touches the keys of all nodes, which it must be told.
    async fn over_nodes(&self, script: &Script, rest: &[String]) -> Result<Items, StoreError> {
        for _ in 0..ATTEMPTS {
            let nodes = self.nodes.lock().clone();
            let mut names = vec![keys::leases("nodes"), keys::leases("ended")];
            let mut args = vec![nodes.len().to_string()];
            for node in &nodes {
                names.extend([lease(node), members_of(node)]);
                args.push(node.clone());
            }
            args.extend_from_slice(rest);
            let mut items = Items::of(script.run(&self.commands, &names, &args).await?.value)?;
            if items.int()? == 0 {
                return Ok(items);
            }
            *self.nodes.lock() = items.texts()?;
        }
        Err(StoreError::Unavailable(
            "nodes come and go faster than this node can follow".to_owned(),
        ))
    }
}

fn lease(node: &str) -> String {
    keys::leases(&format!("node:{node}"))
}

fn members_of(node: &str) -> String {
    keys::leases(&format!("members:{node}"))
}
