//! A strategy for every type of the wire, and for each the test that it round-trips.

use std::{collections::BTreeMap, ops::RangeInclusive};

use proptest::{
    array::uniform16,
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
    strategy::Union,
};
use protocol::{event::*, model::*, params::*, results::*, *};
use serde_json::{Map, Value};

const INTEGERS: RangeInclusive<u64> = 0..=MAX_INTEGER;

/// Integers of every encoded width.
pub(crate) fn uint() -> impl Strategy<Value = u64> {
    prop_oneof![0..=0xffu64, 0..=0xffff_ffffu64, INTEGERS]
}

/// What a store assigns: absent is 0, so that a present one is more.
fn stamp() -> impl Strategy<Value = u64> {
    prop_oneof![1..=0xffffu64, 1..=MAX_INTEGER]
}

pub(crate) fn text() -> impl Strategy<Value = String> {
    prop_oneof![4 => "\\PC{0,12}", 1 => any::<String>(), 1 => "x{32,300}"]
}

fn cursor() -> impl Strategy<Value = Cursor> {
    prop_oneof![
        Just(Cursor::Now),
        (uint(), uint()).prop_map(|(seq, at)| Cursor::After(seq, at))
    ]
}

/// JSON values within the bounds of free data.
pub(crate) fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        uint().prop_map(Value::from),
        (-(MAX_INTEGER as i64)..=-1).prop_map(Value::from),
        (proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO)
            .prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(text(), inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

pub(crate) fn map() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(text(), json(), 0..4).prop_map(|map| map.into_iter().collect())
}

pub(crate) fn metadata() -> impl Strategy<Value = Metadata> {
    map().prop_map(Metadata)
}

fn patch<T: Clone + std::fmt::Debug + 'static>(
    value: impl Strategy<Value = T> + 'static,
) -> impl Strategy<Value = Patch<T>> {
    prop_oneof![
        Just(Patch::Keep),
        Just(Patch::Clear),
        value.prop_map(Patch::Set)
    ]
}

fn counts() -> impl Strategy<Value = BTreeMap<String, u64>> {
    btree_map(text(), uint(), 0..4)
}

macro_rules! made_ids {
    ($($name:ident: $type:ident,)*) => {
        $(pub(crate) fn $name() -> impl Strategy<Value = $type> { any::<u64>().prop_map($type::from_bits) })*
    };
}

made_ids! {
    organization_id: OrganizationId,
    app_id: AppId,
    participant_id: ParticipantId,
    message_id: MessageId,
    upload_id: UploadId,
    session_id: SessionId,
    key_id: KeyId,
    token_key_id: TokenKeyId,
}

fn chosen<T: std::str::FromStr + std::fmt::Debug>() -> impl Strategy<Value = T> {
    "[A-Za-z0-9][A-Za-z0-9._@+|:-]{0,63}"
        .prop_filter_map("reserved for another kind", |text| text.parse().ok())
}

pub(crate) fn user_id() -> impl Strategy<Value = UserId> {
    prop_oneof![any::<u64>().prop_map(UserId::from_bits), chosen()]
}

pub(crate) fn channel_id() -> impl Strategy<Value = ChannelId> {
    prop_oneof![any::<u64>().prop_map(ChannelId::from_bits), chosen()]
}

macro_rules! words {
    ($($name:ident: $type:ident { $($word:ident),* })*) => {
        $(pub(crate) fn $name() -> impl Strategy<Value = $type> { select(vec![$($type::$word),*]) })*
    };
}

words! {
    watch: Watch { All, None }
    entries: Entries { Full, Positions }
    channel_type: ChannelType { Direct, Group, Open, Broadcast }
    gap: Gap { Trimmed, Diverged, LimitReached }
    message_kind: MessageKind { Text, System }
    environment: Environment { Live, Test }
    algorithm: Algorithm { HS256, EdDSA, ES256, RS256 }
    role: Role { Owner, Moderator, Member, Observer }
}

fn error_code() -> impl Strategy<Value = ErrorCode> {
    select(ErrorCode::ALL)
}

/// Each type in a module of its own: `one`, and the test that it round-trips.
macro_rules! types {
    ($($name:ident: $type:ty = $type_name:ident { $($field:ident: $strategy:expr,)* })*) => {
        $(
            pub(crate) mod $name {
                #[allow(unused_imports, reason = "not every type needs all of them")]
                use super::*;

                prop_compose! {
                    fn made()($($field in $strategy),*) -> $type {
                        $type_name { $($field),* }
                    }
                }

                // Boxed, since what holds many others would not fit on a test's stack.
                pub(crate) fn one() -> BoxedStrategy<$type> {
                    made().boxed()
                }

                proptest! {
                    #![proptest_config(ProptestConfig::with_cases(64))]
                    #[test]
                    fn round_trips(value in one()) {
                        crate::round_trips::check(&value)?;
                    }
                }
            }
        )*
    };
}

types! {
    connect: Connect = Connect {
        token: text(),
        resume: btree_map(channel_id(), cursor(), 0..4),
        user_position: option::of(cursor()),
        watch: watch(),
        entries: entries(),
        client: option::of(text()),
    }
    refresh_token: RefreshToken = RefreshToken { token: text(), }
    subscribe: Subscribe = Subscribe { channels: btree_map(channel_id(), cursor(), 0..4), }
    unsubscribe: Unsubscribe = Unsubscribe { channel_ids: vec(channel_id(), 0..4), }
    list_page: ListPage = ListPage { cursor: option::of(text()), limit: option::of(uint()), }
    channel_ref: ChannelRef = ChannelRef { channel_id: channel_id(), }
    message_ref: MessageRef = MessageRef { channel_id: channel_id(), message_id: message_id(), }
    participant_ref: ParticipantRef = ParticipantRef { channel_id: channel_id(), user_id: user_id(), }
    create_channel: CreateChannel = CreateChannel {
        id: option::of(channel_id()),
        kind: channel_type(),
        name: option::of(text()),
        description: option::of(text()),
        icon: option::of(text()),
        banner: option::of(text()),
        creator_id: option::of(user_id()),
        participant_ids: vec(user_id(), 0..4),
        metadata: metadata(),
    }
    update_channel: UpdateChannel = UpdateChannel {
        name: patch(text()),
        description: patch(text()),
        icon: patch(text()),
        banner: patch(text()),
        metadata: patch(metadata()),
    }
    replace_channel: ReplaceChannel = ReplaceChannel {
        kind: channel_type(),
        name: option::of(text()),
        description: option::of(text()),
        icon: option::of(text()),
        banner: option::of(text()),
        metadata: metadata(),
    }
    add_participant: AddParticipant = AddParticipant { user_id: user_id(), role: option::of(role()), }
    update_participant: UpdateParticipant = UpdateParticipant { role: option::of(role()), }
    send_message: SendMessage = SendMessage {
        message_id: option::of(message_id()),
        text: option::of(text()),
        reply_to_id: option::of(message_id()),
        attachments: vec(attachment::one(), 0..3),
        mention_ids: vec(user_id(), 0..3),
        metadata: metadata(),
        sender_id: option::of(user_id()),
        kind: option::of(message_kind()),
    }
    edit_message: EditMessage = EditMessage {
        text: patch(text()),
        attachments: patch(vec(attachment::one(), 0..3)),
        mention_ids: patch(vec(user_id(), 0..3)),
        metadata: patch(metadata()),
    }
    list_messages: ListMessages = ListMessages {
        before: option::of(uint()),
        after: option::of(uint()),
        changed_after: option::of(uint()),
        limit: option::of(uint()),
    }
    react: React = React { emoji: text(), }
    mark_read: MarkRead = MarkRead { number: uint(), }
    typing: Typing = Typing { typing: any::<bool>(), }
    user_ids: UserIds = UserIds { user_ids: vec(user_id(), 0..4), }
    update_user: UpdateUser = UpdateUser {
        username: patch(text()),
        first_name: patch(text()),
        last_name: patch(text()),
        avatar: patch(text()),
        bio: patch(text()),
        bot: option::of(any::<bool>()),
        metadata: patch(metadata()),
    }
    put_user: PutUser = PutUser {
        id: option::of(user_id()),
        username: option::of(text()),
        first_name: option::of(text()),
        last_name: option::of(text()),
        avatar: option::of(text()),
        bio: option::of(text()),
        bot: any::<bool>(),
        metadata: metadata(),
    }
    mint_token: MintToken = MintToken { expires_in: option::of(uint()), }
    disconnect: Disconnect = Disconnect { revoke: any::<bool>(), }
    create_organization: CreateOrganization = CreateOrganization { name: text(), email: text(), banner: option::of(text()), }
    update_organization: UpdateOrganization = UpdateOrganization {
        name: option::of(text()),
        email: option::of(text()),
        banner: patch(text()),
    }
    create_app: CreateApp = CreateApp { name: text(), settings: app_settings::one(), }
    update_app: UpdateApp = UpdateApp { name: option::of(text()), settings: option::of(update_app_settings::one()), }
    update_app_settings: UpdateAppSettings = UpdateAppSettings { create_users_from_tokens: option::of(any::<bool>()), }
    create_organization_key: CreateOrganizationKey = CreateOrganizationKey { name: option::of(text()), }
    create_app_key: CreateAppKey = CreateAppKey { environment: environment(), name: option::of(text()), }
    create_access: CreateAccess = CreateAccess { environment: environment(), expires_in: option::of(uint()), }
    create_token_key: CreateTokenKey = CreateTokenKey {
        environment: environment(),
        algorithm: algorithm(),
        public_key: option::of(text()),
    }
    batch: Batch<PutUser> = Batch { items: vec(put_user::one(), 0..3), }

    organization: Organization = Organization {
        id: organization_id(),
        name: text(),
        email: text(),
        banner: option::of(text()),
        created_at: uint(),
    }
    app: App = App {
        id: app_id(),
        organization_id: organization_id(),
        name: text(),
        settings: app_settings::one(),
        created_at: uint(),
    }
    app_settings: AppSettings = AppSettings { create_users_from_tokens: any::<bool>(), }
    key: Key = Key {
        id: key_id(),
        name: option::of(text()),
        environment: option::of(environment()),
        secret: option::of(text()),
        created_at: uint(),
        expires_at: option::of(uint()),
    }
    token_key: TokenKey = TokenKey {
        id: token_key_id(),
        environment: environment(),
        algorithm: algorithm(),
        secret: option::of(text()),
        created_at: uint(),
    }
    user: User = User {
        id: user_id(),
        username: option::of(text()),
        first_name: option::of(text()),
        last_name: option::of(text()),
        avatar: option::of(text()),
        bio: option::of(text()),
        bot: any::<bool>(),
        metadata: metadata(),
        created_at: stamp(),
    }
    presence: Presence = Presence { online: any::<bool>(), last_seen: option::of(uint()), at: uint(), }
    channel: Channel = Channel {
        id: channel_id(),
        kind: channel_type(),
        name: option::of(text()),
        description: option::of(text()),
        icon: option::of(text()),
        banner: option::of(text()),
        creator_id: option::of(user_id()),
        metadata: metadata(),
        created_at: stamp(),
        participant_count: uint(),
    }
    entry: Entry = Entry {
        channel_id: channel_id(),
        channel: option::of(channel::one()),
        role: option::of(role()),
        seq: uint(),
        at: uint(),
        number: uint(),
        read: uint(),
        unread: option::of(uint()),
        last_message: option::of(message::one()),
        participant_count: option::of(uint()),
        gap: option::of(gap()),
    }
    failed_entry: FailedEntry = FailedEntry { channel_id: channel_id(), error: error_body::one(), }
    message: Message = Message {
        id: message_id(),
        channel_id: channel_id(),
        number: stamp(),
        seq: stamp(),
        sender_id: option::of(user_id()),
        kind: message_kind(),
        text: text(),
        attachments: vec(attachment::one(), 0..3),
        reply_to_id: option::of(message_id()),
        mention_ids: vec(user_id(), 0..3),
        reactions: counts(),
        own_reactions: option::of(vec(text(), 0..3)),
        metadata: metadata(),
        created_at: stamp(),
        edited_at: option::of(stamp()),
        deleted_at: option::of(stamp()),
    }
    attachment: Attachment = Attachment {
        kind: text(),
        upload_id: option::of(upload_id()),
        url: option::of(text()),
        name: option::of(text()),
        size: option::of(uint()),
        mime: option::of(text()),
        width: option::of(uint()),
        height: option::of(uint()),
        duration_ms: option::of(uint()),
        metadata: metadata(),
    }
    participant: Participant = Participant {
        id: participant_id(),
        channel_id: channel_id(),
        user_id: user_id(),
        role: role(),
        created_at: stamp(),
        read: option::of(uint()),
    }
    error_body: ErrorBody = ErrorBody {
        code: error_code(),
        message: text(),
        retry_after_ms: option::of(uint()),
        // Null is how an absent field reads.
        details: option::of(map().prop_map(Value::Object)),
    }

    connected: Connected = Connected {
        session_id: session_id(),
        user: user::one(),
        app_id: app_id(),
        environment: environment(),
        features: vec(text(), 0..3),
        heartbeat_ms: uint(),
        limits: counts(),
        user_position: (uint(), uint()),
        user_gap: option::of(gap()),
        channels: vec(entry_result(), 0..3),
        more: any::<bool>(),
    }
    refreshed: Refreshed = Refreshed { expires_at: uint(), }
    pong: Pong = Pong { at: uint(), }
    subscribed: Subscribed = Subscribed { channels: vec(entry_result(), 0..3), }
    message_list: MessageList = MessageList { items: vec(message::one(), 0..3), more: any::<bool>(), }
    channel_result: ChannelResult = ChannelResult { channel: channel::one(), }
    participant_result: ParticipantResult = ParticipantResult { participant: participant::one(), }
    message_result: MessageResult = MessageResult { message: message::one(), }
    user_result: UserResult = UserResult { user: user::one(), }
    users: Users = Users { items: vec(user::one(), 0..3), more: any::<bool>(), }
    count: Count = Count { count: uint(), }
    read_result: ReadResult = ReadResult { read: uint(), }
    presences: Presences = Presences { presence: btree_map(user_id(), presence::one(), 0..3), }
    organization_created: OrganizationCreated = OrganizationCreated { organization: organization::one(), key: key::one(), }
    token: Token = Token { token: text(), expires_at: uint(), }
    disconnected: Disconnected = Disconnected { sessions: uint(), }
    unread: Unread = Unread { unread: uint(), channels: btree_map(channel_id(), uint(), 0..3), }
    user_batch: UserBatch = UserBatch { items: vec(user_batch_item::one(), 0..3), }
    user_batch_item: UserBatchItem = UserBatchItem {
        status: any::<u16>(),
        user: option::of(user::one()),
        error: option::of(error_body::one()),
    }
    participant_batch: ParticipantBatch = ParticipantBatch { items: vec(participant_batch_item::one(), 0..3), }
    participant_batch_item: ParticipantBatchItem = ParticipantBatchItem {
        status: any::<u16>(),
        participant: option::of(participant::one()),
        error: option::of(error_body::one()),
    }
    error_answer: ErrorAnswer = ErrorAnswer { error: error_body::one(), }
    entry_list: EntryList = EntryList { items: vec(entry::one(), 0..3), cursor: option::of(text()), }
    list: List<Participant> = List { items: vec(participant::one(), 0..3), cursor: option::of(text()), }

    event_message: EventMessage = EventMessage {
        event: prop_oneof![select(EventKind::ALL).prop_map(|kind| kind.as_str().to_owned()), text()],
        channel_id: option::of(channel_id()),
        seq: option::of(uint()),
        at: option::of(uint()),
        data: json(),
    }
    reaction: Reaction = Reaction {
        message_id: message_id(),
        number: uint(),
        emoji: text(),
        user_id: user_id(),
        count: uint(),
    }
    typing_data: TypingData = TypingData { user_id: user_id(), typing: any::<bool>(), }
    presence_data: PresenceData = PresenceData { user_id: user_id(), online: any::<bool>(), last_seen: option::of(uint()), at: uint(), }
    read_data: ReadData = ReadData { user_id: user_id(), number: uint(), }
    gap_data: GapData = GapData { reason: gap(), seq: uint(), at: uint(), }
    expiring_data: ExpiringData = ExpiringData { expires_at: uint(), }
    draining_data: DrainingData = DrainingData { reconnect_after_ms: uint(), }
}

fn entry_result() -> impl Strategy<Value = EntryResult> {
    prop_oneof![
        entry::one().prop_map(EntryResult::Entry),
        failed_entry::one().prop_map(EntryResult::Failed)
    ]
}

/// The parameters that a client may send for a method, as a map.
pub(crate) fn params_of(method: Method) -> BoxedStrategy<Value> {
    fn of<T: serde::Serialize + std::fmt::Debug>(
        strategy: impl Strategy<Value = T> + 'static,
    ) -> BoxedStrategy<Value> {
        strategy
            .prop_map(|value| serde_json::to_value(value).unwrap())
            .boxed()
    }
    fn and<A: serde::Serialize + std::fmt::Debug, B: serde::Serialize + std::fmt::Debug>(
        ids: impl Strategy<Value = A> + 'static,
        fields: impl Strategy<Value = B> + 'static,
    ) -> BoxedStrategy<Value> {
        (of(ids), of(fields))
            .prop_map(|(mut ids, fields)| {
                ids.as_object_mut()
                    .unwrap()
                    .extend(fields.as_object().unwrap().clone());
                ids
            })
            .boxed()
    }
    match method {
        Method::Connect => of(connect::one()),
        Method::TokenRefresh => of(refresh_token::one()),
        Method::Ping => of(Just(Empty {})),
        Method::ChannelSubscribe => of(subscribe::one()),
        Method::ChannelUnsubscribe => of(unsubscribe::one()),
        Method::ChannelList => of(list_page::one()),
        Method::ChannelCreate => of(create_channel::one()),
        Method::ChannelUpdate => and(channel_ref::one(), update_channel::one()),
        Method::ChannelDelete | Method::ChannelJoin | Method::ChannelLeave => {
            of(channel_ref::one())
        }
        Method::ParticipantAdd => and(channel_ref::one(), add_participant::one()),
        Method::ParticipantUpdate => and(participant_ref::one(), update_participant::one()),
        Method::ParticipantRemove => of(participant_ref::one()),
        Method::ParticipantList => and(channel_ref::one(), list_page::one()),
        Method::MessageSend => and(channel_ref::one(), send_message::one()),
        Method::MessageEdit => and(message_ref::one(), edit_message::one()),
        Method::MessageDelete => of(message_ref::one()),
        Method::MessageList => and(channel_ref::one(), list_messages::one()),
        Method::ReactionAdd | Method::ReactionRemove => and(message_ref::one(), react::one()),
        Method::ReadMark => and(channel_ref::one(), mark_read::one()),
        Method::Typing => and(channel_ref::one(), typing::one()),
        Method::PresenceWatch | Method::UserGet => of(user_ids::one()),
        Method::UserUpdate => of(update_user::one()),
    }
}

/// Any method with its parameters.
pub(crate) fn request() -> impl Strategy<Value = (Method, Value)> {
    Union::new(
        Method::ALL
            .iter()
            .map(|method| params_of(*method).prop_map(|params| (*method, params))),
    )
}

/// Sixteen bytes to lay over a frame.
pub(crate) fn patch_bytes() -> impl Strategy<Value = [u8; 16]> {
    uniform16(any::<u8>())
}

/// A position in a stream that has events.
pub(crate) fn stamps() -> impl Strategy<Value = (u64, u64)> {
    (stamp(), stamp())
}

/// Free data from a literal.
pub(crate) fn free(value: Value) -> Metadata {
    Metadata(value.as_object().unwrap().clone())
}
