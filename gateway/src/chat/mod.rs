//! `chaos chat`: a terminal client that uses the public protocol only.

mod line;
mod names;
mod screen;

use std::{
    borrow::Cow,
    collections::{HashSet, VecDeque},
    path::Path,
    sync::Arc,
    time::Duration,
};

use client::{
    Backend, BackendError, Client, Connector, DisconnectCause, Settings, TokenUnavailable, Update,
    Updates,
};
use protocol::{
    ChannelId, Cursor, Encoding, UploadId, UserId,
    entity::{Entry, EntryResult, Gap, Message},
    event::{Event, Reaction},
    operation::{
        message::{ListMessages, MessageList, SendMessage},
        session::Watch,
        user::{MintToken, UserGet, UserIds, UserMintToken, Users},
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use self::{
    names::{UserNames, name_of},
    screen::Screen,
};
use crate::{config::Chat, demo::Demo, start::CommandError};

/// Number of messages that are shown at the start.
const INITIAL_MESSAGES: u64 = 20;

/// Maximum time for the sent messages to be acknowledged after the input ended.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Maximum number of lines that wait for names; further ones are shown with ids.
const MAX_WAITING: usize = 500;

const NAMES_PER_REQUEST: usize = 100;

/// Chats until the input ends. Reconnects if the connection is lost.
///
/// # Errors
/// Fails if a setting is invalid, if there is no token, if the node refuses the user or the
/// channel, or if sent messages are not acknowledged at the end.
pub async fn run(settings: Chat) -> Result<(), CommandError> {
    let channel: ChannelId = settings
        .channel
        .parse()
        .map_err(|e| CommandError(format!("--channel: {e}")))?;
    let connector =
        Connector::new(&settings.url, Encoding::MessagePack).map_err(CommandError::of)?;
    let mut first = Some(token(&settings).await?);
    let settings = Arc::new(settings);
    let token_settings = settings.clone();
    let token = move || {
        let (first, settings) = (first.take(), token_settings.clone());
        async move {
            match first {
                Some(token) => Ok(token),
                None => new_token(&settings).await,
            }
        }
    };
    let behaviour = Settings {
        watch: Watch::None,
        channels: [(channel.clone(), Cursor::Now)].into(),
        client: Some(concat!("chaos-chat/", env!("CARGO_PKG_VERSION")).into()),
        ..Settings::default()
    };
    let (client, updates) = Client::start(vec![connector], behaviour, token);
    let conversation = Conversation {
        settings,
        channel,
        client,
        screen: Screen::new(),
        you: None,
        is_away: false,
        last_number: 0,
        waiting: VecDeque::new(),
        names: UserNames::default(),
        unnamed: HashSet::new(),
        lookup: JoinSet::new(),
    };
    conversation.run(updates).await
}

/// Returns a token in place of one that has expired or is about to.
async fn new_token(settings: &Chat) -> Result<String, TokenUnavailable> {
    if settings.token.is_some() {
        return Err(TokenUnavailable::Never(
            "the one of --token has expired".into(),
        ));
    }
    token(settings)
        .await
        .map_err(|error| TokenUnavailable::Later(error.0))
}

struct Conversation {
    settings: Arc<Chat>,
    channel: ChannelId,
    client: Client,
    screen: Screen,
    /// Set by the first connection.
    you: Option<UserId>,
    is_away: bool,
    /// The number of the newest message that was shown.
    last_number: u64,
    /// Items that are shown as soon as the names in them are known.
    waiting: VecDeque<Item>,
    names: UserNames,
    /// Users whose names could not be read during this connection.
    unnamed: HashSet<UserId>,
    /// The request for names in flight; at most one.
    lookup: JoinSet<(Vec<UserId>, Option<Users>)>,
}

/// An item to show.
enum Item {
    Message(Message),
    Edited(Message),
    Deleted(Option<UserId>),
    Reacted(UserId, String),
    Joined(UserId),
    Left(UserId),
    Note(String),
}

impl Item {
    fn of(event: Event) -> Option<Self> {
        match event {
            Event::MessageCreated(message) => Some(Self::Message(message)),
            Event::MessageUpdated(message) => Some(Self::Edited(message)),
            Event::MessageDeleted(message) => Some(Self::Deleted(message.sender_id)),
            Event::ReactionAdded(Reaction { user_id, emoji, .. }) => {
                Some(Self::Reacted(user_id, emoji))
            }
            Event::ParticipantAdded(participant) => Some(Self::Joined(participant.user_id)),
            Event::ParticipantRemoved(participant) => Some(Self::Left(participant.user_id)),
            _ => None,
        }
    }

    fn user(&self) -> Option<&UserId> {
        match self {
            Self::Message(message) | Self::Edited(message) => message.sender_id.as_ref(),
            Self::Deleted(user) => user.as_ref(),
            Self::Reacted(user, _) | Self::Joined(user) | Self::Left(user) => Some(user),
            Self::Note(_) => None,
        }
    }
}

impl Conversation {
    async fn run(mut self, mut updates: Updates) -> Result<(), CommandError> {
        let mut end: Option<Instant> = None;
        loop {
            if end.is_some() && self.client.unacknowledged() == 0 && self.waiting.is_empty() {
                return Ok(());
            }
            tokio::select! {
                line = self.screen.line(), if end.is_none() => match line.map_err(CommandError::of)? {
                    None => end = Some(Instant::now() + DRAIN_TIMEOUT),
                    Some(text) => self.send(text),
                },
                update = updates.next() => self.apply(update).await?,
                Some(found) = self.lookup.join_next() => {
                    if let Ok((asked, users)) = found {
                        self.learn(asked, users);
                    }
                }
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    return Err(CommandError(format!("{} of your messages may be lost: the node did not acknowledge them in time", self.client.unacknowledged())));
                }
            }
            self.show_waiting();
        }
    }

    fn send(&mut self, text: String) {
        if text.trim().is_empty() {
            return;
        }
        if let Err(error) = self.client.send(
            &self.channel,
            SendMessage {
                text: Some(text),
                ..SendMessage::default()
            },
        ) {
            self.screen.warn(&error.to_string());
        }
    }

    async fn apply(&mut self, update: Option<Update>) -> Result<(), CommandError> {
        match update {
            Some(Update::Connected(connected)) => {
                self.unnamed.clear();
                let of_channel = |entry: EntryResult| match entry {
                    EntryResult::Entry(entry) if entry.channel_id == self.channel => Some(entry),
                    _ => None,
                };
                let entry = connected.channels.into_iter().find_map(of_channel);
                if std::mem::take(&mut self.is_away) {
                    self.note("reconnected");
                }
                if let (None, Some(entry)) = (&self.you, entry) {
                    let name = name_of(&connected.user);
                    self.names.learn(connected.user.id.clone(), name.clone());
                    self.you = Some(connected.user.id);
                    self.greet(&name, entry).await?;
                }
            }
            Some(Update::Away { why, .. }) if self.you.is_none() => return Err(self.refused(&why)),
            Some(Update::Away { why, .. }) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    self.note(&format!(
                        "{why}; reconnecting, and messages are sent afterwards"
                    ));
                }
            }
            Some(Update::Event(event)) if event.channel_id.as_ref() == Some(&self.channel) => {
                self.waiting
                    .extend(Item::of(event.read().map_err(CommandError::of)?));
            }
            Some(Update::Gap {
                gap: Gap::Diverged, ..
            }) => {
                self.note("the node lost the latest messages; these are the ones it has:");
                self.last_number = 0;
            }
            Some(Update::Messages { messages, .. }) => {
                self.waiting.extend(messages.into_iter().map(Item::Message))
            }
            Some(Update::Failed { why, .. }) => self.screen.warn(&format!("not sent: {why}")),
            Some(Update::Lost { error, .. }) => {
                return Err(CommandError(format!("{}: {}", self.channel, error.message)));
            }
            Some(Update::Ended(why)) if self.you.is_none() => return Err(self.refused(&why)),
            Some(Update::Ended(why)) => {
                return Err(CommandError(format!("the connection ended: {why}")));
            }
            None => return Err(CommandError("the connection ended".into())),
            Some(_) => {}
        }
        Ok(())
    }

    async fn greet(&mut self, you: &str, entry: Entry) -> Result<(), CommandError> {
        let channel = entry
            .channel
            .and_then(|channel| channel.name)
            .unwrap_or_else(|| self.channel.to_string());
        self.screen.note(&format!(
            "You are {you} in {channel}. Write a line to send it; end with Ctrl-D."
        ));
        self.screen.open(you)?;
        let newest = ListMessages {
            limit: Some(INITIAL_MESSAGES),
            ..ListMessages::default()
        };
        let Some(session) = self.client.session() else {
            return Ok(());
        };
        match session.call::<MessageList>(&self.channel, &newest).await {
            Ok(page) => self
                .waiting
                .extend(page.items.into_iter().map(Item::Message)),
            Err(error) => self
                .screen
                .warn(&format!("earlier messages cannot be shown: {error}")),
        }
        Ok(())
    }

    fn note(&mut self, note: &str) {
        self.waiting.push_back(Item::Note(note.to_owned()));
    }

    /// Shows waiting items up to the first whose name is being looked up.
    fn show_waiting(&mut self) {
        while let Some(item) = self.waiting.front() {
            let is_known = item
                .user()
                .is_none_or(|user| self.names.knows(user) || self.unnamed.contains(user));
            if !is_known && self.waiting.len() < MAX_WAITING && self.look_up() {
                return;
            }
            if let Some(item) = self.waiting.pop_front() {
                self.show(&item);
            }
        }
    }

    /// Requests the unknown names of waiting items, unless a request is in flight. Returns whether
    /// an answer will come.
    fn look_up(&mut self) -> bool {
        if !self.lookup.is_empty() {
            return true;
        }
        let Some(session) = self.client.session() else {
            return false;
        };
        let users = self.waiting.iter().filter_map(Item::user);
        let unknown: HashSet<_> = users
            .filter(|user| !self.names.knows(user) && !self.unnamed.contains(*user))
            .cloned()
            .collect();
        let user_ids: Vec<_> = unknown.into_iter().take(NAMES_PER_REQUEST).collect();
        self.lookup.spawn(async move {
            let users = session
                .call::<UserGet>(
                    (),
                    UserIds {
                        user_ids: user_ids.clone(),
                    },
                )
                .await;
            (user_ids, users.ok())
        });
        true
    }

    fn learn(&mut self, asked: Vec<UserId>, users: Option<Users>) {
        let Some(users) = users else {
            return self.unnamed.extend(asked);
        };
        // An incomplete reply is followed by another request, unless it was empty.
        let is_complete = !users.more || users.items.is_empty();
        for user in users.items {
            let name = name_of(&user);
            self.names.learn(user.id, name);
        }
        for user in asked {
            if is_complete && !self.names.knows(&user) {
                // A deleted user.
                self.names.learn(user.clone(), user.to_string());
            }
        }
    }

    fn show(&mut self, item: &Item) {
        match item {
            Item::Message(message) if message.number <= self.last_number => {}
            Item::Message(message) => {
                self.last_number = message.number;
                if message.deleted_at.is_none() {
                    let content = content(message);
                    match &message.sender_id {
                        Some(sender) => self.screen.show_message(&self.names.of(sender), &content),
                        None => self.screen.show_system_message(&content),
                    }
                }
            }
            Item::Edited(message) => {
                let title = message.sender_id.as_ref().map_or_else(
                    || "* edited".to_owned(),
                    |sender| format!("* {} edited", self.names.of(sender)),
                );
                self.screen.show_message(&title, &content(message));
            }
            Item::Deleted(Some(sender)) => self.screen.note(&format!(
                "* a message of {} was deleted",
                self.names.of(sender)
            )),
            Item::Deleted(None) => self.screen.note("* a message was deleted"),
            Item::Reacted(user, emoji) => self
                .screen
                .note(&format!("* {} reacted {emoji}", self.names.of(user))),
            Item::Joined(user) => self
                .screen
                .note(&format!("* {} joined", self.names.of(user))),
            Item::Left(user) => self.screen.note(&format!("* {} left", self.names.of(user))),
            Item::Note(note) => self.screen.note(&format!("* {note}")),
        }
    }

    fn refused(&self, why: &DisconnectCause) -> CommandError {
        let is_given = self.settings.token.is_some() || self.settings.token_file.is_some();
        let who = if is_given {
            "the token's user"
        } else {
            &self.settings.user
        };
        CommandError(format!("{} refuses {who}: {why}", self.settings.url))
    }
}

/// Returns the text of a message, or its attachments if it has no text.
fn content(message: &Message) -> Cow<'_, str> {
    if !message.text.is_empty() {
        return Cow::Borrowed(&message.text);
    }
    let shown = message.attachments.iter().map(|attachment| {
        let address = attachment
            .url
            .as_deref()
            .or(attachment.upload_id.as_ref().map(UploadId::as_str));
        let words: Vec<_> = attachment
            .name
            .as_deref()
            .into_iter()
            .chain(address)
            .collect();
        if words.is_empty() {
            format!("[{}]", attachment.kind)
        } else {
            format!("[{}: {}]", attachment.kind, words.join(" "))
        }
    });
    Cow::Owned(shown.collect::<Vec<_>>().join("\n"))
}

/// Returns the token of the settings, or mints one with the app key of the settings or the demo.
async fn token(settings: &Chat) -> Result<String, CommandError> {
    if let Some(token) = &settings.token {
        return Ok(token.expose().to_owned());
    }
    if let Some(file) = &settings.token_file {
        return read(file);
    }
    let key = match &settings.app_key {
        Some(key) => key.expose().to_owned(),
        None => Demo::read(&settings.data)
            .map(|demo| demo.app_key)
            .ok_or_else(|| no_demo(&settings.data))?,
    };
    let backend = Backend::new(&http_url(&settings.url), &key).map_err(CommandError::of)?;
    let user: UserId = settings.user.parse().map_err(CommandError::of)?;
    let minted = backend
        .call::<UserMintToken>(&user, MintToken::default())
        .await
        .map_err(|error| {
            let hint = if matches!(error, BackendError::Unreachable(_)) {
                "; is a node running there?"
            } else {
                ""
            };
            CommandError(format!(
                "no token for {} from {}: {error}{hint}",
                settings.user, settings.url
            ))
        })?;
    Ok(minted.token)
}

fn read(file: &Path) -> Result<String, CommandError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| CommandError(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

fn no_demo(data: &Path) -> CommandError {
    CommandError(format!(
        "{} holds no demo: start a node with --demo on, or pass --token-file or --app-key",
        data.display()
    ))
}

/// Returns the HTTP URL of a WebSocket URL.
fn http_url(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or(rest);
    format!("http://{authority}")
}
