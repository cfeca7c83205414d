//! The terminal: lines that are shown, and lines that are typed. What comes in while somebody types
//! is shown above the half-typed line. Where input or output is no terminal, lines are just read
//! and written.

use std::io::{self, IsTerminal, Write};

use crossterm::{
    event::{DisableBracketedPaste, EnableBracketedPaste, Event, EventStream, KeyEventKind},
    terminal::{disable_raw_mode, enable_raw_mode, size},
};
use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};
use unicode_width::UnicodeWidthChar;

use super::line::{Line, Typed};
use crate::{start::StartError, terminal};

/// What stands before the second and every further line of a message.
const CONTINUATION: &str = "  │ ";

/// Columns of a terminal that does not tell them.
const COLUMNS: usize = 80;

/// Where a person chats.
pub(super) struct Screen {
    input: Input,
    is_terminal: bool,
    has_colour: bool,
}

enum Input {
    /// Nothing is read yet.
    Waiting,
    Plain(Lines<BufReader<Stdin>>),
    Editor(Box<Editor>),
}

impl Screen {
    pub(super) fn new() -> Self {
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self {
            input: Input::Waiting,
            is_terminal,
            has_colour,
        }
    }

    /// Begins to read lines. On a terminal they stand behind `name`, like messages.
    pub(super) fn open(&mut self, name: &str) -> Result<(), StartError> {
        self.input = if self.is_terminal {
            Input::Editor(Box::new(
                Editor::open(name, self.has_colour).map_err(StartError::of)?,
            ))
        } else {
            Input::Plain(BufReader::new(tokio::io::stdin()).lines())
        };
        Ok(())
    }

    /// Returns the next line; none at the end of the input. Cancel-safe.
    pub(super) async fn line(&mut self) -> io::Result<Option<String>> {
        match &mut self.input {
            Input::Waiting => std::future::pending().await,
            Input::Plain(lines) => lines.next_line().await,
            Input::Editor(editor) => editor.next_line().await,
        }
    }

    /// Shows a message so that none of its lines passes for one of somebody else.
    pub(super) fn show_message(&mut self, name: &str, text: &str) {
        let columns = self.is_terminal.then(columns);
        self.print(&layout(name, text, columns, self.has_colour));
    }

    /// Shows a message that nobody sent.
    pub(super) fn show_system_message(&mut self, text: &str) {
        let columns = self.is_terminal.then(columns);
        self.print(&rows("* ".to_owned(), 2, text, columns));
    }

    /// Shows what happened.
    pub(super) fn note(&mut self, note: &str) {
        self.print(&[terminal::escape(note).into_owned()]);
    }

    /// Shows what went wrong.
    pub(super) fn warn(&mut self, warning: &str) {
        match self.input {
            Input::Editor(_) => self.note(&format!("! {warning}")),
            _ => terminal::complain!("! {warning}"),
        }
    }

    fn print(&mut self, rows: &[String]) {
        match &mut self.input {
            Input::Editor(editor) => editor.print_above(rows),
            // A reader that is gone is noticed by the end of the input.
            _ => rows
                .iter()
                .for_each(|row| drop(writeln!(io::stdout(), "{row}"))),
        }
    }
}

/// A line editor on a terminal in raw mode, which is left when this is dropped.
struct Editor {
    events: EventStream,
    line: Line,
    prompt: String,
    prompt_width: usize,
    /// The row of the cursor within the line as it was drawn last.
    row: usize,
}

impl Editor {
    fn open(name: &str, has_colour: bool) -> io::Result<Self> {
        enable_raw_mode()?;
        let prompt = format!("{}: ", coloured(name, has_colour));
        let mut editor = Self {
            events: EventStream::new(),
            line: Line::default(),
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

    /// Prints rows in place of the line, and the line below them again.
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

    /// The sequence that moves to the beginning of the line and clears from there on.
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
        // A line that is being typed when the chat ends is given up.
        write(&self.erase());
        // What fails here leaves a terminal that is gone.
        let _ = crossterm::execute!(io::stdout(), DisableBracketedPaste);
        let _ = disable_raw_mode();
    }
}

/// Writes to the terminal in one piece. One that is gone is noticed by the end of the input.
fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn columns() -> usize {
    size()
        .map(|(columns, _)| usize::from(columns))
        .ok()
        .filter(|columns| *columns > 0)
        .unwrap_or(COLUMNS)
}

fn coloured(name: &str, has_colour: bool) -> String {
    if has_colour {
        format!("\x1b[1;36m{name}\x1b[0m")
    } else {
        name.to_owned()
    }
}

/// The rows of a message: the name before the first, a bar before the others, broken where the
/// terminal would break them.
fn layout(name: &str, text: &str, columns: Option<usize>, has_colour: bool) -> Vec<String> {
    rows(
        format!("{}: ", coloured(name, has_colour)),
        width(name) + 2,
        text,
        columns,
    )
}

/// The rows of a text behind `row`, which is so many columns wide.
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
