//! The binary in a process of its own.
#![allow(unreachable_pub, reason = "tests have no outside")]
#![allow(
    dead_code,
    reason = "a word of the stories' language that no story needs at the moment"
)]

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use client::{Backend, Connector, Events, Session};
use parking_lot::Mutex;
use protocol::{
    Encoding,
    entity::{App, Key},
    operation::{organization::OrganizationCreated, session::Connect, user::Token},
};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    time::timeout,
};

use crate::story::{TIMEOUT, until};

/// A process of `chaos`, killed when dropped.
pub struct Chaos {
    child: Child,
    stdin: Option<ChildStdin>,
    /// Its output lines, and whether the output has ended.
    said: Arc<(Mutex<Vec<String>>, AtomicBool)>,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Chaos {
    /// Starts it with these arguments, without settings from the environment.
    pub fn spawn(arguments: &[&str]) -> Self {
        Self::spawn_by(&[], arguments)
    }

    /// Like `starts`, by a program with arguments that executes it.
    pub fn spawn_by(starter: &[&str], arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let words = [starter, &[env!("CARGO_BIN_EXE_chaos")], arguments].concat();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(folder.path())
            .env_clear()
            .kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let said = Arc::new((Mutex::new(Vec::new()), AtomicBool::new(false)));
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let receives = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                receives.0.lock().push(line);
            }
            receives.1.store(true, Ordering::Release);
        });
        Self {
            stdin: child.stdin.take(),
            child,
            said,
            log,
            _folder: folder,
        }
    }

    /// Starts a node on a free port over this data folder. Returns when it accepts connections.
    pub async fn node(data: &Path, more: &[&str]) -> (Self, SocketAddr) {
        Self::node_by(&[], data, more).await
    }

    /// Does the same by a program that executes it.
    pub async fn node_by(starter: &[&str], data: &Path, more: &[&str]) -> (Self, SocketAddr) {
        let data = data.display().to_string();
        let node = Self::spawn_by(
            starter,
            &[
                &[
                    "--listen",
                    "127.0.0.1:0",
                    "--drain-window",
                    "1s",
                    "--data",
                    &data,
                ],
                more,
            ]
            .concat(),
        );
        let address = node.address().await;
        (node, address)
    }

    /// Waits for its address, in its output or in its log.
    pub async fn address(&self) -> SocketAddr {
        let printed = || {
            Some(
                self.said()
                    .iter()
                    .find(|line| line.contains("HTTP API"))?
                    .split_once("http://")?
                    .1
                    .to_owned(),
            )
        };
        let logged = || {
            Some(
                self.log()
                    .lines()
                    .find(|line| line.contains("node started"))?
                    .split_once("\"listen\":\"")?
                    .1
                    .to_owned(),
            )
        };
        let found = || printed().or_else(logged);
        until(
            &format!(
                "it tells its address; it said {:?} and logged {}",
                self.said(),
                self.log()
            ),
            || async { found().is_some() },
        )
        .await;
        found()
            .unwrap()
            .split(['/', '"'])
            .next()
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Runs it to its end, and returns its exit code and all output.
    pub async fn runs(arguments: &[&str]) -> (i32, String) {
        Self::runs_by(&[], arguments).await
    }

    /// Does the same by a program that executes it.
    pub async fn runs_by(starter: &[&str], arguments: &[&str]) -> (i32, String) {
        let mut process = Self::spawn_by(starter, arguments);
        let code = process
            .ends()
            .await
            .code()
            .unwrap_or_else(|| panic!("{arguments:?} ended by a signal: {}", process.log()));
        until("all it said is read", || async {
            process.said.1.load(Ordering::Acquire)
        })
        .await;
        (
            code,
            format!("{}\n{}", process.said().join("\n"), process.log()),
        )
    }

    /// Waits for the first line of standard output that contains this text.
    pub async fn says(&self, what: &str) -> String {
        let found = || self.said().into_iter().find(|line| line.contains(what));
        until(
            &format!(
                "it says {what:?}; it said {:?} and logged {}",
                self.said(),
                self.log()
            ),
            || async { found().is_some() },
        )
        .await;
        found().unwrap()
    }

    /// Returns all lines of standard output so far.
    pub fn said(&self) -> Vec<String> {
        self.said.0.lock().clone()
    }

    /// Returns all output on standard error so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap()).into_owned()
    }

    /// Writes a line to its input.
    pub async fn types(&mut self, line: &str) {
        self.stdin
            .as_mut()
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }

    /// Closes its input.
    pub fn hangs_up(&mut self) {
        self.stdin = None;
    }

    /// Sends a signal.
    pub async fn signal(&self, name: &str) {
        let pid = self.child.id().unwrap().to_string();
        let sent = Command::new("sh")
            .args(["-c", &format!("kill -{name} {pid}")])
            .status()
            .await
            .unwrap();
        assert!(sent.success(), "SIG{name} was not sent");
    }

    /// Kills it with SIGKILL.
    pub async fn kill9(&mut self) {
        self.child.kill().await.unwrap();
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Waits until it exits.
    pub async fn ends(&mut self) -> ExitStatus {
        match timeout(TIMEOUT, self.child.wait()).await {
            Ok(status) => status.unwrap(),
            Err(_) => panic!(
                "it did not end; it said {:?} and logged {}",
                self.said(),
                self.log()
            ),
        }
    }

    /// Returns its resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// Returns its resident memory without pages of files, which the system can reclaim.
    pub fn anonymous_bytes(&self) -> u64 {
        self.memory("RssAnon:")
    }

    fn memory(&self, line: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let kilobytes = status
            .lines()
            .find_map(|other| other.strip_prefix(line)?.split_ascii_whitespace().next())
            .unwrap();
        kilobytes.parse::<u64>().unwrap() * 1024
    }
}

/// An organization with an app on a node, and all its credentials.
pub struct Shop {
    pub address: SocketAddr,
    pub admin_key: String,
    pub organization: String,
    pub organization_key: String,
    pub app: String,
    pub app_key: String,
}

impl Shop {
    pub async fn open(address: SocketAddr, admin_key: &str) -> Self {
        let admin = Backend::new(&format!("http://{address}"), admin_key).unwrap();
        let body = json!({ "name": "Acme", "email": "team@acme.example" });
        let made: OrganizationCreated = admin.post("/v1/organizations", &body).await.unwrap();
        let organization = made.organization.id.to_string();
        let organization_key = made.key.secret.unwrap();
        let owner = admin.with_credential(&organization_key).unwrap();
        let apps = format!("/v1/organizations/{organization}/apps");
        let app: App = owner.post(&apps, &json!({ "name": "Chat" })).await.unwrap();
        let key: Key = owner
            .post(
                &format!("{apps}/{}/keys", app.id),
                &json!({ "environment": "live" }),
            )
            .await
            .unwrap();
        let (app, app_key) = (app.id.to_string(), key.secret.unwrap());
        Self {
            address,
            admin_key: admin_key.to_owned(),
            organization,
            organization_key,
            app,
            app_key,
        }
    }

    /// Returns the same tenant on another node of the folder.
    pub fn moved(self, address: SocketAddr) -> Self {
        Self { address, ..self }
    }

    pub fn http(&self, credential: &str) -> Backend {
        Backend::new(&format!("http://{}", self.address), credential).unwrap()
    }

    pub fn team(&self) -> Backend {
        self.http(&self.app_key)
    }

    pub async fn token(&self, user: &str) -> String {
        let token: Token = self
            .team()
            .post(&format!("/v1/users/{user}/tokens"), &json!({}))
            .await
            .unwrap();
        token.token
    }

    /// Creates a group with these participants. The first one owns it.
    pub async fn group(&self, id: &str, people: &[&str]) {
        for person in people {
            let _: serde_json::Value = self
                .team()
                .put(&format!("/v1/users/{person}"), &json!({}))
                .await
                .unwrap();
        }
        let body = json!({ "id": id, "type": "group", "creator_id": people[0], "participant_ids": people });
        let _: serde_json::Value = self.team().post("/v1/channels", &body).await.unwrap();
    }

    pub async fn connects(&self, user: &str, encoding: Encoding) -> (Session, Events) {
        let params = Connect {
            token: self.token(user).await,
            ..Connect::default()
        };
        let connector = Connector::new(&format!("ws://{}", self.address), encoding).unwrap();
        connector.connect(&params).await.unwrap()
    }

    /// Connects with these parameters.
    pub async fn resumes(&self, user: &str, params: Connect) -> (Session, Events) {
        let params = Connect {
            token: self.token(user).await,
            ..params
        };
        let connector =
            Connector::new(&format!("ws://{}", self.address), Encoding::MessagePack).unwrap();
        connector.connect(&params).await.unwrap()
    }
}

/// Returns the admin key of a data folder.
pub fn admin_key(data: &Path) -> String {
    std::fs::read_to_string(data.join("admin-key"))
        .unwrap()
        .trim()
        .to_owned()
}
