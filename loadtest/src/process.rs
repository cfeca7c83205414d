//! CPU time, memory and open files of processes, from `/proc`. Linux only.

use std::{fs, ops::Sub};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

/// Open files that are not sockets of clients.
const OTHER_DESCRIPTORS: u64 = 64;

/// CPU time used by the processes so far: user and system, in seconds, with a resolution of 10 ms.
pub fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| process_cpu_seconds(*pid)).sum()
}

fn process_cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("no process {pid} to measure, see --pid"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("cannot parse /proc/{pid}/stat"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Parses user and system time. The process name is in parentheses, and may contain spaces and
/// parentheses.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Memory used by processes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ProcessMemory {
    /// Proportional set size: shared pages count in part. Includes the mapped file of the embedded
    /// store.
    pub pss: u64,
    /// The part of `pss` that is not backed by a file.
    pub anonymous: u64,
}

impl ProcessMemory {
    /// Returns the memory used by all these processes.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            let rollup = fs::read_to_string(&path).with_context(|| {
                format!("cannot read {path}, run as the node's user or as root")
            })?;
            sum.pss += kilobytes(&rollup, "Pss:").with_context(|| format!("no Pss in {path}"))?;
            // Linux before 5.9 does not report it.
            sum.anonymous += kilobytes(&rollup, "Pss_Anon:").unwrap_or_default();
        }
        Ok(sum)
    }

    /// Returns the memory per connection that was added since `before`, negative if memory was
    /// freed.
    pub fn per_connection(self, before: Self, connections: usize) -> MemoryPerConnection {
        let per_connection =
            |now: u64, before: u64| (now as f64).sub(before as f64) / connections.max(1) as f64;
        MemoryPerConnection {
            pss: per_connection(self.pss, before.pss),
            anonymous: per_connection(self.anonymous, before.anonymous),
        }
    }
}

/// Bytes per connection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MemoryPerConnection {
    /// See [`ProcessMemory::pss`].
    pub pss: f64,
    /// See [`ProcessMemory::anonymous`].
    pub anonymous: f64,
}

fn kilobytes(rollup: &str, name: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Raises the soft limit of open files as far as the run needs it.
///
/// # Errors
/// Fails if the hard limit is too low.
pub fn raise_open_files_limit(sockets: usize) -> Result<()> {
    let needed = sockets as u64 + OTHER_DESCRIPTORS;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let wanted = maximum.map_or(needed, |maximum| maximum.min(needed));
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(wanted),
            maximum,
        },
    )
    .context("cannot raise the limit of open files")?;
    anyhow::ensure!(
        wanted >= needed,
        "this run needs {needed} open files and the system allows {wanted}: raise the limit with `ulimit -n {needed}` (root, or the hard \
         limit in /etc/security/limits.conf), or use fewer clients"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_parsed_after_a_name_with_parentheses() {
        let stat =
            "42 (a) b (c)) S 1 42 42 0 -1 4194560 1500 0 0 0 730 270 0 0 20 0 4 0 100 1000 200";
        assert_eq!(cpu_ticks(stat), Some(1_000));
        assert_eq!(cpu_ticks("42 (cut"), None);
    }

    #[test]
    fn own_cpu_time_and_memory_are_readable() {
        let own = [std::process::id()];
        assert!(cpu_seconds(&own).expect("readable") >= 0.0);
        let memory = ProcessMemory::of(&own).expect("readable");
        assert!(
            memory.pss > 100_000 && memory.anonymous <= memory.pss,
            "{memory:?}"
        );
        assert!(cpu_seconds(&[u32::MAX]).is_err());
    }

    #[test]
    fn sizes_are_parsed_by_their_whole_name() {
        let rollup =
            "Rss:  900 kB\nPss:                 12 kB\nPss_Dirty: 3 kB\nPss_Anon:   4 kB\n";
        assert_eq!(
            (kilobytes(rollup, "Pss:"), kilobytes(rollup, "Pss_Anon:")),
            (Some(12 * 1024), Some(4 * 1024))
        );
        let each = ProcessMemory {
            pss: 5_000,
            anonymous: 0,
        }
        .per_connection(
            ProcessMemory {
                pss: 1_000,
                anonymous: 500,
            },
            10,
        );
        assert_eq!((each.pss, each.anonymous), (400.0, -50.0));
    }

    #[test]
    fn too_high_limit_of_open_files_is_an_error() {
        let error = raise_open_files_limit(usize::MAX / 2)
            .expect_err("no system has so many")
            .to_string();
        assert!(error.contains("ulimit -n"), "{error}");
    }
}
