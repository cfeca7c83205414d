//! Settles a node's findings about users: publishes each, unless the store contradicts it by now.

use domain::{
    document::PutValue,
    online::Online,
    reads,
    schema::{ENTITY, ONLY, SEEN, Scope, parse_member},
    together,
};
use fanout::record::Control;
use protocol::{EventKind, event::PresenceData};
use serde::Serialize;
use store::{Commit, Expected, StoreError};

use super::{Batch, PresenceTracker, unsettled::PresenceFinding};

/// Maximum number of users that are settled with one question to the store.
pub(super) const USERS_PER_BATCH: usize = 512;

#[derive(Serialize)]
struct Event<'a> {
    data: &'a PresenceData,
}

impl PresenceTracker {
    /// Settles a batch of users. Returns false if there was nothing to settle.
    pub(super) async fn settle(&self) -> Result<bool, StoreError> {
        let taken = self.unsettled.take(USERS_PER_BATCH);
        if taken.is_empty() {
            return Ok(false);
        }
        let (members, findings): (Vec<String>, Vec<PresenceFinding>) = taken.into_iter().unzip();
        let mut batch = Batch {
            presences: self,
            members,
        };
        let at = self.services.clock.now_ms();
        let online = self.services.store.members(&batch.members).await?;
        let each = batch.members.iter().zip(findings).zip(online);
        let settled = together::run(each.map(|((member, finding), online)| {
            self.settle_one(member, finding, online.into(), at)
        }))
        .await;
        // A user who could not be settled is settled again with the next changes.
        let mut settled = settled.into_iter();
        batch.members.retain(|member| match settled.next() {
            Some(Err(error)) => {
                tracing::warn!(%error, member, "cannot publish a change of presence, will retry");
                true
            }
            _ => false,
        });
        Ok(true)
    }

    async fn settle_one(
        &self,
        member: &str,
        finding: PresenceFinding,
        online: Online,
        at: u64,
    ) -> Result<(), StoreError> {
        let Some((scope, id)) = parse_member(member) else {
            return Ok(());
        };
        match finding {
            PresenceFinding::Online { stay } => {
                let is_untold = self
                    .local
                    .get(member)
                    .is_some_and(|user| user.stay == stay && !user.is_told);
                // A user who is offline by now has left again, which is another finding.
                if !is_untold || !online.is_online() {
                    return Ok(());
                }
                if !online.is_told() {
                    self.publish(
                        &scope,
                        PresenceData {
                            user_id: id,
                            online: true,
                            last_seen: None,
                            at,
                        },
                    )
                    .await?;
                }
                let is_current = match self.local.get_mut(member) {
                    Some(mut user) if user.stay == stay => {
                        user.is_told = true;
                        true
                    }
                    _ => false,
                };
                if is_current {
                    self.rewrite([member.to_owned()]);
                }
                Ok(())
            }
            PresenceFinding::Offline if online.is_online() => Ok(()),
            PresenceFinding::Offline => {
                let seen = Commit::default()
                    .require(ENTITY, ONLY, Expected::Present)
                    .put_value(SEEN, ONLY, &at);
                // A conflict means that the user was deleted.
                let _kept = self.services.store.commit(&scope.user(&id), seen).await?;
                self.publish(
                    &scope,
                    PresenceData {
                        user_id: id,
                        online: false,
                        last_seen: Some(at),
                        at,
                    },
                )
                .await
            }
        }
    }

    async fn publish(&self, scope: &Scope, data: PresenceData) -> Result<(), StoreError> {
        let topic = scope.presence(&data.user_id);
        reads::try_publish(
            &self.services,
            &topic,
            EventKind::PresenceChanged,
            Control::None,
            &Event { data: &data },
        )
        .await
    }
}
