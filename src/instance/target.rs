//! What is to be measured, checked.

use super::violation::FieldViolation;
use crate::engine::Registry;
use crate::scrape::parse_url;
use crate::units::{is_id, nearest};

/// Most replicas of an instance or an inline target.
pub const MAX_REPLICAS: usize = 64;

/// What is to be measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Id that the caller gives it.
    pub instance_id: String,
    /// Engine; none means that it is recognised.
    pub engine: Option<String>,
    /// One URL a replica.
    pub metrics_urls: Vec<String>,
}

impl Target {
    /// Checks everything that can be checked without asking the target.
    pub fn violations(&self, registry: &Registry) -> Vec<FieldViolation> {
        let mut found = Vec::new();
        if !is_id(&self.instance_id) {
            found.push(FieldViolation::new(
                "instance_id",
                "must be 1 to 63 lower-case letters, digits, `-` and `.`, and begin and end with a \
                 letter or digit, such as vllm-1",
            ));
        }
        if let Some(engine) = &self.engine
            && registry.get(engine).is_none()
        {
            let names = registry.names();
            let meant = nearest(engine, names.iter().copied()).unwrap_or("auto");
            found.push(FieldViolation::new(
                "instance_type",
                format!(
                    "no engine `{}`; known are auto, {}; the nearest is `{meant}`",
                    shortened(engine),
                    names.join(", ")
                ),
            ));
        }
        match self.metrics_urls.len() {
            0 => found.push(FieldViolation::new(
                "metrics_url",
                "give the engine's metrics URL, such as http://127.0.0.1:8000/metrics",
            )),
            count if count > MAX_REPLICAS => found.push(FieldViolation::new(
                "metrics_urls",
                format!("{count} replicas; at most {} in one target", MAX_REPLICAS),
            )),
            _ => {}
        }
        // of more than may be given none is looked at
        let looked_at = self.metrics_urls.iter().take(MAX_REPLICAS);
        for (at, url) in looked_at.enumerate() {
            let before = self.metrics_urls.iter().take(at);
            if before.into_iter().any(|known| same_place(known, url)) {
                found.push(FieldViolation::new(
                    "metrics_urls",
                    format!(
                        "{} is given twice; replicas would be counted twice",
                        shortened(url)
                    ),
                ));
            }
            if url.len() > MAX_URL_BYTES {
                found.push(FieldViolation::new(
                    "metrics_urls",
                    format!("a URL of {} bytes; at most {MAX_URL_BYTES}", url.len()),
                ));
            } else if let Err(refusal) = parse_url(url) {
                let hint = refusal.hint().unwrap_or_default();
                found.push(FieldViolation::new(
                    "metrics_url",
                    format!("{refusal}; {hint}"),
                ));
            }
        }
        found
    }
}

const MAX_URL_BYTES: usize = 2_048;

/// Whether two URLs are the same but for their spelling.
fn same_place(a: &str, b: &str) -> bool {
    let normal = |url: &str| {
        let mut url = parse_url(url).ok()?;
        url.set_fragment(None);
        if url.query() == Some("") {
            url.set_query(None);
        }
        Some(url)
    };
    a == b || normal(a).is_some_and(|a| Some(a) == normal(b))
}

/// Text from outside, as much of it as a message bears.
pub fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields(target: &Target) -> Vec<String> {
        target
            .violations(&Registry::builtin())
            .into_iter()
            .map(|violation| violation.field)
            .collect()
    }

    fn good() -> Target {
        Target {
            instance_id: "vllm-1".to_owned(),
            engine: Some("vllm".to_owned()),
            metrics_urls: vec!["http://127.0.0.1:8000/metrics".to_owned()],
        }
    }

    #[test]
    fn every_wrong_field_is_named() {
        assert_eq!(fields(&good()), Vec::<String>::new());
        let nothing = Target {
            engine: Some("vlm".to_owned()),
            ..Target::default()
        };
        assert_eq!(
            fields(&nothing),
            ["instance_id", "instance_type", "metrics_url"]
        );
        let mut twice = good();
        twice.metrics_urls.extend(good().metrics_urls);
        assert_eq!(fields(&twice), ["metrics_urls"]);
        let mut many = good();
        many.metrics_urls = (0..65).map(|at| format!("http://h{at}/metrics")).collect();
        assert_eq!(fields(&many), ["metrics_urls"]);
    }
}
