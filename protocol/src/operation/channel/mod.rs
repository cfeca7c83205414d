//! Channels: creating, reading, listing, changing, deleting, and the subscriptions of a session.

mod params;
mod results;

pub use params::{
    CreateChannel, ListChannels, ReplaceChannel, Subscribe, Unsubscribe, UpdateChannel,
};
pub use results::{EntryList, Subscribed};

use super::{
    Caller, Conditions, Http, Operation, WebSocket, described,
    empty::{Empty, NoInput},
    page::{List, ListPage},
    path::{ChannelPath, NoPath},
};
use crate::{
    ChannelId, Cursor, Metadata, Patch,
    entity::{Channel, ChannelType, Participant},
};

fn example_channel() -> ChannelId {
    ChannelId::from_bits(1)
}

fn example_create() -> CreateChannel {
    CreateChannel {
        id: None,
        kind: ChannelType::Open,
        name: Some("General".to_owned()),
        description: None,
        icon: None,
        banner: None,
        creator_id: None,
        participant_ids: Vec::new(),
        metadata: Metadata::default(),
    }
}

fn example_replace() -> ReplaceChannel {
    ReplaceChannel {
        kind: ChannelType::Open,
        name: Some("General".to_owned()),
        description: Some("For everything".to_owned()),
        icon: None,
        banner: None,
        metadata: Metadata::default(),
    }
}

described! {
    /// Subscribes the session to channels
    ///
    /// At most 200, each from a position, or from now on (`[]`). Replayed events follow the reply.
    pub struct ChannelSubscribe;

    /// Ends subscriptions of the session
    pub struct ChannelUnsubscribe;

    /// Lists the caller's channels
    ///
    /// Last active first. Reading all pages returns every channel that the user was in during that
    /// time. A channel that became active meanwhile, or shortly before, may be returned twice.
    pub struct ChannelList;

    /// Creates a channel
    ///
    /// The creator becomes its owner. If the two users have a `direct` channel already, that one is
    /// returned.
    pub struct ChannelCreate;

    /// Lists the channels of the app
    ///
    /// An app key sees all channels; a user sees its own and those of type `open` and `broadcast`.
    /// `ids` are separated by commas.
    pub struct ChannelSearch;

    /// Reads a channel
    pub struct ChannelRead;

    /// Creates or replaces a channel
    ///
    /// Fields that are left out are cleared. The type of an existing channel cannot change.
    pub struct ChannelReplace;

    /// Changes a channel
    pub struct ChannelUpdate;

    /// Deletes a channel
    pub struct ChannelDelete;

    /// Joins an open or broadcast channel
    ///
    /// Over HTTP: `participant.add` with the user's own id.
    pub struct ChannelJoin;

    /// Leaves a channel
    ///
    /// Over HTTP: `participant.remove` with the user's own id.
    pub struct ChannelLeave;
}

impl Operation for ChannelSubscribe {
    const NAME: &'static str = "channel.subscribe";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::SESSION);
    type Path = NoPath;
    type Input = Subscribe;
    type Output = Subscribed;

    fn example() -> Subscribe {
        Subscribe {
            channels: [(example_channel(), Cursor::Now)].into(),
        }
    }
}

impl Operation for ChannelUnsubscribe {
    const NAME: &'static str = "channel.unsubscribe";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::SESSION);
    type Path = NoPath;
    type Input = Unsubscribe;
    type Output = Empty;

    fn example() -> Unsubscribe {
        Unsubscribe {
            channel_ids: vec![example_channel()],
        }
    }
}

impl Operation for ChannelList {
    const NAME: &'static str = "channel.list";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    type Path = NoPath;
    type Input = ListPage;
    type Output = EntryList;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for ChannelCreate {
    const NAME: &'static str = "channel.create";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::field("channel"));
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/channels",
        &[
            (201, "The new channel"),
            (200, "The direct channel that exists"),
        ],
    ));
    type Path = NoPath;
    type Input = CreateChannel;
    type Output = Channel;

    fn example() -> CreateChannel {
        example_create()
    }
}

impl Operation for ChannelSearch {
    const NAME: &'static str = "channel.search";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const HTTP: Option<Http> = Some(Http::get("/v1/channels", &[(200, "A page, by id")]));
    type Path = NoPath;
    type Input = ListChannels;
    type Output = List<Channel>;

    fn example() -> ListChannels {
        ListChannels::default()
    }
}

impl Operation for ChannelRead {
    const NAME: &'static str = "channel.read";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const HTTP: Option<Http> = Some(
        Http::get("/v1/channels/{channel}", &[(200, "The channel")]).conditions(Conditions::Read),
    );
    type Path = ChannelPath;
    type Input = NoInput;
    type Output = Channel;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for ChannelReplace {
    const NAME: &'static str = "channel.replace";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(
        Http::put(
            "/v1/channels/{channel}",
            &[(200, "The replaced channel"), (201, "The new channel")],
        )
        .conditions(Conditions::Write),
    );
    type Path = ChannelPath;
    type Input = ReplaceChannel;
    type Output = Channel;

    fn example() -> ReplaceChannel {
        example_replace()
    }
}

impl Operation for ChannelUpdate {
    const NAME: &'static str = "channel.update";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::field("channel"));
    const HTTP: Option<Http> = Some(
        Http::patch("/v1/channels/{channel}", &[(200, "The changed channel")])
            .conditions(Conditions::Write),
    );
    type Path = ChannelPath;
    type Input = UpdateChannel;
    type Output = Channel;

    fn example() -> UpdateChannel {
        UpdateChannel {
            name: Patch::Set("Everything".to_owned()),
            description: Patch::Clear,
            ..UpdateChannel::default()
        }
    }
}

impl Operation for ChannelDelete {
    const NAME: &'static str = "channel.delete";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(
        Http::delete("/v1/channels/{channel}", &[(204, "It is deleted")])
            .conditions(Conditions::Write),
    );
    type Path = ChannelPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for ChannelJoin {
    const NAME: &'static str = "channel.join";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::field("participant"));
    type Path = ChannelPath;
    type Input = NoInput;
    type Output = Participant;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for ChannelLeave {
    const NAME: &'static str = "channel.leave";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    type Path = ChannelPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}
