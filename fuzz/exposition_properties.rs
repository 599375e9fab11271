//! What must hold of the exposition parser for any input; shared by the fuzz target and `cargo test`.

use std::hash::{DefaultHasher, Hash, Hasher};

use perfagent::exposition::{Family, Format, Mode, Options, Report, Sample, Sink, parse};

/// A digest of one sample: name, labels, value. Cheap, so that more inputs are tried.
type Seen = u64;

#[derive(Default)]
struct Collect(Vec<Seen>);

impl<'a> Sink<'a> for Collect {
    fn family(&mut self, _: &Family<'a>) {}

    fn sample(&mut self, family: &Family<'a>, sample: &Sample<'_, 'a>) {
        assert!(
            sample.name.get().starts_with(&*family.name.get()) || family.kind.as_str() == "unknown"
        );
        let mut digest = DefaultHasher::new();
        sample.name.get().hash(&mut digest);
        for label in sample.labels {
            label.name.get().hash(&mut digest);
            label.value.get().hash(&mut digest);
        }
        sample.value.to_bits().hash(&mut digest);
        self.0.push(digest.finish());
    }
}

fn read(body: &[u8], mode: Mode) -> (Result<Report, perfagent::exposition::ParseError>, Vec<Seen>) {
    let mut seen = Collect::default();
    let options = Options {
        mode,
        ..Options::default()
    };
    (parse(body, &options, &mut seen), seen.0)
}

/// Panics when a property does not hold.
pub fn check(body: &[u8]) {
    let (strict, strict_seen) = read(body, Mode::Strict);
    let (lenient, lenient_seen) = read(body, Mode::Lenient);
    match (&strict, &lenient) {
        (Ok(strict), Ok(lenient)) => {
            assert_eq!(strict, lenient);
            assert_eq!(strict_seen, lenient_seen);
        }
        (Err(error), Ok(lenient)) => assert_eq!(Some(error), lenient.errors.first()),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) => panic!("lenient refuses what strict takes: {error}"),
    }
    if let Ok(report) = &lenient {
        assert_eq!(report.samples, lenient_seen.len() as u64);
        if body.len() <= 512 {
            no_line_depends_on_its_neighbours(body, report.format, &lenient_seen);
        }
    }
}

/// What is remembered from line to line may make reading faster, never different.
fn no_line_depends_on_its_neighbours(body: &[u8], format: Format, together: &[Seen]) {
    let mut together = together.iter().peekable();
    for line in body.split(|byte| *byte == b'\n') {
        let end: &[u8] = match format {
            Format::OpenMetrics => b"\n# EOF",
            Format::Prometheus => b"",
        };
        if let (_, alone) = read(&[line, end].concat(), Mode::Lenient)
            && let Some(sample) = alone.first()
            && together.peek() == Some(&sample)
        {
            together.next();
        }
    }
    assert_eq!(together.next(), None, "a sample that no line alone gives");
}
