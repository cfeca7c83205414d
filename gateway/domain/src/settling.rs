//! Completes interrupted changes of membership.

use futures_util::{StreamExt, stream};
use protocol::{ChannelId, UserId};
use store::Document;

use crate::{
    Services,
    document::parse_key,
    entries::Detail,
    error::Result,
    index::{
        self,
        line::{Indexed, Line},
    },
    memberships::Membership,
    participants,
    retry::retry,
    schema::Scope,
};

/// Maximum number of changes that are completed concurrently.
const CHANGES_AT_ONCE: usize = 16;

/// Completes the unfinished changes of this node, and returns the number of those that are left.
pub(super) async fn complete_memberships(services: &Services) -> usize {
    let completing = services.incomplete.take().into_iter().map(|membership| async move {
        let Membership {
            scope,
            user,
            channel,
        } = &membership;
        match settle_membership(services, scope, user, channel).await {
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(%error, %user, %channel, "cannot complete a change of membership, will retry");
                services.incomplete.put_back(membership);
            }
        }
    });
    stream::iter(completing)
        .buffer_unordered(CHANGES_AT_ONCE)
        .collect::<()>()
        .await;
    services.incomplete.len()
}

/// Makes a user's index agree with a channel, with the events that the user's sessions have not
/// received. Returns whether the user is not in the channel and the user's stream says so.
pub async fn settle_membership(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    channel: &ChannelId,
) -> Result<bool> {
    retry(|| async {
        // The line is read first: each step requires that it has not changed since.
        let line = index::read_line(services, scope, user, channel).await?;
        let is_in = index::read_entry(services, scope, user, channel, Detail::Positions)
            .await?
            .is_some();
        match line {
            _ if is_in => {
                let is_there = index::confirm_channel(services, scope, user, channel, line).await?;
                if !is_there {
                    participants::remove::remove_deleted_user(services, scope, channel, user)
                        .await?;
                }
                Ok(Some(!is_there))
            }
            Some(line) if line.is == Indexed::Confirmed => {
                let is_deleted = index::unindex_line(services, scope, user, channel, line).await?;
                Ok(is_deleted.then_some(true))
            }
            // An addition that failed or is in progress.
            Some(_) => Ok(Some(false)),
            None => Ok(Some(true)),
        }
    })
    .await
}

/// Repairs an old line of the index. `is_in` says whether the user is in the channel, and was read
/// after the line.
pub(super) async fn repair_line(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    document: &Document,
    is_in: bool,
) -> Result<()> {
    if !is_in {
        return index::drop_old_line(services, scope, user, document).await;
    }
    if index::is_old(services, &Line::of(document)?) {
        let channel = parse_key(&document.key)?;
        settle_membership(services, scope, user, &channel).await?;
    }
    Ok(())
}
