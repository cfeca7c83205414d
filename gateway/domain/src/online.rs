//! The encoding of a user's online state in a node's lease, and the meaning of the sum over all
//! nodes.

/// How often a user is online, as a number that the store adds up over the nodes without knowing
/// what it means.
///
/// | bits | what |
/// |---|---|
/// | 0–15 | sessions |
/// | 16–23 | nodes that have the user, and have not made sure yet that this was told |
/// | 24–31 | nodes that have the user, and have |
///
/// A node writes its sessions and exactly one of the other two, so that a user whose last session
/// ended is online for as long as a node keeps it. A count that outgrows its bits runs over into
/// the next: whoever is online stays so, and only the count of sessions is wrong, for a user with
/// more than 65,535 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Online(u32);

const SESSIONS: u32 = 0xffff;
const UNTOLD: u32 = 1 << 16;
const TOLD: u32 = 1 << 24;

impl Online {
    /// Not here.
    pub const NOT: Self = Self(0);

    /// Here with so many sessions; whether others know is not sure.
    pub fn untold(sessions: u32) -> Self {
        Self(UNTOLD | sessions.min(SESSIONS))
    }

    /// Here with so many sessions, and that is known.
    pub fn told(sessions: u32) -> Self {
        Self(TOLD | sessions.min(SESSIONS))
    }

    /// As a store keeps and adds it.
    pub fn number(self) -> u32 {
        self.0
    }

    /// Whether a node has the user.
    pub fn is_online(self) -> bool {
        self != Self::NOT
    }

    /// Whether a node has the user and made sure that this was told.
    pub fn is_told(self) -> bool {
        self.0 >= TOLD
    }

    /// How many sessions there are.
    pub fn sessions(self) -> u64 {
        u64::from(self.0 & SESSIONS)
    }
}

impl From<u32> for Online {
    /// What a store answered: the sum over its nodes.
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
