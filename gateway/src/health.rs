//! `chaos health`: queries a node's health, for supervisors and container engines.

use std::{
    io::{Read, Write},
    net::{TcpStream, ToSocketAddrs},
    process::ExitCode,
    time::Duration,
};

use crate::{
    log::scrub,
    start::CommandError,
    terminal::{print_error, print_line},
};

/// Timeout of connecting, sending and reading, each.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum number of bytes that are read of an answer. The status is in the first line.
const ANSWER_BYTES: u64 = 1024;

/// The flags of `chaos health`.
#[derive(Debug, Clone, clap::Args)]
pub struct HealthArgs {
    /// The node's HTTP address, or its --ops-listen
    #[arg(long, default_value = "http://127.0.0.1:7400")]
    pub url: String,
    /// Ask whether the node may get clients (/readyz: its store is reachable and it does not
    /// drain), not only whether it is alive
    #[arg(long)]
    pub ready: bool,
}

/// Queries the node. Returns exit code 0 for a status of 200, and 1 for another one or none.
///
/// # Errors
/// Fails if the address is invalid.
pub fn health(HealthArgs { url, ready }: &HealthArgs) -> Result<ExitCode, CommandError> {
    let authority = url
        .strip_prefix("http://")
        .map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    let Some(authority) = authority
        .filter(|authority| !authority.is_empty() && !authority.contains(char::is_whitespace))
    else {
        return Err(CommandError(format!(
            "{url} is not the address of a node: give one such as http://127.0.0.1:7400 with --url"
        )));
    };
    let shown = scrub(url);
    let path = if *ready { "/readyz" } else { "/healthz" };
    match ask(authority, path) {
        Ok(200) => {
            print_line!("{shown}{path}: 200");
            Ok(ExitCode::SUCCESS)
        }
        Ok(status) => {
            print_error!("{shown}{path}: {status}");
            Ok(ExitCode::from(1))
        }
        Err(error) => {
            print_error!("{shown}{path}: {error}");
            Ok(ExitCode::from(1))
        }
    }
}

/// Returns the status of an answer.
fn ask(authority: &str, path: &str) -> std::io::Result<u16> {
    let has_port = authority
        .rsplit_once(':')
        .is_some_and(|(_, port)| port.bytes().all(|digit| digit.is_ascii_digit()));
    let address = if has_port {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let address = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| std::io::Error::other("the host has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    let status = String::from_utf8_lossy(&answer)
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok());
    status.ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}
