//! Participants: adding, listing, changing roles, removing.

use super::{
    Caller, Conditions, Http, Operation, WebSocket,
    batch::Batch,
    described,
    empty::{Empty, NoInput},
    page::{List, ListPage},
    path::{ChannelPath, ParticipantPath},
};
use crate::{
    ErrorBody, UserId,
    entity::{Participant, Role},
    wire::wire,
};

fn example_user() -> UserId {
    UserId::from_bits(1)
}

described! {
    /// Adds a participant
    ///
    /// The default `role` is `member`. A user joins by adding its own id, as a `member`. A user who
    /// is a participant already is returned unchanged.
    pub struct ParticipantAdd;

    /// Lists a channel's participants
    ///
    /// With their read positions, by user id.
    pub struct ParticipantList;

    /// Adds up to 100 participants
    ///
    /// Each item is performed separately: one that fails, or cannot be decoded, does not affect the
    /// others. The results are in the order of the request, each with the status of its item.
    pub struct ParticipantAddBatch;

    /// Reads a participant
    pub struct ParticipantRead;

    /// Changes a participant's role
    pub struct ParticipantUpdate;

    /// Removes a participant
    ///
    /// A user leaves by removing its own id.
    pub struct ParticipantRemove;
}

impl Operation for ParticipantAdd {
    const NAME: &'static str = "participant.add";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::field("participant"));
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/channels/{channel}/participants",
        &[
            (201, "The new participant"),
            (200, "The participant, unchanged"),
        ],
    ));
    type Path = ChannelPath;
    type Input = AddParticipant;
    type Output = Participant;

    fn example() -> AddParticipant {
        AddParticipant {
            user_id: example_user(),
            role: None,
        }
    }
}

wire! {
    /// `participant.add`, `POST /v1/channels/{channel}/participants`.
    pub struct AddParticipant {
        /// User to add.
        pub user_id: UserId,
        /// Role; default `member`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub role: Option<Role>,
    }
}

impl Operation for ParticipantList {
    const NAME: &'static str = "participant.list";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(Http::get(
        "/v1/channels/{channel}/participants",
        &[(200, "A page")],
    ));
    type Path = ChannelPath;
    type Input = ListPage;
    type Output = List<Participant>;

    fn example() -> ListPage {
        ListPage::default()
    }
}

impl Operation for ParticipantAddBatch {
    const NAME: &'static str = "participant.add_batch";
    const CALLERS: &'static [Caller] = &[Caller::App];
    const HTTP: Option<Http> = Some(Http::post(
        "/v1/channels/{channel}/participants/batch",
        &[(200, "One answer for each, in the order of the request")],
    ));
    type Path = ChannelPath;
    type Input = Batch<AddParticipant>;
    type Output = ParticipantBatch;

    fn example() -> Batch<AddParticipant> {
        Batch::of(&[AddParticipant {
            user_id: example_user(),
            role: None,
        }])
    }
}

wire! {
    /// Results of a batch of participants.
    pub struct ParticipantBatch {
        /// One for each item, in the order of the request.
        pub items: Vec<ParticipantBatchItem>,
    }

    /// Result of one item of a batch.
    pub struct ParticipantBatchItem {
        /// HTTP status of the item.
        pub status: u16,
        /// The participant.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub participant: Option<Participant>,
        /// Error, if the item failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub error: Option<ErrorBody>,
    }
}

impl Operation for ParticipantRead {
    const NAME: &'static str = "participant.read";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const HTTP: Option<Http> = Some(
        Http::get(
            "/v1/channels/{channel}/participants/{user}",
            &[(200, "The participant with its read position")],
        )
        .conditions(Conditions::Read),
    );
    type Path = ParticipantPath;
    type Input = NoInput;
    type Output = Participant;

    fn example() -> NoInput {
        NoInput {}
    }
}

impl Operation for ParticipantUpdate {
    const NAME: &'static str = "participant.update";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::field("participant"));
    const HTTP: Option<Http> = Some(
        Http::patch(
            "/v1/channels/{channel}/participants/{user}",
            &[(200, "The changed participant")],
        )
        .conditions(Conditions::Write),
    );
    type Path = ParticipantPath;
    type Input = UpdateParticipant;
    type Output = Participant;

    fn example() -> UpdateParticipant {
        UpdateParticipant {
            role: Some(Role::Moderator),
        }
    }
}

wire! {
    /// `participant.update`, `PATCH /v1/channels/{channel}/participants/{user}`.
    pub struct UpdateParticipant {
        /// New role; without it nothing changes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub role: Option<Role>,
    }
}

impl Operation for ParticipantRemove {
    const NAME: &'static str = "participant.remove";
    const CALLERS: &'static [Caller] = Caller::ACTORS;
    const WEBSOCKET: Option<WebSocket> = Some(WebSocket::OUTPUT);
    const HTTP: Option<Http> = Some(
        Http::delete(
            "/v1/channels/{channel}/participants/{user}",
            &[(204, "It is deleted")],
        )
        .conditions(Conditions::Write),
    );
    type Path = ParticipantPath;
    type Input = NoInput;
    type Output = Empty;

    fn example() -> NoInput {
        NoInput {}
    }
}
