//! The encoding of a user's online state in a node's lease.

/// Returns the name of a node's lease. It is a member of the lease itself, so that others can count
/// whether the lease has ended.
pub fn lease_name(node: u64) -> String {
    format!("node-{node:016x}")
}

/// The online state of a user on a node, or on all nodes: the store adds up the numbers of the
/// nodes.
///
/// | bits | count of |
/// |---|---|
/// | 0–15 | sessions |
/// | 16–23 | nodes that have the user, where it is unknown whether `online` was published |
/// | 24–31 | nodes that have the user, where `online` was published |
///
/// A node sets its sessions and exactly one of the other two, so that a user without sessions is
/// online while a node keeps it. A count that exceeds its bits carries into the next one: the user
/// stays online, and only the count of sessions is wrong, from 65,536 sessions on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Online(u32);

const SESSIONS: u32 = 0xffff;
const UNTOLD: u32 = 1 << 16;
const TOLD: u32 = 1 << 24;

impl Online {
    /// The node does not have the user.
    pub const NOT: Self = Self(0);

    /// Returns the state of a node that has the user, where it is unknown whether `online` was
    /// published.
    pub fn untold(sessions: u32) -> Self {
        Self(UNTOLD | sessions.min(SESSIONS))
    }

    /// Returns the state of a node that has the user, where `online` was published.
    pub fn told(sessions: u32) -> Self {
        Self(TOLD | sessions.min(SESSIONS))
    }

    /// Returns the number that the store keeps and adds.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Returns whether a node has the user.
    pub fn is_online(self) -> bool {
        self != Self::NOT
    }

    /// Returns whether a node has the user and `online` was published.
    pub fn is_told(self) -> bool {
        self.0 >= TOLD
    }

    /// Returns the number of sessions.
    pub fn sessions(self) -> u64 {
        u64::from(self.0 & SESSIONS)
    }
}

impl From<u32> for Online {
    /// Takes the sum that the store returns.
    fn from(sum: u32) -> Self {
        Self(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(nodes: &[Online]) -> Online {
        nodes.iter().map(|node| node.number()).sum::<u32>().into()
    }

    #[test]
    fn sessions_add_up_over_nodes_whatever_else_they_say() {
        let all = sum(&[
            Online::told(3),
            Online::untold(2),
            Online::told(0),
            Online::NOT,
        ]);
        assert_eq!(
            (all.sessions(), all.is_online(), all.is_told()),
            (5, true, true)
        );
    }

    #[test]
    fn a_user_without_sessions_is_online_while_a_node_keeps_it() {
        assert!(Online::told(0).is_online() && Online::untold(0).is_online());
        assert!(!Online::NOT.is_online() && !sum(&[]).is_online());
    }

    #[test]
    fn nodes_that_have_not_told_do_not_take_each_other_for_one_that_has() {
        assert!(!sum(&[Online::untold(1); 200]).is_told());
        assert!(!sum(&[Online::untold(70_000), Online::untold(0)]).is_told());
    }
}
