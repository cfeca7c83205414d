//! Limits how many sessions of a node ask the store at once about subscriptions that the hub ended.
//! A channel with ten thousand subscribers that is deleted ends all of theirs in the same moment.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chaos_redis::jittered;
use protocol::ChannelId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::session::Why;

/// Maximum number of sessions that ask at once.
const SESSIONS_AT_ONCE: usize = 16;

/// Maximum pause of a session that finds all permits taken. The pause is jittered.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// The doubts of a node's sessions.
#[derive(Debug)]
pub(super) struct Doubts(Arc<Semaphore>);

/// Doubts that are resolved now, or later.
#[derive(Debug)]
pub(super) struct Admitted {
    /// Held while the session asks; `None` if it has no doubts to ask about.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// Doubts that are postponed by `pause`.
    pub(super) postponed: Vec<(ChannelId, Why)>,
    pub(super) pause: Duration,
}

impl Default for Doubts {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(SESSIONS_AT_ONCE)))
    }
}

impl Doubts {
    /// Takes a permit for the doubts among `reasons`. If there is none, removes the doubts from
    /// `reasons`. Other reasons need no permit.
    pub(super) fn admit(&self, reasons: &mut HashMap<ChannelId, Why>) -> Admitted {
        let is_doubt = |why: &Why| matches!(why, Why::Doubted(_));
        let mut admitted = Admitted {
            permit: None,
            postponed: Vec::new(),
            pause: jittered(MAX_PAUSE),
        };
        if !reasons.values().any(is_doubt) {
            return admitted;
        }
        admitted.permit = Arc::clone(&self.0).try_acquire_owned().ok();
        if admitted.permit.is_none() {
            admitted.postponed = reasons.extract_if(|_, why| is_doubt(why)).collect();
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use fanout::Position;

    use super::*;

    fn reasons() -> HashMap<ChannelId, Why> {
        let position = Position { seq: 7, at: 7 };
        HashMap::from([
            (
                "doubted".parse().expect("a valid id"),
                Why::Doubted(position),
            ),
            ("added".parse().expect("a valid id"), Why::Added(position)),
        ])
    }

    #[test]
    fn sessions_whose_channel_was_deleted_ask_the_store_a_few_at_a_time() {
        let doubts = Doubts::default();
        let mut asking = Vec::new();
        let mut postponed = 0;
        for _ in 0..10_000 {
            let mut reasons = reasons();
            let admitted = doubts.admit(&mut reasons);
            match admitted.permit {
                Some(permit) => asking.push(permit),
                None => {
                    assert_eq!(admitted.postponed.len(), 1);
                    assert!(admitted.pause >= MAX_PAUSE / 2 && admitted.pause <= MAX_PAUSE);
                    assert_eq!(reasons.len(), 1, "an addition waits for no doubt");
                    postponed += 1;
                }
            }
        }
        assert_eq!(
            (asking.len(), postponed),
            (SESSIONS_AT_ONCE, 10_000 - SESSIONS_AT_ONCE)
        );
        asking.pop();
        assert!(doubts.admit(&mut reasons()).permit.is_some());
    }

    #[test]
    fn additions_take_no_permit() {
        let doubts = Doubts::default();
        let mut reasons = reasons();
        reasons.retain(|_, why| matches!(why, Why::Added(_)));
        assert!(doubts.admit(&mut reasons).permit.is_none());
        assert_eq!(reasons.len(), 1);
    }
}
