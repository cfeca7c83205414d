//! A bot that answers each message of a channel with the same text.
//!
//! Start a node in the root of the repository (`cargo run --release`); it has a demo app with the
//! channel `general`. Then, in a second terminal:
//!
//! ```sh
//! export CHAOS_APP_KEY=$(grep -o 'sk_test_[^"]*' chaos-data/demo.json)
//! cargo run -p chaos-client --example echo_bot -- general
//! ```
//!
//! and write something to it in a third one: `target/release/chaos chat --user alice`.
//!
//! Shows [`Client`]: it connects, reconnects, resumes its channels and sends each message until it
//! is acknowledged. The bot only handles updates. Set `CHAOS_URL` if the node is not at
//! `http://127.0.0.1:7400`.

use std::env;

use anyhow::{Context, Result, bail};
use client::{Backend, BackendError, Client, Connector, Settings, TokenUnavailable, Update};
use protocol::{
    ChannelId, Encoding, UserId,
    entity::{Message, Role},
    event::Event,
    operation::{
        message::SendMessage,
        participant::{AddParticipant, ParticipantAdd},
        user::{MintToken, PutUser, UserMintToken, UserReplace},
    },
};

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::var("CHAOS_URL").unwrap_or_else(|_| "http://127.0.0.1:7400".into());
    let app_key = env::var("CHAOS_APP_KEY").context("set CHAOS_APP_KEY to an app key")?;
    let channel_id: ChannelId = env::args()
        .nth(1)
        .context("usage: echo_bot CHANNEL")?
        .parse()?;
    let bot_id: UserId = "echo-bot".parse()?;

    let backend = Backend::new(&url, &app_key)?;
    create_bot(&backend, &bot_id, &channel_id).await?;

    let user_id = bot_id.clone();
    let token = move || mint_token(backend.clone(), user_id.clone());
    let (client, mut updates) = Client::start(
        vec![Connector::new(&url, Encoding::MessagePack)?],
        Settings::default(),
        token,
    );
    while let Some(update) = updates.next().await {
        match update {
            Update::Connected(_) => eprintln!("{bot_id} is connected to {url}"),
            Update::Event(event) => {
                if let Event::MessageCreated(message) = event.read()? {
                    // The bot receives its own messages too: answering them would never end.
                    if message.channel_id == channel_id
                        && message.sender_id.as_ref() != Some(&bot_id)
                    {
                        client.send(&channel_id, reply(&message))?;
                    }
                }
            }
            Update::Acknowledged(message) => {
                println!("sent message {}: {}", message.number, message.text)
            }
            Update::Failed {
                message_id, why, ..
            } => eprintln!("cannot send {message_id}: {why}"),
            Update::Away { why, wait } => {
                eprintln!("disconnected: {why}; reconnecting in {wait:?}")
            }
            Update::Ended(why) => bail!("the connection ended for good: {why}"),
            _ => {}
        }
    }
    Ok(())
}

fn reply(message: &Message) -> SendMessage {
    SendMessage {
        text: Some(message.text.clone()),
        reply_to_id: Some(message.id.clone()),
        ..SendMessage::default()
    }
}

/// Creates the bot's user and adds it to the channel. Repeating either request changes nothing.
async fn create_bot(backend: &Backend, bot_id: &UserId, channel_id: &ChannelId) -> Result<()> {
    let user = PutUser {
        first_name: Some("Echo".into()),
        bot: true,
        ..PutUser::default()
    };
    backend.call::<UserReplace>(bot_id, user).await?;
    let participant = AddParticipant {
        user_id: bot_id.clone(),
        role: Some(Role::Member),
    };
    backend
        .call::<ParticipantAdd>(channel_id, participant)
        .await?;
    Ok(())
}

/// Mints a user token. The client asks for one before it connects and before the current one
/// expires.
async fn mint_token(backend: Backend, user_id: UserId) -> Result<String, TokenUnavailable> {
    match backend
        .call::<UserMintToken>(&user_id, MintToken::default())
        .await
    {
        Ok(minted) => Ok(minted.token),
        // Another try would be refused as well, unless the node asks for one.
        Err(BackendError::Refused { error, .. }) if error.retry_after_ms.is_none() => {
            Err(TokenUnavailable::Never(error.to_string()))
        }
        Err(error) => Err(TokenUnavailable::Later(error.to_string())),
    }
}
