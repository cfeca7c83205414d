//! Ends a user's sessions and revokes its tokens.

use protocol::{
    CloseCode, UserId,
    operation::user::{Disconnect, Disconnected},
};
use store::{Commit, Expected, Mark};

use crate::{
    Services,
    credential::Actor,
    document::PutValue,
    ended::{self, Ending},
    error::{Error, Result},
    jobs::{self, Task},
    online::Online,
    schema::{ENTITY, ONLY, REVOCATION, Scope},
    users,
};

/// Ends a user's sessions on all nodes, and returns their number. With `revoke`, every token issued
/// up to now is refused within seconds (4004); without, clients may reconnect at once (1001). App
/// keys only.
pub async fn disconnect_user(
    services: &Services,
    actor: &Actor,
    user: &UserId,
    body: Disconnect,
) -> Result<Disconnected> {
    let scope = actor.backend()?;
    if !users::user_exists(services, scope, user).await? {
        return Err(Error::not_found("user"));
    }
    let counted = services.store.members(&[scope.member(user)]).await?;
    if body.revoke {
        let task = Task::Tokens {
            scope: scope.clone(),
            user: user.clone(),
        };
        jobs::note_job(services, &task).await?;
        revoke_tokens(services, scope, user).await?;
        // The job runs whether or not this request succeeds.
        jobs::wake_jobs(services);
        jobs::end_sessions_of(services, &task).await?;
    } else {
        ended::end_sessions(
            services,
            Ending::user(scope, user, None, CloseCode::GoingAway),
        )
        .await?;
    }
    let sessions = counted
        .first()
        .map_or(0, |sum| Online::from(*sum).sessions());
    Ok(Disconnected { sessions })
}

/// Revokes all tokens of a user that were issued up to the second of this commit.
pub(super) async fn revoke_tokens(services: &Services, scope: &Scope, user: &UserId) -> Result<()> {
    let mut commit = Commit::default()
        .require(ENTITY, ONLY, Expected::Present)
        .frees();
    commit.add_marked(REVOCATION, ONLY, &(), Mark::Edited);
    match services.commit(&scope.user(user), commit).await? {
        Ok(_) => Ok(()),
        Err(_) => Err(Error::not_found("user")),
    }
}
