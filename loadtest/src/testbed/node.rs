//! A node process behind a [`FaultProxy`].

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::proxy::FaultProxy;

/// Time that a node may take to start, or to end after SIGTERM.
const START_STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running node, killed when dropped.
#[derive(Debug)]
pub(super) struct NodeProcess {
    pub(super) name: String,
    pub(super) proxy: FaultProxy,
    command: NodeCommand,
    child: Child,
}

/// The command line of a node.
#[derive(Debug, Clone)]
pub(super) struct NodeCommand {
    pub(super) binary: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) log: PathBuf,
}

impl NodeProcess {
    pub(super) async fn start(name: String, command: NodeCommand) -> Result<Self> {
        let (child, address) = command.start().await?;
        Ok(Self {
            name,
            proxy: FaultProxy::start(address).await?,
            command,
            child,
        })
    }

    /// Kills the node (SIGKILL), and restarts it after a while.
    pub(super) async fn kill(&mut self, downtime: Duration) -> Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.name))?;
        tokio::time::sleep(downtime).await;
        self.restart().await
    }

    /// Terminates the node (SIGTERM), and restarts it.
    pub(super) async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = timeout(START_STOP_TIMEOUT, self.child.wait())
            .await
            .with_context(|| format!("{} did not end after SIGTERM", self.name))??;
        ensure!(
            status.success(),
            "{} ended after SIGTERM with {status}, see {}",
            self.name,
            self.command.log.display()
        );
        self.restart().await
    }

    /// Suspends the node for a while (SIGSTOP): its sockets stay open, and it answers nothing.
    pub(super) async fn pause(&mut self, pause: Duration) -> Result<()> {
        self.signal(Signal::STOP)?;
        tokio::time::sleep(pause).await;
        self.signal(Signal::CONT)
    }

    /// Returns an error if the node has ended, or its embedded store is damaged.
    pub(super) async fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended unexpectedly with {status}, see {}",
                self.name,
                self.command.log.display()
            );
        }
        let data = self
            .command
            .arguments
            .iter()
            .skip_while(|argument| *argument != "--data")
            .nth(1);
        if let Some(data) = data {
            let checked = Command::new(&self.command.binary)
                .args(["check", "--data", data])
                .env_clear()
                .output()
                .await?;
            let output =
                String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
            ensure!(
                checked.status.success(),
                "the store of {} is damaged: {output}",
                self.name
            );
        }
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        let (child, address) = self.command.start().await?;
        self.child = child;
        self.proxy.set_upstream(address);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()))
            .with_context(|| format!("{} does not run", self.name))?;
        kill_process(pid, signal).with_context(|| format!("cannot send a signal to {}", self.name))
    }
}

impl NodeCommand {
    async fn start(&self) -> Result<(Child, SocketAddr)> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.binary);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().cloned())
            .kill_on_drop(true);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        let mut lines = BufReader::new(
            child
                .stdout
                .take()
                .context("the node has no standard output")?,
        )
        .lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.contains("HTTP API")
                    && let Some(address) = line
                        .split("http://")
                        .nth(1)
                        .and_then(|rest| rest.split('/').next())
                {
                    return Ok(address.parse::<SocketAddr>()?);
                }
            }
            bail!("a node did not start: {}", last_line(&self.log))
        };
        let address = timeout(START_STOP_TIMEOUT, ready)
            .await
            .context("a node took too long to start")??;
        // Read on, so that the node never waits for a reader of its output.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((child, address))
    }
}

fn last_line(log: &Path) -> String {
    std::fs::read_to_string(log)
        .ok()
        .and_then(|text| text.lines().last().map(str::to_owned))
        .unwrap_or_default()
}
