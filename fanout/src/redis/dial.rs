//! Opening connections: sockets as a server of many small messages needs them, and the way from a Sentinel to the master.

use std::{collections::HashMap, io, time::Duration};

use futures_util::{StreamExt, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, Value,
    aio::MultiplexedConnection,
    io::tcp::{
        TcpSettings,
        socket2::{SockRef, TcpKeepalive},
    },
};
use tokio::{net::TcpStream, time::timeout};

use super::{Address, CONNECT_TIMEOUT, Credentials, Deployment};

/// Unacknowledged bytes break a connection after this long, whatever keepalive says.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands queued on one connection before senders wait.
const PIPELINE_BUFFER: usize = 1_024;

/// How long the last of the Sentinels are waited for: on a network that is well, several times as long as they take.
const GRACE: Duration = Duration::from_millis(250);

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(1))
        .with_retries(3)
}

/// Opens a bare socket.
pub(crate) async fn connect(address: &Address) -> io::Result<TcpStream> {
    let stream = timeout(
        CONNECT_TIMEOUT,
        TcpStream::connect((address.host.as_str(), address.port)),
    )
    .await
    .map_err(|_| timed_out(address))??;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&keepalive())?;
    #[cfg(target_os = "linux")]
    SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}

/// Opens a command connection. It does not mend itself; its commands have no time limit of their own.
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
    let tcp = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive());
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(USER_TIMEOUT);
    let info = ConnectionAddr::Tcp(address.host.clone(), address.port)
        .into_connection_info()?
        .set_redis_settings(settings)
        .set_tcp_settings(tcp);
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(PIPELINE_BUFFER);
    timeout(
        CONNECT_TIMEOUT,
        Client::open(info)?.get_multiplexed_async_connection_with_config(&config),
    )
    .await
    .map_err(|_| timed_out(address))?
}

/// Where the one server is that takes commands and publishes. Of a Cluster there is no such server.
///
/// All Sentinels are asked at once, and of what they say the newest configuration counts: one that is cut off from the others
/// goes on naming the old master, and after a failover so does each, for up to two seconds, until it hears of it from the one
/// that made it. Once a majority has answered, the others are waited for no longer than [`GRACE`].
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
            Err(error) => last = error,
        }
        if answers.len() > sentinels.len() / 2 {
            wait = GRACE;
        }
    }
    answers
        .into_iter()
        .max_by_key(|(epoch, _)| *epoch)
        .map(|(_, master)| master)
        .ok_or(last)
}

/// What a Sentinel holds for the master, and the epoch of that configuration.
async fn ask_sentinel(
    sentinel: &Address,
    credentials: &Credentials,
    service: &str,
) -> RedisResult<(u64, Address)> {
    let mut connection = open(sentinel, credentials, 0).await?;
    let mut questions = redis::pipe();
    // The address as clients are to use it, which during a failover is ahead of what the second answer says.
    questions
        .cmd("SENTINEL")
        .arg("get-master-addr-by-name")
        .arg(service)
        .cmd("SENTINEL")
        .arg("master")
        .arg(service);
    let (address, master): (Option<(String, u16)>, HashMap<String, String>) =
        questions.query_async(&mut connection).await?;
    let (host, port) = address.ok_or((
        ErrorKind::MasterNameNotFoundBySentinel,
        "the Sentinel knows no service of that name",
    ))?;
    let epoch = master
        .get("config-epoch")
        .and_then(|epoch| epoch.parse().ok())
        .unwrap_or(0);
    Ok((epoch, Address { host, port }))
}

/// Opens a command connection to the server that [`current_master`] names, having seen that it thinks so too:
/// for a while after a failover the old master still answers, as a replica or as the leftover of a partition.
pub(crate) async fn open_master(
    deployment: &Deployment,
) -> RedisResult<(Address, MultiplexedConnection)> {
    let address = current_master(deployment).await?;
    let mut connection = open(&address, deployment.credentials(), deployment.database()).await?;
    if matches!(deployment, Deployment::Sentinel { .. }) {
        let role = timeout(
            CONNECT_TIMEOUT,
            redis::cmd("ROLE").query_async::<Vec<Value>>(&mut connection),
        )
        .await
        .map_err(|_| timed_out(&address))??;
        if !matches!(role.first(), Some(Value::BulkString(role)) if role == b"master") {
            return Err((
                ErrorKind::Server(redis::ServerErrorKind::ReadOnly),
                "the Sentinels name a server that is not a master (yet)",
            )
                .into());
        }
    }
    Ok((address, connection))
}

pub(crate) fn timed_out(address: &Address) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{address} does not answer"),
    )
}
