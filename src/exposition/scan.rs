//! Byte classes and the cursor over one line.

use super::{Reason, Text};

const NAME: u8 = 1;
const LABEL: u8 = 2;

/// Which bytes a metric name and a label name may have outside quotes.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        if letter.is_ascii_alphanumeric() || letter == b'_' {
            #[allow(clippy::indexing_slicing)] // evaluated at compile time
            {
                table[byte] = NAME | LABEL;
            }
        } else if letter == b':' {
            #[allow(clippy::indexing_slicing)]
            {
                table[byte] = NAME;
            }
        }
        byte += 1;
    }
    table
}

fn has_class(byte: u8, class: u8) -> bool {
    CLASS
        .get(usize::from(byte))
        .is_some_and(|bits| bits & class != 0)
}

/// A position in one line.
#[derive(Clone, Copy)]
pub(super) struct Cursor<'a> {
    pub(super) line: &'a str,
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(line: &'a str, at: usize) -> Self {
        Self { line, at }
    }

    #[inline]
    pub(super) fn peek(&self) -> Option<u8> {
        self.line.as_bytes().get(self.at).copied()
    }

    #[inline]
    pub(super) fn rest(&self) -> &'a str {
        self.line.get(self.at..).unwrap_or("")
    }

    /// Steps over the byte if it is the next one.
    #[inline]
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    pub(super) fn skip_spaces(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    /// A metric name outside quotes; empty where none stands.
    #[inline]
    pub(super) fn metric_name(&mut self) -> &'a str {
        self.name(NAME)
    }

    /// A label name outside quotes; empty where none stands.
    #[inline]
    pub(super) fn label_name(&mut self) -> &'a str {
        self.name(LABEL)
    }

    #[inline]
    fn name(&mut self, class: u8) -> &'a str {
        let start = self.at;
        if self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return "";
        }
        self.skip_class(class);
        self.line.get(start..self.at).unwrap_or("")
    }

    /// Steps over the bytes that a metric name may have.
    #[inline]
    pub(super) fn skip_name_bytes(&mut self) {
        self.skip_class(NAME);
    }

    #[inline]
    fn skip_class(&mut self, class: u8) {
        while self.peek().is_some_and(|byte| has_class(byte, class)) {
            self.at += 1;
        }
    }

    /// Everything up to the next space or the end.
    #[inline]
    pub(super) fn token(&mut self) -> &'a str {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|byte| byte != b' ' && byte != b'\t')
        {
            self.at += 1;
        }
        self.line.get(start..self.at).unwrap_or("")
    }

    /// The content of a quoted string whose opening quote was eaten.
    #[inline]
    pub(super) fn quoted(&mut self) -> Result<Text<'a>, Reason> {
        let start = self.at;
        let mut escaped = false;
        loop {
            match self.peek() {
                Some(b'"') => {
                    let raw = self.line.get(start..self.at).unwrap_or("");
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    match self.line.as_bytes().get(self.at + 1) {
                        Some(b'\\' | b'"' | b'n') => self.at += 2,
                        Some(_) => return Err(Reason::InvalidEscape),
                        None => return Err(Reason::UnterminatedString),
                    }
                }
                Some(_) => self.at += 1,
                None => return Err(Reason::UnterminatedString),
            }
        }
    }
}
