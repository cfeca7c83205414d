//! Writes all messages of a channel to standard output, oldest first, one JSON object a line.
//!
//! Needs a user token in `CHAOS_TOKEN`, for example from the example `token_backend`, running on
//! port 8080:
//!
//! ```sh
//! LOGIN='{"user_id": "alice", "password": "wonderland"}'
//! export CHAOS_TOKEN=$(curl -sS -d "$LOGIN" http://127.0.0.1:8080/login | cut -d '"' -f 4)
//! cargo run -p chaos-client --example history_export -- general > general.jsonl
//! ```
//!
//! Give the number of the last exported message as a second argument to append what came later:
//! `history_export general 1200 >> general.jsonl`.
//!
//! Shows [`Session`]: one connection, on which requests are made and replies awaited, without
//! reconnecting. Set `CHAOS_URL` if the node is not at `http://127.0.0.1:7400`.

use std::{
    env,
    io::{BufWriter, Write, stdout},
    time::Duration,
};

use anyhow::{Context, Result};
use client::{RequestError, Retryability, Session, connect};
use protocol::{
    ChannelId, Encoding,
    operation::{
        message::{ListMessages, MessageList, MessagePage},
        session::{Connect, Watch},
    },
};
use tokio::time::sleep;

#[tokio::main]
async fn main() -> Result<()> {
    let url = env::var("CHAOS_URL").unwrap_or_else(|_| "http://127.0.0.1:7400".into());
    let token = env::var("CHAOS_TOKEN").context("set CHAOS_TOKEN to a user token")?;
    let mut arguments = env::args().skip(1);
    let channel_id: ChannelId = arguments
        .next()
        .context("usage: history_export CHANNEL [AFTER]")?
        .parse()?;
    let mut after: u64 = arguments
        .next()
        .map_or(Ok(0), |number| number.parse())
        .context("AFTER is the number of a message")?;

    // The export reads pages only: it subscribes to no channel and drops the events.
    let params = Connect {
        token,
        watch: Watch::None,
        ..Connect::default()
    };
    let (session, events) = connect(&url, Encoding::MessagePack, &params).await?;
    drop(events);

    let mut out = BufWriter::new(stdout().lock());
    loop {
        let page = page(&session, &channel_id, after)
            .await
            .with_context(|| format!("the export ended after message {after}"))?;
        for message in &page.items {
            serde_json::to_writer(&mut out, message)?;
            out.write_all(b"\n")?;
            after = message.number;
        }
        if !page.more {
            break;
        }
    }
    out.flush()?;
    eprintln!("exported {channel_id} up to message {after}");
    Ok(())
}

/// Requests the page after a message, and waits where the node limits the rate of requests.
async fn page(
    session: &Session,
    channel_id: &ChannelId,
    after: u64,
) -> Result<MessagePage, RequestError> {
    let limit = session.connected().limits.get("page").copied();
    let which = ListMessages {
        after: Some(after),
        limit,
        ..ListMessages::default()
    };
    loop {
        let error = match session.call::<MessageList>(channel_id, &which).await {
            Ok(page) => return Ok(page),
            Err(error) => error,
        };
        match error.refusal().map(Retryability::of) {
            Some(Retryability::RateLimited(wait) | Retryability::Temporary(wait)) => {
                sleep(wait.unwrap_or(Duration::from_secs(1))).await
            }
            _ => return Err(error),
        }
    }
}
