//! The floor under a fan-out: one bare `send()` of a frame to each of as many loopback sockets, and nothing else.
//!
//! Only the sending thread's CPU counts, as only the node's does in the run. The readers are woken as the run's clients
//! are, by readiness, in another thread; a round begins when everybody has read the one before.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// How long it is measured, at least.
const DURATION: Duration = Duration::from_secs(2);

/// How long a round may take before the measurement is given up.
const ROUND: Duration = Duration::from_secs(10);

/// What the bare writes cost.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// CPU seconds of the sender per million frames.
    pub cpu_seconds_per_million: f64,
    /// How many frames were sent.
    pub frames: u64,
    /// Bytes of each.
    pub frame_bytes: usize,
    /// To how many sockets.
    pub sockets: usize,
}

/// Measures it: some two seconds, in two threads of its own.
pub fn measure(sockets: usize, frame_bytes: usize) -> io::Result<Floor> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (mut writers, mut readers) = (Vec::with_capacity(sockets), Vec::with_capacity(sockets));
    for _ in 0..sockets {
        let reader = TcpStream::connect(address)?;
        reader.set_nonblocking(true)?;
        let (writer, _) = listener.accept()?;
        writer.set_nodelay(true)?;
        writers.push(writer);
        readers.push(reader);
    }
    let (round, rounds) = mpsc::sync_channel(1);
    let reading = thread::spawn(move || read_all(readers, (sockets * frame_bytes) as u64, &round));
    let sent = send_rounds(&writers, &vec![0x55; frame_bytes], &rounds);
    drop(writers);
    reading
        .join()
        .map_err(|_| io::Error::other("the reading thread panicked"))??;
    let (frames, cpu) = sent?;
    Ok(Floor {
        cpu_seconds_per_million: cpu / frames as f64 * 1e6,
        frames,
        frame_bytes,
        sockets,
    })
}

fn send_rounds(
    writers: &[TcpStream],
    frame: &[u8],
    rounds: &mpsc::Receiver<()>,
) -> io::Result<(u64, f64)> {
    let (started, cpu) = (Instant::now(), thread_cpu());
    let mut frames = 0;
    while started.elapsed() < DURATION {
        for mut writer in writers {
            writer.write_all(frame)?;
        }
        frames += writers.len() as u64;
        rounds
            .recv_timeout(ROUND)
            .map_err(|_| io::Error::other("the readers of the floor do not keep up"))?;
    }
    Ok((frames, thread_cpu() - cpu))
}

/// Reads until all sockets end, and tells of each whole round.
fn read_all(
    readers: Vec<TcpStream>,
    round_bytes: u64,
    round: &mpsc::SyncSender<()>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _entered = runtime.enter();
    let read = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::with_capacity(readers.len());
    for reader in readers {
        let (reader, read, round) = (
            tokio::net::TcpStream::from_std(reader)?,
            read.clone(),
            round.clone(),
        );
        tasks.push(runtime.spawn(async move {
            let mut buffer = [0; 2048];
            loop {
                // An error means that it is not ready yet after all.
                reader.readable().await?;
                match reader.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(bytes) => {
                        let before = read.fetch_add(bytes as u64, Ordering::Relaxed);
                        if (before + bytes as u64) / round_bytes > before / round_bytes {
                            // An error means that the sender gave up.
                            let _ = round.try_send(());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
        }));
    }
    runtime.block_on(async {
        for task in tasks {
            task.await.map_err(io::Error::other)??;
        }
        Ok(())
    })
}

/// This thread's CPU time so far, in seconds.
fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_write_costs_something_and_not_much() {
        let floor = measure(20, 150).expect("loopback");
        assert!(floor.frames >= 20 && floor.frames.is_multiple_of(20));
        // A system call takes 0.1 to 100 µs on whatever machine.
        assert!(
            (0.1..1_000.0).contains(&floor.cpu_seconds_per_million),
            "{floor:?}"
        );
    }
}
