//! Parses the texts of settings into a checked `Config`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use chaos_redis::{DEFAULT_PREFIX, Deployment, Replicas, check_prefix};
use protocol::Limits;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::{
    Config, ConfigError, DemoMode, LogFormat, Origins, Secret, StoreConfig, memory,
    settings::{NodeSettings, SettingDefault},
    show,
    value::{LimitValues, SettingValue},
};
use crate::limit::request_bytes;

/// Maximum value of a limit: JavaScript's largest safe integer, since `connect` sends limits to
/// clients.
const MAX_LIMIT: u64 = (1 << 53) - 1;

/// Memory in bytes that is assumed if the system does not report it.
const ASSUMED_MEMORY: u64 = 2 * 1024 * 1024 * 1024;

pub(super) fn check(settings: &NodeSettings) -> Result<Config, ConfigError> {
    // Destructured, so that the compiler warns about a setting that is not read.
    let NodeSettings {
        listen,
        ops_listen,
        allowed_origins,
        trusted_proxies,
        http_idle,
        data: _,
        redis: _,
        redis_prefix: _,
        redis_wait: _,
        redis_wait_timeout: _,
        demo,
        admin_key_file,
        admin_key,
        secret_key_file: _,
        drain_window,
        heartbeat,
        log,
        log_format,
        limits,
    } = settings;

    let mut warnings = Vec::new();
    require_at_most_one(admin_key, admin_key_file, "there is one admin key")?;
    let store = store(settings)?;
    let shared = matches!(store, StoreConfig::Redis { .. });

    let admin_key = match admin_key.parse(admin_key_of)? {
        Some(key) => Some(key),
        None => admin_key_file.parse(|path| admin_key_of(read(path)?.trim()))?,
    };
    if admin_key
        .as_ref()
        .is_some_and(|key| key.expose().len() < 24)
    {
        warnings.push("the admin key is short enough to be guessed: create one with `echo adm_$(openssl rand -hex 16)`".to_owned());
    }
    let secret_key_file = secret_key_file(settings)?;
    if shared && admin_key.is_none() {
        return Err(ConfigError::new(
            "nodes on Redis share one admin key: pass it with --admin-key-file or CHAOS_ADMIN_KEY",
        ));
    }
    if shared && secret_key_file.is_none() {
        return Err(ConfigError::new(
            "nodes on Redis share one secret key: create it once with `openssl rand -hex 32 > FILE` and pass it to every node with --secret-key-file",
        ));
    }

    let demo_wanted = demo.required(demo_of)?;
    if shared && demo_wanted == DemoMode::On {
        return Err(ConfigError::new(format!(
            "{} is on, and the demo needs the data folder of the embedded store: leave it or --redis out",
            demo.source
        )));
    }

    let listen_address = listen.required(address)?;
    let ops_address = ops_listen.parse(address)?;
    if ops_address == Some(listen_address) && listen_address.port() != 0 {
        return Err(ConfigError::new(format!(
            "{} is the address that clients connect to: choose another port",
            ops_listen.source
        )));
    }

    let limits = limits_of(limits)?;
    Ok(Config {
        changed: show::changed(settings, &limits),
        admin_key_file: admin_key_file.text.as_ref().map(PathBuf::from),
        listen: listen_address,
        ops_listen: ops_address,
        store,
        admin_key,
        secret_key_file,
        allowed_origins: allowed_origins.required(Origins::parse)?,
        trusted_proxies: trusted_proxies.parse(networks)?.unwrap_or_default(),
        http_idle: http_idle.required(|text| {
            duration(text, "s", Duration::from_secs(1), Duration::from_secs(3600))
        })?,
        demo: demo_wanted,
        limits,
        drain_window: drain_window
            .required(|text| duration(text, "s", Duration::ZERO, Duration::from_secs(3600)))?,
        heartbeat: heartbeat.required(|text| {
            duration(
                text,
                "ms",
                Duration::from_millis(50),
                Duration::from_secs(3600),
            )
        })?,
        log_filter: log.required(filter)?,
        log_format: log_format.required(log_format_of)?,
        warnings,
    })
}

/// Returns the store of the settings.
///
/// # Errors
/// Fails if a setting of the store is invalid, or if its settings contradict each other.
pub(super) fn store(settings: &NodeSettings) -> Result<StoreConfig, ConfigError> {
    let NodeSettings {
        data,
        redis,
        redis_prefix,
        redis_wait,
        redis_wait_timeout,
        ..
    } = settings;
    require_at_most_one(data, redis, "a node has one store")?;
    let timeout = redis_wait_timeout
        .required(|text| duration(text, "ms", Duration::from_millis(1), Duration::from_secs(3)))?;
    let replicas = match redis_wait.required(replica_count)? {
        0 => None,
        count => Some(Replicas { count, timeout }),
    };
    let prefix = redis_prefix.required(|text| {
        check_prefix(text).map_err(|error| error.to_string())?;
        Ok(text.to_owned())
    })?;
    match redis.parse(redis_url)? {
        Some(url) => Ok(StoreConfig::Redis {
            url,
            prefix,
            replicas,
        }),
        None if prefix != DEFAULT_PREFIX => Err(ConfigError::new(format!(
            "{} requires --redis: add that, or leave it out",
            redis_prefix.source
        ))),
        None if replicas.is_some() => Err(ConfigError::new(format!(
            "{} requires --redis: add that, or leave it out",
            redis_wait.source
        ))),
        None => Ok(StoreConfig::Embedded {
            data: data.required(|text| Ok(text.into()))?,
        }),
    }
}

/// Returns the path of the secret key file, if the settings name one.
///
/// # Errors
/// Fails if the file cannot be read or is not a secret key.
pub(super) fn secret_key_file(settings: &NodeSettings) -> Result<Option<PathBuf>, ConfigError> {
    settings
        .secret_key_file
        .parse(|path| secret_key(Path::new(path)).map(|_| path.into()))
}

impl SettingValue {
    /// Parses the text, if a layer has one. `read` returns a sentence with the cause and the
    /// remedy.
    fn parse<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, ConfigError> {
        let Some(text) = &self.text else {
            return Ok(None);
        };
        read(text)
            .map(Some)
            .map_err(|wrong| ConfigError::new(format!("{} cannot be used: {wrong}", self.source)))
    }

    /// Parses the text, or else the default of the table.
    fn required<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<T, ConfigError> {
        if let Some(value) = self.parse(&read)? {
            return Ok(value);
        }
        match self.setting.default {
            SettingDefault::Value(text) => read(text).map_err(|wrong| {
                ConfigError::new(format!(
                    "the default of {} is wrong: {wrong}",
                    self.setting.name
                ))
            }),
            SettingDefault::Rule(_) => Err(ConfigError::new(format!(
                "--{} must be given",
                self.setting.flag
            ))),
        }
    }
}

fn require_at_most_one(a: &SettingValue, b: &SettingValue, why: &str) -> Result<(), ConfigError> {
    match (&a.text, &b.text) {
        (Some(_), Some(_)) => Err(ConfigError::new(format!(
            "{} and {} exclude each other, because {why}: leave one of them out",
            a.source, b.source
        ))),
        _ => Ok(()),
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{text:?} is no IP address with a port: use one such as 127.0.0.1:7400 or [::]:7400"
        )
    })
}

fn replica_count(text: &str) -> Result<u32, String> {
    match text.parse() {
        Ok(count) if count <= 100 => Ok(count),
        _ => Err(format!(
            "{text:?} is no number of replicas: use 0 to wait for none, or up to 100"
        )),
    }
}

/// Checks the URL of a Redis deployment. The error does not quote the URL, which may contain a
/// password.
fn redis_url(text: &str) -> Result<String, String> {
    text.parse::<Deployment>()
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

fn admin_key_of(text: &str) -> Result<Secret, String> {
    match text.strip_prefix("adm_") {
        Some(rest) if !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::new(text)),
        _ => Err("an admin key begins with adm_ and has no spaces: create one with `echo adm_$(openssl rand -hex 16)`".to_owned()),
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| {
        format!("{path} cannot be read ({error}): check the path and its permissions")
    })
}

/// Reads a secret key file: 32 bytes in hex.
///
/// # Errors
/// Fails if the file cannot be read or does not contain 32 bytes in hex. The sentence does not
/// quote the contents.
pub fn secret_key(path: &Path) -> Result<[u8; 32], String> {
    let wrong = || {
        format!(
            "{} does not hold 32 bytes in hex: create it with `openssl rand -hex 32 > FILE`",
            path.display()
        )
    };
    let text = read(&path.to_string_lossy())?;
    let digits = text.trim().as_bytes();
    let mut key = [0; 32];
    if digits.len() != 64 {
        return Err(wrong());
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |of: u8| {
            char::from(of)
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        };
        *byte = digit(pair[0])
            .zip(digit(pair[1]))
            .map(|(high, low)| high << 4 | low)
            .ok_or_else(wrong)?;
    }
    Ok(key)
}

fn networks(text: &str) -> Result<Vec<ipnet::IpNet>, String> {
    let items = text
        .split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty());
    items
        .map(|item| {
            let single = item.parse::<std::net::IpAddr>().map(ipnet::IpNet::from);
            item.parse().or(single).map_err(|_| {
                format!("{item:?} is no network: use addresses or CIDR blocks, such as 10.0.0.0/8")
            })
        })
        .collect()
}

fn demo_of(text: &str) -> Result<DemoMode, String> {
    match text {
        "auto" => Ok(DemoMode::Auto),
        "on" | "true" | "1" => Ok(DemoMode::On),
        "off" | "false" | "0" => Ok(DemoMode::Off),
        _ => Err(format!(
            "{text:?} is none of auto, on and off: use one of them"
        )),
    }
}

fn log_format_of(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!(
            "{text:?} is neither text nor json: use one of them"
        )),
    }
}

/// Checks a log filter. A bare word must be a level, since `EnvFilter` takes any other word for a
/// module and then disables everything else.
fn filter(text: &str) -> Result<String, String> {
    let is_level =
        |directive: &str| directive.contains('=') || directive.parse::<LevelFilter>().is_ok();
    let directives = text.split(',').map(str::trim);
    if directives.clone().all(is_level) && EnvFilter::builder().parse(text).is_ok() {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is no filter: use a level (error, warn, info, debug, trace, off), or levels by module such as info,gateway=debug"
    ))
}

/// Parses a whole number with the unit `ms`, `s` or `m`; the default unit is `unit`.
fn duration(text: &str, unit: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let millis = match &text[digits.len()..] {
        "" if unit == "s" => 1_000,
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        _ => 0,
    };
    match digits
        .trim_end()
        .parse::<u64>()
        .ok()
        .filter(|_| millis > 0)
        .and_then(|number| number.checked_mul(millis))
        .map(Duration::from_millis)
    {
        Some(length) if (min..=max).contains(&length) => Ok(length),
        Some(_) => Err(format!(
            "{text:?} is not between {min:?} and {max:?}: use a time between them"
        )),
        None => Err(format!(
            "{text:?} is no time: use a whole number and a unit (ms, s or m), such as 10s"
        )),
    }
}

fn limits_of(values: &LimitValues) -> Result<Limits, ConfigError> {
    let memory = memory::available().unwrap_or(ASSUMED_MEMORY);
    let mut limits = Limits {
        outbox_total_bytes: memory / 4,
        requests_total_bytes: memory / 8,
        ..Limits::default()
    };
    for (name, (text, source)) in values {
        let value = text
            .replace('_', "")
            .parse()
            .ok()
            .filter(|value| *value <= MAX_LIMIT);
        let value = value.ok_or_else(|| {
            ConfigError::new(format!(
                "{source} sets {name} to {text:?}: use a whole number up to {MAX_LIMIT}, 0 for none"
            ))
        })?;
        limits.set(name, value);
    }
    let min = request_bytes::min_total(limits.frame_bytes);
    if !values.contains_key("requests_total_bytes") {
        limits.requests_total_bytes = limits.requests_total_bytes.max(min);
    } else if (1..min).contains(&limits.requests_total_bytes) {
        return Err(ConfigError::new(format!(
            "requests_total_bytes is {}: use at least {min}, so that a tenant's half has room for a page and for a frame of {} bytes (frame_bytes), or 0 for no limit",
            limits.requests_total_bytes, limits.frame_bytes
        )));
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn durations_have_units() {
        let read = |text, unit| duration(text, unit, Duration::ZERO, Duration::from_secs(3600));
        assert_eq!(read("10", "s"), Ok(Duration::from_secs(10)));
        assert_eq!(read("10", "ms"), Ok(Duration::from_millis(10)));
        assert_eq!(read("10 ms", "s"), Ok(Duration::from_millis(10)));
        assert_eq!(read("2m", "s"), Ok(Duration::from_secs(120)));
        for wrong in [
            "",
            "s",
            "-1",
            "1.5s",
            "10h",
            "61m",
            "99999999999999999999",
            "18446744073709551615m",
        ] {
            assert!(read(wrong, "s").is_err(), "{wrong}");
        }
    }

    #[test]
    fn log_filter_accepts_levels_only() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,gateway=debug",
            "gateway::session=trace, warn",
            "info,gateway[request{id=1}]=debug",
        ] {
            assert_eq!(filter(good), Ok(good.to_owned()));
        }
        for wrong in [
            "loud",
            "info,loud",
            "gateway",
            "gateway=loud",
            "info,gateway::session",
        ] {
            assert!(
                filter(wrong)
                    .unwrap_err()
                    .contains("error, warn, info, debug, trace"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn network_is_a_block_or_a_single_address() {
        let read = networks("10.0.0.0/8, ::1,").unwrap();
        assert!(read[0].contains(&"10.1.2.3".parse::<std::net::IpAddr>().unwrap()));
        assert!(read[1].contains(&"::1".parse::<std::net::IpAddr>().unwrap()));
        assert!(!read[1].contains(&"::2".parse::<std::net::IpAddr>().unwrap()));
        assert!(networks("10.0.0.0/33").is_err());
    }

    #[test]
    fn secret_key_is_32_bytes_in_hex() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        fs::write(&path, format!("{}\n", "0aF1".repeat(16))).unwrap();
        assert_eq!(secret_key(&path).unwrap()[..4], [0x0a, 0xf1, 0x0a, 0xf1]);
        for wrong in [
            String::new(),
            "0a".repeat(31),
            "zz".repeat(32),
            "é".repeat(32),
        ] {
            fs::write(&path, &wrong).unwrap();
            let error = secret_key(&path).unwrap_err();
            assert!(
                error.contains("openssl rand -hex 32")
                    && (wrong.is_empty() || !error.contains(&wrong)),
                "{error}"
            );
        }
    }
}
