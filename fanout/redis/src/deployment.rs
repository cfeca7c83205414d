//! Deployments of Redis, as operators write them in URLs.

use std::{fmt, str::FromStr};

/// A deployment of Redis, Valkey or another server with the same protocol, as its URL describes it.
///
/// ```text
/// redis://[user:password@]host[:port][/database]
/// redis+sentinel://[user:password@]host[:port],host[:port]…/service-name[/database]
/// redis+cluster://[user:password@]host[:port],host[:port]…
/// ```
///
/// User and password are those of the data nodes; reserved characters are percent-encoded. The
/// parameter `?sentinel_password=` is the password of the Sentinels. The default port is 6379, that
/// of a Sentinel 26379.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deployment {
    /// One server.
    Single {
        /// Address of the server.
        address: Address,
        /// Credentials.
        credentials: Credentials,
        /// Number of the database.
        database: i64,
    },
    /// A master and replicas, watched by Sentinels.
    Sentinel {
        /// The Sentinels, at least one.
        sentinels: Vec<Address>,
        /// Name of the master at the Sentinels.
        service: String,
        /// Credentials for master and replicas.
        credentials: Credentials,
        /// Credentials for the Sentinels.
        sentinel_credentials: Credentials,
        /// Number of the database.
        database: i64,
    },
    /// A Redis Cluster.
    Cluster {
        /// At least one of the nodes; the others are discovered through them.
        seeds: Vec<Address>,
        /// Credentials for every node.
        credentials: Credentials,
    },
}

/// Address of a server.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Credentials of a connection. `Debug` hides the password.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User; `None` for the server's default user.
    pub user: Option<String>,
    /// Password; `None` for no authentication.
    pub password: Option<String>,
}

/// Why a URL does not describe a deployment, for the operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadUrl(String);

impl Deployment {
    /// Returns the command that publishes to a topic's channel. It depends only on the kind of
    /// deployment, so that all nodes use the same.
    pub fn publish_command(&self) -> &'static str {
        if self.is_cluster() {
            "SPUBLISH"
        } else {
            "PUBLISH"
        }
    }

    /// Returns whether keys are distributed over several servers.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    /// Returns the credentials for data nodes.
    pub fn credentials(&self) -> &Credentials {
        match self {
            Self::Single { credentials, .. }
            | Self::Sentinel { credentials, .. }
            | Self::Cluster { credentials, .. } => credentials,
        }
    }

    /// Returns the number of the database; a Cluster has only 0.
    pub fn database(&self) -> i64 {
        match self {
            Self::Single { database, .. } | Self::Sentinel { database, .. } => *database,
            Self::Cluster { .. } => 0,
        }
    }
}

impl FromStr for Deployment {
    type Err = BadUrl;

    fn from_str(url: &str) -> Result<Self, BadUrl> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| {
            bad("a Redis URL begins with redis://, redis+sentinel:// or redis+cluster://")
        })?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if query.contains('@') || path.contains('@') {
            return Err(bad(
                "an @ follows a / or ? in the Redis URL: in a user name or password write / as %2F, ? as %3F and @ as %40",
            ));
        }
        let (credentials, hosts) = match authority.rsplit_once('@') {
            Some((who, hosts)) => (credentials(who)?, hosts),
            None => (Credentials::default(), authority),
        };
        let mut sentinel_credentials = Credentials::default();
        for (name, value) in query
            .split('&')
            .filter(|p| !p.is_empty())
            .map(|p| p.split_once('=').unwrap_or((p, "")))
        {
            match (scheme, name) {
                ("redis+sentinel", "sentinel_password") => {
                    sentinel_credentials.password = Some(percent_decoded(value)?)
                }
                ("redis+sentinel", "sentinel_user") => {
                    sentinel_credentials.user = Some(percent_decoded(value)?)
                }
                _ => {
                    return Err(bad(
                        "a Redis URL has no parameters, but for sentinel_user and sentinel_password of redis+sentinel://",
                    ));
                }
            }
        }
        match scheme {
            "redis" | "valkey" => match &addresses(hosts, 6379)?[..] {
                [address] => Ok(Self::Single {
                    address: address.clone(),
                    credentials,
                    database: database(path)?,
                }),
                _ => Err(bad(
                    "redis:// names one server; several are redis+sentinel:// or redis+cluster://",
                )),
            },
            "redis+sentinel" => {
                let (service, path) = path.split_once('/').unwrap_or((path, ""));
                if service.is_empty() {
                    return Err(bad(
                        "redis+sentinel:// needs the name of the service after the addresses: redis+sentinel://host:26379/mymaster",
                    ));
                }
                let sentinels = addresses(hosts, 26379)?;
                Ok(Self::Sentinel {
                    sentinels,
                    service: percent_decoded(service)?,
                    credentials,
                    sentinel_credentials,
                    database: database(path)?,
                })
            }
            "redis+cluster" if matches!(path, "" | "0") => Ok(Self::Cluster {
                seeds: addresses(hosts, 6379)?,
                credentials,
            }),
            "redis+cluster" => Err(bad(
                "a Cluster has no databases: leave out what follows the addresses",
            )),
            "rediss" | "valkeys" | "rediss+sentinel" | "rediss+cluster" => Err(bad(format!(
                "this build does not speak TLS to Redis, so {scheme}:// cannot be used: put a tunnel (stunnel, say) beside the node, or use redis:// on a private network"
            ))),
            _ => Err(bad(
                "a Redis URL begins with redis://, redis+sentinel:// or redis+cluster://",
            )),
        }
    }
}

impl fmt::Display for Deployment {
    /// Prints without credentials, for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |addresses: &[Address]| {
            addresses
                .iter()
                .map(Address::to_string)
                .collect::<Vec<_>>()
                .join(",")
        };
        match self {
            Self::Single {
                address, database, ..
            } => write!(f, "redis://{address}/{database}"),
            Self::Sentinel {
                sentinels,
                service,
                database,
                ..
            } => write!(
                f,
                "redis+sentinel://{}/{service}/{database}",
                list(sentinels)
            ),
            Self::Cluster { seeds, .. } => write!(f, "redis+cluster://{}", list(seeds)),
        }
    }
}

impl Address {
    /// Parses `host:port` as servers write it. An IPv6 host is the part before the last colon.
    pub fn from_server(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        // A Cluster may append its bus port: `host:port@busport`.
        let port = port.split('@').next()?.parse().ok()?;
        Some(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("password", &self.password.as_ref().map(|_| "***"))
            .finish()
    }
}

pub(crate) fn bad(sentence: impl Into<String>) -> BadUrl {
    BadUrl(sentence.into())
}

fn addresses(hosts: &str, default_port: u16) -> Result<Vec<Address>, BadUrl> {
    hosts
        .split(',')
        .map(|one| address(one, default_port))
        .collect()
}

fn address(text: &str, default_port: u16) -> Result<Address, BadUrl> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or_else(|| bad("an IPv6 address in the Redis URL lacks its closing bracket"))?;
            (host, rest.strip_prefix(':'))
        }
        None => text
            .split_once(':')
            .map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() {
        return Err(bad("an address in the Redis URL has no host"));
    }
    let port = match port {
        Some(port) => port.parse().map_err(|_| bad("what follows the host in the Redis URL is no port (a password is followed by @ and the host; an IPv6 address stands in brackets)"))?,
        None => default_port,
    };
    Ok(Address {
        host: host.to_owned(),
        port,
    })
}

fn credentials(text: &str) -> Result<Credentials, BadUrl> {
    let (user, password) = text.split_once(':').ok_or_else(|| {
        bad("credentials in a Redis URL are user:password, or :password for the default user")
    })?;
    let some = |text: &str| {
        if text.is_empty() {
            Ok(None)
        } else {
            percent_decoded(text).map(Some)
        }
    };
    Ok(Credentials {
        user: some(user)?,
        password: some(password)?,
    })
}

fn database(path: &str) -> Result<i64, BadUrl> {
    match path.trim_end_matches('/') {
        "" => Ok(0),
        number => number.parse().ok().filter(|n| *n >= 0).ok_or_else(|| {
            bad("what follows the address in the Redis URL is no number of a database")
        }),
    }
}

fn percent_decoded(text: &str) -> Result<String, BadUrl> {
    let wrong = || bad("the Redis URL holds a % that is not followed by two hex digits of UTF-8");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || {
            bytes
                .next()
                .and_then(|b| char::from(b).to_digit(16))
                .ok_or_else(wrong)
        };
        let value = digit()? * 16 + digit()?;
        out.push(u8::try_from(value).map_err(|_| wrong())?);
    }
    String::from_utf8(out).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn at(host: &str, port: u16) -> Address {
        Address {
            host: host.into(),
            port,
        }
    }

    #[test]
    fn a_single_server_has_an_address_and_a_database() {
        let Deployment::Single {
            address,
            credentials,
            database,
        } = "redis://me:p%40ss@db.internal:7000/3".parse().unwrap()
        else {
            panic!()
        };
        assert_eq!((address, database), (at("db.internal", 7000), 3));
        assert_eq!(
            credentials,
            Credentials {
                user: Some("me".into()),
                password: Some("p@ss".into())
            }
        );
        let Deployment::Single { address, .. } = "redis://[::1]".parse().unwrap() else {
            panic!()
        };
        assert_eq!(address, at("::1", 6379));
    }

    #[test]
    fn sentinels_name_a_service() {
        let Deployment::Sentinel {
            sentinels,
            service,
            sentinel_credentials,
            database,
            ..
        } = "redis+sentinel://:data@a,b:5/main/2?sentinel_password=watch"
            .parse()
            .unwrap()
        else {
            panic!()
        };
        assert_eq!(sentinels, [at("a", 26379), at("b", 5)]);
        assert_eq!(
            (
                service.as_str(),
                database,
                sentinel_credentials.password.as_deref()
            ),
            ("main", 2, Some("watch"))
        );
    }

    #[test]
    fn the_kind_decides_how_to_publish() {
        let command = |url: &str| url.parse::<Deployment>().unwrap().publish_command();
        assert_eq!(command("redis://a"), "PUBLISH");
        assert_eq!(command("redis+sentinel://a/m"), "PUBLISH");
        assert_eq!(command("redis+cluster://a:1,b:2"), "SPUBLISH");
    }

    #[test]
    fn unusable_url_is_refused_with_a_sentence() {
        for url in [
            "",
            "localhost",
            "http://a",
            "rediss://a",
            "redis://",
            "redis://a,b",
            "redis://a:x",
            "redis://a/x",
            "redis://a/-1",
            "redis://[::1",
            "redis://me@a",
            "redis://:%zz@a",
            "redis://a?db=3",
            "redis+sentinel://a",
            "redis+cluster://a/1",
            "redis+cluster://a,,b",
            "redis://me:canary",
            "redis://me:hunter2?canary@a",
            "redis://me:1/canary@a",
            "redis://[canary",
            "redis://a/canary",
            "redis://a?canary",
            "canary://a",
            "redis+sentinel://a:1/canary@b",
            "redis+sentinel://a:1/m?sentinel_password=can@ary",
        ] {
            let error = url.parse::<Deployment>().unwrap_err();
            assert!(error.to_string().contains(' '), "{url:?} → {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }

    #[test]
    fn nothing_prints_a_password() {
        let deployment: Deployment = "redis+sentinel://u:canary@a/m?sentinel_password=canary"
            .parse()
            .unwrap();
        assert!(!format!("{deployment:?} {deployment}").contains("canary"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(redis|redis\\+sentinel|redis\\+cluster)?(://)?[ -~é%@:/,\\[\\]]{0,40}") {
            let _ = text.parse::<Deployment>();
        }
    }
}
