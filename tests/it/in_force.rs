//! Settings in force on recorded engines, whose launch arguments are known.

use std::collections::BTreeMap;

use perfagent::analysis::{ImpliedKind, Thresholds, implied_settings};
use perfagent::edge::grpc::convert_struct;
use perfagent::engine::Version;
use perfagent::optimization::{
    DeclaredSettings, InForce, KnobChange, SettingSource, SettingValue, constraints, split_line,
};

use crate::captures::{self, Capture};

fn declared(capture: &Capture) -> DeclaredSettings {
    let line = capture.meta["server_args"].as_str().unwrap_or_default();
    // a remark may stand behind
    let line = line.split(" (").next().unwrap_or_default();
    DeclaredSettings::from_arguments(&capture.profile(), &split_line(line).unwrap())
}

fn version(capture: &Capture) -> Option<Version> {
    capture.meta["engine_version"].as_str()?.parse().ok()
}

#[test]
fn what_engines_tell_is_what_was_declared() {
    let mut agreed = 0;
    for capture in captures::all() {
        let declared = declared(&capture);
        let mut measured = capture.measure(1, capture.scrapes());
        measured.settings = capture.probed().settings;
        let in_force = InForce::of(
            &capture.profile(),
            Some((&measured, &Thresholds::default())),
            None,
            &declared,
        );
        for setting in &in_force.settings {
            let told = matches!(setting.source, SettingSource::Endpoint(_));
            if told && declared.get(&setting.name).is_some() {
                assert_eq!(setting.hint, None, "{} {}", capture.name, setting.name);
                agreed += 1;
            }
        }
    }
    assert!(agreed >= 10, "{agreed}");
}

#[test]
fn a_default_that_counts_is_what_the_engine_tells() {
    let mut agreed = 0;
    for capture in captures::all() {
        let profile = capture.profile();
        let in_force = InForce::of(&profile, None, version(&capture), &declared(&capture));
        for told in capture.probed().settings {
            let setting = in_force
                .get(&told.name)
                .unwrap_or_else(|| panic!("{} {}", capture.name, told.name));
            let SettingValue::Known(value) = &setting.value else {
                continue;
            };
            if !matches!(setting.source, SettingSource::Default(_)) {
                continue;
            }
            let knob = profile.knob(&told.name).unwrap();
            // what is left to the engine is another word for what it tells
            if value == "auto" {
                continue;
            }
            let told_value = told.value.as_deref().map(|told| knob.check(told).unwrap());
            assert_eq!(
                told_value.as_ref(),
                Some(value),
                "{} {}",
                capture.name,
                told.name
            );
            agreed += 1;
        }
    }
    assert!(agreed >= 50, "{agreed}");
}

#[test]
fn no_cap_is_inferred_but_the_one_that_was_set() {
    let mut windows = 0;
    for capture in captures::all() {
        let declared = declared(&capture);
        let caps = ["max_num_seqs", "max_running_requests"];
        let cap = caps.iter().find_map(|name| declared.get(name).flatten());
        for from in 1..=capture.scrapes() {
            for to in from + 2..=capture.scrapes() {
                let mut measured = capture.measure(from, to);
                measured.settings.clear();
                windows += 1;
                for implied in implied_settings(&measured, &Thresholds::default()) {
                    if implied.kind == ImpliedKind::SequenceCap {
                        let value = implied.value.to_string();
                        assert_eq!(Some(value.as_str()), cap, "{} {from} to {to}", capture.name);
                    }
                }
            }
        }
    }
    assert!(windows >= 50, "{windows}");
}

#[test]
fn settings_in_force_are_no_change_when_they_are_sent_back() {
    for capture in captures::all() {
        let profile = capture.profile();
        let mut measured = capture.measure(1, capture.scrapes());
        measured.settings = capture.probed().settings;
        let thresholds = Thresholds::default();
        let seen = Some((&measured, &thresholds));
        let in_force = InForce::of(&profile, seen, None, &declared(&capture));
        let config = convert_struct::config(&in_force);
        let sent_back = convert_struct::settings_of("changes", Some(config)).unwrap();
        assert!(!sent_back.is_empty(), "{}", capture.name);
        let changes = |of: &BTreeMap<String, Option<String>>| -> Vec<KnobChange> {
            let of = of.iter();
            of.map(|(name, to)| KnobChange {
                name: name.clone(),
                flag: String::new(),
                from: None,
                to: to.clone(),
            })
            .collect()
        };
        let checked = constraints::check(&profile, &in_force, &changes(&sent_back));
        let checked = checked.unwrap_or_else(|error| panic!("{}: {error}", capture.name));
        assert_eq!(checked.changes, [], "{}", capture.name);
        // one of them becomes another
        let cap = [
            "max_num_seqs",
            "max_running_requests",
            "max_concurrent_requests",
        ];
        let Some(cap) = cap.into_iter().find(|cap| sent_back.contains_key(*cap)) else {
            continue;
        };
        let other = [(cap.to_owned(), Some("7".to_owned()))];
        let changed: BTreeMap<_, _> = sent_back.into_iter().chain(other).collect();
        let checked = constraints::check(&profile, &in_force, &changes(&changed));
        let checked = checked.unwrap_or_else(|error| panic!("{}: {error}", capture.name));
        let names: Vec<&str> = checked.changes.iter().map(|one| &*one.name).collect();
        assert_eq!(names, [cap], "{}", capture.name);
    }
}
