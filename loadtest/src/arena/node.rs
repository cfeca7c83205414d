//! A node in a process of its own, behind a [`Path`].

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
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

use super::path::Path;

/// How long a node may take to start, or to end when asked to.
const PATIENCE: Duration = Duration::from_secs(30);

/// A node, killed when dropped.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) path: Path,
    command: Launch,
    child: Child,
}

/// How a node is started.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) binary: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) log: PathBuf,
}

impl Node {
    pub(super) async fn start(name: String, command: Launch) -> Result<Self> {
        let (child, address) = command.start().await?;
        Ok(Self {
            name,
            path: Path::to(address).await?,
            command,
            child,
        })
    }

    /// Kills it as a power cut does, and starts it again after a while.
    pub(super) async fn kill(&mut self, away: Duration) -> Result<()> {
        self.child.kill().await.context("A node cannot be killed")?;
        tokio::time::sleep(away).await;
        self.start_again().await
    }

    /// Asks it to end, and starts it again.
    pub(super) async fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = timeout(PATIENCE, self.child.wait())
            .await
            .with_context(|| format!("{} does not end on SIGTERM", self.name))??;
        ensure!(
            status.success(),
            "{} ended on SIGTERM with {status}: see {}",
            self.name,
            self.command.log.display()
        );
        self.start_again().await
    }

    /// Stops it for a while (SIGSTOP): its sockets stay open, and nothing answers.
    pub(super) async fn pause(&mut self, pause: Duration) -> Result<()> {
        self.signal(Signal::STOP)?;
        tokio::time::sleep(pause).await;
        self.signal(Signal::CONT)
    }

    /// Whether it still runs, and its store is whole, if it has one of its own.
    pub(super) async fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "{} ended by itself with {status}: see {}",
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
            let said =
                String::from_utf8_lossy(&[checked.stdout, checked.stderr].concat()).into_owned();
            ensure!(
                checked.status.success(),
                "The store of {} is not whole: {said}",
                self.name
            );
        }
        Ok(())
    }

    async fn start_again(&mut self) -> Result<()> {
        let (child, address) = self.command.start().await?;
        self.child = child;
        self.path.lead_to(address);
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|pid| Pid::from_raw(pid.cast_signed()))
            .with_context(|| format!("{} is gone", self.name))?;
        kill_process(pid, signal).with_context(|| format!("{} cannot be signalled", self.name))
    }
}

impl Launch {
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
            .with_context(|| format!("{} cannot be run", self.binary.display()))?;
        let mut lines = BufReader::new(
            child
                .stdout
                .take()
                .context("A node has no standard output")?,
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
            bail!("A node did not start: {}", last_line(&self.log))
        };
        let address = timeout(PATIENCE, ready)
            .await
            .context("A node took too long to start")??;
        // Nobody reads what it says later, and it must not wait for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((child, address))
    }
}

fn last_line(log: &FilePath) -> String {
    std::fs::read_to_string(log)
        .ok()
        .and_then(|text| text.lines().last().map(str::to_owned))
        .unwrap_or_default()
}
