//! Launch arguments of a command: settings that the engine does not tell, and the line with changes made.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::edge::cli::optimize::sheet::change;
use crate::edge::cli::terminal::clean;
use crate::edge::grpc::pb;
use crate::engine::{EngineProfile, Registry};
use crate::optimization::{KnobChange, LaunchArguments, quote};

/// The settings that launch arguments make, by name; of the other flags, such as a port, nothing is said. Where the engine
/// is not named, it is the one that knows most of them.
pub(super) fn settings_in(words: &[String], engine: &str) -> BTreeMap<String, Option<String>> {
    let registry = Registry::builtin();
    let of = |profile: &Arc<EngineProfile>| {
        let arguments = LaunchArguments::parse(profile, words);
        let settings = arguments.settings();
        settings
            .map(|(name, value)| (name.to_owned(), Some(value.to_owned())))
            .collect::<BTreeMap<_, _>>()
    };
    match registry.get(engine) {
        Some(profile) => of(profile),
        None => {
            let read = registry.iter().map(of);
            read.max_by_key(BTreeMap::len).unwrap_or_default()
        }
    }
}

/// The launch line with the changes made, and below it a comment for each: what can be pasted as it is. Where no words were
/// given it is made of the settings that the operator declared.
pub(super) fn changed(
    words: &[String],
    declared: &[pb::SettingInForce],
    changes: &[pb::KnobChange],
    engine: &str,
) -> String {
    let comments: String = changes
        .iter()
        .map(|one| format!("# {}\n", change(one)))
        .collect();
    let registry = Registry::builtin();
    let Some(profile) = registry.get(engine) else {
        let engine = clean(engine);
        return format!("# how {engine} spells its arguments is not known here\n{comments}");
    };
    let before = match words.is_empty() {
        true => {
            let told: Vec<KnobChange> = declared
                .iter()
                .filter(|one| one.source() == pb::SettingSource::Declared)
                .map(|one| KnobChange {
                    name: one.name.clone(),
                    flag: one.flag.clone(),
                    from: None,
                    to: one.value.clone(),
                })
                .collect();
            LaunchArguments::default().apply(profile, &told).arguments
        }
        false => LaunchArguments::parse(profile, words),
    };
    let changes: Vec<KnobChange> = changes
        .iter()
        .map(|one| KnobChange {
            name: one.name.clone(),
            flag: one.flag.clone(),
            from: one.from_value.clone(),
            to: one.to_value.clone(),
        })
        .collect();
    let after = before.apply(profile, &changes).arguments;
    // an agent's answer may hold anything
    let line: Vec<String> = after.words().map(|word| quote(&clean(word))).collect();
    format!("{}\n{comments}", line.join(" "))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::optimization::split_line;

    fn change_of(flag: &str, from: Option<&str>, to: Option<&str>) -> pb::KnobChange {
        pb::KnobChange {
            name: flag.trim_start_matches('-').replace('-', "_"),
            flag: flag.to_owned(),
            from_value: from.map(str::to_owned),
            to_value: to.map(str::to_owned),
        }
    }

    #[test]
    fn the_engine_is_the_one_that_knows_the_flags() {
        let words = split_line("serve --mem-fraction-static 0.8 --port 1 --api-key s").unwrap();
        let settings = settings_in(&words, "auto");
        let names: Vec<&String> = settings.keys().collect();
        assert_eq!(names, ["mem_fraction_static"]);
        assert!(settings_in(&words, "tgi").is_empty());
    }

    #[test]
    fn changes_are_made_where_the_flag_stands_and_told_below() {
        let raise = [change_of("--max-num-seqs", Some("4"), Some("32"))];
        let words = split_line("vllm serve 'a b' --max-num-seqs 4 --port 1").unwrap();
        assert_eq!(
            changed(&words, &[], &raise, "vllm"),
            "vllm serve 'a b' --max-num-seqs 32 --port 1\n# --max-num-seqs 4 → 32\n"
        );
        assert!(changed(&words, &[], &raise, "own").starts_with("# how own spells"));
    }

    #[test]
    fn what_is_pasted_does_only_what_it_says() {
        let bad = change_of("--x", None, Some("1; rm -rf ~ \u{1b}[2J'`a`"));
        let text = changed(&["e".to_owned()], &[], &[bad], "vllm");
        assert!(text.starts_with("e --x '1; rm -rf ~ \u{fffd}[2J'\\''`a`'\n# --x not set → 1;"));
        assert!(!text.contains('\u{1b}') && text.lines().count() == 2);
    }
}
