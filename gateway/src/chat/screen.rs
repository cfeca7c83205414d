//! The terminal of the chat. Messages that arrive while the user types are shown above the line
//! that is being edited. If input or output is not a terminal, lines are read and written without
//! editing.

use std::io::{self, IsTerminal, Write};

use crossterm::{
    event::{DisableBracketedPaste, EnableBracketedPaste, Event, EventStream, KeyEventKind},
    terminal::{disable_raw_mode, enable_raw_mode, size},
};
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use unicode_width::UnicodeWidthChar;

use super::line::{InputLine, Typed};
use crate::{start::CommandError, terminal};

/// Prefix of all rows of a message but the first.
const CONTINUATION: &str = "  │ ";

/// Assumed width of a terminal that does not report one.
const DEFAULT_COLUMNS: usize = 80;

pub(super) struct Screen {
    input: Input,
    is_terminal: bool,
    has_colour: bool,
}

enum Input {
    NotOpen,
    Plain(Lines<BufReader<Stdin>>),
    Editor(Box<Editor>),
}

impl Screen {
    pub(super) fn new() -> Self {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self {
            input: Input::NotOpen,
            is_terminal,
            has_colour,
        }
    }

    /// Begins to read lines. On a terminal, the prompt is `name`.
    pub(super) fn open(&mut self, name: &str) -> Result<(), CommandError> {
        self.input = if self.is_terminal {
            Input::Editor(Box::new(
                Editor::open(name, self.has_colour).map_err(CommandError::of)?,
            ))
        } else {
            Input::Plain(BufReader::new(tokio::io::stdin()).lines())
        };
        Ok(())
    }

    /// Returns the next line, or `None` at the end of the input. Cancel-safe.
    pub(super) async fn line(&mut self) -> io::Result<Option<String>> {
        match &mut self.input {
            Input::NotOpen => std::future::pending().await,
            Input::Plain(lines) => lines.next_line().await,
            Input::Editor(editor) => editor.next_line().await,
        }
    }

    /// Shows a message. All rows but the first are marked, so that none can be mistaken for another
    /// user's message.
    pub(super) fn show_message(&mut self, name: &str, text: &str) {
        let columns = self.is_terminal.then(columns);
        self.print(&layout(name, text, columns, self.has_colour));
    }

    pub(super) fn show_system_message(&mut self, text: &str) {
        let columns = self.is_terminal.then(columns);
        self.print(&rows("* ".to_owned(), 2, text, columns));
    }

    /// Shows a notice.
    pub(super) fn note(&mut self, note: &str) {
        self.print(&[terminal::escape(note).into_owned()]);
    }

    pub(super) fn warn(&mut self, warning: &str) {
        match self.input {
            Input::Editor(_) => self.note(&format!("! {warning}")),
            _ => terminal::print_error!("! {warning}"),
        }
    }

    fn print(&mut self, rows: &[String]) {
        match &mut self.input {
            Input::Editor(editor) => editor.print_above(rows),
            // Errors are ignored: the end of the input ends the chat.
            _ => rows
                .iter()
                .for_each(|row| drop(writeln!(io::stdout(), "{row}"))),
        }
    }
}

/// A line editor on a terminal in raw mode. Drop restores the mode.
struct Editor {
    events: EventStream,
    line: InputLine,
    prompt: String,
    prompt_width: usize,
    /// The row of the cursor within the line when it was last drawn.
    row: usize,
}

impl Editor {
    fn open(name: &str, has_colour: bool) -> io::Result<Self> {
        enable_raw_mode()?;
        let prompt = format!("{}: ", coloured(name, has_colour));
        let mut editor = Self {
            events: EventStream::new(),
            line: InputLine::default(),
            prompt,
            prompt_width: width(name) + 2,
            row: 0,
        };
        crossterm::execute!(io::stdout(), EnableBracketedPaste)?;
        editor.print_above(&[]);
        Ok(editor)
    }

    async fn next_line(&mut self) -> io::Result<Option<String>> {
        loop {
            let typed = match self.events.next().await {
                None => return Ok(None),
                Some(event) => match event? {
                    Event::Key(key) if key.kind != KeyEventKind::Release => self.line.press(key),
                    Event::Paste(text) => {
                        self.line.paste(&text);
                        Typed::Edit
                    }
                    Event::Resize(..) => Typed::Edit,
                    _ => continue,
                },
            };
            self.print_above(&[]);
            match typed {
                Typed::Edit => {}
                Typed::Submit(text) => return Ok(Some(text)),
                Typed::End => return Ok(None),
            }
        }
    }

    /// Prints rows in place of the line, and redraws the line below them.
    fn print_above(&mut self, rows: &[String]) {
        let mut out = self.erase();
        for row in rows {
            out.push_str(row);
            out.push_str("\r\n");
        }
        let layout = self.line.layout(self.prompt_width, columns());
        out.push_str(&self.prompt);
        out.push_str(&layout.rows.join("\r\n"));
        let below = layout.rows.len() - 1 - layout.row;
        if below > 0 {
            out.push_str(&format!("\x1b[{below}A"));
        }
        out.push_str(&format!("\r\x1b[{}C", layout.column));
        self.row = layout.row;
        write(&out);
    }

    /// Returns the escape sequence that clears the screen from the beginning of the line.
    fn erase(&self) -> String {
        let up = if self.row > 0 {
            format!("\x1b[{}A", self.row)
        } else {
            String::new()
        };
        format!("\r{up}\x1b[J")
    }
}

impl Drop for Editor {
    fn drop(&mut self) {
        write(&self.erase());
        // Fails only if the terminal was closed.
        let _ = crossterm::execute!(io::stdout(), DisableBracketedPaste);
        let _ = disable_raw_mode();
    }
}

/// Writes to the terminal at once. Errors are ignored: the end of the input ends the chat.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn columns() -> usize {
    size()
        .map(|(columns, _)| usize::from(columns))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(DEFAULT_COLUMNS)
}

fn coloured(name: &str, has_colour: bool) -> String {
    if has_colour {
        format!("\x1b[1;36m{name}\x1b[0m")
    } else {
        name.to_owned()
    }
}

/// Breaks a message into rows: the name before the first, a bar before the others.
fn layout(name: &str, text: &str, columns: Option<usize>, has_colour: bool) -> Vec<String> {
    rows(
        format!("{}: ", coloured(name, has_colour)),
        width(name) + 2,
        text,
        columns,
    )
}

/// Breaks a text into rows of at most `columns`, after the beginning `row`, which is `used` columns
/// wide.
fn rows(mut row: String, mut used: usize, text: &str, columns: Option<usize>) -> Vec<String> {
    let mut rows = Vec::new();
    for (index, line) in terminal::lines(text).enumerate() {
        if index > 0 {
            rows.push(std::mem::replace(&mut row, CONTINUATION.to_owned()));
            used = width(CONTINUATION);
        }
        for c in line.chars() {
            let wide = c.width().unwrap_or(0);
            if columns
                .is_some_and(|columns| used + wide > columns && columns > 2 * width(CONTINUATION))
            {
                rows.push(std::mem::replace(&mut row, CONTINUATION.to_owned()));
                used = width(CONTINUATION);
            }
            row.push(c);
            used += wide;
        }
    }
    rows.push(row);
    rows
}

fn width(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_but_the_first_begins_with_a_bar() {
        assert_eq!(
            layout("Ada", "hi\nBob: hi\r\n\u{1b}[2J", None, false),
            ["Ada: hi", "  │ Bob: hi", "  │ \\u001b[2J"]
        );
        assert_eq!(
            layout("Ada", "a padded    Bob: hi", Some(17), false),
            ["Ada: a padded    ", "  │ Bob: hi"]
        );
        assert_eq!(
            layout("Ada", "日本語日本語", Some(11), false),
            ["Ada: 日本語", "  │ 日本語"]
        );
        assert_eq!(rows("* ".to_owned(), 2, "a\nb", None), ["* a", "  │ b"]);
        assert_eq!(
            layout("Ada", "", Some(80), true),
            ["\u{1b}[1;36mAda\u{1b}[0m: "]
        );
    }
}
