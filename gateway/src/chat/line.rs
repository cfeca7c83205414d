//! The line editor of the chat, without I/O: keys in, rows out.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use unicode_width::UnicodeWidthChar;

use crate::terminal::{breaks_line, reorders};

/// Maximum number of lines in the history.
const MAX_HISTORY: usize = 100;

/// A line with a cursor and a history, edited with the keys of common shells.
#[derive(Debug, Default)]
pub(super) struct InputLine {
    text: Vec<char>,
    cursor: usize,
    history: Vec<String>,
    /// The line of the history that is shown, counted from the newest; `None` for a new line.
    recalled: Option<usize>,
}

/// The effect of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// The line or the cursor changed.
    Edit,
    /// The line is complete.
    Submit(String),
    /// The input ended.
    End,
}

impl InputLine {
    pub(super) fn press(&mut self, key: KeyEvent) -> Typed {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Typed::End,
            KeyCode::Char('d') if control && self.text.is_empty() => return Typed::End,
            KeyCode::Enter => return self.submit(),
            KeyCode::Char('d') if control => self.delete(),
            KeyCode::Char('a') if control => self.cursor = 0,
            KeyCode::Char('e') if control => self.cursor = self.text.len(),
            KeyCode::Char('u') if control => {
                drop(self.text.drain(..std::mem::take(&mut self.cursor)))
            }
            KeyCode::Char('k') if control => self.text.truncate(self.cursor),
            KeyCode::Char('w') if control => self.delete_word(),
            KeyCode::Char(_) if control => {}
            KeyCode::Char(c) => self.insert(c),
            KeyCode::Backspace if self.cursor > 0 => {
                self.cursor -= 1;
                self.delete();
            }
            KeyCode::Delete => self.delete(),
            KeyCode::Left => self.cursor = self.cursor.saturating_sub(1),
            KeyCode::Right => self.cursor = (self.cursor + 1).min(self.text.len()),
            KeyCode::Home => self.cursor = 0,
            KeyCode::End => self.cursor = self.text.len(),
            KeyCode::Up => self.recall(self.recalled.map_or(0, |index| index + 1)),
            KeyCode::Down => match self.recalled {
                Some(index) if index > 0 => self.recall(index - 1),
                Some(_) => self.set(None),
                None => {}
            },
            _ => {}
        }
        Typed::Edit
    }

    /// Inserts pasted text, including line breaks.
    pub(super) fn paste(&mut self, text: &str) {
        text.replace("\r\n", "\n")
            .replace('\r', "\n")
            .chars()
            .for_each(|c| self.insert(c));
    }

    fn insert(&mut self, c: char) {
        self.text.insert(self.cursor, c);
        self.cursor += 1;
    }

    fn delete(&mut self) {
        if self.cursor < self.text.len() {
            self.text.remove(self.cursor);
        }
    }

    fn delete_word(&mut self) {
        let before = &self.text[..self.cursor];
        let blanks = before
            .iter()
            .rev()
            .take_while(|c| c.is_whitespace())
            .count();
        let word = before
            .iter()
            .rev()
            .skip(blanks)
            .take_while(|c| !c.is_whitespace())
            .count();
        let from = self.cursor - blanks - word;
        self.text.drain(from..self.cursor);
        self.cursor = from;
    }

    fn submit(&mut self) -> Typed {
        let text: String = std::mem::take(&mut self.text).into_iter().collect();
        (self.cursor, self.recalled) = (0, None);
        if !text.trim().is_empty() && self.history.last() != Some(&text) {
            if self.history.len() == MAX_HISTORY {
                self.history.remove(0);
            }
            self.history.push(text.clone());
        }
        Typed::Submit(text)
    }

    fn recall(&mut self, index: usize) {
        if index < self.history.len() {
            self.set(Some(index));
        }
    }

    fn set(&mut self, recalled: Option<usize>) {
        let text = recalled.and_then(|index| self.history.get(self.history.len() - 1 - index));
        self.text = text.map(|text| text.chars().collect()).unwrap_or_default();
        (self.cursor, self.recalled) = (self.text.len(), recalled);
    }

    /// Breaks the line into rows, after a prompt of `indent` columns. The last column stays free,
    /// so that the terminal does not wrap a row itself.
    pub(super) fn layout(&self, indent: usize, columns: usize) -> Layout {
        let columns = columns.max(indent + 3);
        let mut layout = Layout {
            rows: vec![String::new()],
            row: 0,
            column: indent,
        };
        let mut used = indent;
        for (index, c) in self.text.iter().enumerate() {
            let shown = printable(*c);
            let width = shown.width().unwrap_or(0);
            if used + width >= columns {
                layout.rows.push(String::new());
                used = 0;
            }
            if index == self.cursor {
                (layout.row, layout.column) = (layout.rows.len() - 1, used);
            }
            if let Some(row) = layout.rows.last_mut() {
                row.push(shown);
            }
            used += width;
        }
        if self.cursor == self.text.len() {
            (layout.row, layout.column) = (layout.rows.len() - 1, used);
        }
        layout
    }
}

/// The rows of a line, of which the first follows the prompt, and the position of the cursor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) rows: Vec<String>,
    pub(super) row: usize,
    pub(super) column: usize,
}

/// Returns a character that stays in its row in place of one that does not.
fn printable(c: char) -> char {
    match c {
        '\n' => '⏎',
        '\t' => ' ',
        c if c.is_control() || breaks_line(c) || reorders(c) => '·',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(line: &mut InputLine, code: KeyCode) -> Typed {
        line.press(KeyEvent::new(code, KeyModifiers::NONE))
    }

    fn control(line: &mut InputLine, c: char) -> Typed {
        line.press(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    fn typed(text: &str) -> InputLine {
        let mut line = InputLine::default();
        text.chars()
            .for_each(|c| drop(press(&mut line, KeyCode::Char(c))));
        line
    }

    #[test]
    fn keys_edit_the_line() {
        let mut line = typed("helo wrld");
        for code in [
            KeyCode::Home,
            KeyCode::Right,
            KeyCode::Right,
            KeyCode::Right,
            KeyCode::Char('l'),
            KeyCode::End,
            KeyCode::Left,
        ] {
            press(&mut line, code);
        }
        press(&mut line, KeyCode::Backspace);
        control(&mut line, 'w');
        line.paste("wide\r\nwor");
        press(&mut line, KeyCode::Char('l'));
        assert_eq!(
            press(&mut line, KeyCode::Enter),
            Typed::Submit("hello wide\nworld".into())
        );
        assert_eq!(
            press(&mut line, KeyCode::Enter),
            Typed::Submit(String::new())
        );
        press(&mut line, KeyCode::Up);
        control(&mut line, 'u');
        assert_eq!(control(&mut line, 'd'), Typed::End);
    }

    #[test]
    fn up_and_down_recall_sent_lines() {
        let mut line = typed("one");
        press(&mut line, KeyCode::Enter);
        line.paste("two");
        press(&mut line, KeyCode::Enter);
        for code in [
            KeyCode::Up,
            KeyCode::Up,
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::Down,
            KeyCode::Up,
            KeyCode::Up,
        ] {
            press(&mut line, code);
        }
        assert_eq!(
            press(&mut line, KeyCode::Enter),
            Typed::Submit("one".into())
        );
    }

    #[test]
    fn long_line_is_broken_before_the_last_column() {
        let mut line = typed("abcd\u{1b}日");
        assert_eq!(
            line.layout(2, 6),
            Layout {
                rows: vec!["abc".into(), "d·日".into()],
                row: 1,
                column: 4
            }
        );
        press(&mut line, KeyCode::Home);
        assert_eq!((line.layout(2, 6).row, line.layout(2, 6).column), (0, 2));
        assert_eq!(
            InputLine::default().layout(2, 0),
            Layout {
                rows: vec![String::new()],
                row: 0,
                column: 2
            }
        );
    }
}
