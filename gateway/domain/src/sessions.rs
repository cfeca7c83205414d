//! Ending a user's sessions, and refusing the tokens that it had.

use protocol::{
    CloseCode, UserId,
    operation::user::{Disconnect, Disconnected},
};
use store::{Commit, Expected, Mark, Write};

use super::{
    Services,
    document::encode,
    ended::Ending,
    jobs::Task,
    online::Online,
    schema::{ENTITY, ONLY, REVOCATION, Scope},
};
use crate::{
    credential::Actor,
    error::{Error, Result},
};

impl Services {
    /// Ends a user's sessions on all nodes, and says how many there were. With `revoke`, every
    /// token issued up to now is refused within seconds (4004); without, clients may come back at
    /// once (1001). App keys only.
    pub async fn disconnect_user(
        &self,
        actor: &Actor,
        user: &UserId,
        body: Disconnect,
    ) -> Result<Disconnected> {
        let scope = actor.backend()?;
        if !self.user_exists(scope, user).await? {
            return Err(Error::not_found("user"));
        }
        let counted = self.store.members(&[scope.member(user)]).await?;
        if body.revoke {
            let task = Task::Tokens {
                scope: scope.clone(),
                user: user.clone(),
            };
            self.note_job(&task).await?;
            self.revoke_tokens(scope, user).await?;
            // What the job does, it does whether or not this succeeds.
            self.wake_jobs();
            self.end_sessions_of(&task).await?;
        } else {
            self.end(Ending::user(scope, user, None, CloseCode::GoingAway))
                .await?;
        }
        let sessions = counted
            .first()
            .map_or(0, |sum| Online::from(*sum).sessions());
        Ok(Disconnected { sessions })
    }

    /// Refuses all of a user's tokens up to the second of this commit.
    pub(super) async fn revoke_tokens(&self, scope: &Scope, user: &UserId) -> Result<()> {
        let mut commit = Commit::default()
            .require(ENTITY, ONLY, Expected::Present)
            .frees();
        commit.write.push(Write::Put {
            table: REVOCATION,
            key: ONLY.into(),
            value: encode(&()),
            mark: Mark::Edited,
            event: None,
        });
        match self.store.commit(&scope.user(user), commit).await? {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::not_found("user")),
        }
    }
}
