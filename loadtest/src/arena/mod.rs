//! Where a verified run takes place: nodes and a store in processes of its own, and a path to each node that can be made bad.
//!
//! Owned here: starting and ending all of it, and what can go wrong ([`fault`]). Left out: what clients do meanwhile.

use std::{
    env, fs,
    io::Write,
    net::{SocketAddr, ToSocketAddrs},
    path::{Path as FilePath, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::{
    sync::{Mutex, MutexGuard},
    time::sleep,
};

use self::{
    fault::Fault,
    node::{Launch, Node},
    path::Path,
    store::{Kind, Store},
};
use crate::{
    cli::{Common, Verify},
    verify::Terms,
};

pub mod fault;
mod node;
pub mod path;
pub mod store;

/// Limits of the run's own nodes: bounds that stalled readers and long absences reach, and no rate that the run would.
const LIMITS: [&str; 4] = [
    "outbox_bytes=65536",
    "outbox_seconds=5",
    "requests_per_second=0",
    "key_requests_per_second=0",
];

/// Events that the nodes keep of each channel.
const LOG_EVENTS: u64 = 400;

/// Bytes of the disk that can be filled, beside what the run's messages take.
const DISK: u64 = 64 << 20;

/// Where libfaketime is installed.
const FAKETIME: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
];

/// Everything that a verified run starts.
#[derive(Debug)]
pub struct Arena {
    /// What may go wrong.
    pub faults: Vec<Fault>,
    /// What the sequence of faults follows from.
    pub seed: u64,
    seconds: f64,
    paths: Vec<Path>,
    nodes: Vec<Mutex<Node>>,
    store: Mutex<Store>,
    folder: TempDir,
    disk: Option<Disk>,
}

impl Arena {
    /// Starts what is asked for.
    pub async fn open(verify: &Verify) -> Result<Self> {
        let folder = TempDir::with_prefix("chaos-verify-")
            .context("There is no room for a temporary folder")?;
        let seed = verify.seed.unwrap_or_else(|| rand::random::<u32>().into());
        let faults = verify.faults()?;
        let (mut nodes, mut paths, mut store, mut disk) =
            (Vec::new(), Vec::new(), Store::None, None);
        match verify.store() {
            None => {
                for base in verify.chat.common.http_bases()? {
                    paths.push(Path::to(resolved(&base)?).await?);
                }
            }
            Some(kind) => {
                let data = folder.path().join("data");
                fs::create_dir(&data)?;
                if faults.contains(&Fault::Disk) {
                    disk = Some(Disk::mount(&data, DISK + room_for(verify))?);
                }
                store = Store::start(kind, &faults).await;
                let launch = launch(
                    verify,
                    folder.path(),
                    &data,
                    store.url(),
                    faults.contains(&Fault::Clock),
                )?;
                for number in 1..=if kind == Kind::Embedded {
                    1
                } else {
                    verify.nodes
                } {
                    let log = folder.path().join(format!("node-{number}.log"));
                    nodes.push(Mutex::new(
                        Node::start(
                            format!("node {number}"),
                            Launch {
                                log,
                                ..launch.clone()
                            },
                        )
                        .await?,
                    ));
                }
                for node in &mut nodes {
                    paths.push(node.get_mut().path.clone());
                }
            }
        }
        Ok(Self {
            faults,
            seed,
            seconds: verify.seconds(),
            paths,
            nodes,
            store: Mutex::new(store),
            folder,
            disk,
        })
    }

    /// What these nodes and their store keep; none for nodes that are not the run's own.
    pub fn terms(&self) -> Option<Terms> {
        let terms = Terms {
            log_events: LOG_EVENTS,
            may_diverge: self.faults.contains(&Fault::Failover),
        };
        (!self.nodes.is_empty()).then_some(terms)
    }

    /// The same settings of a run, on these nodes.
    pub fn common(&self, common: &Common) -> Common {
        let mut common = common.clone();
        common.seconds = self.seconds;
        common.urls = self
            .paths
            .iter()
            .map(|path| format!("ws://{}", path.address()))
            .collect();
        if !self.nodes.is_empty() {
            let made = self.folder.path().join("data").join("admin-key");
            (common.admin_key, common.admin_key_file) = (None, Some(made));
        }
        common
    }

    /// Whether every node still runs on a store that is whole, once the faults are over.
    pub async fn check(&self) -> Result<()> {
        for node in &self.nodes {
            node.lock().await.check().await?;
        }
        Ok(())
    }

    /// Keeps the logs and data, and says where.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    async fn node(&self, place: u64) -> MutexGuard<'_, Node> {
        self.nodes[(place % self.nodes.len() as u64) as usize]
            .lock()
            .await
    }

    /// Lets the clocks of the nodes be so many seconds off for a while.
    async fn step_clock(&self, seconds: i32, lasting: Duration) -> Result<()> {
        let clock = clock_file(self.folder.path());
        fs::write(&clock, format!("{seconds:+}s\n"))?;
        // A second passes before it is looked at.
        sleep(lasting + Duration::from_secs(1)).await;
        fs::write(&clock, "+0s\n")?;
        Ok(())
    }

    async fn fill_disk(&self, lasting: Duration) -> Result<()> {
        let filler = self
            .disk
            .as_ref()
            .context("There is no disk to fill")?
            .0
            .join("filler");
        let mut file = fs::File::create(&filler)?;
        let block = vec![0; 64 * 1024];
        while file.write_all(&block).is_ok() {}
        while file.write_all(&[0]).is_ok() {}
        sleep(lasting).await;
        fs::remove_file(&filler)?;
        Ok(())
    }
}

/// A small file system of the run's own, unmounted when dropped.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &FilePath, bytes: u64) -> Result<Self> {
        let options = format!("size={bytes}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder)
            .stderr(Stdio::null())
            .status();
        ensure!(
            mounted.is_ok_and(|status| status.success()),
            "A small disk to fill cannot be mounted: run it as root, or leave `disk` out of --faults"
        );
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since a node may not be gone yet. What fails here is left to the system's end.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Bytes that the messages of a run take at most: each stands in its channel and, for a while, in the log of events.
fn room_for(verify: &Verify) -> u64 {
    let messages = verify.seconds() * verify.chat.rate;
    (messages * (3 * verify.chat.common.payload + 2048) as f64) as u64
}

fn launch(
    verify: &Verify,
    folder: &FilePath,
    data: &FilePath,
    redis: Option<String>,
    clock: bool,
) -> Result<Launch> {
    let text = |path: &FilePath| path.display().to_string();
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
    for limit in LIMITS
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
        let library = FAKETIME.iter().find(|path| FilePath::new(path).exists());
        let library =
            library.context("Clocks cannot be stepped without libfaketime: install faketime, or leave `clock` out of --faults")?;
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
    Ok(Launch {
        binary: binary(verify)?,
        arguments,
        environment,
        log: PathBuf::new(),
    })
}

fn clock_file(folder: &FilePath) -> PathBuf {
    folder.join("clock")
}

/// The node's program: what was named, or what lies beside this one.
fn binary(verify: &Verify) -> Result<PathBuf> {
    if let Some(path) = &verify.chaos {
        return Ok(path.clone());
    }
    let beside = env::current_exe()?.with_file_name("chaos");
    if !beside.exists() {
        bail!(
            "There is no `chaos` beside this program: build it (cargo build --release), or name it with --chaos"
        );
    }
    Ok(beside)
}

fn resolved(base: &str) -> Result<SocketAddr> {
    let authority = base.trim_start_matches("http://");
    let found = authority
        .to_socket_addrs()
        .or_else(|_| (authority, 80).to_socket_addrs());
    found
        .ok()
        .and_then(|mut all| all.next())
        .with_context(|| format!("{authority} is no address"))
}
