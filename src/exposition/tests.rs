//! The grammar, form by form.

use super::*;

/// One sample with everything owned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) family: String,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) labels: Vec<(String, String)>,
    pub(super) value: f64,
    pub(super) timestamp_seconds: Option<f64>,
    pub(super) exemplar: Option<SeenExemplar>,
}

type SeenExemplar = (Vec<(String, String)>, f64, Option<f64>);

#[derive(Default)]
pub(super) struct Collect {
    pub(super) samples: Vec<Seen>,
    pub(super) descriptions: Vec<(String, String)>,
}

fn owned(labels: &[Label<'_>]) -> Vec<(String, String)> {
    labels
        .iter()
        .map(|label| {
            (
                label.name.get().into_owned(),
                label.value.get().into_owned(),
            )
        })
        .collect()
}

impl<'a> Sink<'a> for Collect {
    fn family(&mut self, _: &Family<'a>) {}

    fn sample(&mut self, family: &Family<'a>, sample: &Sample<'_, 'a>) {
        self.samples.push(Seen {
            family: family.name.get().into_owned(),
            kind: family.kind,
            name: sample.name.get().into_owned(),
            role: sample.role,
            labels: owned(sample.labels),
            value: sample.value,
            timestamp_seconds: sample.timestamp_seconds,
            exemplar: sample.exemplar.map(|exemplar| {
                (
                    owned(exemplar.labels),
                    exemplar.value,
                    exemplar.timestamp_seconds,
                )
            }),
        });
    }

    fn describe(&mut self, name: Text<'a>, description: Description<'a>) {
        let text = match description {
            Description::Help(text) => text.get().into_owned(),
            Description::Unit(unit) => unit.to_owned(),
        };
        self.descriptions.push((name.get().into_owned(), text));
    }
}

pub(super) fn read_with(body: &str, options: Options) -> Result<(Collect, Report), ParseError> {
    let mut collect = Collect::default();
    let report = parse(body.as_bytes(), &options, &mut collect)?;
    Ok((collect, report))
}

pub(super) fn read(body: &str) -> Vec<Seen> {
    match read_with(body, Options::default()) {
        Ok((collect, _)) => collect.samples,
        Err(error) => panic!("{error} in {body:?}"),
    }
}

fn refused(body: &str) -> Reason {
    match read_with(body, Options::default()) {
        Ok((collect, _)) => panic!("{body:?} was taken: {:?}", collect.samples),
        Err(error) => error.reason,
    }
}

#[test]
fn type_decides_and_not_the_suffix() {
    let samples = read(
        "# TYPE vllm:iteration_tokens_total histogram\n\
         vllm:iteration_tokens_total_bucket{le=\"1.0\"} 1\n\
         vllm:iteration_tokens_total_sum 9\n\
         vllm:iteration_tokens_total_count 2\n\
         # TYPE sglang:routing_key_running_req_count gauge\n\
         sglang:routing_key_running_req_count{gt=\"0\",le=\"1\"} 0\n\
         # TYPE tgi_request_success counter\n\
         tgi_request_success 71\n\
         # TYPE vllm:generation_tokens_created gauge\n\
         vllm:generation_tokens_created 1.7955004869505973e+09\n",
    );
    let roles: Vec<_> = samples.iter().map(|seen| (seen.kind, seen.role)).collect();
    assert_eq!(
        roles,
        [
            (Kind::Histogram, Role::Bucket { le: 1.0 }),
            (Kind::Histogram, Role::Sum),
            (Kind::Histogram, Role::Count),
            (Kind::Gauge, Role::Value),
            (Kind::Counter, Role::Value),
            (Kind::Gauge, Role::Value),
        ]
    );
}

#[test]
fn open_metrics_is_known_by_its_end() {
    let body = "# TYPE a:b counter\n# UNIT a:b tokens\n\
                a:b_total{m=\"x\"} 3 1.5 # {trace_id=\"t\"} 0.5 2.5\n\
                a:b_created{m=\"x\"} 7\n\
                # TYPE i info\ni_info{version=\"1\"} 1\n\
                # TYPE s stateset\ns{s=\"on\"} 1\n\
                # TYPE g gaugehistogram\ng_bucket{le=\"+Inf\"} 2\ng_gsum 3\ng_gcount 2\n# EOF\n";
    let (collect, report) = read_with(body, Options::default()).expect("valid");
    assert_eq!(report.format, Format::OpenMetrics);
    assert_eq!(collect.descriptions, [("a:b".into(), "tokens".into())]);
    let first = &collect.samples[0];
    assert_eq!(first.family, "a:b");
    assert_eq!(first.timestamp_seconds, Some(1.5));
    let exemplar = (vec![("trace_id".into(), "t".into())], 0.5, Some(2.5));
    assert_eq!(first.exemplar, Some(exemplar));
    let roles: Vec<_> = collect.samples.iter().map(|seen| seen.role).collect();
    assert_eq!(
        roles,
        [
            Role::Value,
            Role::Created,
            Role::Value,
            Role::Value,
            Role::Bucket { le: f64::INFINITY },
            Role::Sum,
            Role::Count
        ]
    );
    // the same line without the end is Prometheus text, where timestamps are milliseconds
    assert_eq!(
        read("# TYPE a gauge\na 3 1500\n")[0].timestamp_seconds,
        Some(1.5)
    );
}

#[test]
fn counters_agree_by_base_name_in_both_formats() {
    let family = |name, kind| Family {
        name: Text::plain(name),
        kind,
    };
    assert_eq!(family("x_total", Kind::Counter).base_name(), "x");
    assert_eq!(family("x", Kind::Counter).base_name(), "x");
    assert_eq!(family("x_total", Kind::Histogram).base_name(), "x_total");
}

#[test]
fn quoted_names_and_escapes() {
    let samples = read(
        "# TYPE \"my.metric\" counter\n\
         {\"my.metric\",\"label.with.dot\"=\"a\\\\b\\nc\\\"d\"} 1\n\
         # TYPE plain gauge\n\
         plain{path=\"C:\\\\\"} 2\n",
    );
    assert_eq!(samples[0].name, "my.metric");
    assert_eq!(samples[0].kind, Kind::Counter);
    assert_eq!(
        samples[0].labels,
        [("label.with.dot".into(), "a\\b\nc\"d".into())]
    );
    assert_eq!(samples[1].labels, [("path".into(), "C:\\".into())]);
}

#[test]
fn numbers_of_every_kind() {
    let values: Vec<f64> = read("a NaN\na +Inf\na -Inf\na 1e3\na 1.5E-3\na -0\na .5\na 5.\n")
        .into_iter()
        .map(|seen| seen.value)
        .collect();
    assert!(values[0].is_nan());
    assert_eq!(
        values[1..],
        [
            f64::INFINITY,
            f64::NEG_INFINITY,
            1e3,
            1.5e-3,
            -0.0,
            0.5,
            5.0
        ]
    );
}

#[test]
fn summaries_untyped_lines_blank_lines_and_line_ends() {
    let samples = read(
        "\r\n# a comment\r\n#\r\n#TYPE is a comment too\r\n\
         # TYPE s summary\r\ns{quantile=\"0.5\"} 0\r\ns_sum 0\r\ns_count 5200\r\n\
         loose{a=\"1\", b=\"2\" , } 4 \r\n  indented\t7\r\nlast 9",
    );
    assert_eq!(samples[0].role, Role::Quantile { q: 0.5 });
    assert_eq!(samples[1].role, Role::Sum);
    assert_eq!(samples[3].kind, Kind::Unknown);
    assert_eq!(samples[3].labels.len(), 2);
    assert_eq!(samples[4].value, 7.0);
    assert_eq!(samples[5].value, 9.0);
}

#[test]
fn a_body_may_return_to_an_earlier_family() {
    let samples = read(
        "# TYPE a counter\n# TYPE b histogram\na 1\nb_bucket{le=\"1\"} 2\na 3\nb_count 4\nc 5\n",
    );
    let seen: Vec<_> = samples
        .iter()
        .map(|seen| (seen.family.as_str(), seen.kind, seen.role))
        .collect();
    assert_eq!(
        seen,
        [
            ("a", Kind::Counter, Role::Value),
            ("b", Kind::Histogram, Role::Bucket { le: 1.0 }),
            ("a", Kind::Counter, Role::Value),
            ("b", Kind::Histogram, Role::Count),
            ("c", Kind::Unknown, Role::Value),
        ]
    );
}

#[test]
fn repeated_label_blocks_are_read_right() {
    let samples = read(
        "# TYPE h histogram\n\
         h_bucket{e=\"0\",le=\"1\",m=\"x\"} 1\n\
         h_bucket{e=\"0\",le=\"+Inf\",m=\"x\"} 2\n\
         h_bucket{e=\"1\",le=\"1\",m=\"x\"} 3\n\
         h_sum{e=\"1\",m=\"x\"} 4\n\
         h_count{e=\"1\",m=\"x\"} 5\n\
         h_count{e=\"1\",m=\"xy\"} 6\n",
    );
    let blocks: Vec<String> = samples
        .iter()
        .map(|seen| {
            let values: Vec<_> = seen
                .labels
                .iter()
                .map(|(_, value)| value.as_str())
                .collect();
            values.join(" ")
        })
        .collect();
    assert_eq!(blocks, ["0 1 x", "0 +Inf x", "1 1 x", "1 x", "1 x", "1 xy"]);
}

#[test]
fn malformed_lines_say_where_and_why() {
    for (body, reason) in [
        ("{} 1", Reason::ExpectedMetricName),
        ("{\"\"} 1", Reason::ExpectedMetricName),
        ("1a 1", Reason::ExpectedMetricName),
        ("a-b 1", Reason::ExpectedMetricName),
        ("a", Reason::ExpectedValue),
        ("a ", Reason::ExpectedValue),
        ("a{x=\"1\"}", Reason::ExpectedValue),
        ("a one", Reason::InvalidValue),
        ("a{x=\"1\"} 1 now", Reason::InvalidTimestamp),
        ("a 1 1.5", Reason::InvalidTimestamp),
        ("a 1 2 3", Reason::TrailingText),
        ("a{1x=\"1\"} 1", Reason::ExpectedLabelName),
        ("a{x} 1", Reason::ExpectedEquals),
        ("a{x=1} 1", Reason::ExpectedQuote),
        ("a{x=\"1} 1", Reason::UnterminatedString),
        ("a{x=\"\\t\"} 1", Reason::InvalidEscape),
        ("a{x=\"1\" y=\"2\"} 1", Reason::ExpectedCommaOrBrace),
        ("a{x=\"1\",x=\"2\"} 1", Reason::DuplicateLabel),
        ("a{\"b\"} 1", Reason::SecondMetricName),
        ("{\"a\",\"b\"} 1", Reason::SecondMetricName),
        ("# TYPE a colour", Reason::UnknownType),
        ("# TYPE", Reason::MalformedMetadata),
        ("# HELP 1 x", Reason::MalformedMetadata),
        ("a 1 # {t=\"1\"} 1", Reason::ExemplarWithoutEof),
        ("a 1 # {t=\"1\"\n# EOF", Reason::ExpectedCommaOrBrace),
        ("a 1 # t\n# EOF", Reason::InvalidExemplar),
        ("a 1 # {t=\"1\"} x\n# EOF", Reason::InvalidExemplar),
        ("# EOF\na 1", Reason::TextAfterEof),
        ("# TYPE h histogram\nh_bucket 1", Reason::BucketWithoutBound),
        (
            "# TYPE h histogram\nh_bucket{le=\"x\"} 1",
            Reason::BucketWithoutBound,
        ),
        (
            "# TYPE s summary\ns{q=\"1\"} 1",
            Reason::QuantileWithoutLabel,
        ),
    ] {
        assert_eq!(refused(body), reason, "{body:?}");
    }
    let error = read_with("a 1\n\nb x\n", Options::default())
        .map(|_| ())
        .expect_err("bad");
    assert_eq!(error.to_string(), "line 3: value is not a number");
}

#[test]
fn each_bound_has_its_own_error() {
    let limits = Limits {
        body_bytes: 120,
        lines: 3,
        line_bytes: 60,
        labels: 2,
        name_bytes: 8,
        value_bytes: 10,
    };
    let reason = |body: &str| {
        let options = Options {
            mode: Mode::Strict,
            limits,
        };
        read_with(body, options).map(|_| ()).expect_err(body).reason
    };
    assert_eq!(
        reason(&"x".repeat(121)),
        Reason::BodyTooLong {
            bytes: 121,
            limit: 120
        }
    );
    assert_eq!(
        reason("a 1\na 1\na 1\na 1"),
        Reason::TooManyLines { limit: 3 }
    );
    assert_eq!(
        reason(&format!("a {}", "1".repeat(60))),
        Reason::LineTooLong {
            bytes: 62,
            limit: 60
        }
    );
    assert_eq!(
        reason("a{a=\"1\",b=\"2\",c=\"3\"} 1"),
        Reason::TooManyLabels { limit: 2 }
    );
    for body in [
        "abcdefghi 1",
        "a{abcdefghi=\"1\"} 1",
        "# TYPE abcdefghi gauge",
    ] {
        assert_eq!(
            reason(body),
            Reason::NameTooLong { bytes: 9, limit: 8 },
            "{body}"
        );
    }
    for body in [
        "a{a=\"12345678901\"} 1",
        "a{le=\"1\"} 1\na{le=\"12345678901\"} 1",
    ] {
        assert_eq!(
            reason(body),
            Reason::ValueTooLong {
                bytes: 11,
                limit: 10
            },
            "{body}"
        );
    }
}

#[test]
fn lenient_counts_bad_lines_and_keeps_the_good_ones() {
    let options = Options {
        mode: Mode::Lenient,
        ..Options::default()
    };
    let mut collect = Collect::default();
    let body = b"a 1\nb x\n\xff 2\nc 3\n";
    let report = parse(body, &options, &mut collect).expect("lenient");
    assert_eq!((report.samples, report.bad_lines, report.lines), (2, 2, 5));
    let lines: Vec<_> = report
        .errors
        .iter()
        .map(|error| (error.line, error.reason))
        .collect();
    assert_eq!(lines, [(2, Reason::InvalidValue), (3, Reason::NotUtf8)]);
    assert_eq!(collect.samples[1].value, 3.0);

    let many = "x y\n".repeat(20);
    let (_, report) = read_with(&many, options).expect("lenient");
    assert_eq!(
        (report.bad_lines, report.errors.len()),
        (20, Report::ERRORS_KEPT)
    );
}
