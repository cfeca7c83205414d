//! The operations of channels.

use protocol::{
    ChannelId, UserId,
    entity::Channel,
    operation::{
        channel::{
            ChannelCreate, ChannelDelete, ChannelJoin, ChannelLeave, ChannelList, ChannelRead,
            ChannelReplace, ChannelSearch, ChannelUpdate, ListChannels,
        },
        empty::Empty,
        page::ListPage,
    },
};

use crate::{
    Services,
    channels::{self, create::Made, lists::ChannelFilter},
    credential::Actor,
    document::Versioned,
    entry_list,
    error::{Error, Result},
    participants,
    perform::{Call, Done, Perform},
};

/// Maximum number of ids in one `channel.search`.
const MAX_SEARCHED_IDS: usize = protocol::bounds::SEARCHED_IDS;

impl Perform for ChannelList {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let actor = call.caller.actor()?;
        let user = user_of(actor)?;
        Ok(Done::plain(
            entry_list::list_entries(services, actor, user, call.input).await?,
        ))
    }
}

impl Perform for ChannelCreate {
    const REPEATS_ANEW: bool = true;

    async fn repeat(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let channel = channels::create::channel_made_by(
            services,
            call.caller.actor()?,
            &call.input,
            call.seed,
        )
        .await?;
        Ok(channel_done(channel, Made::Earlier))
    }

    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let (channel, made) = channels::create::create_channel_as(
            services,
            call.caller.actor()?,
            call.input,
            call.seed,
        )
        .await?;
        Ok(channel_done(channel, made))
    }
}

impl Perform for ChannelSearch {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let actor = call.caller.actor()?;
        let ListChannels {
            kind,
            participant_id,
            ids,
            cursor,
            limit,
        } = call.input;
        let ids = ids.map(|ids| parse_ids(&ids)).transpose()?;
        let filter = ChannelFilter {
            kind,
            participant: participant_id,
            ids,
        };
        Ok(Done::plain(
            channels::lists::list_channels(services, actor, filter, ListPage { cursor, limit })
                .await?,
        ))
    }
}

impl Perform for ChannelRead {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let channel =
            channels::read_channel(services, call.caller.actor()?, &call.path.channel_id).await?;
        Ok(channel_done(channel, Made::Earlier))
    }
}

impl Perform for ChannelReplace {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let (channel, made) = channels::create::put_channel(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            call.input,
            call.if_match,
        )
        .await?;
        Ok(channel_done(channel, made))
    }
}

impl Perform for ChannelUpdate {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        let channel = channels::update_channel(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            call.input,
            call.if_match,
        )
        .await?;
        Ok(channel_done(channel, Made::Earlier))
    }
}

impl Perform for ChannelDelete {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        channels::delete_channel(
            services,
            call.caller.actor()?,
            &call.path.channel_id,
            call.if_match,
        )
        .await?;
        Ok(Done::plain(Empty {}))
    }
}

impl Perform for ChannelJoin {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        Ok(Done::plain(
            participants::add::join_channel(services, call.caller.actor()?, &call.path.channel_id)
                .await?,
        ))
    }
}

impl Perform for ChannelLeave {
    async fn perform(services: &Services, call: Call<Self>) -> Result<Done<Self::Output>> {
        participants::remove::leave_channel(services, call.caller.actor()?, &call.path.channel_id)
            .await?;
        Ok(Done::plain(Empty {}))
    }
}

fn user_of(actor: &Actor) -> Result<&UserId> {
    actor
        .user()
        .ok_or_else(|| Error::forbidden("this takes a user token"))
}

fn parse_ids(text: &str) -> Result<Vec<ChannelId>> {
    let ids: Result<Vec<ChannelId>, _> = text
        .split(',')
        .filter(|id| !id.is_empty())
        .map(str::parse)
        .collect();
    let ids = ids.map_err(|error| Error::bad_request(format!("`ids`: {error}")))?;
    if ids.len() > MAX_SEARCHED_IDS {
        return Err(Error::bad_request(format!(
            "`ids` has at most {MAX_SEARCHED_IDS} ids"
        )));
    }
    Ok(ids)
}

fn channel_done(channel: Versioned<Channel>, made: Made) -> Done<Channel> {
    let count = Some(channel.value.participant_count);
    Done::entity(channel)
        .with_count(count)
        .new_if(made == Made::ByThisCall)
}
