//! The scripts, and how they are called.

use std::sync::LazyLock;

use bytes::Bytes;
use fanout::redis::{Answer, Commands};
use redis::{Cmd, ServerErrorKind, Value};

use crate::store::StoreError;

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
    NOW = "now.lua";
}

/// A script that servers know by its hash, once they have seen it.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Self {
            code,
            hash: redis::Script::new(code).get_hash().to_owned(),
        }
    }

    /// Runs the script. A server that does not know it (a new one, or after SCRIPT FLUSH) has done nothing, and is sent the
    /// whole text, which it then remembers.
    pub(super) async fn run<K, A>(
        &self,
        commands: &Commands,
        keys: &[K],
        args: &[A],
    ) -> Result<Answer, StoreError>
    where
        K: AsRef<str>,
        A: AsRef<[u8]>,
    {
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
        let mut answer = commands
            .run(&call("EVALSHA", &self.hash))
            .await
            .map_err(unavailable)?;
        if matches!(&answer.value, Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript))
        {
            answer = commands
                .run(&call("EVAL", self.code))
                .await
                .map_err(unavailable)?;
        }
        match answer.value {
            Value::ServerError(error) => Err(refused(&error)),
            value => Ok(Answer { value, ..answer }),
        }
    }
}

/// What the client could not do.
pub(super) fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("Redis does not answer: {error}"))
}

/// What the server refused: nothing was done.
pub(super) fn refused(error: &redis::ServerError) -> StoreError {
    let details = error.details().unwrap_or_default();
    let sentence = format!("Redis answered {} {details}", error.code());
    // What a script says when it stumbles over what it reads. (Before Redis 7 every refusal inside a script is an ERR, too.)
    let stumbles = [
        "WRONGTYPE",
        "attempt to",
        "bad argument",
        "data string too short",
        "Bad data format",
    ];
    if stumbles
        .iter()
        .any(|word| error.code() == *word || details.contains(word))
    {
        return StoreError::Corrupt(sentence);
    }
    StoreError::Unavailable(sentence)
}

/// Reads a script's answer from the front.
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

    /// A string; `None` where there is nil.
    pub(super) fn bytes(&mut self) -> Result<Option<Bytes>, StoreError> {
        match self.0.next() {
            Some(Value::BulkString(bytes)) => Ok(Some(bytes.into())),
            Some(Value::Nil) => Ok(None),
            Some(other) => Err(unreadable(&other)),
            None => Err(unreadable(&Value::Nil)),
        }
    }

    /// A string that is always there.
    pub(super) fn some_bytes(&mut self) -> Result<Bytes, StoreError> {
        self.bytes()?.ok_or_else(|| unreadable(&Value::Nil))
    }

    /// A text that is always there.
    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        String::from_utf8(self.some_bytes()?.into())
            .map_err(|_| StoreError::Corrupt("a name is not UTF-8".into()))
    }

    pub(super) fn texts(&mut self) -> Result<Vec<String>, StoreError> {
        (0..self.0.len()).map(|_| self.text()).collect()
    }

    /// An inner list.
    pub(super) fn items(&mut self) -> Result<Self, StoreError> {
        Self::of(self.0.next().unwrap_or(Value::Nil))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

fn unreadable(value: &Value) -> StoreError {
    StoreError::Corrupt(format!("a script answered {value:?}"))
}
