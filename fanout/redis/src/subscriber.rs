//! A connection for pub/sub.
//!
//! The client of the redis crate cannot be used for it: it takes an unsubscription that the server
//! announces by itself, because the slot moved, for the answer to the next command.

use std::io;

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    Address, CONNECT_TIMEOUT, ConnectionError, Deployment,
    dial::connect,
    resp::{RespReply, read_reply, write_command},
};

const READ_BUFFER_BYTES: usize = 64 << 10;

/// A pub/sub connection: `SUBSCRIBE` on a single server and at a Sentinel's master, `SSUBSCRIBE` on
/// a Cluster.
///
/// Commands are queued, and written while [`receive`](Self::receive) waits. Replies come in the
/// order of the commands.
#[derive(Debug)]
pub struct SubscriberConnection {
    stream: TcpStream,
    incoming: BytesMut,
    outgoing: BytesMut,
    sharded: bool,
}

impl SubscriberConnection {
    /// Connects and authenticates within [`CONNECT_TIMEOUT`].
    ///
    /// # Errors
    /// [`ConnectionError::Refused`] if the server rejects the credentials.
    pub async fn open(deployment: &Deployment, address: &Address) -> Result<Self, ConnectionError> {
        let opening = async {
            let stream = connect(address).await?;
            let (outgoing, incoming) =
                (BytesMut::new(), BytesMut::with_capacity(READ_BUFFER_BYTES));
            let mut connection = Self {
                stream,
                incoming,
                outgoing,
                sharded: deployment.is_cluster(),
            };
            let credentials = deployment.credentials();
            if let Some(password) = &credentials.password {
                match &credentials.user {
                    Some(user) => connection.ask(&["AUTH", user, password]).await?,
                    None => connection.ask(&["AUTH", password]).await?,
                };
            }
            Ok(connection)
        };
        timeout(CONNECT_TIMEOUT, opening)
            .await
            .unwrap_or(Err(ConnectionError::Silent))
    }

    /// Checks that the server answers, and in a Sentinel deployment that it is a master. Call it
    /// before the first subscription.
    pub async fn check_role(&mut self, deployment: &Deployment) -> Result<(), ConnectionError> {
        let is_sentinel = matches!(deployment, Deployment::Sentinel { .. });
        let asking = self.ask(if is_sentinel { &["ROLE"] } else { &["PING"] });
        match timeout(CONNECT_TIMEOUT, asking)
            .await
            .unwrap_or(Err(ConnectionError::Silent))?
        {
            RespReply::Role(role) if role != "master" => Err(ConnectionError::NotMaster),
            RespReply::Role(_) | RespReply::Ok => Ok(()),
            _ => Err(ConnectionError::OutOfOrder),
        }
    }

    /// Queues a subscription to one channel. A Cluster requires one command for each slot, and only
    /// the order of replies shows which channel an error belongs to. So each channel has its own
    /// command.
    pub fn subscribe(&mut self, channel: &str) {
        write_command(
            &mut self.outgoing,
            &[
                if self.sharded {
                    "SSUBSCRIBE"
                } else {
                    "SUBSCRIBE"
                },
                channel,
            ],
        );
    }

    /// Queues an unsubscription.
    pub fn unsubscribe(&mut self, channel: &str) {
        write_command(
            &mut self.outgoing,
            &[
                if self.sharded {
                    "SUNSUBSCRIBE"
                } else {
                    "UNSUBSCRIBE"
                },
                channel,
            ],
        );
    }

    /// Queues a PING.
    pub fn ping(&mut self) {
        write_command(&mut self.outgoing, &["PING"]);
    }

    /// Writes queued commands until bytes arrive. Cancel safe.
    pub async fn receive(&mut self) -> Result<(), ConnectionError> {
        self.incoming.reserve(READ_BUFFER_BYTES / 4);
        let (mut reader, mut writer) = self.stream.split();
        loop {
            tokio::select! {
                read = reader.read_buf(&mut self.incoming) => return if read? == 0 { Err(ConnectionError::Closed) } else { Ok(()) },
                written = writer.write_buf(&mut self.outgoing), if !self.outgoing.is_empty() => { written?; }
            }
        }
    }

    /// Takes the next reply that has arrived completely.
    pub fn next_reply(&mut self) -> Result<Option<RespReply>, ConnectionError> {
        Ok(read_reply(&mut self.incoming)?)
    }

    /// Waits for the next reply. Cancel safe.
    pub async fn reply(&mut self) -> Result<RespReply, ConnectionError> {
        loop {
            if let Some(reply) = self.next_reply()? {
                return Ok(reply);
            }
            self.receive().await?;
        }
    }

    /// Sends a command and returns its reply.
    async fn ask(&mut self, words: &[&str]) -> Result<RespReply, ConnectionError> {
        write_command(&mut self.outgoing, words);
        match self.reply().await? {
            RespReply::Error(error) => Err(ConnectionError::Refused(error)),
            reply => Ok(reply),
        }
    }
}

/// Subscribes to a channel on a connection of its own and returns the server's error if it refuses.
///
/// # Errors
/// The server cannot be reached or does not answer.
pub async fn refused_subscription(
    deployment: &Deployment,
    address: &Address,
    channel: &str,
) -> Result<Option<String>, ConnectionError> {
    let mut connection = match SubscriberConnection::open(deployment, address).await {
        Err(ConnectionError::Refused(error)) => return Ok(Some(error)),
        opened => opened?,
    };
    connection.subscribe(channel);
    let late = || {
        io::Error::new(
            io::ErrorKind::TimedOut,
            format!("{address} does not answer"),
        )
    };
    match timeout(CONNECT_TIMEOUT, connection.reply())
        .await
        .map_err(|_| late())??
    {
        RespReply::Error(error) => Ok(Some(error)),
        _ => Ok(None),
    }
}
