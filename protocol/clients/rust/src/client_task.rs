//! The task of a client: drives the machine, and contains no logic of its own.

use std::{
    borrow::Borrow,
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
    operation::{
        CallResult, Operation,
        channel::{ChannelList, ChannelSubscribe, ChannelUnsubscribe, Subscribe, Unsubscribe},
        message::{MessageList, MessageSend},
        participant::ParticipantList,
        session::{Ping, RefreshToken, TokenRefresh},
    },
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use crate::{
    Closed, ConnectError, Connector, Events, Frame, Session,
    client_shared::ClientShared,
    machine::{
        ClientReply, ClientRequest, MachineAction, MachineInput, RequestId, TokenUnavailable,
        Update,
    },
    session::{SocketCommand, read_reply},
};

type Connecting = Pin<Box<dyn Future<Output = Result<(Session, Events), ConnectError>> + Send>>;

/// The state of a client's task.
pub(crate) struct ClientTask<F, T> {
    shared: Arc<ClientShared>,
    addresses: Vec<Connector>,
    token: F,
    token_request: Option<Pin<Box<T>>>,
    connecting: Option<Connecting>,
    active: Option<ActiveSession>,
    updates: mpsc::Sender<Update>,
}

/// A session and its requests.
struct ActiveSession {
    session: Session,
    events: Events,
    /// Requests that were not passed to the connection yet.
    unsent: VecDeque<(RequestId, ClientRequest)>,
    in_flight: HashMap<u32, (RequestId, ReadReply)>,
}

/// A reply, or why it cannot be parsed.
type ParsedReply = Result<Result<ClientReply, ErrorBody>, DecodeError>;
type ReadReply = Box<dyn FnOnce(Encoding, &[u8]) -> ParsedReply + Send>;

/// The event that woke the task.
enum Wakeup {
    Input(MachineInput),
    Frame(Option<Bytes>),
    /// A handle changed the machine, or the machine is due.
    Tick,
    /// The application dropped its updates.
    UpdatesDropped,
    /// Already handled.
    Nothing,
}

pub(crate) async fn run<F, T>(mut client_task: ClientTask<F, T>)
where
    F: FnMut() -> T,
    T: Future<Output = Result<String, TokenUnavailable>>,
{
    while let Some((no_updates_wait, due)) = client_task.perform_actions() {
        let wakeup = client_task.wait(no_updates_wait, due).await;
        client_task.handle(wakeup);
    }
    client_task.active = None;
    *client_task.shared.session.lock() = None;
}

impl<F, T> ClientTask<F, T>
where
    F: FnMut() -> T,
    T: Future<Output = Result<String, TokenUnavailable>>,
{
    pub(crate) fn new(
        shared: Arc<ClientShared>,
        addresses: Vec<Connector>,
        token: F,
        updates: mpsc::Sender<Update>,
    ) -> Self {
        Self {
            shared,
            addresses,
            token,
            token_request: None,
            connecting: None,
            active: None,
            updates,
        }
    }

    /// Performs all actions. Returns whether no update waits and when the machine is due, or `None`
    /// at the end of the client.
    fn perform_actions(&mut self) -> Option<(bool, Option<Instant>)> {
        loop {
            // The machine is not locked during the action, which may call it.
            let action = self.shared.machine.lock().action();
            match action {
                Some(MachineAction::AskToken) => {
                    self.token_request = Some(Box::pin((self.token)()))
                }
                Some(MachineAction::Connect { address, params }) => {
                    let connector = self.addresses[address].clone();
                    self.connecting =
                        Some(Box::pin(async move { connector.connect(&params).await }));
                }
                Some(MachineAction::Request(request_id, request)) => {
                    if let Some(active) = &mut self.active {
                        active.unsent.push_back((request_id, request));
                    }
                }
                Some(MachineAction::Leave) => self.drop_session(Session::close_now),
                Some(MachineAction::Cut) => self.drop_session(Session::abort_now),
                None => break,
            }
        }
        let machine = self.shared.machine.lock();
        let no_updates_wait = machine.has_no_updates();
        if machine.is_over() && no_updates_wait {
            return None;
        }
        let now = Instant::now().into_std();
        Some((no_updates_wait, machine.due(now).map(Instant::from_std)))
    }

    fn drop_session(&mut self, how: impl FnOnce(&Session)) {
        self.connecting = None;
        if let Some(active) = self.active.take() {
            how(&active.session);
        }
        *self.shared.session.lock() = None;
    }

    /// Waits for the next input. Does not read the socket while updates wait.
    async fn wait(&mut self, no_updates_wait: bool, due: Option<Instant>) -> Wakeup {
        let session_with_unsent = self
            .active
            .as_ref()
            .filter(|active| !active.unsent.is_empty())
            .map(|active| active.session.clone());
        let events = self
            .active
            .as_mut()
            .filter(|_| no_updates_wait)
            .map(|active| &mut active.events);
        tokio::select! {
            () = self.shared.wake.notified() => Wakeup::Tick,
            () = at(due) => Wakeup::Tick,
            outcome = done(&mut self.token_request) => {
                self.token_request = None;
                Wakeup::Input(MachineInput::Token(outcome))
            }
            outcome = done(&mut self.connecting) => {
                self.connecting = None;
                Wakeup::Input(match outcome {
                    Ok((session, events)) => {
                        let connected = Box::new(session.connected().clone());
                        *self.shared.session.lock() = Some(session.clone());
                        self.active = Some(ActiveSession { session, events, unsent: VecDeque::new(), in_flight: HashMap::new() });
                        MachineInput::Connected(connected)
                    }
                    Err(error) => MachineInput::Failed(error),
                })
            }
            permit = self.updates.reserve(), if !no_updates_wait => match permit {
                Ok(permit) => {
                    if let Some(update) = self.shared.machine.lock().update() {
                        permit.send(update);
                    }
                    Wakeup::Nothing
                }
                Err(_) => Wakeup::UpdatesDropped,
            },
            () = self.updates.closed(), if no_updates_wait => Wakeup::UpdatesDropped,
            frame = next(events) => Wakeup::Frame(frame),
            permit = request_permit(session_with_unsent.as_ref()) => {
                if let Some(active) = &mut self.active {
                    active.send_next(permit);
                }
                Wakeup::Nothing
            }
        }
    }

    fn handle(&mut self, wakeup: Wakeup) {
        let now = Instant::now().into_std();
        let input = match wakeup {
            Wakeup::Nothing => return,
            Wakeup::Tick => return self.shared.machine.lock().tick(now),
            Wakeup::UpdatesDropped => {
                let mut machine = self.shared.machine.lock();
                machine.close();
                while machine.update().is_some() {}
                return;
            }
            Wakeup::Input(input) => input,
            Wakeup::Frame(frame) => match self.read(frame) {
                Some(input) => input,
                None => return,
            },
        };
        self.shared.machine.lock().handle(input, now);
    }

    /// Parses a frame. Returns `None` for a reply without a request.
    fn read(&mut self, frame: Option<Bytes>) -> Option<MachineInput> {
        let active = self.active.as_mut()?;
        let Some(frame) = frame else {
            let closed = active.events.closed();
            self.drop_session(|_| ());
            return Some(MachineInput::Ended(closed));
        };
        let encoding = active.session.encoding();
        let event = match ServerFrame::head(encoding, &frame) {
            Ok(Head::Reply(id)) => {
                let (request_id, read) = active.in_flight.remove(&id)?;
                // For example of a later version. Only this request fails.
                let unparsable = |error| {
                    Err(ErrorBody::new(
                        ErrorCode::Internal,
                        format!("the reply cannot be parsed: {error}"),
                    ))
                };
                return Some(MachineInput::Reply(
                    request_id,
                    read(encoding, &frame).unwrap_or_else(unparsable),
                ));
            }
            Ok(Head::Event) => encoding.decode(&frame),
            Err(error) => Err(error),
        };
        Some(event.map_or_else(
            |error| {
                self.drop_session(Session::abort_now);
                MachineInput::Ended(Closed::broken(format!("a frame cannot be parsed: {error}")))
            },
            MachineInput::Event,
        ))
    }
}

impl ActiveSession {
    /// Passes the first unsent request to the connection.
    fn send_next(&mut self, permit: mpsc::Permit<'_, SocketCommand>) {
        let Some((request_id, request)) = self.unsent.pop_front() else {
            return;
        };
        let (id, frame, read) = encode(&self.session, &request);
        self.in_flight.insert(id, (request_id, read));
        permit.send(SocketCommand::Send(frame));
    }
}

/// Encodes a request. Returns how to parse its reply, too.
fn encode(session: &Session, request: &ClientRequest) -> (u32, Frame, ReadReply) {
    match request {
        ClientRequest::MessageSend {
            channel_id,
            message,
        } => call::<MessageSend>(session, channel_id, message.as_ref(), |message| {
            ClientReply::MessageSend(Box::new(message))
        }),
        ClientRequest::MessageList { channel_id, which } => {
            call::<MessageList>(session, channel_id, which, ClientReply::MessageList)
        }
        ClientRequest::ParticipantList { channel_id, page } => {
            call::<ParticipantList>(session, channel_id, page, ClientReply::ParticipantList)
        }
        ClientRequest::ChannelList(page) => {
            call::<ChannelList>(session, (), page, ClientReply::ChannelList)
        }
        ClientRequest::ChannelSubscribe(channels) => {
            let input = Subscribe {
                channels: channels.clone(),
            };
            call::<ChannelSubscribe>(session, (), input, |output| {
                ClientReply::ChannelSubscribe(output.channels)
            })
        }
        ClientRequest::ChannelUnsubscribe(channel_ids) => {
            let input = Unsubscribe {
                channel_ids: channel_ids.clone(),
            };
            call::<ChannelUnsubscribe>(session, (), input, |_| ClientReply::ChannelUnsubscribe)
        }
        ClientRequest::TokenRefresh(token) => {
            let input = RefreshToken {
                token: token.clone(),
            };
            call::<TokenRefresh>(session, (), input, |output| {
                ClientReply::TokenRefresh(output.expires_at)
            })
        }
        ClientRequest::Ping => call::<Ping>(session, (), (), |output| ClientReply::Ping(output.at)),
    }
}

fn call<O: Operation>(
    session: &Session,
    path: impl Into<O::Path>,
    input: impl Borrow<O::Input>,
    to_reply: impl FnOnce(O::Output) -> ClientReply + Send + 'static,
) -> (u32, Frame, ReadReply) {
    let (id, frame) = session.encode_unawaited::<O>(&path.into(), input.borrow());
    let read = |encoding: Encoding, frame: &[u8]| {
        Ok(read_reply(encoding, frame)?.map(|CallResult::<O>(output)| to_reply(output)))
    };
    (id, frame, Box::new(read))
}

/// Waits until an instant, or forever.
async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}

/// Waits for a future, or forever.
async fn done<T: Future + ?Sized>(future: &mut Option<Pin<Box<T>>>) -> T::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Waits for the next frame, or forever.
async fn next(events: Option<&mut Events>) -> Option<Bytes> {
    match events {
        Some(events) => events.next_frame().await,
        None => pending().await,
    }
}

/// Waits until the connection accepts a request, or forever: its events report its end.
async fn request_permit(session: Option<&Session>) -> mpsc::Permit<'_, SocketCommand> {
    match session {
        Some(session) => match session.permit().await {
            Some(permit) => permit,
            None => pending().await,
        },
        None => pending().await,
    }
}
