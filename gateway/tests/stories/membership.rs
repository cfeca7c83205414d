//! Who may do what, walked through cell by cell with the real services, and met by people with
//! sessions.

use domain::{
    Services, channels,
    credential::{Actor, Who},
    error::Error,
    messages, participants, reactions, reads,
    schema::Scope,
    typing,
};
use protocol::{
    ChannelId, Encoding, ErrorCode, MessageId, Patch, TokenKeyId, UserId,
    entity::{Channel, ChannelType, Environment, Role},
    event::Event,
    operation::{
        channel::{ChannelLeave, ChannelList, UpdateChannel},
        message::{EditMessage, ListMessages, SendMessage},
        page::ListPage,
        participant::{AddParticipant, ParticipantUpdate, UpdateParticipant},
        session::Connect,
    },
};
use serde_json::{Value, json};

use crate::story::{World, has_exactly, refusal};

/// What somebody tries in a channel.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Try {
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

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Comes {
    Done,
    Forbidden,
    NotFound,
}

/// Everything that can be tried, what ends the walk last.
fn everything() -> Vec<Try> {
    use Try::*;
    let mut tries = vec![
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
        tries.push(Add(from));
        tries.extend(Role::ALL.map(|to| ChangeRole(from, to)));
    }
    tries.extend(Role::ALL.map(Remove));
    tries.extend([Leave, Delete]);
    tries
}

/// The table of the wire page, for somebody in the channel.
fn of_participant(what: Try, kind: ChannelType, role: Role) -> bool {
    use Role::*;
    use Try::*;
    let is_direct = kind == ChannelType::Direct;
    let low = |role| matches!(role, Member | Observer);
    match what {
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

/// The same for somebody who is in the app and not in the channel.
fn of_stranger(what: Try, kind: ChannelType) -> Comes {
    match (kind, what) {
        (ChannelType::Direct | ChannelType::Group, _) => Comes::NotFound,
        (_, Try::See) => Comes::Done,
        _ => Comes::Forbidden,
    }
}

/// A channel with somebody of each role besides who tries.
struct Stage<'a> {
    services: &'a Services,
    backend: Actor,
    channel: ChannelId,
    others: MessageId,
    is_direct: bool,
}

impl Stage<'_> {
    /// The one with this role whom things happen to.
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

    /// The backend sends in the name of somebody.
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

    async fn tries(&self, actor: &Actor, what: Try) -> Result<(), Error> {
        let (services, channel, me) = (self.services, &self.channel, actor.user().unwrap());
        match what {
            Try::See => channels::read_channel(services, actor, channel)
                .await
                .map(drop),
            Try::List => {
                messages::lists::list_messages(services, actor, channel, ListMessages::default())
                    .await
                    .map(drop)
            }
            Try::ListParticipants => participants::lists::list_participants(
                services,
                actor,
                channel,
                ListPage::default(),
            )
            .await
            .map(drop),
            Try::MarkRead => reads::mark_read(
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
            Try::Send => messages::send::send_message(
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
            Try::React => {
                reactions::add_reaction(services, actor, channel, &self.others, "👍", None)
                    .await
                    .map(drop)
            }
            Try::Type => typing::typing(services, actor, channel, true).await,
            Try::EditOwn => messages::edit_message(
                services,
                actor,
                channel,
                &self.message(me).await,
                edit(),
                None,
            )
            .await
            .map(drop),
            Try::DeleteOwn => {
                messages::delete_message(services, actor, channel, &self.message(me).await, None)
                    .await
            }
            Try::EditOthers => {
                messages::edit_message(services, actor, channel, &self.others, edit(), None)
                    .await
                    .map(drop)
            }
            Try::DeleteOthers => {
                let others = self.message(&"boss".parse().unwrap()).await;
                messages::delete_message(services, actor, channel, &others, None).await
            }
            Try::Add(role) => {
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
            Try::Join => participants::add::join_channel(services, actor, channel)
                .await
                .map(drop),
            Try::ChangeRole(from, to) => {
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
            Try::Remove(role) => {
                participants::remove::remove_participant(
                    services,
                    actor,
                    channel,
                    &self.name(role),
                    None,
                )
                .await
            }
            Try::Update => {
                let body = UpdateChannel {
                    name: Patch::Set("new".into()),
                    ..UpdateChannel::default()
                };
                channels::update_channel(services, actor, channel, body, None)
                    .await
                    .map(drop)
            }
            Try::Leave => participants::remove::leave_channel(services, actor, channel).await,
            Try::Delete => channels::delete_channel(services, actor, channel, None).await,
        }
    }

    async fn comes_of(&self, actor: &Actor, what: Try) -> Comes {
        match self.tries(actor, what).await {
            Ok(()) => Comes::Done,
            Err(error) if error.code() == ErrorCode::Forbidden => Comes::Forbidden,
            Err(error) if error.code() == ErrorCode::NotFound => Comes::NotFound,
            Err(error) => panic!("{what:?} by {:?}: {error}", actor.user()),
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
    async fn the_table_holds_for_every_role_operation_and_type_of_channel(world: World) {
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
                    for (user, role) in Role::ALL.map(|r| (Stage::of(r).parse().unwrap(), r)).into_iter().chain([("me".parse().unwrap(), *role)]) {
                        participants::add::add_participant(services, &backend, &channel, AddParticipant { user_id: user, role: Some(role) }).await.unwrap();
                    }
                    channel
                };
                let mut stage = Stage { services, backend: actor(&world, None), channel, others: MessageId::from_bits(0), is_direct: kind == ChannelType::Direct };
                stage.others = stage.message(&"boss".parse().unwrap()).await;
                let (me, stranger) = (actor(&world, Some("me")), actor(&world, Some("stranger")));
                for what in everything() {
                    if what != Try::Join {
                        assert_eq!(stage.comes_of(&stranger, what).await, of_stranger(what, kind), "{what:?} by a stranger in {kind:?}");
                    }
                }
                for what in everything() {
                    let is_in_it = !matches!(what, Try::Delete) || kind == ChannelType::Direct;
                    if !is_in_it {
                        participants::add::add_participant(services, &stage.backend, &stage.channel, AddParticipant { user_id: "me".parse().unwrap(), role: Some(*role) }).await.unwrap();
                    }
                    let wanted = if of_participant(what, kind, *role) { Comes::Done } else { Comes::Forbidden };
                    assert_eq!(stage.comes_of(&me, what).await, wanted, "{what:?} by {role:?} in {kind:?}");
                }
            }
        }
    }

    async fn any_user_joins_what_is_open_or_broadcast_and_nothing_else(world: World) {
        world.people(&["alice", "bob", "carol"]).await;
        let bob = world.connects("bob").await;
        for (kind, answer) in [("group", Some(ErrorCode::NotFound)), ("open", None), ("broadcast", None)] {
            let channel = world.channel(kind, kind, &["alice"]).await;
            let named = json!({ "channel_id": channel });
            match answer {
                Some(code) => assert_eq!(bob.is_refused("channel.join", named).await, code),
                None => {
                    let joined = bob.asks("channel.join", named).await;
                    assert_eq!(joined["participant"]["role"], "member");
                }
            }
            let sent = json!({ "channel_id": channel, "text": "hi" });
            match kind {
                "open" => drop(bob.asks("message.send", sent).await),
                "broadcast" => assert_eq!(bob.is_refused("message.send", sent).await, ErrorCode::Forbidden),
                _ => assert_eq!(bob.is_refused("message.send", sent).await, ErrorCode::NotFound),
            }
        }
        let direct = world.channel("direct", "", &["alice", "carol"]).await;
        assert_eq!(bob.is_refused("channel.join", json!({ "channel_id": direct })).await, ErrorCode::NotFound);
        let token = world.token("bob").await;
        let found: Value = world.backend(&token).get("/v1/channels").await.unwrap();
        let mut ids: Vec<&str> = found["items"].as_array().unwrap().iter().map(|c| c["id"].as_str().unwrap()).collect();
        ids.sort_unstable();
        assert_eq!(ids, ["broadcast", "open"], "a user finds its own and the public ones");
    }

    async fn the_direct_channel_of_a_pair_is_one_and_stays_as_it_is(world: World) {
        world.people(&["alice", "bob", "carol"]).await;
        let (alice, mut bob) = (world.connects("alice").await, world.connects_to(0, "bob", Encoding::Json, Connect::default()).await);
        let made = alice.asks("channel.create", json!({ "type": "direct", "participant_ids": ["bob"] })).await["channel"].clone();
        has_exactly(&made, "id type creator_id metadata created_at participant_count");
        assert_eq!(made["participant_count"], 2);
        assert_eq!(bob.hears("channel.added").await.data["entry"]["role"], "owner");
        let mirrored = bob.asks("channel.create", json!({ "type": "direct", "participant_ids": ["alice"] })).await["channel"].clone();
        assert_eq!(mirrored, made);
        let body = json!({ "type": "direct", "participant_ids": ["bob", "alice"] });
        let answer = world.team().request(axum::http::Method::POST, "/v1/channels").json(&body).send().await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.json::<Value>().unwrap()), (200, made.clone()));
        let other = alice.asks("channel.create", json!({ "type": "direct", "participant_ids": ["carol"] })).await;
        assert_ne!(other["channel"]["id"], made["id"]);

        let id: ChannelId = made["id"].as_str().unwrap().parse().unwrap();
        let sent = alice.sends(&id, "hi").await;
        bob.sees("hi").await;
        let of = |user: &str| json!({ "channel_id": id, "user_id": user, "role": "member" });
        for person in [&alice, &bob] {
            for (method, params) in [
                ("channel.leave", json!({ "channel_id": id })),
                ("channel.delete", json!({ "channel_id": id })),
                ("participant.add", of("carol")),
                ("participant.update", of("bob")),
                ("participant.remove", of("bob")),
            ] {
                assert_eq!(person.is_refused(method, params).await, ErrorCode::Forbidden, "{method:?}");
            }
        }
        let named = json!({ "channel_id": id, "message_id": sent.id });
        assert_eq!(bob.is_refused("message.delete", named).await, ErrorCode::Forbidden, "nobody deletes the other's words");
        let participants = format!("/v1/channels/{id}/participants");
        assert_eq!(refusal(world.team().post::<Value>(&participants, &json!({ "user_id": "carol" })).await), (403, ErrorCode::Forbidden));
        assert_eq!(refusal(world.team().delete::<()>(&format!("{participants}/bob")).await), (403, ErrorCode::Forbidden));
    }

    async fn the_last_owner_hands_the_role_over_before_it_goes(world: World) {
        let general = world.channel("group", "general", &["alice", "bob", "carol"]).await;
        let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
        let named = json!({ "channel_id": general });
        let as_a = |user: &str, role: &str| json!({ "channel_id": general, "user_id": user, "role": role });
        assert_eq!(alice.is_refused("channel.leave", named.clone()).await, ErrorCode::Forbidden);
        assert_eq!(alice.is_refused("participant.remove", as_a("alice", "owner")).await, ErrorCode::Forbidden);
        assert_eq!(alice.is_refused("participant.update", as_a("alice", "member")).await, ErrorCode::Forbidden);
        alice.asks("participant.update", as_a("bob", "owner")).await;
        alice.asks("participant.update", as_a("alice", "member")).await;
        assert_eq!(bob.is_refused("channel.leave", named.clone()).await, ErrorCode::Forbidden, "now it is bob");
        assert_eq!(alice.asks("channel.leave", named.clone()).await, json!({}));
        bob.asks("participant.remove", as_a("carol", "member")).await;
        assert_eq!(bob.asks("channel.leave", named).await, json!({}), "alone, the last one may go");
        let left: Channel = world.team().get("/v1/channels/general").await.unwrap();
        assert_eq!(left.participant_count, 0);
    }

    async fn additions_and_removals_that_cross_each_other_are_told_in_turns_and_the_last_word_is_true(world: World) {
        let general = world.channel("group", "general", &["bob"]).await;
        world.people(&["alice"]).await;
        let mut alice = world.connects("alice").await;
        let participants = format!("/v1/channels/{general}/participants");
        let hand = async |hand: u32| {
            let team = world.team();
            for round in 0..25 {
                if (hand + round).is_multiple_of(3) || round % 2 == hand % 2 {
                    team.post::<Value>(&participants, &json!({ "user_id": "alice" })).await.unwrap();
                } else if let Err(error) = team.delete::<()>(&format!("{participants}/alice")).await {
                    assert_eq!(refusal::<()>(Err(error)), (404, ErrorCode::NotFound));
                }
            }
        };
        tokio::join!(hand(0), hand(1), hand(2), hand(3), hand(4), hand(5));
        let is_in = world.team().get::<Value>(&format!("{participants}/alice")).await.is_ok();
        world.channel("group", "afterwards", &["alice"]).await;
        let mut told = Vec::new();
        loop {
            let event = alice.next().await;
            match event.read().unwrap() {
                Event::ChannelAdded(added) if added.channel_id == general => told.push(true),
                Event::ChannelAdded(_) => break,
                Event::ChannelRemoved(_) => told.push(false),
                _ => {}
            }
        }
        assert!(told.len() > 2 && told.iter().zip([true, false].iter().cycle()).all(|(one, other)| one == other), "{told:?}");
        assert_eq!(told.last(), Some(&is_in), "{told:?}");
        let list = alice.session.call::<ChannelList>((), &ListPage::default()).await.unwrap();
        assert_eq!(list.items.iter().any(|entry| entry.channel_id == general), is_in);
    }

    async fn of_two_owners_who_leave_at_once_one_stays(world: World) {
        for round in 0..5 {
            let general = world.channel("group", &format!("general-{round}"), &["alice", "bob", "carol"]).await;
            let (alice, bob) = (world.connects("alice").await, world.connects("bob").await);
            alice.session.call::<ParticipantUpdate>((&general, &bob.name), UpdateParticipant { role: Some(Role::Owner) }).await.unwrap();
            let (one, other) = tokio::join!(alice.session.call::<ChannelLeave>(&general, ()), bob.session.call::<ChannelLeave>(&general, ()));
            assert!(one.is_ok() != other.is_ok(), "{one:?} {other:?}");
        }
    }
}
