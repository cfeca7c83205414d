//! The order of a user's channels, last active first. Lists page through it, and `connect`
//! subscribes by it.
//!
//! No message writes to the index of a participant, so the order is read from the channels: one
//! read for each. For a user with few channels, every request reads it. For other users it is
//! cached for a while, bounded in bytes, and updated from the user's own stream, so that it
//! contains new channels at once. One request at a time reads it for each user and app, and a few
//! at once on the node. They read in pieces, between which other work proceeds.

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use protocol::{ChannelId, EventKind, UserId};
use store::{Continuity, Document, Position, Range, Read, cost};
use tokio::time::Instant;

use crate::{
    Services,
    channel_orders::{ChannelOrder, Ranked, rank},
    document::parse_key,
    error::{Error, Result},
    index::{MAX_INDEX_UNITS, line::Line},
    schema::{CHANNELS, PARTICIPANTS, Scope},
    settling,
};

/// Maximum number of channels of a user whose order is read for every request.
const MAX_UNCACHED_CHANNELS: usize = 200;
/// Channels that are read at once. Between two such reads other tasks run.
pub(super) const CHANNELS_PER_READ: usize = 100;
/// Maximum time that a list waits for its turn to read many channels.
pub(super) const LIST_PATIENCE: Duration = Duration::from_secs(4);
/// Maximum time that a `connect` waits for its turn. It holds a permit that connects of other apps
/// need.
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);
/// An order is reused for this many times the time that reading it took, so that reading takes a
/// small part of a node's time.
const REUSE_FACTOR: u32 = 20;
/// Minimum time for which an order is used, for each of its channels.
const REUSE_PER_CHANNEL: Duration = Duration::from_micros(100);
/// Maximum time for which an order is used.
const MAX_REUSE: Duration = Duration::from_secs(10);
/// Maximum number of changes of the user's own stream by which an order is brought up to date;
/// beyond that the order is read again.
const CHANGES_TO_FOLLOW: usize = 200;
/// Maximum number of wrong index lines that one read of an order repairs.
const REPAIRS_PER_READ: usize = 50;
/// Maximum time by which the node's estimate of the store's clock is ahead, in milliseconds. Used
/// while the store's clock cannot be read.
const CLOCK_ERROR_MS: u64 = 5_000;

/// Returns at most `most` channels of a user, last active first, for `connect`.
pub async fn channels_by_activity(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    most: usize,
) -> Result<Vec<Ranked>> {
    let order = channel_order_within(services, scope, user, 0, CONNECT_PATIENCE).await?;
    Ok(order.channels.iter().take(most).cloned().collect())
}

/// Returns the order of a user's channels as of `not_before` or later.
pub(super) async fn channel_order(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    not_before: u64,
) -> Result<Arc<ChannelOrder>> {
    channel_order_within(services, scope, user, not_before, LIST_PATIENCE).await
}

async fn channel_order_within(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    not_before: u64,
    patience: Duration,
) -> Result<Arc<ChannelOrder>> {
    let finding = find_order(services, scope, user, not_before, patience);
    cost::at_most(MAX_INDEX_UNITS, finding).await
}

async fn find_order(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    not_before: u64,
    patience: Duration,
) -> Result<Arc<ChannelOrder>> {
    if let Some(order) = kept_order(services, scope, user, not_before).await? {
        return Ok(order);
    }
    let own = scope.user(user);
    let (as_of, page) = tokio::join!(
        instant(services),
        services.store.page(
            &own,
            CHANNELS,
            Range::Keys { after: None },
            MAX_UNCACHED_CHANNELS
        )
    );
    let (page, head) = page?;
    if !page.more {
        let (channels, began) = (
            rank_channels(services, scope, user, page.documents).await?,
            services.clock.elapsed(),
        );
        return Ok(Arc::new(sorted(
            as_of,
            channels,
            head.position(),
            began,
            Duration::ZERO,
        )));
    }
    let _turn = services.orders.turn(scope, user, patience).await?;
    // Another request may have read it meanwhile.
    if let Some(order) = kept_order(services, scope, user, not_before).await? {
        return Ok(order);
    }
    let order = Arc::new(read_order(services, scope, user).await?);
    services
        .orders
        .keep((scope.clone(), user.clone()), Arc::clone(&order));
    Ok(order)
}

/// Returns the cached order if it is recent enough, with the changes that the user's own stream
/// reports since.
async fn kept_order(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    not_before: u64,
) -> Result<Option<Arc<ChannelOrder>>> {
    let key = (scope.clone(), user.clone());
    let Some(order) = services.orders.get(&key) else {
        return Ok(None);
    };
    if order.as_of < not_before
        || services.clock.elapsed().saturating_sub(order.read_at) >= order.reuse
    {
        return Ok(None);
    }
    let own = scope.user(user);
    if services
        .snapshot(own.clone(), Vec::new())
        .await?
        .head
        .position()
        == order.position
    {
        return Ok(Some(order));
    }
    let log = services
        .store
        .log(&own, order.position, CHANGES_TO_FOLLOW)
        .await?;
    let last = log
        .entries
        .last()
        .map_or(order.position, |entry| entry.position);
    if log.continuity != Continuity::Continuous || last != log.head.position() {
        return Ok(None);
    }
    let mut changed = BTreeSet::new();
    for entry in log.entries.iter().filter(|e| {
        [
            EventKind::ChannelAdded as u8,
            EventKind::ChannelRemoved as u8,
        ]
        .contains(&e.kind)
    }) {
        let id = str::from_utf8(&entry.reference).map_err(Error::internal)?;
        changed.insert(id.parse::<ChannelId>().map_err(Error::internal)?);
    }
    // The log says which lines changed; the index has their current state.
    let lines = services
        .snapshot(
            own,
            changed.iter().map(|id| (CHANNELS, id.shared())).collect(),
        )
        .await?
        .documents;
    let ranked =
        rank_channels(services, scope, user, lines.into_iter().flatten().collect()).await?;
    let order = Arc::new(order.with(&changed, ranked, last));
    services.orders.keep(key, Arc::clone(&order));
    Ok(Some(order))
}

/// Reads the whole order, page by page.
async fn read_order(services: &Services, scope: &Scope, user: &UserId) -> Result<ChannelOrder> {
    let (own, as_of) = (scope.user(user), instant(services).await);
    let (began, started) = (services.clock.elapsed(), Instant::now());
    let (mut channels, mut position, mut after) = (Vec::new(), None, None);
    loop {
        let (page, head) = services
            .store
            .page(&own, CHANNELS, Range::Keys { after }, CHANNELS_PER_READ)
            .await?;
        position.get_or_insert(head.position());
        after = page.documents.last().map(|line| line.key.clone());
        channels.extend(rank_channels(services, scope, user, page.documents).await?);
        if !page.more {
            break;
        }
        tokio::task::yield_now().await;
    }
    let least = REUSE_PER_CHANNEL * u32::try_from(channels.len()).unwrap_or(u32::MAX);
    let reuse = (started.elapsed() * REUSE_FACTOR).max(least).min(MAX_REUSE);
    Ok(sorted(
        as_of,
        channels,
        position.unwrap_or(Position { seq: 0, at: 0 }),
        began,
        reuse,
    ))
}

/// Reads when the channels of these lines were last active. Leaves out the channels that the user
/// is not in, and repairs lines that have been wrong for a while.
async fn rank_channels(
    services: &Services,
    scope: &Scope,
    user: &UserId,
    lines: Vec<Document>,
) -> Result<Vec<Ranked>> {
    let (mut channels, mut wrong) = (Vec::with_capacity(lines.len()), Vec::new());
    for some in lines.chunks(CHANNELS_PER_READ) {
        let ids: Vec<ChannelId> = some
            .iter()
            .map(|line| parse_key(&line.key))
            .collect::<Result<_>>()?;
        let read = |id| Read {
            partition: scope.channel(id),
            documents: vec![(PARTICIPANTS, user.shared())],
            newest: None,
        };
        let snapshots = services.store.read(ids.iter().map(read).collect()).await?;
        for ((line, id), snapshot) in some.iter().zip(ids).zip(snapshots) {
            let is_in = snapshot.documents.iter().any(Option::is_some);
            if is_in {
                channels.push((snapshot.head.at, id));
            }
            if is_in != Line::of(line)?.is_confirmed() {
                wrong.push((line, is_in));
            }
        }
    }
    for (line, is_in) in wrong.into_iter().take(REPAIRS_PER_READ) {
        settling::repair_line(services, scope, user, line, is_in).await?;
    }
    Ok(channels)
}

/// Returns an instant that is not after the store's current time.
async fn instant(services: &Services) -> u64 {
    match services.store.now().await {
        Ok(now) => now,
        // A store that refuses writes may still be read. An instant that is too early only shows
        // more channels twice.
        Err(_) => services.clock.now_ms().saturating_sub(CLOCK_ERROR_MS),
    }
}

fn sorted(
    as_of: u64,
    mut channels: Vec<Ranked>,
    position: Position,
    read_at: Duration,
    reuse: Duration,
) -> ChannelOrder {
    channels.sort_by(rank);
    ChannelOrder {
        as_of,
        channels,
        position,
        read_at,
        reuse,
    }
}
