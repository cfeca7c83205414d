//! Routing of commands on a Cluster.

use redis::{Arg, Cmd};

use crate::slot;

/// The servers of a Cluster that a command is sent to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Destination {
    Slot(u16),
    Any,
    All,
}

impl Destination {
    pub(super) fn of(cmd: &Cmd) -> Self {
        let argument = |index: usize| match cmd.args_iter().nth(index) {
            Some(Arg::Simple(bytes)) => std::str::from_utf8(bytes).ok(),
            _ => None,
        };
        let name = argument(0).unwrap_or_default().to_ascii_uppercase();
        let key = match name.as_str() {
            "SCRIPT" | "FUNCTION" | "CONFIG" | "FLUSHALL" | "FLUSHDB" => return Self::All,
            "PING" | "ECHO" | "TIME" | "INFO" | "COMMAND" | "CLUSTER" | "CLIENT" | "WAIT"
            | "WAITAOF" => return Self::Any,
            "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" | "FCALL" | "FCALL_RO"
                if argument(2) == Some("0") =>
            {
                return Self::Any;
            }
            "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" => argument(3),
            _ => argument(1),
        };
        key.map_or(Self::Any, |key| Self::Slot(slot(key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_is_routed_by_its_key() {
        let of = |words: &[&str]| {
            let mut cmd = Cmd::new();
            cmd.arg(words);
            Destination::of(&cmd)
        };
        assert_eq!(of(&["GET", "chaos:{t}:a"]), Destination::Slot(slot("t")));
        assert_eq!(
            of(&["SPUBLISH", "chaos:{t}", "bytes"]),
            Destination::Slot(slot("t"))
        );
        assert_eq!(
            of(&["evalsha", "abc", "2", "chaos:{t}:a", "chaos:{t}:b"]),
            Destination::Slot(slot("t"))
        );
        assert_eq!(of(&["EVAL", "return 1", "0"]), Destination::Any);
        assert_eq!(of(&["PING"]), Destination::Any);
        assert_eq!(of(&["SCRIPT", "LOAD", "return 1"]), Destination::All);
    }
}
