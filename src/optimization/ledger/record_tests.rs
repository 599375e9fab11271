//! What the record says of the next prediction.

use super::tests::{entry, quantity};
use super::*;
use crate::optimization::PredictedQuantity;
use proptest::prelude::*;

/// A closed prediction of a ratio of 2 from 1 to 4, of which this was measured.
fn closed(ratio: f64, widened_by: f64) -> LedgerEntry {
    let mut entry = entry();
    let throughput = PredictedQuantity::GenerationTokensPerSecond;
    entry.predicted = vec![quantity(throughput, 100.0, [1.0, 2.0, 4.0])];
    entry.widened_by = widened_by;
    entry.state = LedgerState::Closed {
        at_unix_seconds: 0.0,
        start_unix_seconds: 0.0,
        end_unix_seconds: 0.0,
        actual: vec![ActualQuantity {
            quantity: throughput,
            after: 100.0 * ratio,
            ratio,
            covered: (1.0..=4.0).contains(&ratio),
        }],
    };
    entry
}

fn factor(entries: &[LedgerEntry]) -> f64 {
    TrackRecord::of(entries, false).factor("sequence_cap").0
}

#[test]
fn who_asks_what_advice_would_do_does_not_make_it_their_own() {
    let asked = || LedgerEntry {
        lever: "custom".to_owned(),
        origin: Origin::Asked,
        ..entry()
    };
    let mut same = asked();
    same.keep_advice_of(&entry());
    assert_eq!(
        (&*same.lever, same.origin),
        ("sequence_cap", Origin::Recommended)
    );
    let mut other = LedgerEntry {
        instance_id: "another".to_owned(),
        ..asked()
    };
    other.keep_advice_of(&entry());
    assert_eq!((&*other.lever, other.origin), ("custom", Origin::Asked));
    // new advice is its own
    let mut advice = LedgerEntry {
        lever: "batch".to_owned(),
        ..entry()
    };
    advice.keep_advice_of(&entry());
    assert_eq!(advice.lever, "batch");
}

#[test]
fn the_record_is_by_lever_and_leaves_simulated_engines_out() {
    let mut of_other = closed(8.0, 1.0);
    of_other.lever = "kv_capacity".to_owned();
    let mut simulated = closed(8.0, 1.0);
    simulated.simulated = true;
    let entries = [
        closed(2.0, 1.0),
        closed(8.0, 1.0),
        of_other,
        simulated,
        entry(),
    ];
    let record = TrackRecord::of(&entries, false);
    assert_eq!(record.factor("sequence_cap").1, 2);
    assert_eq!(record.factor("kv_capacity").1, 1);
    assert_eq!(record.factor("unknown"), (1.0, 0));
    let throughput = PredictedQuantity::GenerationTokensPerSecond;
    let (judged, covered) = (3, 1);
    assert_eq!(
        record.all().coverage[&throughput],
        Coverage { judged, covered }
    );
    assert_eq!(record.levers().count(), 2);
    assert_eq!(TrackRecord::of(&entries, true).all().closed, 1);
}

#[test]
fn few_predictions_move_the_factor_little_and_many_move_it_all_the_way() {
    // a miss of two half-widths each time
    let wide = |count: usize| factor(&vec![closed(8.0, 1.0); count]);
    assert!((1.0..1.1).contains(&wide(2)), "{}", wide(2));
    assert!((1.9..=2.0).contains(&wide(1_000)), "{}", wide(1_000));
    // nearly exact each time
    let narrow = |count: usize| factor(&vec![closed(2.05, 1.0); count]);
    assert!((0.9..1.0).contains(&narrow(1)), "{}", narrow(1));
    assert_eq!(narrow(1_000), 0.7);
    assert_eq!(factor(&vec![closed(1e9, 1.0); 1_000]), 3.0);
}

#[test]
fn an_interval_that_was_widened_is_judged_as_the_model_gave_it() {
    // the factor would else fall back to 1 as soon as it works
    let widened = factor(&vec![closed(4.0, 2.0); 1_000]);
    assert!((1.9..=2.0).contains(&widened), "{widened}");
}

proptest! {
    #[test]
    fn the_factor_is_bounded(ratios in proptest::collection::vec(1e-6..1e6_f64, 0..50)) {
        let entries: Vec<LedgerEntry> = ratios.iter().map(|ratio| closed(*ratio, 1.0)).collect();
        prop_assert!((0.7..=3.0).contains(&factor(&entries)));
    }
}
