//! The model against a real engine: fitted to one run, it predicts runs with other settings and other load.

#[path = "../../benches/common/runs.rs"]
mod runs;

use runs::{Figures, Row};

fn median_error(rows: &[Row], of: fn(&Figures) -> f64) -> f64 {
    let mut errors: Vec<f64> = rows.iter().map(|row| row.error_ratio(of).abs()).collect();
    errors.sort_by(f64::total_cmp);
    errors[errors.len() / 2]
}

fn median_spread(rows: &[Row], of: fn(&Figures) -> f64) -> f64 {
    let mut spreads: Vec<f64> = rows.iter().map(|row| row.spread_ratio(of)).collect();
    spreads.sort_by(f64::total_cmp);
    spreads[spreads.len() / 2]
}

#[test]
fn other_settings_and_loads_are_predicted() {
    let fit = runs::fitted();
    assert!(fit.step_time.check().is_ok() && fit.windows >= 6, "{fit:?}");
    let rows = runs::rows(fit.step_time);
    assert!(rows.len() >= 6, "{} rows", rows.len());
    for row in &rows {
        assert!(row.repeats.len() >= 3, "{}", row.name);
    }
    let throughput: fn(&Figures) -> f64 = |one| one.tokens_per_second;
    let allowed = median_spread(&rows, throughput) * 1.5;
    let found = median_error(&rows, throughput);
    assert!(
        found <= allowed.max(0.15),
        "throughput is off by {found:.3}"
    );
    let found = median_error(&rows, |one| one.ttft_seconds);
    assert!(found <= 0.25, "TTFT is off by {found:.3}");
}

/// Taken on other days, on cores that others used too.
#[test]
fn captures_of_other_days_are_not_far_off() {
    let captures = runs::captures(runs::fitted().step_time);
    assert!(captures.len() >= 4, "{} captures", captures.len());
    assert!(median_error(&captures, |one| one.itl_seconds) <= 0.25);
    assert!(median_error(&captures, |one| one.tokens_per_second) <= 0.25);
}
