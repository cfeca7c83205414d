//! Users that nobody made beforehand: a valid token for an unknown one makes it.

use protocol::{UserId, entity::User};

use crate::{Services, error::Result, schema::Scope, users};

/// Makes a user unless it is there. False if it was deleted: its id is never given again.
pub async fn ensure_user(
    services: &Services,
    scope: &Scope,
    id: &UserId,
    name: Option<&str>,
) -> Result<bool> {
    let user = User {
        id: id.clone(),
        username: name.map(str::to_owned),
        first_name: None,
        last_name: None,
        avatar: None,
        bio: None,
        bot: false,
        metadata: Default::default(),
        created_at: 0,
    };
    if users::make_user(services, scope, user, None)
        .await?
        .is_some()
    {
        return Ok(true);
    }
    users::user_exists(services, scope, id).await
}
