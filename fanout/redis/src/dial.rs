//! Opening connections: socket options, and finding the master through Sentinels.

use std::{collections::HashMap, io, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, RedisResult, Value,
    aio::MultiplexedConnection,
    io::tcp::socket2::{SockRef, TcpKeepalive},
};
use tokio::{net::TcpStream, time::timeout};

use crate::{Address, CONNECT_TIMEOUT, ConnectionError, Credentials, Deployment};

/// Time after which unacknowledged bytes break a connection, regardless of keepalive.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum number of commands queued on one connection. Further senders wait.
const PIPELINE_BUFFER: usize = 1_024;

/// Description of errors for servers of another kind than the URL says.
const UNFIT: &str = "the URL does not fit the server";

/// Maximum wait for the other Sentinels after a majority has answered. On a healthy network they
/// answer several times faster.
const MINORITY_TIMEOUT: Duration = Duration::from_millis(250);

/// Opens a socket.
pub(crate) async fn connect(address: &Address) -> io::Result<TcpStream> {
    let stream = timeout(
        CONNECT_TIMEOUT,
        TcpStream::connect((address.host.as_str(), address.port)),
    )
    .await
    .map_err(|_| timed_out(address))??;
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1))
        .with_retries(3);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

/// Opens a command connection, which is not re-established after faults. Its commands have no time
/// limit.
pub(crate) async fn open(
    address: &Address,
    credentials: &Credentials,
    database: i64,
) -> RedisResult<MultiplexedConnection> {
    let mut settings = RedisConnectionInfo::default()
        .set_db(database)
        .set_skip_set_lib_name();
    if let Some(user) = &credentials.user {
        settings = settings.set_username(user);
    }
    if let Some(password) = &credentials.password {
        settings = settings.set_password(password);
    }
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_BUFFER);
    let opening = async {
        let stream = connect(address).await?;
        let (connection, driver) =
            MultiplexedConnection::new_with_config(&settings, stream, config).await?;
        // The task ends with the last handle of the connection.
        tokio::spawn(driver);
        Ok(connection)
    };
    timeout(CONNECT_TIMEOUT, opening)
        .await
        .map_err(|_| timed_out(address))?
}

/// Returns the address of the master. A Cluster has no single master.
///
/// Asks all Sentinels at once and uses the newest configuration: a Sentinel that is partitioned
/// from the others still names the old master, and after a failover each Sentinel may do so for up
/// to two seconds. After a majority has answered, the others have [`MINORITY_TIMEOUT`].
pub(crate) async fn current_master(deployment: &Deployment) -> RedisResult<Address> {
    let (sentinels, service, credentials) = match deployment {
        Deployment::Single { address, .. } => return Ok(address.clone()),
        Deployment::Sentinel {
            sentinels,
            service,
            sentinel_credentials,
            ..
        } => (sentinels, service, sentinel_credentials),
        Deployment::Cluster { .. } => {
            return Err((ErrorKind::Client, "a Cluster has no single master").into());
        }
    };
    let ask = |sentinel| async move {
        let answer = timeout(
            CONNECT_TIMEOUT,
            ask_sentinel(sentinel, credentials, service),
        )
        .await;
        answer.unwrap_or_else(|_| Err(timed_out(sentinel).into()))
    };
    let mut asked: FuturesUnordered<_> = sentinels.iter().map(ask).collect();
    let mut last = RedisError::from((ErrorKind::EmptySentinelList, "no Sentinel is configured"));
    let mut answers = Vec::with_capacity(sentinels.len());
    let mut wait = CONNECT_TIMEOUT * 2;
    while let Ok(Some(answer)) = timeout(wait, asked.next()).await {
        match answer {
            Ok(answer) => answers.push(answer),
            Err(error) if unfitness(&last).is_none() => last = error,
            Err(_) => {}
        }
        if answers.len() > sentinels.len() / 2 {
            wait = MINORITY_TIMEOUT;
        }
    }
    answers
        .into_iter()
        .max_by_key(|(epoch, _)| *epoch)
        .map(|(_, master)| master)
        .ok_or(last)
}

/// Returns a Sentinel's address of the master and the epoch of its configuration.
async fn ask_sentinel(
    sentinel: &Address,
    credentials: &Credentials,
    service: &str,
) -> RedisResult<(u64, Address)> {
    let mut connection = open(sentinel, credentials, 0).await?;
    // During a failover this address is newer than that in the second reply.
    let mut question = redis::cmd("SENTINEL");
    let address: Option<(String, u16)> = question
        .arg("get-master-addr-by-name")
        .arg(service)
        .query_async(&mut connection)
        .await
        .map_err(|error| {
            if is_unknown_command(&error) {
                unfit(format!(
                    "{sentinel} is not a Sentinel (the usual port is 26379)"
                ))
            } else {
                error
            }
        })?;
    let unknown = || {
        unfit(format!(
            "the Sentinel {sentinel} knows no service {service:?}: end the URL with the name of one that it watches"
        ))
    };
    let (host, port) = address.ok_or_else(unknown)?;
    let mut question = redis::cmd("SENTINEL");
    let master: HashMap<String, String> = question
        .arg("master")
        .arg(service)
        .query_async(&mut connection)
        .await?;
    let epoch = master
        .get("config-epoch")
        .and_then(|epoch| epoch.parse().ok())
        .unwrap_or(0);
    Ok((epoch, Address { host, port }))
}

/// Opens a command connection to a master. In a Sentinel deployment it checks the server's role,
/// because after a failover the old master still answers for a while.
pub(crate) async fn open_master(
    deployment: &Deployment,
    address: &Address,
) -> Result<MultiplexedConnection, ConnectionError> {
    let mut connection = open(address, deployment.credentials(), deployment.database()).await?;
    if matches!(deployment, Deployment::Sentinel { .. }) {
        let role = timeout(
            CONNECT_TIMEOUT,
            redis::cmd("ROLE").query_async::<Vec<Value>>(&mut connection),
        )
        .await
        .map_err(|_| timed_out(address))??;
        if !matches!(role.first(), Some(Value::BulkString(role)) if role == b"master") {
            return Err(ConnectionError::NotMaster);
        }
    }
    Ok(connection)
}

/// Returns an error for a server of another kind than the URL says. A retry does not help.
pub(crate) fn unfit(sentence: String) -> RedisError {
    (ErrorKind::InvalidClientConfig, UNFIT, sentence).into()
}

/// Returns the explanation in an error made by [`unfit`].
pub fn unfitness(error: &RedisError) -> Option<&str> {
    (error.kind() == ErrorKind::InvalidClientConfig)
        .then(|| error.detail())
        .flatten()
}

pub(crate) fn is_unknown_command(error: &RedisError) -> bool {
    error
        .to_string()
        .to_ascii_lowercase()
        .contains("unknown command")
}

pub(crate) fn timed_out(address: &Address) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{address} does not answer"),
    )
}
