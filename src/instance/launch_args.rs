//! Launch arguments that an operator declares: what the agent keeps of them.
//!
//! A launch line can hold secrets (`--api-key`). Only values of flags that set a knob of the engine's table are kept; all
//! others are taken out before anything is stored, shown or logged. Their flags stay: that a setting is not declared can
//! only be told where all flags are known.

use super::violation::FieldViolation;
use crate::engine::{EngineProfile, Registry};

/// Most arguments.
pub const MAX_LAUNCH_ARGS: usize = 256;
const MAX_ARG_BYTES: usize = 8 << 10;
const MAX_ALL_BYTES: usize = 64 << 10;

/// What is wrong with declared arguments, whatever they mean. Their text is not repeated: it may be secret.
pub fn launch_args_violations(args: &[String]) -> Vec<FieldViolation> {
    let all: usize = args.iter().map(String::len).sum();
    let wrong = |field: String, description: String| vec![FieldViolation::new(field, description)];
    if args.len() > MAX_LAUNCH_ARGS {
        let description = format!("{} arguments; at most {MAX_LAUNCH_ARGS}", args.len());
        return wrong("launch_args".to_owned(), description);
    }
    if all > MAX_ALL_BYTES {
        let description = format!("{all} bytes; at most {MAX_ALL_BYTES}");
        return wrong("launch_args".to_owned(), description);
    }
    let of_one = |(at, arg): (usize, &String)| {
        let description = if arg.len() > MAX_ARG_BYTES {
            format!("{} bytes; at most {MAX_ARG_BYTES}", arg.len())
        } else if arg.chars().any(char::is_control) {
            "must have no control characters".to_owned()
        } else {
            return None;
        };
        Some(FieldViolation::new(
            format!("launch_args[{at}]"),
            description,
        ))
    };
    args.iter().enumerate().filter_map(of_one).collect()
}

/// What stands in place of a value that is not kept.
const HIDDEN: &str = "***";

/// Declared arguments, with what may be secret in them taken out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaunchArgs {
    /// The arguments in their order: those that set a knob as they are, of the others the flag, and `***` for each value.
    pub kept: Vec<String>,
    /// Flags whose values were not kept.
    pub hidden: Vec<String>,
}

impl LaunchArgs {
    /// Arguments by the knobs of an engine; by those of all engines where it is not named. What stands before the first
    /// flag, a program or a model, is left out, but for variables that set a knob (TGI).
    pub fn of(args: &[String], engine: Option<&str>, registry: &Registry) -> Self {
        let profiles: Vec<&EngineProfile> = match engine {
            Some(engine) => registry
                .get(engine)
                .map(AsRef::as_ref)
                .into_iter()
                .collect(),
            None => registry.iter().map(AsRef::as_ref).collect(),
        };
        let any = |is: &dyn Fn(&EngineProfile) -> bool| profiles.iter().any(|profile| is(profile));
        let in_environment =
            |name: &str| any(&|profile| profile.knobs.iter().any(|knob| knob.env == Some(name)));
        let mut sorted = Self::default();
        // values go where their flag goes
        let mut shown: Option<(&str, bool)> = None;
        for arg in args {
            if is_flag(arg) {
                let (flag, value) = match arg.split_once('=') {
                    Some((flag, value)) => (flag, Some(value)),
                    None => (arg.as_str(), None),
                };
                let known = any(&|profile| profile.flag(flag).is_some());
                shown = Some((flag, known));
                match value.filter(|_| !known) {
                    Some(_) => sorted.hide(flag, format!("{flag}={HIDDEN}")),
                    None => sorted.kept.push(arg.clone()),
                }
            } else if let Some((flag, known)) = shown {
                match known {
                    true => sorted.kept.push(arg.clone()),
                    false => sorted.hide(flag, HIDDEN.to_owned()),
                }
            } else if arg
                .split_once('=')
                .is_some_and(|(name, _)| in_environment(name))
            {
                sorted.kept.push(arg.clone());
            }
        }
        sorted
    }

    fn hide(&mut self, flag: &str, kept: String) {
        let flag = super::target::shortened(flag);
        if !self.hidden.contains(&flag) {
            self.hidden.push(flag);
        }
        self.kept.push(kept);
    }
}

/// Not a value, which may be a negative number.
fn is_flag(arg: &str) -> bool {
    let name = arg.trim_start_matches('-');
    arg.starts_with('-') && name.starts_with(|first: char| first.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(args: &str, engine: Option<&str>) -> LaunchArgs {
        let args: Vec<String> = args.split(' ').map(str::to_owned).collect();
        LaunchArgs::of(&args, engine, &Registry::builtin())
    }

    #[test]
    fn only_values_of_knobs_are_kept() {
        let of = sorted(
            "vllm serve m --max-num-seqs 64 --api-key sk-1 --max_model_len=4096 --no-enable-prefix-caching \
             --hf-token=hf-1 --enforce-eager --trust-remote-code",
            Some("vllm"),
        );
        let kept = "--max-num-seqs 64 --api-key *** --max_model_len=4096 --no-enable-prefix-caching --hf-token=*** \
                    --enforce-eager --trust-remote-code";
        assert_eq!(of.kept.join(" "), kept);
        assert_eq!(of.hidden, ["--api-key", "--hf-token"]);
    }

    #[test]
    fn variables_in_front_are_kept_where_they_set_a_knob() {
        let args = "MAX_CONCURRENT_REQUESTS=8 HF_TOKEN=hf-1 text-generation-launcher --port 80";
        let of = sorted(args, Some("tgi"));
        assert_eq!(of.kept.join(" "), "MAX_CONCURRENT_REQUESTS=8 --port ***");
    }

    #[test]
    fn an_engine_has_its_own_knobs_and_one_that_is_not_named_any() {
        let args = "--max-running-requests 8 --max-num-seqs 64";
        assert_eq!(
            sorted(args, Some("vllm")).kept.join(" "),
            "--max-running-requests *** --max-num-seqs 64"
        );
        assert_eq!(sorted(args, None).kept.join(" "), args);
        let of_none = sorted(args, Some("no")).kept;
        assert_eq!(
            of_none.join(" "),
            "--max-running-requests *** --max-num-seqs ***"
        );
    }

    #[test]
    fn arguments_are_bounded() {
        let fields = |args: &[String]| -> Vec<String> {
            let found = launch_args_violations(args);
            found.into_iter().map(|one| one.field).collect()
        };
        let none = Vec::<String>::new();
        assert_eq!(fields(&vec!["x".to_owned(); 256]), none);
        assert_eq!(fields(&vec!["x".to_owned(); 257]), ["launch_args"]);
        let large = "x".repeat(8 << 10);
        assert_eq!(fields(&vec![large.clone(); 8]), none);
        assert_eq!(fields(&vec![large.clone(); 9]), ["launch_args"]);
        let wrong = ["ok".to_owned(), format!("{large}x"), "a\nb".to_owned()];
        assert_eq!(fields(&wrong), ["launch_args[1]", "launch_args[2]"]);
    }

    proptest! {
        #[test]
        fn no_value_of_another_flag_is_ever_kept(
            args in proptest::collection::vec(
                prop_oneof!["--max-num-seqs", "--max-num-seqs=[0-9]", "--api-key", "--api-key=SECRET", "[0-9]{1,2}"],
                0..12,
            )
        ) {
            let mut with_secrets = Vec::new();
            for arg in &args {
                with_secrets.push(arg.clone());
                if arg == "--api-key" {
                    with_secrets.push("SECRET".to_owned());
                }
            }
            let of = LaunchArgs::of(&with_secrets, Some("vllm"), &Registry::builtin());
            let shown = format!("{of:?}");
            prop_assert!(!shown.contains("SECRET"), "{shown}");
            let again = LaunchArgs::of(&of.kept, Some("vllm"), &Registry::builtin());
            prop_assert_eq!(again, of);
        }
    }
}
