//! Sends of a session: one commit of each channel is in flight; sends that arrive meanwhile share
//! the next one.

use std::{sync::Arc, time::Instant};

use protocol::{
    ChannelId,
    operation::{
        encode_output,
        message::{MessageSend, SendMessage},
    },
};
use store::{StoreError, cost::Meter};
use tokio::time::timeout_at;
use tracing::Instrument;

use super::{
    session::{QueuedSend, Session},
    shared::Sessions,
};
use crate::session::SendBatch;
use domain::{error::Result, messages};

/// Queues a send. Call it in the order of the requests.
///
/// # Errors
///
/// `rate_limited` if the requests of the node leave no room for it.
pub(super) fn send(
    sessions: &Arc<Sessions>,
    session: &Arc<Session>,
    id: u32,
    channel: ChannelId,
    body: SendMessage,
    frame_bytes: usize,
) -> Result<()> {
    let waiting = QueuedSend {
        in_flight: sessions.begin_request(session, frame_bytes, 0)?,
        id,
        body,
    };
    let is_new_line = {
        let mut state = session.state.lock();
        state.active.sends.push(&channel, waiting, Instant::now())
    };
    if is_new_line {
        let span = tracing::debug_span!("sends", session = %session.id, %channel);
        let sending = send_waiting(Arc::clone(sessions), Arc::clone(session), channel);
        tokio::spawn(sending.instrument(span));
    }
    Ok(())
}

async fn send_waiting(sessions: Arc<Sessions>, session: Arc<Session>, channel: ChannelId) {
    let _line = SendQueue {
        session: &session,
        channel: &channel,
    };
    loop {
        let (SendBatch { sends, deadline }, facts) = {
            let mut state = session.state.lock();
            // The facts of an ended subscription are not used: they may be from before a removal.
            let listening = state.active.channels.get_mut(&channel);
            let facts = listening.and_then(|listening| listening.facts);
            match state.active.sends.next(&channel) {
                Some(batch) => (batch, facts),
                None => return,
            }
        };
        let (ids, bodies): (Vec<_>, Vec<_>) = sends
            .into_iter()
            .map(|waiting| ((waiting.in_flight, waiting.id), waiting.body))
            .unzip();
        let actor = session.actor();
        let meter = Arc::new(Meter::of(session.scope(), session.user()));
        let sending = meter.measure(messages::send::send_messages(
            &sessions.services,
            &actor,
            &channel,
            bodies,
            facts,
        ));
        let sent = timeout_at(deadline.into(), sending).await;
        sessions.charge(&session, &meter);
        let (answers, facts) = sent.unwrap_or_else(|_| {
            let late = || {
                Err(StoreError::Unavailable("a send was not answered in time".to_owned()).into())
            };
            (ids.iter().map(|_| late()).collect(), None)
        });
        if let Some(listening) = session.state.lock().active.channels.get_mut(&channel) {
            listening.facts = facts;
        }
        for ((_in_flight, id), answer) in ids.into_iter().zip(answers) {
            match answer {
                Ok((message, _)) => {
                    session.reply(encode_output::<MessageSend>(session.encoding, id, &message))
                }
                Err(error) => sessions.answer_error(&session, id, &error),
            }
        }
    }
}

/// The queue of a channel's sends. After a panic, its sends are dropped, and the next send starts a
/// new queue.
struct SendQueue<'a> {
    session: &'a Session,
    channel: &'a ChannelId,
}

impl Drop for SendQueue<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let waiting = self.session.state.lock().active.sends.abandon(self.channel);
            waiting.for_each(drop);
        }
    }
}
