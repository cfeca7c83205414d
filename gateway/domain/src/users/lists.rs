//! Reads several users.

use protocol::{
    UserId, codec,
    entity::User,
    operation::{
        page::{List, ListPage},
        user::Users,
    },
};
use store::{DocumentKey, Range};

use super::user_of;
use crate::{
    Services,
    credential::Actor,
    cursor::{self, ListQuery, REPLY_BYTES},
    document::parse_key,
    error::{Error, Result},
    listing::{self, Candidates, Filling},
    schema::{Scope, USERS},
};

/// Reads up to 100 users. Leaves out those that do not exist.
pub async fn read_users(services: &Services, actor: &Actor, ids: &[UserId]) -> Result<Users> {
    if ids.len() > MAX_USER_IDS {
        return Err(Error::bad_request(format!(
            "at most {MAX_USER_IDS} users at once"
        )));
    }
    let mut items: Vec<User> = read_each(services, &actor.scope, ids)
        .await?
        .into_iter()
        .flatten()
        .collect();
    let mut bytes = 0;
    let fit = items.iter().take_while(|user| {
        bytes += 1 + protocol::codec::longest(user);
        bytes <= REPLY_BYTES
    });
    let (fit, all) = (fit.count(), items.len());
    items.truncate(fit);
    Ok(Users {
        items,
        more: fit < all,
    })
}

/// Reads users. Returns `None` for each id that does not exist.
async fn read_each(
    services: &Services,
    scope: &Scope,
    ids: &[UserId],
) -> Result<Vec<Option<User>>> {
    let found = services
        .entities(ids.iter().map(|id| scope.user(id)))
        .await?;
    found
        .iter()
        .map(|document| document.as_ref().map(user_of).transpose())
        .collect()
}

/// Lists an app's users by id. App keys only.
pub async fn list_users(services: &Services, actor: &Actor, page: ListPage) -> Result<List<User>> {
    actor.require_backend("users are listed by an app key")?;
    let limit = listing::page_length(services, page.limit)?;
    let query = ListQuery::of_actor(actor, "users");
    let after: Option<String> = page
        .cursor
        .map(|cursor| cursor::open_cursor(services, &query, &cursor))
        .transpose()?;
    let mut filling = Filling::new(limit, after.map(DocumentKey::from), codec::longest);
    while let Some((after, count)) = filling.next() {
        let (page, _) = services
            .store
            .page(&actor.scope.index(), USERS, Range::Keys { after }, count)
            .await?;
        let ids: Vec<DocumentKey> = page
            .documents
            .into_iter()
            .map(|document| document.key)
            .collect();
        let found = read_each(
            services,
            &actor.scope,
            &ids.iter().map(parse_key).collect::<Result<Vec<_>>>()?,
        )
        .await?;
        filling.take(
            Candidates {
                ids,
                more: page.more,
            },
            found,
        );
    }
    let (items, next) = filling.end();
    Ok(List {
        items,
        cursor: next.map(|id| cursor::seal_cursor(services, &query, &*id)),
    })
}

/// Maximum number of users in one request.
const MAX_USER_IDS: usize = protocol::bounds::USER_IDS;

/// Returns whether one of these ids is not a user of the app.
pub(crate) async fn is_any_missing(
    services: &Services,
    scope: &Scope,
    ids: &[UserId],
) -> Result<bool> {
    Ok(read_each(services, scope, ids)
        .await?
        .iter()
        .any(Option::is_none))
}
