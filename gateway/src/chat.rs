//! `chaos chat`: a terminal client, and a real one: all that it knows it learns over the wire.

use std::{io::IsTerminal, path::Path};

use client::{Backend, ConnectError, Connector, Events, Session};
use protocol::{
    ChannelId, Encoding,
    event::{Event, Reaction},
    model::{EntryResult, Message},
    params::{Connect, Cursor, ListMessages, MintToken, SendMessage, Watch},
    results::Token,
};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{config::Chat, demo::Demo, start::StartError};

/// How many of the last messages are shown at the beginning.
const HISTORY: u64 = 20;

/// Chats until the input ends or the connection does.
///
/// # Errors
/// A sentence for the person at the terminal.
pub async fn run(settings: Chat) -> Result<(), StartError> {
    let channel: ChannelId = settings.channel.parse().map_err(|e| StartError(format!("--channel: {e}")))?;
    let token = token(&settings).await?;
    let connector = Connector::new(&settings.url, Encoding::MessagePack).map_err(StartError::of)?;
    let params = Connect {
        token,
        watch: Watch::None,
        resume: [(channel.clone(), Cursor::Now)].into(),
        client: Some(concat!("chaos-chat/", env!("CARGO_PKG_VERSION")).into()),
        ..Connect::default()
    };
    let (session, events) = connector.connect(&params).await.map_err(|error| refused(&settings, &error))?;
    let you = session.connected().user.id.clone();
    let entry = session.connected().channels.first().cloned();
    match entry {
        Some(EntryResult::Entry(entry)) => {
            let name = entry.channel.and_then(|channel| channel.name).unwrap_or_else(|| channel.to_string());
            println!("You are {you} in {name}. Write a line to send it; end with Ctrl-D.");
        }
        Some(EntryResult::Failed(failed)) => return Err(StartError(format!("{channel}: {}", failed.error.message))),
        None => return Err(StartError(format!("{channel}: the node did not answer for this channel"))),
    }
    let newest = ListMessages { limit: Some(HISTORY), ..ListMessages::default() };
    for message in session.messages(&channel, &newest).await.map_err(StartError::of)?.items {
        show(&message);
    }
    talk(session, events, &channel).await
}

async fn talk(session: Session, mut events: Events, channel: &ChannelId) -> Result<(), StartError> {
    // On a terminal the typed line gives way to the message that it became.
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            line = lines.next_line() => match line.map_err(StartError::of)? {
                None => return Ok(()),
                Some(line) if line.trim().is_empty() => {}
                Some(text) => {
                    if is_terminal {
                        print!("\x1b[1A\x1b[2K");
                    }
                    let body = SendMessage { text: Some(text), ..SendMessage::default() };
                    if let Err(error) = session.send(channel, &body).await {
                        eprintln!("! {error}");
                    }
                }
            },
            event = events.next() => match event {
                Some(event) if event.channel_id.as_ref() == Some(channel) => tell(&event.read().map_err(StartError::of)?),
                Some(_) => {}
                None => return Err(StartError(format!("the connection ended: {}", events.closed()))),
            },
        }
    }
}

fn tell(event: &Event) {
    match event {
        Event::MessageCreated(message) => show(message),
        Event::MessageUpdated(message) => println!("* {} edited: {}", sender(message), plain(&message.text)),
        Event::MessageDeleted(message) => println!("* a message of {} was deleted", sender(message)),
        Event::ReactionAdded(Reaction { user_id, emoji, .. }) => println!("* {user_id} reacted {}", plain(emoji)),
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
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn sender(message: &Message) -> String {
    message.sender_id.as_ref().map_or_else(|| "*".to_owned(), ToString::to_string)
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
        None => Demo::read(&settings.data).map(|demo| demo.app_key).ok_or_else(|| no_demo(&settings.data))?,
    };
    let backend = Backend::new(&http_of(&settings.url), &key).map_err(StartError::of)?;
    let path = format!("/v1/users/{}/tokens", client::segment(&settings.user));
    let minted: Token = backend
        .post(&path, &MintToken::default())
        .await
        .map_err(|error| StartError(format!("no token for {} from {}: {error}; is a node running there?", settings.user, settings.url)))?;
    Ok(minted.token)
}

fn read(file: &Path) -> Result<String, StartError> {
    let text = std::fs::read_to_string(file).map_err(|error| StartError(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text.trim().to_owned())
}

fn no_demo(data: &Path) -> StartError {
    StartError(format!(
        "{} holds no demo: start `chaos` there first, name its folder with --data, or give --token-file or --app-key",
        data.display()
    ))
}

fn refused(settings: &Chat, error: &ConnectError) -> StartError {
    StartError(format!("{} does not let {} in: {error}", settings.url, settings.user))
}

/// The HTTP address beside a WebSocket's.
fn http_of(url: &str) -> String {
    let rest = url.strip_prefix("ws://").unwrap_or(url);
    let authority = rest.split('/').next().unwrap_or(rest);
    format!("http://{authority}")
}
