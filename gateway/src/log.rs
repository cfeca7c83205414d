//! The log on standard error, as text or JSON, without credentials.
//!
//! Owns the subscriber, the panic hook and the scrubbing. Every line passes [`scrub()`] and
//! [`escape()`] in the writer, so that a credential in any field or panic message is hidden and an
//! event is always one line.

mod scrub;

use std::{
    io::{self, IsTerminal, Write},
    panic::PanicHookInfo,
};

use tracing::Subscriber;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, util::SubscriberInitExt};

pub use self::scrub::{Redacted, scrub};
use crate::{
    config::LogFormat,
    terminal::{escape, escape_uncoloured},
};

/// Starts logging for the whole process, panics included. `filter` is in the format of `EnvFilter`;
/// invalid directives are ignored.
///
/// # Errors
/// Fails if the process has a global subscriber already.
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

/// Returns a subscriber that logs text to `writer`, scrubbed.
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

/// Returns a subscriber that logs one JSON object per line to `writer`, scrubbed, with the event's
/// fields at the top level.
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

/// Logs the location and message of a panic. The default hook would print them unscrubbed.
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

/// A writer that scrubs and escapes. The subscriber writes each event in one call, so no credential
/// is split between two writes.
#[derive(Debug)]
struct Scrubbed<W> {
    writer: W,
    /// Whether the subscriber colours its lines. If so, it escapes ESC in values itself.
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
        /// Runs `work` once for each format, and returns the text log and the JSON log.
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
    fn credentials_in_spans_fields_and_messages_are_hidden() {
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
    fn event_is_one_line_without_control_characters() {
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
    fn json_is_one_object_per_line_with_fields_at_the_top_level() {
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
