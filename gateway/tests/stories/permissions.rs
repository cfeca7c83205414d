//! The permission table, checked with the real services for every operation, role and channel type.

use domain::{
    Services, channels,
    credential::{Actor, Who},
    error::Error,
    messages, participants, reactions, reads,
    schema::Scope,
    typing,
};
use protocol::{
    ChannelId, ErrorCode, MessageId, Patch, TokenKeyId, UserId,
    entity::{ChannelType, Environment, Role},
    operation::{
        channel::UpdateChannel,
        message::{EditMessage, ListMessages, SendMessage},
        page::ListPage,
        participant::{AddParticipant, UpdateParticipant},
    },
};

use crate::story::World;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operation {
    See,
    List,
    ListParticipants,
    MarkRead,
    Send,
    React,
    Type,
    EditOwn,
    DeleteOwn,
    EditOthers,
    DeleteOthers,
    Add(Role),
    Join,
    ChangeRole(Role, Role),
    Remove(Role),
    Update,
    Leave,
    Delete,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Outcome {
    Done,
    Forbidden,
    NotFound,
}

/// Returns all operations; those that end the participation come last.
fn all_operations() -> Vec<Operation> {
    use Operation::*;
    let mut operations = vec![
        See,
        List,
        ListParticipants,
        MarkRead,
        Send,
        React,
        Type,
        EditOwn,
        DeleteOwn,
        EditOthers,
        DeleteOthers,
        Join,
        Update,
    ];
    for from in Role::ALL {
        operations.push(Add(from));
        operations.extend(Role::ALL.map(|to| ChangeRole(from, to)));
    }
    operations.extend(Role::ALL.map(Remove));
    operations.extend([Leave, Delete]);
    operations
}

/// Returns whether a participant may do this, by the table in `protocol/README.md`.
fn is_allowed(operation: Operation, kind: ChannelType, role: Role) -> bool {
    use Operation::*;
    use Role::*;
    let is_direct = kind == ChannelType::Direct;
    let low = |role| matches!(role, Member | Observer);
    match operation {
        See | List | ListParticipants | MarkRead => true,
        Send | Type => match role {
            Owner | Moderator => true,
            Member => kind != ChannelType::Broadcast,
            Observer => false,
        },
        React | EditOwn | DeleteOwn => role != Observer,
        EditOthers => false,
        DeleteOthers => (role == Owner && !is_direct) || role == Moderator,
        Add(_) | Join | Leave | Remove(_) | ChangeRole(..) if is_direct => false,
        Add(new) => match role {
            Owner => true,
            Moderator => low(new),
            Member => new == Member && kind != ChannelType::Broadcast,
            Observer => false,
        },
        Join | Leave => true,
        ChangeRole(from, to) => role == Owner || (role == Moderator && low(from) && low(to)),
        Remove(of) => role == Owner || (role == Moderator && low(of)),
        Update => matches!(role, Owner | Moderator),
        Delete => role == Owner && !is_direct,
    }
}

/// Returns the outcome for a user who is not in the channel.
fn outcome_for_non_participant(operation: Operation, kind: ChannelType) -> Outcome {
    match (kind, operation) {
        (ChannelType::Direct | ChannelType::Group, _) => Outcome::NotFound,
        (_, Operation::See) => Outcome::Done,
        _ => Outcome::Forbidden,
    }
}

/// A channel with a participant of each role, besides the one who acts.
struct Fixture<'a> {
    services: &'a Services,
    backend: Actor,
    channel: ChannelId,
    others: MessageId,
    is_direct: bool,
}

impl Fixture<'_> {
    /// Returns the participant with this role whom the operation is applied to.
    fn name(&self, role: Role) -> UserId {
        if self.is_direct {
            "boss".to_owned()
        } else {
            Self::of(role)
        }
        .parse()
        .unwrap()
    }

    fn of(role: Role) -> String {
        format!("{role:?}").to_lowercase()
    }

    /// Sends a message in the name of a user.
    async fn message(&self, sender: &UserId) -> MessageId {
        let body = SendMessage {
            sender_id: Some(sender.clone()),
            text: Some("x".into()),
            ..SendMessage::default()
        };
        messages::send::send_message(self.services, &self.backend, &self.channel, body)
            .await
            .unwrap()
            .0
            .id
    }

    async fn perform(&self, actor: &Actor, operation: Operation) -> Result<(), Error> {
        let (services, channel, me) = (self.services, &self.channel, actor.user().unwrap());
        match operation {
            Operation::See => channels::read_channel(services, actor, channel)
                .await
                .map(drop),
            Operation::List => {
                messages::lists::list_messages(services, actor, channel, ListMessages::default())
                    .await
                    .map(drop)
            }
            Operation::ListParticipants => participants::lists::list_participants(
                services,
                actor,
                channel,
                ListPage::default(),
            )
            .await
            .map(drop),
            Operation::MarkRead => reads::mark_read(
                services,
                actor,
                channel,
                protocol::operation::read::MarkRead {
                    number: 1,
                    user_id: None,
                },
            )
            .await
            .map(drop),
            Operation::Send => messages::send::send_message(
                services,
                actor,
                channel,
                SendMessage {
                    text: Some("x".into()),
                    ..SendMessage::default()
                },
            )
            .await
            .map(drop),
            Operation::React => {
                reactions::add_reaction(services, actor, channel, &self.others, "👍", None)
                    .await
                    .map(drop)
            }
            Operation::Type => typing::publish_typing(services, actor, channel, true).await,
            Operation::EditOwn => messages::edit_message(
                services,
                actor,
                channel,
                &self.message(me).await,
                edit(),
                None,
            )
            .await
            .map(drop),
            Operation::DeleteOwn => {
                messages::delete_message(services, actor, channel, &self.message(me).await, None)
                    .await
            }
            Operation::EditOthers => {
                messages::edit_message(services, actor, channel, &self.others, edit(), None)
                    .await
                    .map(drop)
            }
            Operation::DeleteOthers => {
                let others = self.message(&"boss".parse().unwrap()).await;
                messages::delete_message(services, actor, channel, &others, None).await
            }
            Operation::Add(role) => {
                let new: UserId = format!("new-{role:?}").parse().unwrap();
                let added = participants::add::add_participant(
                    services,
                    actor,
                    channel,
                    AddParticipant {
                        user_id: new.clone(),
                        role: Some(role),
                    },
                )
                .await;
                if added.is_ok() {
                    participants::remove::remove_participant(
                        services,
                        &self.backend,
                        channel,
                        &new,
                        None,
                    )
                    .await?;
                }
                added.map(drop)
            }
            Operation::Join => participants::add::join_channel(services, actor, channel)
                .await
                .map(drop),
            Operation::ChangeRole(from, to) => {
                let body = |role| UpdateParticipant { role: Some(role) };
                let changed = participants::update_participant(
                    services,
                    actor,
                    channel,
                    &self.name(from),
                    body(to),
                    None,
                )
                .await;
                if changed.is_ok() {
                    participants::update_participant(
                        services,
                        &self.backend,
                        channel,
                        &self.name(from),
                        body(from),
                        None,
                    )
                    .await?;
                }
                changed.map(drop)
            }
            Operation::Remove(role) => {
                participants::remove::remove_participant(
                    services,
                    actor,
                    channel,
                    &self.name(role),
                    None,
                )
                .await
            }
            Operation::Update => {
                let body = UpdateChannel {
                    name: Patch::Set("new".into()),
                    ..UpdateChannel::default()
                };
                channels::update_channel(services, actor, channel, body, None)
                    .await
                    .map(drop)
            }
            Operation::Leave => participants::remove::leave_channel(services, actor, channel).await,
            Operation::Delete => channels::delete_channel(services, actor, channel, None).await,
        }
    }

    async fn outcome_of(&self, actor: &Actor, operation: Operation) -> Outcome {
        match self.perform(actor, operation).await {
            Ok(()) => Outcome::Done,
            Err(error) if error.code() == ErrorCode::Forbidden => Outcome::Forbidden,
            Err(error) if error.code() == ErrorCode::NotFound => Outcome::NotFound,
            Err(error) => panic!("{operation:?} by {:?}: {error}", actor.user()),
        }
    }
}

fn edit() -> EditMessage {
    EditMessage {
        text: Patch::Set("edited".into()),
        ..EditMessage::default()
    }
}

fn actor(world: &World, who: Option<&str>) -> Actor {
    let scope = Scope {
        app: world.app.parse().unwrap(),
        environment: Environment::Live,
    };
    let who = match who {
        None => Who::App {
            key: protocol::KeyId::from_bits(1),
        },
        Some(id) => Who::User {
            id: id.parse().unwrap(),
            token_key: TokenKeyId::from_bits(1),
            issued_at: 0,
            expires_at: u64::MAX,
        },
    };
    Actor { scope, who }
}

on_both_stores! {
    async fn permission_table_holds_for_every_operation_role_and_channel_type(world: World) {
        let newcomers = Role::ALL.map(|role| format!("new-{role:?}"));
        world.people(&newcomers.each_ref().map(String::as_str)).await;
        world.people(&["boss", "owner", "moderator", "member", "observer", "me", "stranger"]).await;
        let services = &world.nodes[0].services;
        for kind in ChannelType::ALL {
            let roles = if kind == ChannelType::Direct { &Role::ALL[..1] } else { &Role::ALL[..] };
            for role in roles {
                let channel = if kind == ChannelType::Direct {
                    world.channel("direct", "", &["boss", "me"]).await
                } else {
                    let id = format!("{}-{role:?}", kind.as_str());
                    let channel = world.channel(kind.as_str(), &id, &["boss"]).await;
                    let backend = actor(&world, None);
                    for (user, role) in Role::ALL.map(|r| (Fixture::of(r).parse().unwrap(), r)).into_iter().chain([("me".parse().unwrap(), *role)]) {
                        participants::add::add_participant(services, &backend, &channel, AddParticipant { user_id: user, role: Some(role) }).await.unwrap();
                    }
                    channel
                };
                let mut fixture = Fixture { services, backend: actor(&world, None), channel, others: MessageId::from_bits(0), is_direct: kind == ChannelType::Direct };
                fixture.others = fixture.message(&"boss".parse().unwrap()).await;
                let (me, stranger) = (actor(&world, Some("me")), actor(&world, Some("stranger")));
                for operation in all_operations() {
                    if operation != Operation::Join {
                        assert_eq!(fixture.outcome_of(&stranger, operation).await, outcome_for_non_participant(operation, kind), "{operation:?} by a stranger in {kind:?}");
                    }
                }
                for operation in all_operations() {
                    let is_in_it = !matches!(operation, Operation::Delete) || kind == ChannelType::Direct;
                    if !is_in_it {
                        participants::add::add_participant(services, &fixture.backend, &fixture.channel, AddParticipant { user_id: "me".parse().unwrap(), role: Some(*role) }).await.unwrap();
                    }
                    let wanted = if is_allowed(operation, kind, *role) { Outcome::Done } else { Outcome::Forbidden };
                    assert_eq!(fixture.outcome_of(&me, operation).await, wanted, "{operation:?} by {role:?} in {kind:?}");
                }
            }
        }
    }
}
