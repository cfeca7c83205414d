//! What Redis servers have done so far, from `INFO`.

use anyhow::{Context, Result};
use serde::Serialize;

/// Work of Redis servers since they started.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RedisWork {
    /// CPU time of all threads, user and system, in seconds.
    pub cpu_seconds: f64,
    /// Commands, those inside scripts included.
    pub commands: u64,
    /// Calls of scripts.
    pub scripts: u64,
}

/// Work of Redis servers per second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct RedisRates {
    /// CPU time in milliseconds.
    pub cpu_ms: f64,
    /// Commands, those inside scripts included.
    pub commands: f64,
    /// Calls of scripts.
    pub scripts: f64,
}

impl RedisWork {
    /// Returns the work of all these servers. Blocks the thread.
    ///
    /// # Errors
    /// A server does not answer, or refuses `INFO`.
    pub fn of(urls: &[String]) -> Result<Self> {
        let mut sum = Self::default();
        for url in urls {
            let info = || -> redis::RedisResult<String> {
                let mut connection = redis::Client::open(url.as_str())?.get_connection()?;
                redis::cmd("INFO").arg("everything").query(&mut connection)
            };
            let info = info().context("cannot ask the server of --redis-server for INFO")?;
            sum.add(&info);
        }
        Ok(sum)
    }

    fn add(&mut self, info: &str) {
        let fields = || info.lines().filter_map(|line| line.split_once(':'));
        for (name, value) in fields() {
            match name {
                "used_cpu_sys" | "used_cpu_user" => {
                    self.cpu_seconds += value.trim().parse::<f64>().unwrap_or_default();
                }
                "total_commands_processed" => {
                    self.commands += value.trim().parse::<u64>().unwrap_or_default();
                }
                "cmdstat_eval" | "cmdstat_evalsha" | "cmdstat_eval_ro" | "cmdstat_evalsha_ro" => {
                    let calls = value
                        .strip_prefix("calls=")
                        .and_then(|rest| rest.split(',').next()?.parse::<u64>().ok());
                    self.scripts += calls.unwrap_or_default();
                }
                _ => {}
            }
        }
    }

    /// Returns the work per second since `before`.
    pub fn per_second(self, before: Self, seconds: f64) -> RedisRates {
        let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        RedisRates {
            cpu_ms: (self.cpu_seconds - before.cpu_seconds) * 1e3 / seconds,
            commands: per_second(self.commands, before.commands),
            scripts: per_second(self.scripts, before.scripts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_parsed_and_summed() {
        let mut work = RedisWork::default();
        let info = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:2.5\r\nused_cpu_sys_children:9\r\ntotal_commands_processed:40\r\ncmdstat_evalsha:calls=6,usec=1\r\ncmdstat_eval_ro:calls=1,usec=1\r\n";
        work.add(info);
        assert_eq!(
            work,
            RedisWork {
                cpu_seconds: 4.0,
                commands: 40,
                scripts: 7
            }
        );
        let before = RedisWork {
            cpu_seconds: 3.0,
            commands: 20,
            scripts: 7,
        };
        assert_eq!(
            work.per_second(before, 2.0),
            RedisRates {
                cpu_ms: 500.0,
                commands: 10.0,
                scripts: 0.0
            }
        );
    }
}
