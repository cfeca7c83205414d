//! Users: creating, reading, listing, changing, deleting, their tokens and sessions.

mod params;
mod results;

pub use params::{Disconnect, MintToken, PutUser, UpdateUser, UserIds};
pub use results::{Disconnected, Token, Unread, UserBatch, UserBatchItem, Users};

use super::{
    Body, Caller, Conditions, Http, Operation, WebSocket,
    batch::Batch,
    channel::EntryList,
    described,
    empty::{Empty, NoInput},
    page::{List, ListPage},
    path::{NoPath, UserPath},
};
use crate::{Patch, UserId, entity::User};

fn example_user() -> UserId {
    UserId::from_bits(1)
}

fn example_put() -> PutUser {
    PutUser {
        username: Some("alice".to_owned()),
        first_name: Some("Alice".to_owned()),
        ..PutUser::default()
    }
}

described! {
    /// Creates a user
    pub struct UserCreate;

    /// Lists users
    pub struct UserList;

    /// Creates or replaces up to 100 users
    ///
    /// Each item is performed separately: one that fails, or cannot be decoded, does not affect the
    /// others. The results are in the order of the request, each with the status of its item.
    pub struct UserPutBatch;

    /// Reads profiles
    ///
    /// At most 100. Unknown ids are left out. `more` is true if the reply would be too long and
    /// ends early.
    pub struct UserGet;

    /// Reads a user
    pub struct UserRead;

    /// Creates or replaces a user
    ///
    /// Fields that are left out are cleared.
    pub struct UserReplace;

    /// Changes a user
    ///
    /// A user may change itself, except `bot`. Over WebSocket the user is always the caller.
    pub struct UserUpdate;

    /// Deletes a user
    ///
    /// Its sessions end, it leaves its channels, and its id cannot be used again. Its messages
    /// remain.
    pub struct UserDelete;

    /// Mints a token for a user
    ///
    /// Valid for `expires_in` seconds; default 3600. It is signed with a token key that is created
    /// automatically.
    pub struct UserMintToken;

    /// Ends a user's sessions
    ///
    /// They close with 1001. With `revoke`, the user's existing tokens are refused as well, and the
    /// sessions close with 4004. `sessions` is their number.
    pub struct UserDisconnect;

    /// Lists a user's channels
    ///
    /// Last active first.
    pub struct UserChannels;

    /// Counts a user's unread messages
    ///
    /// `channels` has the count of each channel that has unread messages.
    pub struct UserUnread;
}

impl Operation for UserCreate {
    const NAME: &'static str = "user.create";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(Http::post("/v1/users", &[(201, "The new user")]));
    type Path = NoPath;
    type Input = PutUser;
    type Output = User;

    fn example() -> PutUser {
        example_put()
    }
}

impl Operation for UserList {
    const NAME: &'static str = "user.list";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(Http::get("/v1/users", &[(200, "A page, by id")]));
    type Path = NoPath;
    type Input = ListPage;
    type Output = List<User>;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for UserPutBatch {
    const NAME: &'static str = "user.put_batch";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/users/batch",
        &[(200, "One answer for each, in the order of the request")],
    ));
    type Path = NoPath;
    type Input = Batch<PutUser>;
    type Output = UserBatch;

    fn example() -> Batch<PutUser> {
        Batch::of(&[example_put()])
    }
}

impl Operation for UserGet {
    const NAME: &'static str = "user.get";
    const CALLERS: &'static [Caller] = &[Caller::User];
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    type Path = NoPath;
    type Input = UserIds;
    type Output = Users;

    fn example() -> UserIds {
        UserIds {
            user_ids: vec![example_user()],
        }
    }
}

impl Operation for UserRead {
    const NAME: &'static str = "user.read";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const HTTP: Option<Http> =
        Some(Http::get("/v1/users/{user}", &[(200, "The user")]).conditions(Conditions::Read));
    type Path = UserPath;
    type Input = NoInput;
    type Output = User;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for UserReplace {
    const NAME: &'static str = "user.replace";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(
        Http::put(
            "/v1/users/{user}",
            &[(200, "The replaced user"), (201, "The new user")],
        )
        .conditions(Conditions::Write),
    );
    type Path = UserPath;
    type Input = PutUser;
    type Output = User;

    fn example() -> PutUser {
        example_put()
    }
}

impl Operation for UserUpdate {
    const NAME: &'static str = "user.update";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::field("user"));
    const HTTP: Option<Http> = Some(
        Http::patch("/v1/users/{user}", &[(200, "The changed user")]).conditions(Conditions::Write),
    );
    type Path = UserPath;
    type Input = UpdateUser;
    type Output = User;

    fn example() -> UpdateUser {
        UpdateUser {
            bio: Patch::Set("Likes chat".to_owned()),
            last_name: Patch::Clear,
            ..UpdateUser::default()
        }
    }

    fn own_path(caller: &UserId) -> Option<UserPath> {
        Some(UserPath {
            user_id: caller.clone(),
        })
    }
}

impl Operation for UserDelete {
    const NAME: &'static str = "user.delete";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(
        Http::delete("/v1/users/{user}", &[(204, "It is deleted")]).conditions(Conditions::Write),
    );
    type Path = UserPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for UserMintToken {
    const NAME: &'static str = "user.mint_token";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> =
        Some(Http::post("/v1/users/{user}/tokens", &[(201, "The token")]).body(Body::Optional));
    type Path = UserPath;
    type Input = MintToken;
    type Output = Token;

    fn example() -> MintToken {
        MintToken {
            expires_in: Some(3600),
        }
    }
}

impl Operation for UserDisconnect {
    const NAME: &'static str = "user.disconnect";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(
        Http::post(
            "/v1/users/{user}/disconnect",
            &[(200, "How many sessions end")],
        )
        .body(Body::Optional),
    );
    type Path = UserPath;
    type Input = Disconnect;
    type Output = Disconnected;

    fn example() -> Disconnect {
        Disconnect { revoke: false }
    }
}

impl Operation for UserChannels {
    const NAME: &'static str = "user.channels";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const HTTP: Option<Http> = Some(Http::get("/v1/users/{user}/channels", &[(200, "A page")]));
    type Path = UserPath;
    type Input = ListPage;
    type Output = EntryList;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for UserUnread {
    const NAME: &'static str = "user.unread";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const HTTP: Option<Http> = Some(Http::get(
        "/v1/users/{user}/unread",
        &[(200, "The sum, and each channel that has any")],
    ));
    type Path = UserPath;
    type Input = NoInput;
    type Output = Unread;

    fn example() -> NoInput {
        NoInput {}
    }
}
