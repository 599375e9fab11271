//! Finding a knob by its name, its flag, or what people call it.

use crate::engine::EngineProfile;
use crate::units::nearest;

use super::{Knob, KnobType, SwitchForm};

/// A launch flag, understood.
#[derive(Debug, Clone)]
pub struct KnobFlag<'p> {
    /// The knobs that it sets; several where it takes a JSON object.
    pub knobs: Vec<&'p Knob>,
    /// It is the form that switches off: `--no-…`.
    pub negated: bool,
}

impl EngineProfile {
    /// The knob of this name.
    pub fn knob(&self, name: &str) -> Option<&Knob> {
        self.knobs.iter().find(|knob| knob.name == name)
    }

    /// The knob that this flag sets, the first where several share it. Dashes and underscores are the same, and those in
    /// front may be left out.
    pub fn knob_of_flag(&self, flag: &str) -> Option<&Knob> {
        let flag = if flag.starts_with('-') {
            flag.to_owned()
        } else {
            format!("--{flag}")
        };
        self.flag(&flag)?.knobs.first().copied()
    }

    /// What a launch flag sets, with its dashes in front.
    pub fn flag(&self, flag: &str) -> Option<KnobFlag<'_>> {
        let flag = dashed(flag);
        let set = |negated, found: Vec<_>| {
            (!found.is_empty()).then_some(KnobFlag {
                knobs: found,
                negated,
            })
        };
        // `--speculative-config.method` is one key of what the flag takes
        if let Some((object, key)) = flag.split_once('.') {
            let key = key.replace('-', "_");
            let knobs = self.settable().filter(|knob| {
                knob.json_key == Some(key.as_str()) && knob.flags().any(|known| known == object)
            });
            return set(false, knobs.collect());
        }
        let knobs = |wanted: &str| -> Vec<&Knob> {
            self.settable()
                .filter(|knob| knob.flags().any(|known| known == wanted))
                .collect()
        };
        let plain = knobs(&flag);
        if !plain.is_empty() {
            return set(false, plain);
        }
        let switched_off = format!("--{}", flag.strip_prefix("--no-")?);
        let with_no = |knob: &&Knob| knob.kind == KnobType::Switch(SwitchForm::OnOff);
        set(
            true,
            knobs(&switched_off).into_iter().filter(with_no).collect(),
        )
    }

    /// The knob that people mean: by its name, its flag, or another name for it.
    ///
    /// # Errors
    /// The nearest name there is.
    pub fn knob_meant(&self, key: &str) -> Result<&Knob, &str> {
        let plain = key.trim_start_matches('-').replace('-', "_");
        self.knob(&plain)
            .or_else(|| {
                let mut knobs = self.knobs.iter();
                knobs.find(|knob| knob.other_names.contains(&plain.as_str()))
            })
            .or_else(|| self.knob_of_flag(key))
            .ok_or_else(|| {
                let names = self.knobs.iter().map(|knob| &*knob.name);
                nearest(&plain, names).unwrap_or_default()
            })
    }

    /// Knobs that a launch argument sets.
    fn settable(&self) -> impl Iterator<Item = &Knob> {
        self.knobs.iter().filter(|knob| !knob.derived)
    }
}

impl Knob {
    /// All its flags, with their dashes.
    fn flags(&self) -> impl Iterator<Item = &str> {
        // those of a key of an object are the object's
        let own = std::iter::once(&*self.flag).filter(|flag| !flag.is_empty());
        own.chain(self.other_flags.iter().copied())
    }

    /// Whether the flag takes an object that others have keys in.
    pub fn shares_its_flag(&self) -> bool {
        self.json_key.is_some()
    }
}

/// A flag with dashes for underscores; what stands behind a point keeps its own.
fn dashed(flag: &str) -> String {
    match flag.split_once('.') {
        Some((object, key)) => format!("{}.{key}", object.replace('_', "-")),
        None => flag.replace('_', "-"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use crate::engine::Registry;

    #[test]
    fn flags_are_found_in_every_spelling() {
        let registry = Registry::builtin();
        let vllm = registry.get("vllm").unwrap();
        let name = |flag: &str| vllm.knob_of_flag(flag).map(|knob| knob.name.to_string());
        for flag in [
            "--max-num-seqs",
            "max-num-seqs",
            "max_num_seqs",
            "--max_num_seqs",
        ] {
            assert_eq!(name(flag).as_deref(), Some("max_num_seqs"), "{flag}");
        }
        assert_eq!(name("-tp").as_deref(), Some("tensor_parallel_size"));
        assert_eq!(
            name("--speculative-config.num_speculative_tokens").as_deref(),
            Some("num_speculative_tokens")
        );
        assert_eq!(name("--api-key"), None);
        let off = vllm.flag("--no-enable-prefix-caching").unwrap();
        assert!(off.negated);
        assert_eq!(off.knobs.first().unwrap().name, "enable_prefix_caching");
        assert!(vllm.flag("--speculative-config").unwrap().knobs.len() > 1);
        // what the engine makes of others is set by no flag
        let blocks = vllm.flag("--num-gpu-blocks-override").unwrap();
        assert_eq!(blocks.knobs.len(), 1);
    }

    #[test]
    fn people_call_the_same_by_other_names() {
        let registry = Registry::builtin();
        for (engine, key, name) in [
            ("vllm", "max_batch_size", "max_num_seqs"),
            ("sglang", "max_batch_size", "max_running_requests"),
            ("tgi", "max_batch_size", "max_batch_size"),
            ("vllm", "quantization", "quantization"),
            ("tgi", "quantization", "quantize"),
            ("vllm", "--scheduling-policy", "policy"),
            ("sglang", "tensor_parallel_size", "tp_size"),
            ("tgi", "tensor_parallel_size", "num_shard"),
        ] {
            let profile = registry.get(engine).unwrap();
            let meant = profile.knob_meant(key).map(|knob| knob.name.to_string());
            assert_eq!(meant.as_deref(), Ok(name), "{engine} {key}");
        }
        let vllm = registry.get("vllm").unwrap();
        assert_eq!(
            vllm.knob_meant("max_num_seq").map(|_| ()),
            Err("max_num_seqs")
        );
    }
}
