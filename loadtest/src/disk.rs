//! The disk under the node's data folder: its write counters, and how long it takes to sync. Linux
//! only.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{major, minor};
use serde::Serialize;

use crate::latency::{LatencyRecorder, Percentiles};

/// Size of the file that is synced. It is written beforehand, as a journal is, so that a sync does
/// not have to allocate blocks.
const FILE_BYTES: u64 = 8 << 20;

/// Bytes written before each sync.
const WRITE_BYTES: usize = 4_096;

/// Time that syncs are measured for.
const MEASURED_TIME: Duration = Duration::from_secs(2);

/// Bytes of a sector in the counters of a block device, whatever its real size.
const SECTOR_BYTES: u64 = 512;

/// A block device with a file system on it.
#[derive(Debug, Clone)]
pub struct BlockDevice {
    counters: PathBuf,
}

/// What was written to a block device since the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WriteCounters {
    /// Bytes.
    pub bytes: u64,
    /// Write requests.
    pub writes: u64,
}

/// What was written to the disk per acknowledged message, by everything that runs on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DiskCosts {
    /// Bytes.
    pub bytes_per_message: f64,
    /// Write requests.
    pub writes_per_message: f64,
}

impl BlockDevice {
    /// Returns the device that holds this folder; `None` if there is no such folder, or if its file
    /// system is not on one device (tmpfs, overlay, NFS).
    pub fn of(folder: &Path) -> Option<Self> {
        let device = fs::metadata(folder).ok()?.dev();
        let counters = PathBuf::from(format!(
            "/sys/dev/block/{}:{}/stat",
            major(device),
            minor(device)
        ));
        counters.exists().then_some(Self { counters })
    }

    /// Reads the counters.
    pub fn counters(&self) -> io::Result<WriteCounters> {
        let stat = fs::read_to_string(&self.counters)?;
        parse_counters(&stat)
            .ok_or_else(|| io::Error::other(format!("cannot parse {}", self.counters.display())))
    }
}

impl WriteCounters {
    /// Returns what was written since `before`, per message.
    pub fn per_message(self, before: Self, messages: u64) -> DiskCosts {
        let per_message =
            |now: u64, before: u64| now.saturating_sub(before) as f64 / messages.max(1) as f64;
        DiskCosts {
            bytes_per_message: per_message(self.bytes, before.bytes),
            writes_per_message: per_message(self.writes, before.writes),
        }
    }
}

/// Parses the fields `write I/Os` (5th) and `write sectors` (7th).
fn parse_counters(stat: &str) -> Option<WriteCounters> {
    let mut fields = stat.split_whitespace().skip(4);
    let writes = fields.next()?.parse().ok()?;
    let sectors: u64 = fields.nth(1)?.parse().ok()?;
    Some(WriteCounters {
        bytes: sectors * SECTOR_BYTES,
        writes,
    })
}

/// Measures how long the disk takes to sync 4 KiB that were written into a file of this folder. Runs
/// for two seconds on the calling thread. The file is removed.
///
/// # Errors
/// The folder cannot be written to.
pub fn measure_sync(folder: &Path) -> io::Result<Percentiles> {
    let named = tempfile::NamedTempFile::new_in(folder)?;
    let file: &File = named.as_file();
    let zeros = vec![0; WRITE_BYTES];
    for offset in (0..FILE_BYTES).step_by(WRITE_BYTES) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    let (latencies, started) = (LatencyRecorder::default(), Instant::now());
    let bytes = vec![0x55; WRITE_BYTES];
    for offset in (0..FILE_BYTES).step_by(WRITE_BYTES).cycle() {
        if started.elapsed() >= MEASURED_TIME {
            break;
        }
        let due = Instant::now();
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        latencies.record(
            0,
            u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX),
        );
    }
    Ok(latencies.distribution().percentiles())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_of_a_device_are_parsed() {
        let stat = "   13142     3141   943310     3013    94612   107031  6283960    70403        0    61236    82236        0        0        0        0";
        let after = parse_counters(stat).expect("valid");
        assert_eq!(
            after,
            WriteCounters {
                bytes: 6_283_960 * 512,
                writes: 94_612
            }
        );
        let before = WriteCounters {
            bytes: after.bytes - 8_192,
            writes: after.writes - 3,
        };
        assert_eq!(
            after.per_message(before, 2),
            DiskCosts {
                bytes_per_message: 4_096.0,
                writes_per_message: 1.5
            }
        );
        assert_eq!(parse_counters("1 2 3 4"), None);
    }

    #[test]
    fn sync_of_a_folder_is_measured_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = measure_sync(folder.path()).expect("writable");
        assert!(found.count > 0 && found.max_ms >= found.p50_ms);
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
        assert!(BlockDevice::of(Path::new("/proc")).is_none());
    }
}
