//! The test bed of a `verify` run: node and store processes, and a proxy before each node.
//!
//! Owned here: starting and stopping all of it, and injecting [faults](fault). The scenario
//! controls the clients in the meantime.

use std::{
    env, fs,
    io::Write,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use redis_testing::{LossyProxy, MessageLoss};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::sleep,
};

use self::{
    node::{NodeCommand, NodeProcess},
    proxy::FaultProxy,
    store::StoreProcesses,
};
use crate::{
    cli::{CommonArgs, VerifyArgs},
    fault_kind::{FaultKind, StoreKind},
    verify::Guarantees,
};

pub mod fault;
mod node;
pub mod proxy;
pub mod store;

/// Limits of the nodes: outboxes small enough to overflow when readers stall, and no rate limits
/// for the run's clients.
const NODE_LIMITS: [&str; 4] = [
    "outbox_bytes=65536",
    "outbox_seconds=5",
    "requests_per_second=0",
    "key_requests_per_second=0",
];

/// Events that the nodes keep per channel.
const LOG_EVENTS: u64 = 400;

/// Bytes of the disk that can be filled, in addition to those for the run's messages.
const DISK_BYTES: u64 = 64 << 20;

/// Paths at which distributions install libfaketime.
const FAKETIME_LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// The processes and proxies of a `verify` run.
#[derive(Debug)]
pub struct TestBed {
    /// The faults to inject.
    pub faults: Vec<FaultKind>,
    /// Seed of the sequence of faults.
    pub seed: u64,
    seconds: f64,
    proxies: Vec<FaultProxy>,
    nodes: Vec<Mutex<NodeProcess>>,
    store: Mutex<StoreProcesses>,
    lossy_proxies: Vec<LossyProxy>,
    folder: TempDir,
    disk: Option<FillableDisk>,
}

impl TestBed {
    /// Starts the store, the nodes and the proxies.
    pub async fn start(verify: &VerifyArgs) -> Result<Self> {
        let folder =
            TempDir::with_prefix("chaos-verify-").context("cannot create a temporary folder")?;
        let seed = verify.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let faults = verify.faults()?;
        let (mut nodes, mut proxies, mut store, mut disk) =
            (Vec::new(), Vec::new(), StoreProcesses::None, None);
        match verify.store() {
            None => {
                for base in verify.chat.common.http_bases()? {
                    proxies.push(FaultProxy::start(resolve(&base)?).await?);
                }
            }
            Some(kind) => {
                let data = folder.path().join("data");
                fs::create_dir(&data)?;
                if faults.contains(&FaultKind::Disk) {
                    disk = Some(FillableDisk::mount(
                        &data,
                        DISK_BYTES + message_bytes(verify),
                    )?);
                }
                store = StoreProcesses::start(kind, &faults).await;
                let node_command = node_command(
                    verify,
                    folder.path(),
                    &data,
                    store.url(),
                    faults.contains(&FaultKind::Clock),
                )?;
                for number in 1..=if kind == StoreKind::Embedded {
                    1
                } else {
                    verify.nodes
                } {
                    let log = folder.path().join(format!("node-{number}.log"));
                    nodes.push(Mutex::new(
                        NodeProcess::start(
                            format!("node {number}"),
                            NodeCommand {
                                log,
                                ..node_command.clone()
                            },
                        )
                        .await?,
                    ));
                }
                for node in &mut nodes {
                    proxies.push(node.get_mut().proxy.clone());
                }
            }
        }
        Ok(Self {
            faults,
            seed,
            seconds: verify.seconds(),
            proxies,
            nodes,
            lossy_proxies: store.lossy_proxies(),
            store: Mutex::new(store),
            folder,
            disk,
        })
    }

    /// Returns the guarantees of the nodes and their store; `None` for nodes that the run did not
    /// start.
    pub fn guarantees(&self) -> Option<Guarantees> {
        let guarantees = Guarantees {
            log_events: LOG_EVENTS,
            may_diverge: self.faults.contains(&FaultKind::Failover),
        };
        (!self.nodes.is_empty()).then_some(guarantees)
    }

    /// Returns the options with the addresses and the admin key of these nodes.
    pub fn common(&self, common: &CommonArgs) -> CommonArgs {
        let mut common = common.clone();
        common.seconds = self.seconds;
        common.urls = self
            .proxies
            .iter()
            .map(|proxy| format!("ws://{}", proxy.address()))
            .collect();
        if !self.nodes.is_empty() {
            let key_file = self.folder.path().join("data").join("admin-key");
            (common.admin_key, common.admin_key_file) = (None, Some(key_file));
        }
        common
    }

    /// Returns an error if a node has ended, or its store is damaged.
    pub async fn check(&self) -> Result<()> {
        for node in &self.nodes {
            node.lock().await.check().await?;
        }
        Ok(())
    }

    async fn node(&self, target: u64) -> MutexGuard<'_, NodeProcess> {
        self.nodes[(target % self.nodes.len() as u64) as usize]
            .lock()
            .await
    }

    /// Drops this share of the bus records on their way to the nodes, as long as the returned values
    /// live.
    fn drop_records(&self, share: f64) -> Vec<MessageLoss> {
        let proxies = self.lossy_proxies.iter();
        proxies.map(|proxy| proxy.drop_share(share)).collect()
    }

    /// Steps the clocks of the nodes by `seconds` for a while.
    async fn step_clock(&self, seconds: i32, duration: Duration) -> Result<()> {
        let clock = clock_file(self.folder.path());
        fs::write(&clock, format!("{seconds:+}s\n"))?;
        // The nodes look at the file once a second.
        sleep(duration + Duration::from_secs(1)).await;
        fs::write(&clock, "+0s\n")?;
        Ok(())
    }

    async fn fill_disk(&self, duration: Duration) -> Result<()> {
        let filler = self
            .disk
            .as_ref()
            .context("there is no disk to fill")?
            .0
            .join("filler");
        let mut file = fs::File::create(&filler)?;
        let block = vec![0; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        sleep(duration).await;
        fs::remove_file(&filler)?;
        Ok(())
    }
}

/// A small file system, unmounted when dropped.
#[derive(Debug)]
struct FillableDisk(PathBuf);

impl FillableDisk {
    fn mount(folder: &Path, bytes: u64) -> Result<Self> {
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        ensure!(
            mounted.is_ok_and(|status| status.success()),
            "cannot mount a small disk to fill: run as root, or leave `disk` out of --faults"
        );
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for FillableDisk {
    fn drop(&mut self) {
        // Lazily, since a node may still run. Nothing can be done about a failure here.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Upper bound for the bytes of the run's messages: each is stored in its channel and, for a while,
/// in the log.
fn message_bytes(verify: &VerifyArgs) -> u64 {
    let messages = verify.seconds() * verify.chat.rate;
    (messages * (3 * verify.chat.common.payload + 2048) as f64) as u64
}

fn node_command(
    verify: &VerifyArgs,
    folder: &Path,
    data: &Path,
    redis: Option<String>,
    clock: bool,
) -> Result<NodeCommand> {
    let text = |path: &Path| path.display().to_string();
    let mut arguments = [
        "--listen",
        "127.0.0.1:0",
        "--drain-window",
        "1s",
        "--demo",
        "off",
    ]
    .map(str::to_owned)
    .to_vec();
    for limit in NODE_LIMITS
        .map(str::to_owned)
        .into_iter()
        .chain([format!("log_events={LOG_EVENTS}")])
    {
        arguments.extend(["--limit".to_owned(), limit]);
    }
    arguments.extend(verify.node_flags.iter().cloned());
    match redis {
        None => arguments.extend(["--data".to_owned(), text(data)]),
        Some(url) => {
            let (admin, secret) = (data.join("admin-key"), data.join("secret-key"));
            fs::write(&admin, format!("adm_{:032x}", rand::random::<u128>()))?;
            fs::write(
                &secret,
                format!(
                    "{:032x}{:032x}",
                    rand::random::<u128>(),
                    rand::random::<u128>()
                ),
            )?;
            arguments.extend(["--redis".to_owned(), url]);
            arguments.extend([
                "--admin-key-file".to_owned(),
                text(&admin),
                "--secret-key-file".to_owned(),
                text(&secret),
            ]);
        }
    }
    let mut environment = Vec::new();
    if clock {
        let library = FAKETIME_LIBRARIES
            .iter()
            .find(|path| Path::new(path).exists());
        let library = library.context(
            "stepping clocks needs libfaketime: install faketime, or leave `clock` out of --faults",
        )?;
        fs::write(clock_file(folder), "+0s\n")?;
        environment = [
            ("LD_PRELOAD", (*library).to_owned()),
            ("FAKETIME_TIMESTAMP_FILE", text(&clock_file(folder))),
            ("FAKETIME_CACHE_DURATION", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec();
    }
    Ok(NodeCommand {
        binary: binary(verify)?,
        arguments,
        environment,
        log: PathBuf::new(),
    })
}

fn clock_file(folder: &Path) -> PathBuf {
    folder.join("clock")
}

/// Path of the node's binary: the given one, or `chaos` in the folder of this binary.
fn binary(verify: &VerifyArgs) -> Result<PathBuf> {
    if let Some(path) = &verify.chaos {
        return Ok(path.clone());
    }
    let sibling = env::current_exe()?.with_file_name("chaos");
    if !sibling.exists() {
        bail!(
            "there is no `chaos` in the folder of this binary: build it (cargo build --release), or give its path with --chaos"
        );
    }
    Ok(sibling)
}

fn resolve(base: &str) -> Result<SocketAddr> {
    let authority = base.trim_start_matches("http://");
    let found = authority
        .to_socket_addrs()
        .or_else(|_| (authority, 80).to_socket_addrs());
    found
        .ok()
        .and_then(|mut all| all.next())
        .with_context(|| format!("cannot resolve the address {authority}"))
}
