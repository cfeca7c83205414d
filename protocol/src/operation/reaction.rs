//! Reactions to messages.

use std::borrow::Borrow;

use super::{Body, Caller, Http, Operation, WebSocket, described, path::ReactionPath};
use crate::{UserId, wire::wire};

wire! {
    /// `reaction.add`, `reaction.remove`.
    #[derive(Default)]
    pub struct ReactionSender {
        /// The user who reacts; required with an app key; app keys only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub sender_id: Option<UserId>,
    }
}

impl Borrow<ReactionSender> for () {
    fn borrow(&self) -> &ReactionSender {
        &ReactionSender { sender_id: None }
    }
}

described! {
    /// Adds a reaction
    ///
    /// `count` is the number of users who give this reaction now. An app key names the `sender_id`:
    /// any user of the app.
    pub struct ReactionAdd;

    /// Removes a reaction
    ///
    /// `count` is the number of users who still give this reaction. An app key names the
    /// `sender_id`.
    pub struct ReactionRemove;
}

impl Operation for ReactionAdd {
    const NAME: &'static str = "reaction.add";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(
        Http::put(
            "/v1/channels/{channel}/messages/{message}/reactions/{emoji}",
            &[(200, "How many users gave it")],
        )
        .body(Body::None),
    );
    type Path = ReactionPath;
    type Input = ReactionSender;
    type Output = Count;

    fn example() -> ReactionSender {
        ReactionSender::default()
    }
}

wire! {
    /// Number of users who give a reaction.
    #[derive(Copy, Eq)]
    pub struct Count {
        /// Number after this request.
        pub count: u64,
    }
}

impl Operation for ReactionRemove {
    const NAME: &'static str = "reaction.remove";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(Http::delete(
        "/v1/channels/{channel}/messages/{message}/reactions/{emoji}",
        &[(200, "How many users still give it")],
    ));
    type Path = ReactionPath;
    type Input = ReactionSender;
    type Output = Count;

    fn example() -> ReactionSender {
        ReactionSender::default()
    }
}
