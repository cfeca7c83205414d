//! What the system says of processes: CPU, memory, descriptors. Linux only.

use std::{fs, ops::Sub};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

/// Descriptors that are not connections.
const SPARE: u64 = 64;

/// CPU time of the processes so far: user and system, in seconds, to 10 ms.
pub fn cpu_seconds(pids: &[u32]) -> Result<f64> {
    pids.iter().map(|pid| one_cpu_seconds(*pid)).sum()
}

fn one_cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("There is no process {pid} to measure (--pid)"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("/proc/{pid}/stat cannot be read"))?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// The name of a process stands in parentheses, and may hold spaces and parentheses itself.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

/// Memory of processes, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Memory {
    /// The proportional set size: what is shared counts in parts. Has the pages of the embedded store's file too.
    pub pss: u64,
    /// Of that, what no file stands behind.
    pub anonymous: u64,
}

impl Memory {
    /// Of all these processes.
    pub fn of(pids: &[u32]) -> Result<Self> {
        let mut sum = Self::default();
        for pid in pids {
            let path = format!("/proc/{pid}/smaps_rollup");
            let rollup = fs::read_to_string(&path).with_context(|| {
                format!("{path} cannot be read: run as the node's user, or as root")
            })?;
            sum.pss +=
                kilobytes(&rollup, "Pss:").with_context(|| format!("{path} tells no Pss"))?;
            // Linux before 5.9 does not tell it apart.
            sum.anonymous += kilobytes(&rollup, "Pss_Anon:").unwrap_or_default();
        }
        Ok(sum)
    }

    /// What each of so many takes, in bytes, signed.
    pub fn each(self, before: Self, count: usize) -> Each {
        let each = |now: u64, before: u64| (now as f64).sub(before as f64) / count.max(1) as f64;
        Each {
            pss: each(self.pss, before.pss),
            anonymous: each(self.anonymous, before.anonymous),
        }
    }
}

/// Bytes for each connection.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Each {
    /// See [`Memory::pss`].
    pub pss: f64,
    /// See [`Memory::anonymous`].
    pub anonymous: f64,
}

fn kilobytes(rollup: &str, name: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// Makes room for so many sockets by raising the soft limit of descriptors, as far as the hard one lets.
pub fn make_room_for(sockets: usize) -> Result<()> {
    let needed = sockets as u64 + SPARE;
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
    .context("The limit of open files cannot be raised")?;
    anyhow::ensure!(
        wanted >= needed,
        "This run needs {needed} open files, and the system allows {wanted}: raise it with `ulimit -n {needed}` (root, or the hard \
         limit in /etc/security/limits.conf), or ask for fewer clients"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_is_read_behind_a_name_of_any_form() {
        let stat =
            "42 (a) b (c)) S 1 42 42 0 -1 4194560 1500 0 0 0 730 270 0 0 20 0 4 0 100 1000 200";
        assert_eq!(cpu_ticks(stat), Some(1_000));
        assert_eq!(cpu_ticks("42 (cut"), None);
    }

    #[test]
    fn this_process_has_time_and_memory() {
        let own = [std::process::id()];
        assert!(cpu_seconds(&own).expect("readable") >= 0.0);
        let memory = Memory::of(&own).expect("readable");
        assert!(
            memory.pss > 100_000 && memory.anonymous <= memory.pss,
            "{memory:?}"
        );
        assert!(cpu_seconds(&[u32::MAX]).is_err());
    }

    #[test]
    fn sizes_are_read_by_their_whole_name() {
        let rollup =
            "Rss:  900 kB\nPss:                 12 kB\nPss_Dirty: 3 kB\nPss_Anon:   4 kB\n";
        assert_eq!(
            (kilobytes(rollup, "Pss:"), kilobytes(rollup, "Pss_Anon:")),
            (Some(12 * 1024), Some(4 * 1024))
        );
        let each = Memory {
            pss: 5_000,
            anonymous: 0,
        }
        .each(
            Memory {
                pss: 1_000,
                anonymous: 500,
            },
            10,
        );
        assert_eq!((each.pss, each.anonymous), (400.0, -50.0));
    }

    #[test]
    fn what_cannot_be_opened_is_said() {
        let error = make_room_for(usize::MAX / 2)
            .expect_err("no system has so many")
            .to_string();
        assert!(error.contains("ulimit -n"), "{error}");
    }
}
