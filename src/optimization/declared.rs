//! Settings that somebody declared: launch arguments, or the `current_config` of a request.

use std::collections::BTreeMap;

use crate::engine::{EngineProfile, Knob};

use super::arguments::LaunchArguments;

/// Settings that somebody declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeclaredSettings {
    /// By name of the knob; none where it is declared not to be set.
    values: BTreeMap<String, Option<String>>,
    /// All launch arguments were declared: what is not among them is at its default.
    complete: bool,
    /// Flags that were not understood.
    unknown_flags: Vec<String>,
}

impl DeclaredSettings {
    /// What launch arguments set. None at all means that nobody declared them.
    pub fn from_arguments(profile: &EngineProfile, arguments: &[String]) -> Self {
        let arguments = LaunchArguments::parse(profile, arguments);
        let mut values = BTreeMap::new();
        for (name, value) in arguments.settings() {
            // a value that the table does not know is kept: the engine runs with it
            let knob = profile.knob(name);
            let value = knob
                .and_then(|knob| knob.check(value).ok())
                .unwrap_or_else(|| value.to_owned());
            values.insert(name.to_owned(), Some(value));
        }
        let unknown_flags: Vec<String> = arguments.unknown_flags().map(str::to_owned).collect();
        Self {
            values,
            // the rest stands in a file
            complete: arguments.words().next().is_some()
                && !unknown_flags.iter().any(|flag| flag == "--config"),
            unknown_flags,
        }
    }

    /// What a request says that the engine runs with: names of knobs, flags, or what people call them. Also what could
    /// not be used of it, a sentence each.
    pub fn from_config(
        profile: &EngineProfile,
        config: &BTreeMap<String, Option<String>>,
    ) -> (Self, Vec<String>) {
        let mut declared = Self::default();
        let mut notes = Vec::new();
        for (key, value) in config {
            let shown: String = key.chars().take(80).collect();
            let knob = match profile.knob_meant(key) {
                Ok(knob) => knob,
                Err(nearest) => {
                    notes.push(format!(
                        "{} has no setting `{shown}` that is known here; the nearest is `{nearest}`.",
                        profile.title
                    ));
                    continue;
                }
            };
            if declared.values.contains_key(&*knob.name) {
                notes.push(format!(
                    "`{shown}` says `{}` once more; it was left out.",
                    knob.name
                ));
                continue;
            }
            match value.as_deref().map(|value| knob.check(value)).transpose() {
                Ok(value) => {
                    declared.values.insert(knob.name.to_string(), value);
                }
                Err(error) => notes.push(format!("`{shown}` was left out: {error}.")),
            }
        }
        (declared, notes)
    }

    /// The same, and what `newer` says instead.
    pub fn with(mut self, newer: Self) -> Self {
        self.values.extend(newer.values);
        self.complete |= newer.complete;
        self.unknown_flags.extend(newer.unknown_flags);
        self
    }

    /// What is declared of this knob: a value, or that it is not set; none where nothing is.
    pub fn get(&self, name: &str) -> Option<Option<&str>> {
        self.values.get(name).map(Option::as_deref)
    }

    /// Whether nothing was declared.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty() && !self.complete
    }

    /// Whether it is certain that no launch argument sets this knob, where none is declared.
    pub(super) fn leaves_out(&self, knob: &Knob) -> bool {
        // engines take the beginning of a flag for it
        let may_be = |flag: &String| knob.flag.starts_with(&flag.replace('_', "-"));
        self.complete
            && !self.values.contains_key(&*knob.name)
            && !self.unknown_flags.iter().any(may_be)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::engine::Registry;

    #[test]
    fn a_request_may_use_names_that_people_know() {
        let registry = Registry::builtin();
        let config: BTreeMap<String, Option<String>> = [
            ("max_batch_size", Some("32")),
            ("quantization", None),
            ("max_num_batched_token", Some("1")),
            ("--gpu-memory-utilization", Some("2")),
            ("stream-interval", Some("2")),
        ]
        .map(|(key, value)| (key.to_owned(), value.map(str::to_owned)))
        .into();
        let vllm = registry.get("vllm").unwrap();
        let (declared, notes) = DeclaredSettings::from_config(vllm, &config);
        assert_eq!(declared.get("max_num_seqs"), Some(Some("32")));
        assert_eq!(declared.get("quantization"), Some(None));
        assert_eq!(declared.get("stream_interval"), Some(Some("2")));
        assert_eq!(declared.get("gpu_memory_utilization"), None);
        assert_eq!(
            notes,
            [
                "`--gpu-memory-utilization` was left out: gpu_memory_utilization = 2: expected a number above 0 to 1.",
                "vLLM has no setting `max_num_batched_token` that is known here; the nearest is \
                 `max_num_batched_tokens`.",
            ]
        );
        for (engine, name) in [
            ("sglang", "max_running_requests"),
            ("tgi", "max_batch_size"),
        ] {
            let (declared, _) =
                DeclaredSettings::from_config(registry.get(engine).unwrap(), &config);
            assert_eq!(declared.get(name), Some(Some("32")), "{engine}");
        }
    }

    #[test]
    fn what_arguments_leave_out_is_known_only_where_all_are_declared() {
        let registry = Registry::builtin();
        let vllm = registry.get("vllm").unwrap();
        let leaves_out = |line: &str, name: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let declared = DeclaredSettings::from_arguments(vllm, &words);
            declared.leaves_out(vllm.knob(name).unwrap())
        };
        assert!(leaves_out(
            "vllm serve m --max-num-seqs 4",
            "stream_interval"
        ));
        assert!(!leaves_out("vllm serve m --max-num-seqs 4", "max_num_seqs"));
        assert!(!leaves_out("", "stream_interval"));
        assert!(!leaves_out("vllm serve --config x.yaml", "stream_interval"));
        assert!(!leaves_out("m --stream-int 4", "stream_interval"));
        assert!(leaves_out("m --stream-int 4", "max_num_seqs"));
    }
}
