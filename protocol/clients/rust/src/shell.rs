//! The task of a client: does what the machine says, and nothing of its own.

use std::{
    collections::{HashMap, VecDeque},
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use protocol::{
    Encoding, ErrorBody, ErrorCode,
    codec::DecodeError,
    frame::{Head, ServerFrame},
    params::{RefreshToken, Subscribe, Unsubscribe},
    results::{Empty, MessageResult, Pong, Refreshed, Subscribed},
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    Closed, ConnectError, Connector, Events, Frame, Session,
    client::Shared,
    machine::{Action, Answer, Ask, Input, NoToken, Ticket, Update},
    methods::in_channel,
    session::{Command, read_reply},
};

type Connecting = Pin<Box<dyn Future<Output = Result<(Session, Events), ConnectError>> + Send>>;

/// What the task of a client holds.
pub(crate) struct Shell<F, T> {
    shared: Arc<Shared>,
    addresses: Vec<Connector>,
    token: F,
    asking: Option<Pin<Box<T>>>,
    connecting: Option<Connecting>,
    online: Option<Online>,
    updates: mpsc::Sender<Update>,
}

/// A session, and what is under way in it.
struct Online {
    session: Session,
    events: Events,
    /// Requests that are not handed to the connection yet.
    waiting: VecDeque<(Ticket, Ask)>,
    under_way: HashMap<u32, (Ticket, ReadReply)>,
}

/// A reply, as far as it can be read.
type Reply = Result<Result<Answer, ErrorBody>, DecodeError>;
type ReadReply = fn(Encoding, &[u8]) -> Reply;

/// What the task waited for.
enum Woken {
    Input(Input),
    Frame(Option<Bytes>),
    /// The machine was changed, or its time has come.
    Tick,
    /// The application does not listen any more.
    Unheard,
    /// Done already.
    Nothing,
}

pub(crate) async fn run<F, T>(mut shell: Shell<F, T>)
where
    F: FnMut() -> T,
    T: Future<Output = Result<String, NoToken>>,
{
    while let Some((is_told, due)) = shell.acts() {
        let woken = shell.wait(is_told, due).await;
        shell.takes(woken);
    }
    shell.online = None;
    *shell.shared.session.lock() = None;
}

impl<F, T> Shell<F, T>
where
    F: FnMut() -> T,
    T: Future<Output = Result<String, NoToken>>,
{
    pub(crate) fn new(
        shared: Arc<Shared>,
        addresses: Vec<Connector>,
        token: F,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        Self {
            shared,
            addresses,
            token,
            asking: None,
            connecting: None,
            online: None,
            updates,
        }
    }

    /// Does what is to be done, and answers whether all is told and when the machine wants to be woken; none at the end.
    fn acts(&mut self) -> Option<(bool, Option<Instant>)> {
        loop {
            // The machine is not held meanwhile: what is done may come back to it.
            let action = self.shared.machine.lock().action();
            match action {
                Some(Action::AskToken) => self.asking = Some(Box::pin((self.token)())),
                Some(Action::Connect { address, params }) => {
                    let connector = self.addresses[address].clone();
                    self.connecting =
                        Some(Box::pin(async move { connector.connect(&params).await }));
                }
                Some(Action::Ask(ticket, ask)) => {
                    if let Some(online) = &mut self.online {
                        online.waiting.push_back((ticket, ask));
                    }
                }
                Some(Action::Leave) => self.parts(Session::hang_up),
                Some(Action::Cut) => self.parts(Session::cut),
                None => break,
            }
        }
        let machine = self.shared.machine.lock();
        let is_told = machine.is_told();
        if machine.is_over() && is_told {
            return None;
        }
        let now = Instant::now().into_std();
        Some((is_told, machine.due(now).map(Instant::from_std)))
    }

    fn parts(&mut self, how: impl FnOnce(&Session)) {
        self.connecting = None;
        if let Some(online) = self.online.take() {
            how(&online.session);
        }
        *self.shared.session.lock() = None;
    }

    /// Waits for the next thing that happens. As long as updates wait the socket is not read.
    async fn wait(&mut self, is_told: bool, due: Option<Instant>) -> Woken {
        let asking = self
            .online
            .as_ref()
            .filter(|online| !online.waiting.is_empty())
            .map(|online| online.session.clone());
        let events = self
            .online
            .as_mut()
            .filter(|_| is_told)
            .map(|online| &mut online.events);
        tokio::select! {
            () = self.shared.wake.notified() => Woken::Tick,
            () = at(due) => Woken::Tick,
            outcome = done(&mut self.asking) => {
                self.asking = None;
                Woken::Input(Input::Token(outcome))
            }
            outcome = done(&mut self.connecting) => {
                self.connecting = None;
                Woken::Input(match outcome {
                    Ok((session, events)) => {
                        let connected = Box::new(session.connected().clone());
                        *self.shared.session.lock() = Some(session.clone());
                        self.online = Some(Online { session, events, waiting: VecDeque::new(), under_way: HashMap::new() });
                        Input::Connected(connected)
                    }
                    Err(error) => Input::Failed(error),
                })
            }
            permit = self.updates.reserve(), if !is_told => match permit {
                Ok(permit) => {
                    if let Some(update) = self.shared.machine.lock().update() {
                        permit.send(update);
                    }
                    Woken::Nothing
                }
                Err(_) => Woken::Unheard,
            },
            () = self.updates.closed(), if is_told => Woken::Unheard,
            frame = next(events) => Woken::Frame(frame),
            permit = place(asking.as_ref()) => {
                if let Some(online) = &mut self.online {
                    online.asks(permit);
                }
                Woken::Nothing
            }
        }
    }

    fn takes(&mut self, woken: Woken) {
        let now = Instant::now().into_std();
        let input = match woken {
            Woken::Nothing => return,
            Woken::Tick => return self.shared.machine.lock().tick(now),
            Woken::Unheard => {
                let mut machine = self.shared.machine.lock();
                machine.close();
                while machine.update().is_some() {}
                return;
            }
            Woken::Input(input) => input,
            Woken::Frame(frame) => match self.read(frame) {
                Some(input) => input,
                None => return,
            },
        };
        self.shared.machine.lock().handle(input, now);
    }

    /// What a frame tells; none if it is the reply to what was not asked here.
    fn read(&mut self, frame: Option<Bytes>) -> Option<Input> {
        let online = self.online.as_mut()?;
        let Some(frame) = frame else {
            let closed = online.events.closed();
            self.parts(|_| ());
            return Some(Input::Ended(closed));
        };
        let encoding = online.session.encoding();
        let event = match ServerFrame::head(encoding, &frame) {
            Ok(Head::Reply(id)) => {
                let (ticket, read) = online.under_way.remove(&id)?;
                // A later version's word, say: what was asked has no answer, but the session is none the worse.
                let unreadable = |error| {
                    Err(ErrorBody::new(
                        ErrorCode::Internal,
                        format!("the reply cannot be read: {error}"),
                    ))
                };
                return Some(Input::Reply(
                    ticket,
                    read(encoding, &frame).unwrap_or_else(unreadable),
                ));
            }
            Ok(Head::Event) => encoding.decode(&frame),
            Err(error) => Err(error),
        };
        Some(event.map_or_else(
            |error| {
                self.parts(Session::cut);
                Input::Ended(Closed::broken(format!("a frame cannot be read: {error}")))
            },
            Input::Event,
        ))
    }
}

impl Online {
    /// Hands the first request that waits to the connection.
    fn asks(&mut self, permit: mpsc::Permit<'_, Command>) {
        let Some((ticket, ask)) = self.waiting.pop_front() else {
            return;
        };
        let (id, frame, read) = numbered(&self.session, &ask);
        self.under_way.insert(id, (ticket, read));
        permit.send(Command::Send(frame));
    }
}

/// A request as a frame, and how its reply is read.
fn numbered(session: &Session, ask: &Ask) -> (u32, Frame, ReadReply) {
    let method = ask.method();
    let (number, read): (_, ReadReply) = match ask {
        Ask::MessageSend {
            channel_id,
            message,
        } => (
            session.number(method, &in_channel(channel_id, message)),
            |encoding, frame| {
                read(encoding, frame, |result: MessageResult| {
                    Answer::MessageSend(Box::new(result.message))
                })
            },
        ),
        Ask::MessageList { channel_id, which } => (
            session.number(method, &in_channel(channel_id, which)),
            |encoding, frame| read(encoding, frame, Answer::MessageList),
        ),
        Ask::ParticipantList { channel_id, page } => (
            session.number(method, &in_channel(channel_id, page)),
            |encoding, frame| read(encoding, frame, Answer::ParticipantList),
        ),
        Ask::ChannelList(page) => (session.number(method, page), |encoding, frame| {
            read(encoding, frame, Answer::ChannelList)
        }),
        Ask::ChannelSubscribe(channels) => (
            session.number(
                method,
                &Subscribe {
                    channels: channels.clone(),
                },
            ),
            |encoding, frame| {
                read(encoding, frame, |result: Subscribed| {
                    Answer::ChannelSubscribe(result.channels)
                })
            },
        ),
        Ask::ChannelUnsubscribe(channel_ids) => (
            session.number(
                method,
                &Unsubscribe {
                    channel_ids: channel_ids.clone(),
                },
            ),
            |encoding, frame| read(encoding, frame, |_: Empty| Answer::ChannelUnsubscribe),
        ),
        Ask::TokenRefresh(token) => (
            session.number(
                method,
                &RefreshToken {
                    token: token.clone(),
                },
            ),
            |encoding, frame| {
                read(encoding, frame, |result: Refreshed| {
                    Answer::TokenRefresh(result.expires_at)
                })
            },
        ),
        Ask::Ping => (session.number(method, &Empty {}), |encoding, frame| {
            read(encoding, frame, |result: Pong| Answer::Ping(result.at))
        }),
    };
    (number.0, number.1, read)
}

fn read<R: DeserializeOwned>(
    encoding: Encoding,
    frame: &[u8],
    answer: impl FnOnce(R) -> Answer,
) -> Reply {
    Ok(match read_reply(encoding, frame)? {
        Ok(result) => Ok(answer(result)),
        Err(error) => Err(error),
    })
}

/// Waits until then, or for ever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Waits for what is under way, or for ever.
async fn done<T: Future + ?Sized>(under_way: &mut Option<Pin<Box<T>>>) -> T::Output {
    match under_way {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Waits for the next frame, or for ever.
async fn next(events: Option<&mut Events>) -> Option<Bytes> {
    match events {
        Some(events) => events.next_frame().await,
        None => pending().await,
    }
}

/// Waits until the connection takes one more request, or for ever: its end is told by its events.
async fn place(session: Option<&Session>) -> mpsc::Permit<'_, Command> {
    match session {
        Some(session) => match session.room().await {
            Some(permit) => permit,
            None => pending().await,
        },
        None => pending().await,
    }
}
