//! The table of settings: name, flag, variable, default and description of each. Help, sample file,
//! `chaos config` and the layers are generated from it; `check` parses the values.

pub use super::setting::{Setting, SettingDefault};
use super::value::{LimitValues, SettingValue};

macro_rules! settings {
    ($($(#[$arg:meta])* $name:ident {
        flag: $flag:literal, env: $env:literal, value: $value:literal, group: $group:expr,
        default: $default:expr, example: $example:literal,
        about: $about:literal,
    })*) => {
        /// All settings except the limits and `config`.
        pub const SETTINGS: &[Setting] = &[$(Setting {
            name: stringify!($name), flag: $flag, env: $env, value: $value, group: $group,
            default: $default, example: $example, about: $about,
        },)*];

        /// The flags of a node, unparsed.
        #[derive(Debug, Default, Clone, clap::Args)]
        pub struct Flags {
            /// A TOML file with settings; deploy/chaos.toml is a sample.
            #[arg(long, value_name = "FILE", help = "A TOML file with settings\n[env: CHAOS_CONFIG]")]
            pub(super) config: Option<String>,
            $(
                #[doc = $about]
                #[arg(long = $flag, value_name = $value, help_heading = $group, help = Setting::help($about, $env, $default))]
                $(#[$arg])*
                pub(super) $name: Option<String>,
            )*
            /// One limit; may be given several times.
            #[arg(long = "limit", value_name = "NAME=VALUE", help_heading = LIMITS,
                help = "Sets one limit, 0 for none; may be given several times\n[env: CHAOS_LIMITS, comma-separated] [default: listed by `chaos --help`]")]
            pub(super) limit: Vec<String>,
        }

        impl Flags {
            /// Adds the flags from before the subcommand; flags after it take precedence.
            pub(super) fn or(self, before: Self) -> Self {
                Self {
                    config: self.config.or(before.config),
                    $($name: self.$name.or(before.$name),)*
                    limit: before.limit.into_iter().chain(self.limit).collect(),
                }
            }

            pub(super) fn is_empty(&self) -> bool {
                self.config.is_none() $(&& self.$name.is_none())* && self.limit.is_empty()
            }
        }

        /// The text and source of every setting. `check` destructures it, so that the compiler
        /// warns about a setting that is not read.
        #[derive(Debug)]
        pub(super) struct NodeSettings { $(pub(super) $name: SettingValue,)* pub(super) limits: LimitValues }

        impl NodeSettings {
            /// Collects every setting: `value_of` gets its row and the text of its flag.
            pub(super) fn gather(
                flags: Flags,
                limits: LimitValues,
                mut value_of: impl FnMut(&'static Setting, Option<String>) -> SettingValue,
            ) -> Self {
                let mut rows = SETTINGS.iter();
                let mut next = |flag| value_of(rows.next().expect("a row for every field: both come from one table"), flag);
                Self { $($name: next(flags.$name),)* limits }
            }

            /// Returns all settings in the order of the table.
            pub(super) fn all(&self) -> Vec<&SettingValue> {
                vec![$(&self.$name,)*]
            }
        }
    };
}

const NETWORK: &str = "Network";
const STORE: &str = "Store";
const KEYS: &str = "Keys";
const RUNNING: &str = "Running and stopping";
const LOGS: &str = "Logs";
/// Default folder of the embedded store.
pub const DATA_FOLDER: &str = "./chaos-data";
/// Heading of the limits.
pub(super) const LIMITS: &str = "Limits";

use SettingDefault::{Rule, Value};

settings! {
    listen {
        flag: "listen", env: "CHAOS_LISTEN", value: "IP:PORT", group: NETWORK,
        default: Value("127.0.0.1:7400"), example: "\"0.0.0.0:7400\"",
        about: "Where the WebSocket and the HTTP API are; port 0 takes a free one",
    }
    ops_listen {
        flag: "ops-listen", env: "CHAOS_OPS_LISTEN", value: "IP:PORT", group: NETWORK,
        default: Rule("none: they are on --listen, the metrics for the admin key only"), example: "\"127.0.0.1:7401\"",
        about: "A second address with /metrics, /healthz and /readyz alone, open to whoever reaches it",
    }
    allowed_origins {
        flag: "allowed-origins", env: "CHAOS_ALLOWED_ORIGINS", value: "ORIGIN,…", group: NETWORK,
        default: Value("self,localhost"), example: "[\"self\", \"https://app.example.com\"]",
        about: "Web pages that may open a WebSocket or call the API; self is the host that was asked, * is any page",
    }
    trusted_proxies {
        flag: "trusted-proxies", env: "CHAOS_TRUSTED_PROXIES", value: "CIDR,…", group: NETWORK,
        default: Rule("none"), example: "[\"10.0.0.0/8\"]",
        about: "Addresses whose X-Forwarded-For is believed",
    }
    http_idle {
        flag: "http-idle", env: "CHAOS_HTTP_IDLE", value: "SECONDS", group: NETWORK,
        default: Value("75s"), example: "\"100s\"",
        about: "How long an HTTP connection may rest between two requests: longer than your proxy keeps it; a unit may follow: ms, s, m",
    }
    data {
        flag: "data", env: "CHAOS_DATA", value: "FOLDER", group: STORE,
        default: Value(DATA_FOLDER), example: "\"/var/lib/chaos\"",
        about: "Folder of the embedded store; one node at a time may use it",
    }
    redis {
        flag: "redis", env: "CHAOS_REDIS", value: "URL", group: STORE,
        default: Rule("none: the embedded store"), example: "\"redis://127.0.0.1:6379\"",
        about: "Keeps everything in Redis instead, so that many nodes serve one world: redis://, redis+sentinel:// or redis+cluster://",
    }
    redis_prefix {
        flag: "redis-prefix", env: "CHAOS_REDIS_PREFIX", value: "NAME", group: STORE,
        default: Value("chaos"), example: "\"chaos-staging\"",
        about: "How keys and channels in Redis begin, so that several deployments share a server: 1 to 32 of A-Z a-z 0-9 . _ -",
    }
    redis_wait {
        flag: "redis-wait", env: "CHAOS_REDIS_WAIT", value: "REPLICAS", group: STORE,
        default: Value("0"), example: "1",
        about: "How many replicas of Redis must have a write before it is acknowledged; what they do not have in time is answered unavailable",
    }
    redis_wait_timeout {
        flag: "redis-wait-timeout", env: "CHAOS_REDIS_WAIT_TIMEOUT", value: "MILLISECONDS", group: STORE,
        default: Value("1000ms"), example: "\"500ms\"",
        about: "How long --redis-wait waits for them, up to 3s; a unit may follow: ms, s",
    }
    #[arg(num_args = 0..=1, default_missing_value = "on")]
    demo {
        flag: "demo", env: "CHAOS_DEMO", value: "auto|on|off", group: STORE,
        default: Value("auto"), example: "\"off\"",
        about: "Makes an organization, an app, users and a channel to try; auto does so in a fresh folder while listening on loopback, on wherever the folder has none yet",
    }
    admin_key_file {
        flag: "admin-key-file", env: "CHAOS_ADMIN_KEY_FILE", value: "FILE", group: KEYS,
        default: Rule("embedded: made at the first start, in the data folder; Redis: one of the two must be given"), example: "\"/run/secrets/chaos-admin-key\"",
        about: "File with the admin key, adm_…",
    }
    admin_key {
        flag: "admin-key", env: "CHAOS_ADMIN_KEY", value: "KEY", group: KEYS,
        default: Rule("see --admin-key-file, which keeps it out of the process list"), example: "\"adm_…\"",
        about: "The admin key itself, adm_…",
    }
    secret_key_file {
        flag: "secret-key-file", env: "CHAOS_SECRET_KEY_FILE", value: "FILE", group: KEYS,
        default: Rule("embedded: made at the first start, in the data folder; Redis: must be given, the same on every node"), example: "\"/run/secrets/chaos-secret-key\"",
        about: "File with 32 bytes in hex, under which shared secrets are encrypted in the store",
    }
    drain_window {
        flag: "drain-window", env: "CHAOS_DRAIN_WINDOW", value: "SECONDS", group: RUNNING,
        default: Value("10s"), example: "\"30s\"",
        about: "How long SIGTERM and SIGINT spread the goodbyes to clients over; a unit may follow: ms, s, m",
    }
    heartbeat {
        flag: "heartbeat", env: "CHAOS_HEARTBEAT", value: "MILLISECONDS", group: RUNNING,
        default: Value("25000ms"), example: "\"15s\"",
        about: "Silence after which a client is pinged; two pings without an answer end the connection; a unit may follow: ms, s, m",
    }
    log {
        flag: "log", env: "CHAOS_LOG", value: "FILTER", group: LOGS,
        default: Value("info"), example: "\"info,gateway::session=debug\"",
        about: "What is logged: a level, or levels by module",
    }
    log_format {
        flag: "log-format", env: "CHAOS_LOG_FORMAT", value: "text|json", group: LOGS,
        default: Value("text"), example: "\"json\"",
        about: "How it is logged, to standard error: lines for people, or one JSON object a line",
    }
}
