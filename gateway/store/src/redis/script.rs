//! The store's Lua scripts, their calls by hash, and their replies.
//!
//! The store is the only part of CHAOS that runs scripts: the bus publishes and subscribes with
//! plain commands. So this mechanism is here, and not in [`chaos_redis`].

use std::sync::LazyLock;

use bytes::Bytes;
use chaos_redis::{CommandReply, Commands};
use redis::{Cmd, ServerErrorKind, Value};

use crate::StoreError;

use super::large::LargeReads;

macro_rules! scripts {
    ($($(#[$doc:meta])* $name:ident = $($file:literal)+;)+) => {
        $($(#[$doc])* pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new(concat!($(include_str!(concat!("scripts/", $file)), "\n"),+)));)+
    };
}

scripts! {
    COMMIT = "head.lua" "documents.lua" "commit.lua";
    READ = "head.lua" "read.lua";
    PAGE_KEYS = "head.lua" "page_keys.lua";
    PAGE_NUMBERS = "head.lua" "page_numbers.lua";
    LOG = "head.lua" "log.lua";
    PURGE_NUMBERS = "head.lua" "documents.lua" "purge.lua" "purge_numbers.lua";
    PURGE_KEYS = "head.lua" "documents.lua" "purge.lua" "purge_keys.lua";
    SCAN = "head.lua" "scan.lua";
    LOAD = "head.lua" "load.lua";
    LEASE = "lease.lua";
    RELEASE = "release.lua";
    MEMBERS = "nodes.lua" "members.lua";
    SWEEP = "nodes.lua" "sweep.lua";
    NOW = "permissions.lua" "now.lua";
}

/// A Lua script, called by its hash. A server caches it when it first runs it.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

/// The connection that a script runs on.
#[derive(Clone, Copy)]
pub(super) enum Runner<'a> {
    /// The main connection, at once.
    Direct(&'a Commands),
    /// The connection for large reads, in turns between tenants.
    LargeReads(&'a LargeReads),
}

impl<'a> From<&'a Commands> for Runner<'a> {
    fn from(commands: &'a Commands) -> Self {
        Self::Direct(commands)
    }
}

impl Runner<'_> {
    async fn run(self, key: &str, cmd: Cmd) -> Result<CommandReply, StoreError> {
        match self {
            Self::Direct(commands) => commands.run(&cmd).await,
            Self::LargeReads(reads) => reads.run(key, cmd).await?,
        }
        .map_err(unavailable)
    }
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self {
            code,
            hash: redis::Script::new(code).get_hash().to_owned(),
        }
    }

    /// Returns the source, for a call with EVAL.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// Runs the script with EVALSHA. If the server does not have it (a new server, or after SCRIPT
    /// FLUSH), runs it with EVAL, which also caches it.
    pub(super) async fn run<'a, K, A>(
        &self,
        runner: impl Into<Runner<'a>>,
        keys: &[K],
        args: &[A],
    ) -> Result<CommandReply, StoreError>
    where
        K: AsRef<str>,
        A: AsRef<[u8]>,
    {
        let (runner, first) = (runner.into(), keys.first().map_or("", AsRef::as_ref));
        let call = |name: &str, script: &str| {
            let mut cmd = Cmd::new();
            cmd.arg(name).arg(script).arg(keys.len());
            for key in keys {
                cmd.arg(key.as_ref());
            }
            for arg in args {
                cmd.arg(arg.as_ref());
            }
            cmd
        };
        let mut answer = runner.run(first, call("EVALSHA", &self.hash)).await?;
        if matches!(&answer.value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
        {
            answer = runner.run(first, call("EVAL", self.code)).await?;
        }
        match answer.value {
            Value::ServerError(error) => Err(refused(&error)),
            value => Ok(CommandReply { value, ..answer }),
        }
    }
}

/// Converts an error of the client.
pub(super) fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("Redis does not answer: {error}"))
}

/// Converts an error reply of the server. Nothing was written.
pub(super) fn refused(error: &redis::ServerError) -> StoreError {
    let details = error.details().unwrap_or_default();
    let sentence = format!("Redis answered {} {details}", error.code());
    // Redis 7 replies the error code of a command inside a script, earlier versions only quote it.
    if error.code() == "OOM" || details.contains("OOM command not allowed") {
        return StoreError::Full(
            "Redis has reached its maxmemory: raise it, or delete something".to_owned(),
        );
    }
    // Errors of a script that reads corrupt data. (Before Redis 7 all errors inside a script have
    // the code ERR.)
    let corruption_signs = [
        "WRONGTYPE",
        "attempt to",
        "bad argument",
        "data string too short",
        "Bad data format",
    ];
    if corruption_signs
        .iter()
        .any(|word| error.code() == *word || details.contains(word))
    {
        return StoreError::Corrupt(sentence);
    }
    StoreError::Unavailable(sentence)
}

/// Reads the array that a script returned, from the front.
pub(super) struct Items(std::vec::IntoIter<Value>);

impl Items {
    pub(super) fn of(value: Value) -> Result<Self, StoreError> {
        match value {
            Value::Array(items) => Ok(Self(items.into_iter())),
            other => Err(unreadable(&other)),
        }
    }

    pub(super) fn int(&mut self) -> Result<u64, StoreError> {
        match self.0.next() {
            Some(Value::Int(n)) if n >= 0 => Ok(n.unsigned_abs()),
            Some(other) => Err(unreadable(&other)),
            None => Err(unreadable(&Value::Nil)),
        }
    }

    pub(super) fn ints(&mut self) -> Result<Vec<u64>, StoreError> {
        (0..self.0.len()).map(|_| self.int()).collect()
    }

    /// Reads a string; `None` for nil.
    pub(super) fn bytes(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes.into())),
            Some(Value::Nil) => Ok(None),
            Some(other) => Err(unreadable(&other)),
            None => Err(unreadable(&Value::Nil)),
        }
    }

    /// Reads a string; nil is an error.
    pub(super) fn some_bytes(&mut self) -> Result<Bytes, StoreError> {
        self.bytes()?.ok_or_else(|| unreadable(&Value::Nil))
    }

    /// Reads a UTF-8 string; nil is an error.
    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.some_bytes()?.into())
            .map_err(|_| StoreError::Corrupt("a name is not UTF-8".into()))
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        (0..self.0.len()).map(|_| self.text()).collect()
    }

    /// Reads a nested array.
    pub(super) fn items(&mut self) -> Result<Self, StoreError> {
        Self::of(self.0.next().unwrap_or(Value::Nil))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Reads a text of any type; empty for other values.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => text.clone(),
        _ => String::new(),
    }
}

fn unreadable(value: &Value) -> StoreError {
    StoreError::Corrupt(format!("unexpected reply of a script: {value:?}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::{collections::BTreeSet, fs, path::Path};

    /// Returns the words between `before` (for example `call('`) and the next quote.
    fn commands<'a>(script: &'a str, before: &str) -> BTreeSet<&'a str> {
        let calls = script.split(before).skip(1);
        calls.map(|call| call.split('\'').next().unwrap()).collect()
    }

    #[test]
    fn every_command_of_the_scripts_is_tried_when_permissions_are_checked() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/redis/scripts");
        let mut used = BTreeSet::new();
        let tried = fs::read_to_string(folder.join("permissions.lua")).unwrap();
        let tried = commands(&tried, "try('");
        for file in fs::read_dir(folder).unwrap() {
            let script = fs::read_to_string(file.unwrap().path()).unwrap();
            used.extend(commands(&script, "call('").into_iter().map(str::to_owned));
        }
        assert!(used.contains("RPUSH") && used.len() > 20, "{used:?}");
        let untried: Vec<_> = used
            .iter()
            .filter(|command| *command != "TIME" && !tried.contains(command.as_str()))
            .collect();
        assert!(untried.is_empty(), "{untried:?}");
    }
}
