//! Ending a user's sessions, and refusing the tokens that it had.

use fanout::record::Stamps;
use protocol::{CloseCode, UserId, params::Disconnect, results::Disconnected};

use super::{
    Services,
    document::encode,
    ended::Ending,
    online::Online,
    scope::{ENTITY, ONLY, REVOCATION, Scope},
};
use crate::{
    auth::Actor,
    error::{Error, Result},
    store::{Commit, Expected, Mark, Write},
};

/// The second up to which a user's tokens are refused, from the stamps of its [`REVOCATION`]: that of the last revoking
/// commit itself, so that no node's clock has a say.
pub(crate) fn revoked_second(stamps: &Stamps) -> u64 {
    stamps.edited_at.max(stamps.created_at) / 1000
}

impl Services {
    /// Ends a user's sessions on all nodes, and says how many there were. With `revoke`, every token issued up to now is
    /// refused within seconds (4004); without, clients may come back at once (1001). App keys only.
    pub async fn disconnect_user(
        &self,
        actor: &Actor,
        user: &UserId,
        body: Disconnect,
    ) -> Result<Disconnected> {
        let scope = actor.backend()?;
        let (issued_until, close) = if body.revoke {
            (
                Some(self.revoke_tokens(scope, user).await?),
                CloseCode::SessionEnded,
            )
        } else if self.user_exists(scope, user).await? {
            (None, CloseCode::GoingAway)
        } else {
            return Err(Error::not_found("user"));
        };
        let counted = self.store.members(&[scope.member(user)]).await?;
        self.end(Ending::user(scope, user, issued_until, close))
            .await?;
        let sessions = counted
            .first()
            .map_or(0, |sum| Online::from(*sum).sessions());
        Ok(Disconnected { sessions })
    }

    /// Refuses all of a user's tokens up to this second, which is answered.
    async fn revoke_tokens(&self, scope: &Scope, user: &UserId) -> Result<u64> {
        let mut commit = Commit::default().require(ENTITY, ONLY, Expected::Present);
        commit.write.push(Write::Put {
            table: REVOCATION,
            key: ONLY.into(),
            value: encode(&()),
            mark: Mark::Edited,
            event: None,
        });
        match self.store.commit(&scope.user(user), commit).await? {
            Ok(outcome) => Ok(revoked_second(&outcome.written[0].stamps)),
            Err(_) => Err(Error::not_found("user")),
        }
    }

    /// Ends the sessions of a user that was deleted.
    pub(super) async fn end_sessions_of_deleted(&self, scope: &Scope, user: &UserId) -> Result<()> {
        self.end(Ending::user(scope, user, None, CloseCode::SessionEnded))
            .await
    }
}
