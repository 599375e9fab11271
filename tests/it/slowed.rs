//! A vLLM that is not there, and is twice as slow with an odd sequence cap as with an even one.

use std::time::Instant;

/// Requests a second.
const RATE: f64 = 2_000.0;
/// With an even cap, from arrival to the first token.
const FIRST_TOKEN_SECONDS: f64 = 0.08;
/// Of a request.
const TOKENS: f64 = 20.0;
/// Between one of them and the next.
const GAP_SECONDS: f64 = 0.015;

/// Whether so many at once are too many for such an engine.
pub fn harms(cap: u32) -> bool {
    cap % 2 == 1
}

/// What it has served since it started.
pub struct Served {
    until: Instant,
    scrapes: u32,
    starts: u32,
    requests: f64,
    seconds: f64,
    /// Of the requests, those with a first token after 0.1 s.
    late: f64,
}

impl Served {
    /// Nothing yet. Those of other numbers vary otherwise.
    pub fn nothing(number: u32) -> Self {
        Self {
            until: Instant::now(),
            scrapes: number,
            starts: 1,
            requests: 0.0,
            seconds: 0.0,
            late: 0.0,
        }
    }

    /// It starts anew, and serves from then on.
    pub fn start_anew(&mut self, at: Instant) {
        *self = Self {
            until: at,
            scrapes: self.scrapes,
            starts: self.starts + 1,
            ..Self::nothing(0)
        };
    }

    /// Serves until now.
    pub fn serve(&mut self, cap: Option<u32>) {
        let now = Instant::now();
        let requests = (now.duration_since(self.until).as_secs_f64() * RATE).floor();
        self.until = now;
        self.scrapes += 1;
        let slowly = cap.is_some_and(harms);
        // no two intervals are the same
        let noise = 1.0 + 0.004 * f64::from(self.scrapes * 7 % 11) - 0.02;
        self.requests += requests;
        self.seconds += requests * FIRST_TOKEN_SECONDS * noise * if slowly { 2.0 } else { 1.0 };
        self.late += requests * if slowly { 0.9 } else { 0.05 };
    }

    /// Its metrics.
    pub fn page(&self) -> String {
        let (requests, seconds, late) = (self.requests, self.seconds, self.late.floor());
        let tokens = requests * TOKENS;
        let gaps = requests * (TOKENS - 1.0);
        let started = 1_800_000_000 + self.starts;
        let of = "engine=\"0\",model_name=\"m\"";
        let distribution = |name: &str, bound: f64, late: f64, count: f64, sum: f64| {
            let early = count - late;
            let (name, above) = (format!("vllm:{name}"), 2.5 * bound);
            format!(
                "# TYPE {name} histogram\n\
                 {name}_bucket{{{of},le=\"{bound}\"}} {early}\n{name}_bucket{{{of},le=\"{above}\"}} {count}\n\
                 {name}_bucket{{{of},le=\"+Inf\"}} {count}\n\
                 {name}_sum{{{of}}} {sum}\n{name}_count{{{of}}} {count}\n"
            )
        };
        let gap_seconds = GAP_SECONDS * gaps;
        let first = distribution("time_to_first_token_seconds", 0.1, late, requests, seconds);
        let gap = distribution("inter_token_latency_seconds", 0.02, 0.0, gaps, gap_seconds);
        let whole = distribution(
            "e2e_request_latency_seconds",
            1.0,
            0.0,
            requests,
            seconds + gap_seconds,
        );
        format!(
            "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{{{of}}} 2\n\
             # TYPE vllm:num_requests_waiting gauge\nvllm:num_requests_waiting{{{of}}} 0\n\
             # TYPE vllm:generation_tokens_total counter\nvllm:generation_tokens_total{{{of}}} {tokens}\n\
             # TYPE vllm:request_success_total counter\n\
             vllm:request_success_total{{{of},finished_reason=\"stop\"}} {requests}\n\
             vllm:request_success_total{{{of},finished_reason=\"error\"}} 0\n\
             # TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}\n\
             {first}{gap}{whole}"
        )
    }
}
