//! `chaos chat`: a terminal client, and a real one: all that it knows it learns over the wire.

use std::{io::IsTerminal, path::Path, sync::Arc, time::Duration};

use client::{Backend, Client, Connector, NoToken, Settings, Update, Updates, Why};
use protocol::{
    ChannelId, Encoding, UserId,
    event::{Event, Reaction},
    model::{Entry, EntryResult, Gap, Message},
    params::{Cursor, ListMessages, MintToken, SendMessage, Watch},
    results::Token,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    time::{Instant, sleep_until},
};

use crate::{config::Chat, demo::Demo, start::StartError};

/// How many of the last messages are shown at the beginning.
const HISTORY: u64 = 20;

/// How long what was typed may take to be stored after the input ended.
const FAREWELL: Duration = Duration::from_secs(10);

/// Chats until the input ends, through restarts of the node.
///
/// # Errors
/// A sentence for the person at the terminal.
pub async fn run(settings: Chat) -> Result<(), StartError> {
    let channel: ChannelId = settings
        .channel
        .parse()
        .map_err(|e| StartError(format!("--channel: {e}")))?;
    let connector = Connector::new(&settings.url, Encoding::MessagePack).map_err(StartError::of)?;
    let mut first = Some(token(&settings).await?);
    let settings = Arc::new(settings);
    let asks = settings.clone();
    let token = move || {
        let (first, settings) = (first.take(), asks.clone());
        async move {
            match first {
                Some(token) => Ok(token),
                None => another(&settings).await,
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
    let mut talk = Talk {
        settings,
        channel,
        client,
        you: None,
        is_away: false,
        shown: 0,
    };
    talk.goes_on(updates).await
}

/// Another token than the first one, which has ended or is about to.
async fn another(settings: &Chat) -> Result<String, NoToken> {
    if settings.token.is_some() {
        return Err(NoToken::Never("the one that was given has ended".into()));
    }
    token(settings)
        .await
        .map_err(|error| NoToken::Later(error.0))
}

/// A conversation at the terminal.
struct Talk {
    settings: Arc<Chat>,
    channel: ChannelId,
    client: Client,
    /// Known from the first connection on.
    you: Option<UserId>,
    is_away: bool,
    /// The number of the newest message that was shown.
    shown: u64,
}

impl Talk {
    async fn goes_on(&mut self, mut updates: Updates) -> Result<(), StartError> {
        // On a terminal the typed line gives way to the message that it became.
        let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        let mut lines = BufReader::new(tokio::io::stdin()).lines();
        let mut end: Option<Instant> = None;
        loop {
            if end.is_some() && self.client.unacknowledged() == 0 {
                return Ok(());
            }
            tokio::select! {
                // What is typed before the greeting waits.
                line = lines.next_line(), if end.is_none() && self.you.is_some() => match line.map_err(StartError::of)? {
                    None => end = Some(Instant::now() + FAREWELL),
                    Some(line) if line.trim().is_empty() => {}
                    Some(text) => {
                        if is_terminal {
                            print!("\x1b[1A\x1b[2K");
                        }
                        if let Err(error) = self.client.send(&self.channel, SendMessage { text: Some(text), ..SendMessage::default() }) {
                            eprintln!("! {error}");
                        }
                    }
                },
                update = updates.next() => self.takes(update).await?,
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {
                    return Err(StartError(format!("{} of your messages may be lost: the node does not answer", self.client.unacknowledged())));
                }
            }
        }
    }

    async fn takes(&mut self, update: Option<Update>) -> Result<(), StartError> {
        match update {
            Some(Update::Connected(connected)) => {
                let of_channel = |entry: EntryResult| match entry {
                    EntryResult::Entry(entry) if entry.channel_id == self.channel => Some(entry),
                    _ => None,
                };
                if std::mem::take(&mut self.is_away) {
                    println!("* connected again");
                }
                let entry = connected.channels.into_iter().find_map(of_channel);
                if let (None, Some(entry)) = (&self.you, entry) {
                    self.you = Some(connected.user.id);
                    self.greet(entry).await;
                }
            }
            Some(Update::Away { why, .. }) if self.you.is_none() => return Err(self.refused(&why)),
            Some(Update::Away { why, .. }) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    println!("* {why}; connecting again, and what you write waits");
                }
            }
            Some(Update::Event(event)) if event.channel_id.as_ref() == Some(&self.channel) => {
                match event.read().map_err(StartError::of)? {
                    Event::MessageCreated(message) => self.show(&message),
                    event => tell(&event),
                }
            }
            Some(Update::Gap {
                gap: Gap::Diverged, ..
            }) => {
                println!("* the node lost what was said last; this is what it has:");
                self.shown = 0;
            }
            Some(Update::Messages { messages, .. }) => {
                messages.iter().for_each(|message| self.show(message))
            }
            Some(Update::Failed { why, .. }) => eprintln!("! {why}"),
            Some(Update::Lost { error, .. }) => {
                return Err(StartError(format!("{}: {}", self.channel, error.message)));
            }
            Some(Update::Over(why)) if self.you.is_none() => return Err(self.refused(&why)),
            Some(Update::Over(why)) => {
                return Err(StartError(format!("the connection ended: {why}")));
            }
            None => return Err(StartError("the connection ended".into())),
            Some(_) => {}
        }
        Ok(())
    }

    async fn greet(&mut self, entry: Entry) {
        if let Some(you) = &self.you {
            let name = entry
                .channel
                .and_then(|channel| channel.name)
                .unwrap_or_else(|| self.channel.to_string());
            println!("You are {you} in {name}. Write a line to send it; end with Ctrl-D.");
        }
        let newest = ListMessages {
            limit: Some(HISTORY),
            ..ListMessages::default()
        };
        let Some(session) = self.client.session() else {
            return;
        };
        match session.messages(&self.channel, &newest).await {
            Ok(page) => page.items.iter().for_each(|message| self.show(message)),
            Err(error) => eprintln!("! what was said before cannot be shown: {error}"),
        }
    }

    /// Shows a message that was not shown yet.
    fn show(&mut self, message: &Message) {
        if message.number > self.shown {
            self.shown = message.number;
            show(message);
        }
    }

    fn refused(&self, why: &Why) -> StartError {
        StartError(format!(
            "{} does not let {} in: {why}",
            self.settings.url, self.settings.user
        ))
    }
}

fn tell(event: &Event) {
    match event {
        Event::MessageUpdated(message) => {
            println!("* {} edited: {}", sender(message), plain(&message.text))
        }
        Event::MessageDeleted(message) => {
            println!("* a message of {} was deleted", sender(message))
        }
        Event::ReactionAdded(Reaction { user_id, emoji, .. }) => {
            println!("* {user_id} reacted {}", plain(emoji))
        }
        Event::ParticipantAdded(participant) => println!("* {} came in", participant.user_id),
        Event::ParticipantRemoved(participant) => println!("* {} left", participant.user_id),
        _ => {}
    }
}

fn show(message: &Message) {
    if message.deleted_at.is_none() {
        println!("{}: {}", sender(message), plain(&message.text));
    }
}

/// What others wrote, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

fn sender(message: &Message) -> String {
    message
        .sender_id
        .as_ref()
        .map_or_else(|| "*".to_owned(), ToString::to_string)
}

/// The token: given, or minted with an app key, given too or the demo's.
async fn token(settings: &Chat) -> Result<String, StartError> {
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
    let backend = Backend::new(&http_of(&settings.url), &key).map_err(StartError::of)?;
    let path = format!("/v1/users/{}/tokens", client::segment(&settings.user));
    let minted: Token = backend
        .post(&path, &MintToken::default())
        .await
        .map_err(|error| {
            StartError(format!(
                "no token for {} from {}: {error}; is a node running there?",
                settings.user, settings.url
            ))
        })?;
    Ok(minted.token)
}

fn read(file: &Path) -> Result<String, StartError> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| StartError(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

fn no_demo(data: &Path) -> StartError {
    StartError(format!(
        "{} holds no demo: start `chaos` there first, name its folder with --data, or give --token-file or --app-key",
        data.display()
    ))
}

/// The HTTP address beside a WebSocket's.
fn http_of(url: &str) -> String {
    let rest = url.strip_prefix("ws://").unwrap_or(url);
    let authority = rest.split('/').next().unwrap_or(rest);
    format!("http://{authority}")
}
