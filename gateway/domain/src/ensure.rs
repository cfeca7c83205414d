//! Creates users that a valid token names and the app does not know yet.

use protocol::{UserId, entity::User};

use crate::{Services, error::Result, schema::Scope, users};

/// Creates a user unless it exists. Returns false if it was deleted: its id is never used again.
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
