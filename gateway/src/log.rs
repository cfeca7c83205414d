//! The log: to standard error, as text or JSON, and without a credential in it whatever is logged.
//!
//! Owns the subscriber, the hook that logs panics, and the scrubbing. Every line passes [`scrub()`]
//! and [`escape()`] on its way out, so that a credential in a field, a cause or a panic's message
//! is hidden, and one event is one line, in the one place that none of them can go around.

mod rate_limit;
mod scrub;

use std::{
    io::{self, IsTerminal, Write},
    panic::PanicHookInfo,
};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt};

pub use self::{
    rate_limit::LogRateLimit,
    scrub::{Redacted, scrub},
};
use crate::{
    config::LogFormat,
    terminal::{escape, escape_uncoloured},
};

/// Starts logging for the whole process, panics included. `filter` is as `EnvFilter` reads it;
/// `Config::log_filter` was checked.
///
/// # Errors
/// Something logs for this process already.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that sets the hook"
)]
pub fn init(format: LogFormat, filter: &str) -> Result<(), tracing_subscriber::util::TryInitError> {
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match format {
        LogFormat::Text => text(filter, colour, io::stderr).try_init()?,
        LogFormat::Json => json(filter, io::stderr).try_init()?,
    }
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Logs to `writer` as text, scrubbed.
fn text<W>(filter: &str, colour: bool, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse_lossy(filter);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colour)
        .with_writer(Scrubbed { writer, colour })
        .finish()
}

/// Logs to `writer` as one JSON object a line, scrubbed; the event's fields stand beside its
/// message.
fn json<W>(filter: &str, writer: W) -> impl Subscriber + Send + Sync + use<W>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::builder().parse_lossy(filter);
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(Scrubbed {
            writer,
            colour: false,
        })
        .finish()
}

/// Logs where a thread panicked and with what message. The default hook would print it past the
/// scrubbing.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let message = panic
        .payload_as_str()
        .unwrap_or("a payload that is no text");
    let location = panic
        .location()
        .map(ToString::to_string)
        .unwrap_or_default();
    let thread = std::thread::current();
    tracing::error!(%location, thread = thread.name().unwrap_or("unnamed"), "panicked: {message}");
}

/// Scrubs and escapes what is written. The subscriber writes each event whole, in one call, so a
/// credential cannot be cut in two.
#[derive(Debug)]
struct Scrubbed<W> {
    writer: W,
    /// Whether the subscriber colours its lines. It escapes ESC in values itself.
    colour: bool,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Scrubbed<W> {
    type Writer = Scrubbed<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Scrubbed {
            writer: self.writer.make_writer(),
            colour: self.colour,
        }
    }
}

impl<W: Write> Write for Scrubbed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let clean = scrub(&text);
        let line = clean.strip_suffix('\n').unwrap_or(&clean);
        let shown = if self.colour {
            escape_uncoloured(line)
        } else {
            escape(line)
        };
        self.writer.write_all(format!("{shown}\n").as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where the tests' lines go.
    #[derive(Debug, Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        /// What is logged by both formats while `work` runs.
        fn of(work: impl Fn()) -> [String; 2] {
            let take = |lines: &Self| {
                String::from_utf8(std::mem::take(&mut *lines.0.lock().unwrap())).unwrap()
            };
            let lines = Self::default();
            let writer = lines.clone();
            tracing::subscriber::with_default(text("info", false, move || writer.clone()), &work);
            let as_text = take(&lines);
            let writer = lines.clone();
            tracing::subscriber::with_default(json("info", move || writer.clone()), &work);
            [as_text, take(&lines)]
        }
    }

    #[test]
    fn no_credential_reaches_the_log_by_any_way() {
        let canary = "sk_live_CanaryCanaryCanary";
        let logged = Lines::of(|| {
            let span = tracing::info_span!("request", key = canary);
            let _entered = span.enter();
            tracing::info!(token = "eyJhbGciOiJIUzI1NiJ9.Canary.Canary", cause = ?format!("line\n{canary}"), "with adm_Canary and ork_Canary");
            tracing::debug!("filtered out");
        });
        for line in logged {
            assert!(
                !line.contains("Canary")
                    && line.contains("sk_live_***")
                    && line.contains("adm_***"),
                "{line}"
            );
            assert!(!line.contains("filtered out"));
        }
    }

    #[test]
    fn an_event_is_one_line_that_a_terminal_does_not_obey() {
        let value = "alice\n2026-01-01 INFO forged\r\u{1b}[2J\u{9b}2J\u{202e}";
        let [text, json] = Lines::of(|| tracing::info!(name = %value, quoted = value, "{value}"));
        assert_eq!(
            (text.lines().count(), json.lines().count()),
            (1, 1),
            "{text}{json}"
        );
        for c in ['\r', '\u{1b}', '\u{9b}', '\u{202e}'] {
            assert!(!text.contains(c) && !json.contains(c), "{text}{json}");
        }
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap()["message"],
            value
        );
    }

    #[test]
    fn json_is_one_object_a_line_with_the_fields_at_its_top() {
        let [_, json] = Lines::of(|| {
            tracing::info!(status = 200, key = "ak_test_\"quoted", "first\nline");
            tracing::warn!("second");
        });
        let objects: Vec<serde_json::Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(objects.len(), 2);
        assert_eq!(
            (
                &objects[0]["status"],
                &objects[0]["message"],
                &objects[1]["level"]
            ),
            (&200.into(), &"first\nline".into(), &"WARN".into())
        );
    }
}
