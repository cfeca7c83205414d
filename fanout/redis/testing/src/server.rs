//! A server process: a data server or a Sentinel.

use std::{
    collections::hash_map::RandomState,
    fs::File,
    hash::BuildHasher,
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use chaos_redis::{Address, CONNECT_TIMEOUT, Deployment};
use redis::{AsyncConnectionConfig, RedisResult, Value};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{LossyProxy, PATIENCE};

/// A server process. Its data survives [`kill9`](Self::kill9) and [`restart`](Self::restart), and
/// is deleted when it is dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: TempDir,
    port: u16,
    arguments: Vec<String>,
    sentinel: bool,
    proxy: Option<LossyProxy>,
}

/// How clients and other servers reach a data server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientPath {
    /// At its own port.
    Direct,
    /// Through a [`LossyProxy`], whose port it announces.
    Lossy,
}

impl Server {
    /// Starts a server that syncs its AOF at every write and evicts nothing.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts a server with further arguments (`--requirepass`, `x`).
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_on(ClientPath::Direct, arguments).await
    }

    /// Starts a server that clients reach on this path, with further arguments.
    pub async fn start_on(path: ClientPath, arguments: &[&str]) -> Self {
        let proxy = match path {
            ClientPath::Direct => None,
            ClientPath::Lossy => Some(LossyProxy::start().await),
        };
        let announced = proxy.as_ref().map(|proxy| proxy.port().to_string());
        let mut all = vec![
            "--appendonly",
            "yes",
            "--appendfsync",
            "always",
            "--save",
            "",
            "--repl-diskless-sync-delay",
            "0",
        ];
        all.extend(arguments);
        if let Some(port) = &announced {
            all.extend([
                "--replica-announce-port",
                port,
                "--cluster-announce-port",
                port,
            ]);
        }
        let mut server = Self::launch(&all, None).await;
        if let Some(proxy) = &proxy {
            proxy.set_server(server.port);
        }
        server.proxy = proxy;
        server
    }

    pub(crate) async fn launch(arguments: &[&str], sentinel: Option<&str>) -> Self {
        // Another process may take the port before the server does, hence several attempts.
        for _ in 0..5 {
            let folder = TempDir::with_prefix("chaos-redis-").expect("a temporary folder");
            let port = free_port();
            let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
            if let Some(configuration) = sentinel {
                std::fs::write(folder.path().join("sentinel.conf"), configuration)
                    .expect("a writable folder");
            }
            let sentinel = sentinel.is_some();
            let child = spawn(&folder, port, &arguments, sentinel);
            let mut server = Self {
                child,
                folder,
                port,
                arguments,
                sentinel,
                proxy: None,
            };
            if server.comes_up().await {
                return server;
            }
        }
        panic!("redis-server does not start: {:?}", arguments);
    }

    /// Returns the address.
    pub fn address(&self) -> Address {
        Address {
            host: "127.0.0.1".to_owned(),
            port: self.port,
        }
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the URL without credentials.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Returns the deployment.
    pub fn deployment(&self) -> Deployment {
        self.url().parse().expect("our own URL")
    }

    /// Returns the proxy on the clients' path, if there is one.
    pub fn proxy(&self) -> Option<&LossyProxy> {
        self.proxy.as_ref()
    }

    /// Returns the address that clients use: the proxy's, if there is one.
    pub fn client_address(&self) -> Address {
        Address {
            host: "127.0.0.1".to_owned(),
            port: self.proxy.as_ref().map_or(self.port, LossyProxy::port),
        }
    }

    /// Returns the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills the process.
    pub fn kill9(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Kills the process if it runs, and starts it again with the same port and data. Returns when
    /// it answers.
    pub async fn restart(&mut self) {
        self.kill9();
        self.child = spawn(&self.folder, self.port, &self.arguments, self.sentinel);
        assert!(self.comes_up().await, "redis-server does not start again");
    }

    /// Stops the process (SIGSTOP): its sockets stay open, and it does not answer.
    pub fn stop(&self) {
        self.signal("STOP");
    }

    /// Continues the process (SIGCONT).
    pub fn cont(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()
            .expect("a shell");
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// Runs a command on a new connection.
    pub async fn command(&self, words: &[&str]) -> RedisResult<Value> {
        let client = redis::Client::open(self.url())?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        let mut connection = client
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        let mut cmd = redis::Cmd::new();
        cmd.arg(words);
        cmd.query_async(&mut connection).await
    }

    pub(crate) async fn must(&self, words: &[&str]) -> Value {
        self.command(words)
            .await
            .unwrap_or_else(|error| panic!("{words:?} at {}: {error}", self.port))
    }

    pub(crate) async fn text(&self, words: &[&str]) -> String {
        match self.command(words).await {
            Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            Ok(Value::VerbatimString { text, .. } | Value::SimpleString(text)) => text,
            _ => String::new(),
        }
    }

    async fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().expect("our own child").is_some() {
                return false;
            }
            // NOAUTH means that the server is up, LOADING that it is not.
            match self.command(&["PING"]).await {
                Ok(_) => return true,
                Err(error) if error.code() == Some("NOAUTH") => return true,
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(folder: &TempDir, port: u16, arguments: &Vec<String>, sentinel: bool) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("log"))
        .expect("a writable folder");
    let mut command = Command::new("redis-server");
    if sentinel {
        command.arg(folder.path().join("sentinel.conf"));
    }
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--dir"])
        .arg(folder.path())
        .args(arguments);
    if sentinel {
        command.arg("--sentinel");
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file"))
        .stderr(log)
        .spawn()
        .expect("redis-server is installed")
}

/// Returns a free port whose Cluster bus port, 10,000 above it, is free as well. Both are below the
/// range of ephemeral ports.
fn free_port() -> u16 {
    loop {
        let port =
            11_000 + u16::try_from(RandomState::new().hash_one(()) % 11_000).expect("below 11,000");
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}
