//! What must hold for any body.

use super::tests::{Collect, read, read_with};
use super::*;
use proptest::prelude::*;

/// What the property tests render: one family with its series.
#[derive(Debug, Clone)]
struct Series {
    labels: Vec<(String, String)>,
    value: f64,
    timestamp_millis: Option<i64>,
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

fn render(name: &str, kind: Kind, help: &str, series: &[Series], open_metrics: bool) -> String {
    let mut out = format!(
        "# HELP {name} {}\n",
        help.replace('\\', "\\\\").replace('\n', "\\n")
    );
    out += &format!("# TYPE {name} {}\n", kind.as_str());
    for one in series {
        out += name;
        if open_metrics && kind == Kind::Counter {
            out += "_total";
        }
        let labels: Vec<_> = one
            .labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escape(value)))
            .collect();
        if !labels.is_empty() {
            out += &format!("{{{}}}", labels.join(","));
        }
        out += &format!(" {}", one.value);
        if let Some(millis) = one.timestamp_millis {
            match open_metrics {
                true => out += &format!(" {}", millis as f64 / 1e3),
                false => out += &format!(" {millis}"),
            }
        }
        out.push('\n');
    }
    if open_metrics {
        out += "# EOF\n";
    }
    out
}

fn series() -> impl Strategy<Value = Series> {
    (
        prop::collection::btree_map("[a-zA-Z_][a-zA-Z0-9_]{0,8}", ".{0,12}", 0..5),
        any::<f64>().prop_filter("NaN is not equal to itself", |value| !value.is_nan()),
        prop::option::of(0i64..4_000_000_000_000),
    )
        .prop_map(|(labels, value, timestamp_millis)| Series {
            labels: labels.into_iter().collect(),
            value,
            timestamp_millis,
        })
}

proptest! {
    #[test]
    fn what_is_rendered_is_read_back(
        name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
        counter in any::<bool>(),
        help in "([!-~][ -~]{0,40})?",
        series in prop::collection::vec(series(), 0..8),
        open_metrics in any::<bool>(),
    ) {
        let kind = if counter { Kind::Counter } else { Kind::Gauge };
        let body = render(&name, kind, &help, &series, open_metrics);
        let (collect, report) = read_with(&body, Options::default()).expect(&body);
        prop_assert_eq!(report.format == Format::OpenMetrics, open_metrics);
        prop_assert_eq!(&collect.descriptions[0].1, &help);
        prop_assert_eq!(collect.samples.len(), series.len());
        for (seen, one) in collect.samples.iter().zip(&series) {
            prop_assert_eq!(&seen.family, &name);
            prop_assert_eq!(seen.kind, kind);
            prop_assert_eq!(&seen.labels, &one.labels);
            prop_assert_eq!(seen.value, one.value);
            prop_assert_eq!(
                seen.timestamp_seconds,
                one.timestamp_millis.map(|millis| millis as f64 / 1e3)
            );
        }
        let with_crlf = body.replace('\n', "\r\n");
        prop_assert_eq!(read(&with_crlf), collect.samples);
    }

    #[test]
    fn any_bytes_give_an_answer(body in prop::collection::vec(any::<u8>(), 0..400)) {
        for mode in [Mode::Strict, Mode::Lenient] {
            let options = Options { mode, ..Options::default() };
            let _ = parse(&body, &options, &mut Collect::default());
        }
    }
}
