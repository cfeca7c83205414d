//! Measures the cost of a delivery: CPU seconds of this process per million frames to a thousand
//! sockets, compared with one plain write per frame in the same run. Another process reads.
//! `cargo run --release -p chaos-fanout --example measure`

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use fanout::bus::Local;
use fanout::hub::HubConfig;
use fanout::outbox::OutboxLimits;
use fanout::record::{Control, Record};
use fanout::{
    FrameEncoding, Gap, Hub, HubListener, Outbox, PageLimit, Position, Replay, Source, SourceError,
    Topic, TopicKind,
};
use tokio::net::TcpListener;

const SOCKETS: usize = 1_000;
const PAYLOAD: usize = 128;
const ROUNDS: usize = 640;

#[derive(Debug)]
struct Framer;

#[async_trait]
impl Source for Framer {
    fn frame(&self, _topic: &Topic, record: &Record, _encoding: FrameEncoding) -> Option<Bytes> {
        let header = [
            0x82,
            126,
            (record.body.len() >> 8) as u8,
            record.body.len() as u8,
        ];
        Some([&header[..], &record.body].concat().into())
    }
    fn gap(
        &self,
        _topic: &Topic,
        _gap: Gap,
        _position: Position,
        _encoding: FrameEncoding,
    ) -> Bytes {
        Bytes::new()
    }
    async fn read(
        &self,
        _topic: &Topic,
        _after: Position,
        _limit: PageLimit,
    ) -> Result<Replay, SourceError> {
        Err(SourceError("there is no log".into()))
    }
    async fn heads(&self, topics: &[Topic]) -> Vec<Result<Position, SourceError>> {
        topics.iter().map(|_| Ok(Position::default())).collect()
    }
}

/// Returns the user and system time of this process.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|f| f.parse::<u64>().ok())
            .unwrap_or_default()
    };
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Reads from all connections until they end.
fn readers(address: SocketAddr) -> std::io::Result<()> {
    let sockets = (0..SOCKETS)
        .map(|_| TcpStream::connect(address))
        .collect::<Result<Vec<_>, _>>()?;
    let mut buffer = vec![0; 1 << 16];
    sockets
        .iter()
        .try_for_each(|socket| socket.set_nonblocking(true))?;
    std::io::stdout().write_all(b"ready\n")?;
    loop {
        for mut socket in &sockets {
            if matches!(socket.read(&mut buffer), Ok(0)) {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    if let Some(address) = std::env::args().nth(1) {
        return readers(address.parse().expect("an address"));
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let mut child = tokio::process::Command::new(std::env::current_exe()?)
        .arg(listener.local_addr()?.to_string())
        .kill_on_drop(true)
        .spawn()?;
    let mut sockets = Vec::new();
    for _ in 0..SOCKETS {
        let socket = listener.accept().await?.0;
        socket.set_nodelay(true)?;
        sockets.push(Arc::new(socket));
    }

    let frame = vec![0x55; PAYLOAD + 4];
    let floor = measure("floor: a bare write per frame", None, || {
        for _ in 0..ROUNDS {
            for socket in &sockets {
                while socket.try_write(&frame).is_err() {
                    std::thread::yield_now();
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        std::future::ready(())
    })
    .await;

    let listener = HubListener::new();
    let bus = Local::new(Arc::<HubListener>::clone(&listener));
    let hub = Hub::new(
        listener,
        Arc::<Local>::clone(&bus),
        Arc::new(Framer),
        HubConfig::default(),
    );
    let limits = OutboxLimits::new(1 << 20, Duration::MAX, usize::MAX);
    let topic: Topic = "room".into();
    let mut subscriptions = Vec::new();
    let outboxes: Vec<_> = sockets
        .into_iter()
        .map(|socket| Outbox::new(socket, FrameEncoding::Binary, Arc::clone(&limits)))
        .collect();
    let started = Instant::now();
    for outbox in &outboxes {
        let driven = Arc::clone(outbox);
        tokio::spawn(async move { driven.drive().await });
        let joining = hub
            .join(&topic, TopicKind::Passing, outbox)
            .await
            .expect("the local bus");
        subscriptions.push(joining.start(Position::default(), Position::default()));
    }
    println!(
        "a join: {:?}; an outbox: {} B",
        started.elapsed() / SOCKETS as u32,
        size_of::<Outbox>()
    );

    let record = Record::passing(0, Control::None, vec![0x55; PAYLOAD].into()).encode();
    for window in [1, 32] {
        measure(&format!("hub, {window} in flight"), Some(floor), || async {
            for _ in 0..ROUNDS / window {
                let goal = hub.stats().deliveries + (window * SOCKETS) as u64;
                (0..window).for_each(|_| bus.publish(&topic, record.clone()));
                while hub.stats().deliveries < goal {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        })
        .await;
    }
    println!("{:?}\n{:?}", hub.stats(), limits.counts());
    child.kill().await
}

async fn measure<F: Future<Output = ()>>(
    name: &str,
    floor: Option<f64>,
    run: impl FnOnce() -> F,
) -> f64 {
    let (before, started) = (cpu(), Instant::now());
    run().await;
    let seconds = (cpu() - before).as_secs_f64() / (ROUNDS * SOCKETS) as f64 * 1e6;
    let ratio = floor
        .map(|floor| format!(", {:.3} × floor", seconds / floor))
        .unwrap_or_default();
    println!(
        "{name}: {seconds:.2} CPU-s per million{ratio}, {:.1} s",
        started.elapsed().as_secs_f64()
    );
    seconds
}
