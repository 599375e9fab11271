//! From a body to its lines, in either mode.

use memchr::memchr_iter;

use super::line::LineReader;
use super::{Format, Mode, Options, ParseError, Reason, Report, Sink};

/// Reads a whole body and hands its samples to `sink`.
///
/// # Errors
/// The first bad line ([`Mode::Strict`]), or a bound on the whole body (either mode). The sink may have received
/// samples by then; a caller that gets an error drops what it collected.
pub fn parse<'a, S: Sink<'a>>(
    body: &'a [u8],
    options: &Options,
    sink: &mut S,
) -> Result<Report, ParseError> {
    let limit = options.limits.body_bytes;
    if body.len() > limit {
        let reason = Reason::BodyTooLong {
            bytes: body.len(),
            limit,
        };
        return Err(ParseError { line: 0, reason });
    }
    let format = format_of(body);
    let mut run = Run {
        reader: LineReader::new(format, options.limits),
        options,
        ended: false,
        report: Report {
            format,
            ..Report::default()
        },
    };
    match std::str::from_utf8(body) {
        Ok(text) => {
            let mut start = 0;
            for end in memchr_iter(b'\n', body) {
                run.line(text.get(start..end).ok_or(Reason::NotUtf8), sink)?;
                start = end + 1;
            }
            if start < text.len() {
                run.line(text.get(start..).ok_or(Reason::NotUtf8), sink)?;
            }
        }
        // so that one bad line costs only itself
        Err(_) => {
            for line in body.split(|byte| *byte == b'\n') {
                run.line(std::str::from_utf8(line).map_err(|_| Reason::NotUtf8), sink)?;
            }
        }
    }
    Ok(run.report)
}

/// OpenMetrics is what ends with a line `# EOF`; one in mid-body is an error either way.
fn format_of(body: &[u8]) -> Format {
    match body.trim_ascii_end().strip_suffix(b"# EOF") {
        Some(before) if before.is_empty() || before.ends_with(b"\n") => Format::OpenMetrics,
        _ => Format::Prometheus,
    }
}

struct Run<'a, 'o> {
    reader: LineReader<'a>,
    options: &'o Options,
    ended: bool,
    report: Report,
}

impl<'a> Run<'a, '_> {
    fn line<S: Sink<'a>>(
        &mut self,
        line: Result<&'a str, Reason>,
        sink: &mut S,
    ) -> Result<(), ParseError> {
        self.report.lines += 1;
        match line.and_then(|line| self.read(line, sink)) {
            Ok(sample) => {
                self.report.samples += u64::from(sample);
                Ok(())
            }
            Err(reason) => self.bad_line(reason),
        }
    }

    /// Whether the line was a sample.
    fn read<S: Sink<'a>>(&mut self, line: &'a str, sink: &mut S) -> Result<bool, Reason> {
        let limits = &self.options.limits;
        if self.report.lines > limits.lines {
            return Err(Reason::TooManyLines {
                limit: limits.lines,
            });
        }
        if line.len() > limits.line_bytes {
            return Err(Reason::LineTooLong {
                bytes: line.len(),
                limit: limits.line_bytes,
            });
        }
        let line = line.strip_suffix('\r').unwrap_or(line);
        if self.ended {
            let blank = line.bytes().all(|byte| matches!(byte, b' ' | b'\t'));
            return if blank {
                Ok(false)
            } else {
                Err(Reason::TextAfterEof)
            };
        }
        if line == "# EOF" {
            self.ended = true;
            return Ok(false);
        }
        self.reader.read(line, sink)
    }

    fn bad_line(&mut self, reason: Reason) -> Result<(), ParseError> {
        let error = ParseError {
            line: self.report.lines,
            reason,
        };
        if self.options.mode == Mode::Strict || reason.is_fatal() {
            return Err(error);
        }
        self.report.bad_lines += 1;
        if self.report.errors.len() < Report::ERRORS_KEPT {
            self.report.errors.push(error);
        }
        Ok(())
    }
}
