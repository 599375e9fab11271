//! What must hold whatever is simulated.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Keeps account of every request and token.
#[derive(Default)]
struct Account {
    first_tokens: u64,
    later_tokens: u64,
    of_finished: u64,
    finished: u64,
    rejected: u64,
    sojourn_seconds: f64,
    budget: u32,
    seqs: u32,
    order: Vec<u64>,
}

impl Sink for Account {
    fn event(&mut self, now: f64, event: &Event) {
        match event {
            Event::FirstToken { .. } => self.first_tokens += 1,
            Event::Tokens { count, gap_seconds } => {
                self.later_tokens += u64::from(*count);
                assert!(*gap_seconds > 0.0);
            }
            Event::Rejected => self.rejected += 1,
            Event::Finished(finished) => {
                assert!(finished.ended <= now && finished.arrived <= finished.ended);
                assert!(finished.output_tokens <= finished.request.output_tokens);
                if finished.reason == FinishReason::Length {
                    assert_eq!(finished.output_tokens, finished.request.output_tokens);
                }
                self.of_finished += u64::from(finished.output_tokens);
                self.finished += 1;
                self.sojourn_seconds += finished.ended - finished.arrived;
                self.order.push(finished.request.index);
            }
            Event::Step { batch, seconds, .. } => {
                assert!(*seconds > 0.0);
                assert!(batch.decode_sequences <= self.seqs);
                assert!(batch.prefill_tokens <= self.budget, "{batch:?}");
            }
            _ => {}
        }
    }
}

fn simple(prompt: Lengths, output: Lengths, arrival: Arrival) -> Load {
    Load {
        arrival,
        classes: vec![RequestClass::of(prompt, output)],
        split: Vec::new(),
        drift: None,
        seed: 11,
    }
}

fn run(settings: &Settings, step_time: StepTime, load: &Load, seconds: f64) -> Summary {
    let mut simulation =
        Simulation::new(settings.clone(), step_time, load.clone(), (0, 1)).unwrap();
    simulation.run_until(seconds / 5.0, &mut ());
    let mut tally = Tally::from(simulation.now());
    simulation.run_until(seconds, &mut tally);
    tally.summary(simulation.now())
}

fn uniform(min: u32, max: u32) -> Lengths {
    Lengths::Uniform { min, max }
}

#[test]
fn one_at_a_time_waits_as_queueing_theory_says() {
    let step_time = StepTime {
        fixed_seconds: 0.01,
        token_seconds: 0.0,
        knee_tokens: 0.0,
        prefill_context_token_seconds: 0.0,
        decode_sequence_seconds: 0.0,
        decode_context_token_seconds: 0.0,
        frontend_seconds: 0.0,
        ..StepTime::default()
    };
    let settings = Settings {
        max_num_seqs: 1,
        ..Settings::default()
    };
    // ten steps of 10 ms each
    let service = 0.1;
    for utilization in [0.3, 0.6, 0.8] {
        let arrival = Arrival::Poisson {
            rate_per_second: utilization / service,
        };
        let load = simple(Lengths::Fixed(50), Lengths::Fixed(10), arrival);
        let summary = run(&settings, step_time, &load, 40_000.0);
        // Pollaczek and Khinchine, for service times that do not vary
        let expected = utilization * service / (2.0 * (1.0 - utilization));
        let found = summary.mean_queue_seconds.unwrap();
        assert!(
            (found / expected - 1.0).abs() < 0.04,
            "{utilization}: {found} for {expected}"
        );
        assert!((summary.busy_seconds / summary.seconds - utilization).abs() < 0.01);
    }
}

#[test]
fn what_is_inside_is_what_comes_times_how_long_it_stays() {
    for policy in [Policy::Vllm, Policy::Sglang, Policy::Tgi] {
        let settings = Settings {
            policy,
            max_num_seqs: 16,
            kv_blocks: 1_024,
            ..Settings::default()
        };
        let load = simple(
            uniform(20, 400),
            uniform(10, 200),
            Arrival::Poisson {
                rate_per_second: 12.0,
            },
        );
        let step_time = StepTime::default();
        let mut simulation = Simulation::new(settings, step_time, load, (0, 1)).unwrap();
        let mut account = Account {
            budget: 2_048,
            seqs: 16,
            ..Account::default()
        };
        let (mut inside, mut samples) = (0.0, 0);
        while simulation.now() < 2_000.0 {
            simulation.run_until(simulation.now() + 0.05, &mut account);
            let gauges = simulation.gauges();
            inside += f64::from(gauges.running + gauges.waiting);
            samples += 1;
        }
        let inside = inside / f64::from(samples);
        let little = account.sojourn_seconds / simulation.now();
        assert!(
            (inside / little - 1.0).abs() < 0.02,
            "{policy:?}: {inside} for {little}"
        );
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let load = simple(
        uniform(20, 400),
        uniform(10, 200),
        Arrival::Closed {
            clients: 20,
            think_seconds: 0.5,
        },
    );
    let settings = Settings {
        kv_blocks: 600,
        ..Settings::default()
    };
    let once = run(&settings, StepTime::default(), &load, 200.0);
    assert_eq!(once, run(&settings, StepTime::default(), &load, 200.0));
    let other = Load { seed: 12, ..load };
    assert_ne!(once, run(&settings, StepTime::default(), &other, 200.0));
}

#[test]
fn more_of_what_is_short_helps() {
    let step_time = StepTime::default();
    let load = simple(
        uniform(40, 120),
        uniform(60, 180),
        Arrival::Closed {
            clients: 64,
            think_seconds: 0.0,
        },
    );
    let capped = |max_num_seqs| Settings {
        max_num_seqs,
        ..Settings::default()
    };
    let small_cache = |kv_blocks| Settings {
        kv_blocks,
        max_model_len: 1_024,
        ..Settings::default()
    };
    let few = run(&capped(4), step_time, &load, 300.0);
    let some = run(&capped(16), step_time, &load, 300.0);
    let many = run(&capped(64), step_time, &load, 300.0);
    assert!(few.tokens_per_second() * 2.0 < some.tokens_per_second());
    assert!(some.tokens_per_second() * 1.5 < many.tokens_per_second());
    let first = |summary: &Summary| summary.time_to_first_token_seconds.unwrap().mean;
    assert!(first(&few) > first(&some) && first(&some) > first(&many));
    // and costs the others
    let between = |summary: &Summary| summary.inter_token_seconds.unwrap().mean;
    assert!(between(&few) < between(&some) && between(&some) < between(&many));
    let tight = run(&small_cache(160), step_time, &load, 300.0);
    let wide = run(&small_cache(2_000), step_time, &load, 300.0);
    assert!(tight.preemptions > 0 && wide.preemptions == 0);
    assert!(tight.tokens_per_second() < wide.tokens_per_second());
    assert!(first(&tight) > first(&wide));
    // a queue grows with the rate
    let open = |rate_per_second| {
        simple(
            uniform(40, 120),
            uniform(60, 180),
            Arrival::Poisson { rate_per_second },
        )
    };
    let (calm, busy) = (
        run(&capped(16), step_time, &open(4.0), 600.0),
        run(&capped(16), step_time, &open(14.0), 600.0),
    );
    assert!(first(&calm) < first(&busy));
}

#[test]
fn a_shared_beginning_is_computed_once() {
    let mut load = simple(
        uniform(20, 40),
        uniform(10, 20),
        Arrival::Poisson {
            rate_per_second: 8.0,
        },
    );
    for class in &mut load.classes {
        class.prefix = Some(SharedPrefix {
            tokens: 1_000,
            groups: 3,
        });
    }
    let with = run(&Settings::default(), StepTime::default(), &load, 200.0);
    let without = Settings {
        prefix_caching: false,
        ..Settings::default()
    };
    let without = run(&without, StepTime::default(), &load, 200.0);
    // 62 blocks of 16
    let hits = with.cached_tokens as f64 / with.prompt_tokens as f64;
    assert!((hits - 992.0 / 1_030.0).abs() < 0.01, "{hits}");
    assert_eq!(without.cached_tokens, 0);
    let first = |summary: &Summary| summary.time_to_first_token_seconds.unwrap().mean;
    assert!(first(&with) * 2.0 < first(&without));
}

#[test]
fn guesses_that_are_right_save_steps() {
    let load = simple(
        Lengths::Fixed(50),
        Lengths::Fixed(100),
        Arrival::Closed {
            clients: 2,
            think_seconds: 0.0,
        },
    );
    let guessing = |acceptance_ratio| Settings {
        speculation: Some(Speculation {
            tokens: 3,
            acceptance_ratio,
        }),
        ..Settings::default()
    };
    let plain = run(&Settings::default(), StepTime::default(), &load, 100.0);
    let good = run(&guessing(0.8), StepTime::default(), &load, 100.0);
    let bad = run(&guessing(0.0), StepTime::default(), &load, 100.0);
    // 1 + 0.8 + 0.8² + 0.8³ tokens a step
    let gain = good.tokens_per_second() / plain.tokens_per_second();
    assert!(gain > 2.4 && gain < 2.95, "{gain}");
    // wrong ones cost nothing while the weights are what takes time, and much where tokens are
    assert!(bad.tokens_per_second() <= plain.tokens_per_second());
    let crowd = Load {
        arrival: Arrival::Closed {
            clients: 120,
            think_seconds: 0.0,
        },
        ..load
    };
    let plain = run(&Settings::default(), StepTime::default(), &crowd, 50.0);
    let bad = run(&guessing(0.0), StepTime::default(), &crowd, 50.0);
    assert!(bad.tokens_per_second() < plain.tokens_per_second() * 0.8);
}

#[test]
fn irregular_steps_spread_the_gaps_and_pauses_make_their_tail() {
    let load = simple(
        Lengths::Fixed(50),
        uniform(50, 150),
        Arrival::Closed {
            clients: 30,
            think_seconds: 0.0,
        },
    );
    let with = |sigma, pause_ratio| {
        let jitter = Jitter {
            sigma,
            pause_ratio,
            pause_seconds: 0.2,
        };
        let step_time = StepTime {
            jitter,
            ..StepTime::default()
        };
        let summary = run(&Settings::default(), step_time, &load, 200.0);
        (
            summary.tokens_per_second(),
            summary.inter_token_seconds.unwrap(),
        )
    };
    let (even, noisy, paused) = (with(0.0, 0.0), with(0.3, 0.0), with(0.0, 0.02));
    // the mean step is the same, so what comes out is
    assert!((noisy.0 / even.0 - 1.0).abs() < 0.02, "{noisy:?} {even:?}");
    assert!(noisy.1.p90 > even.1.p90 * 1.2);
    assert!(paused.0 < even.0 * 0.8);
    assert!(paused.1.p99 > 0.05 && paused.1.p50 < 0.02, "{paused:?}");
}

#[test]
fn an_engine_that_is_restarted_begins_anew() {
    let load = simple(
        Lengths::Fixed(50),
        Lengths::Fixed(100),
        Arrival::Closed {
            clients: 30,
            think_seconds: 0.0,
        },
    );
    let small = Settings {
        max_num_seqs: 4,
        ..Settings::default()
    };
    let mut simulation = Simulation::new(small, StepTime::default(), load, (0, 1)).unwrap();
    simulation.run_until(50.0, &mut ());
    assert_eq!(simulation.gauges().running, 4);
    let mut tally = Tally::from(0.0);
    simulation
        .restart(Settings::default(), 20.0, &mut tally)
        .unwrap();
    assert!(!simulation.is_up());
    simulation.run_until(69.0, &mut tally);
    let summary = tally.summary(simulation.now());
    assert_eq!(summary.generated_tokens, 0);
    assert_eq!(summary.finished.get(&FinishReason::Error), Some(&30));
    simulation.run_until(100.0, &mut tally);
    assert!(simulation.is_up());
    assert_eq!(simulation.gauges().running, 30);
    simulation.set_faults(Faults {
        stalled: true,
        ..Faults::default()
    });
    let mut tally = Tally::from(simulation.now());
    simulation.run_until(160.0, &mut tally);
    assert_eq!(tally.summary(simulation.now()).steps, 0);
    assert!(simulation.gauges().running > 0);
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop_oneof![Just(Policy::Vllm), Just(Policy::Sglang), Just(Policy::Tgi)]
}

prop_compose! {
    fn any_settings()(
        policy in any_policy(),
        max_num_seqs in 1_u32..40,
        budget in 40_u32..3_000,
        kv_blocks in 64_u32..400,
        block_size in prop::sample::select(vec![1_u32, 8, 16, 32]),
        prefix_caching: bool,
        chunked_prefill: bool,
        threshold in prop::option::of(8_u32..200),
        reserve_full_prompt: bool,
        guesses in prop::option::of((1_u32..5, 0.0..1.0_f64)),
    ) -> Settings {
        let kv_tokens = kv_blocks * block_size;
        let max_model_len = kv_tokens.min(1_500);
        Settings {
            policy,
            max_num_seqs,
            max_num_batched_tokens: if chunked_prefill { budget } else { budget.max(max_model_len) },
            kv_blocks,
            block_size,
            max_model_len,
            prefix_caching,
            chunked_prefill,
            long_prefill_token_threshold: threshold,
            reserve_full_prompt,
            max_num_queued_reqs: None,
            speculation: guesses.map(|(tokens, acceptance_ratio)| Speculation { tokens, acceptance_ratio }),
            schedule_conservativeness: 1.0,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every request that comes goes, with its tokens, and leaves nothing behind.
    #[test]
    fn requests_tokens_and_blocks_are_conserved(
        settings in any_settings(),
        count in 1_u64..120,
        rate in 0.5..200.0_f64,
        prompt in 1_u32..900,
        output in 1_u32..300,
        prefix in prop::option::of((1_u32..700, 1_u32..4)),
        abort_ratio in 0.0..0.5_f64,
        patience in prop::option::of(0.1..5.0_f64),
    ) {
        let times: Vec<f64> = (0..count).map(|at| at as f64 / rate).collect();
        let mut load = simple(uniform(1, prompt), uniform(1, output), Arrival::Trace(times.into()));
        for class in &mut load.classes {
            class.prefix = prefix.map(|(tokens, groups)| SharedPrefix { tokens, groups });
            class.abort_ratio = abort_ratio;
            class.patience_seconds = patience;
        }
        let (seqs, budget) = (settings.max_num_seqs, settings.max_num_batched_tokens);
        let mut simulation = Simulation::new(settings, StepTime::default(), load, (0, 1)).unwrap();
        let mut account = Account { budget, seqs, ..Account::default() };
        let mut seconds = 0.0;
        while account.finished < count {
            seconds += 20.0;
            prop_assert!(seconds < 20_000.0, "{} of {count} ended: {:?}", account.finished, simulation.gauges());
            simulation.run_until(seconds, &mut account);
            let gauges = simulation.gauges();
            prop_assert!(gauges.running <= seqs);
            prop_assert!((0.0..=1.0).contains(&gauges.kv_usage_ratio));
        }
        prop_assert_eq!(account.finished, count);
        prop_assert_eq!(account.first_tokens + account.later_tokens, account.of_finished);
        let mut seen = account.order;
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..count).collect::<Vec<u64>>());
        let gauges = simulation.gauges();
        prop_assert_eq!((gauges.running, gauges.waiting), (0, 0));
        prop_assert_eq!(gauges.kv_usage_ratio, 0.0);
    }
}
