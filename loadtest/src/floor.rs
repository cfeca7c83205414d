//! The floor: the lowest possible cost of a fan-out. Measures one bare `send()` of a frame to each
//! of as many loopback sockets as the run has subscribers.
//!
//! Only the CPU time of the sending thread counts, as only the node's counts in the run. Another
//! thread reads the sockets when they are readable, as the clients of a run do. A round begins when
//! all sockets have been read.

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

/// Minimum time that rounds are sent for.
const MEASURED_TIME: Duration = Duration::from_secs(2);

/// Time after which a round fails.
const ROUND_TIMEOUT: Duration = Duration::from_secs(10);

/// Cost of bare sends.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Floor {
    /// CPU seconds of the sending thread per million frames.
    pub cpu_seconds_per_million: f64,
    /// Number of frames sent.
    pub frames: u64,
    /// Bytes of each frame.
    pub frame_bytes: usize,
    /// Number of sockets.
    pub sockets: usize,
}

/// Measures the floor: takes about two seconds, on two threads of its own.
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
        .map_err(|_| io::Error::other("the thread that reads the sockets panicked"))??;
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
    while started.elapsed() < MEASURED_TIME {
        for mut writer in writers {
            writer.write_all(frame)?;
        }
        frames += writers.len() as u64;
        rounds
            .recv_timeout(ROUND_TIMEOUT)
            .map_err(|_| io::Error::other("the sockets of the floor are read too slowly"))?;
    }
    Ok((frames, thread_cpu() - cpu))
}

/// Reads until all sockets are closed, and signals the end of each round.
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
                // `readable` may return although nothing can be read.
                reader.readable().await?;
                match reader.try_read(&mut buffer) {
                    Ok(0) => return Ok(()),
                    Ok(bytes) => {
                        let before = read.fetch_add(bytes as u64, Ordering::Relaxed);
                        if (before + bytes as u64) / round_bytes > before / round_bytes {
                            // It fails only after the sender has stopped with an error.
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

/// CPU time of this thread so far, in seconds.
fn thread_cpu() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_send_has_a_plausible_cost() {
        let floor = measure(20, 150).expect("loopback");
        assert!(floor.frames >= 20 && floor.frames.is_multiple_of(20));
        // A system call takes 0.1 to 100 µs on any machine.
        assert!(
            (0.1..1_000.0).contains(&floor.cpu_seconds_per_million),
            "{floor:?}"
        );
    }
}
