//! `perfagent replay`: the recorded scrapes of an engine, served as if it ran now.
//!
//! Every sample carries the time at which it was recorded, so that rates come out as they were however fast the
//! replay runs, and nobody takes them for today's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use clap::Args;
use http::StatusCode;
use http::header::CONTENT_TYPE;
use serde::Deserialize;
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;

use super::Outcome;
use super::terminal::{complain, print};

/// Flags of `perfagent replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Directory with scrape-1.prom, scrape-2.prom … and meta.json, which says when each was recorded
    directory: PathBuf,
    /// Address to serve on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How many recorded seconds pass in one
    #[arg(long, default_value_t = 5.0, value_parser = positive, value_name = "FACTOR")]
    speed: f64,
}

fn positive(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if number.is_finite() && number > 0.0 {
        Ok(number)
    } else {
        Err("expected a number above 0".to_owned())
    }
}

/// What is served.
pub(super) struct Recording {
    pub(super) scrapes: Vec<Scrape>,
    directory: PathBuf,
    speed: f64,
    start: Instant,
}

pub(super) struct Scrape {
    pub(super) unix_seconds: f64,
    pub(super) body: String,
}

#[derive(Deserialize)]
struct Meta {
    scrapes: Vec<ScrapeMeta>,
}

#[derive(Deserialize)]
struct ScrapeMeta {
    file: String,
    unix_start: f64,
}

pub(super) async fn run(args: ReplayArgs) -> Outcome {
    let recording = match Recording::read(&args.directory, args.speed) {
        Ok(recording) => recording,
        Err(message) => {
            complain(
                &message,
                Some("a recording is a directory as under tests/fixtures/captures"),
            );
            return Outcome::Usage;
        }
    };
    match serve(recording, args.listen).await {
        Ok(()) => Outcome::Done,
        Err(error) => {
            complain(&error.to_string(), None);
            Outcome::Failed
        }
    }
}

async fn serve(recording: Recording, listen: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("cannot listen on {listen}: {error}"))?;
    let address = listener.local_addr()?;
    print(&format!(
        "replaying {} scrapes of {} at http://{address}/metrics, {} times as fast; stop with Ctrl-C\n",
        recording.scrapes.len(),
        recording.directory.display(),
        recording.speed
    ));
    let router = Router::new()
        .fallback(answer)
        .with_state(Arc::new(recording));
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let interrupted = async {
        // without a signal handler the default one ends the process
        let _ = tokio::signal::ctrl_c().await;
    };
    tonic::transport::Server::builder()
        .accept_http1(true)
        .add_routes(Routes::from(router))
        .serve_with_incoming_shutdown(incoming, interrupted)
        .await?;
    Ok(())
}

async fn answer(State(recording): State<Arc<Recording>>, request: Request) -> Response {
    match request.uri().path() {
        "/metrics" => (
            [(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
            recording.now(),
        )
            .into_response(),
        path => match recording.endpoint(path, request.uri().query()) {
            Some(body) => ([(CONTENT_TYPE, "application/json")], body).into_response(),
            None => (StatusCode::NOT_FOUND, "not recorded\n").into_response(),
        },
    }
}

impl Recording {
    pub(super) fn read(directory: &Path, speed: f64) -> Result<Self, String> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let meta: Meta = serde_json::from_str(&read("meta.json")?)
            .map_err(|error| format!("meta.json: {error}"))?;
        let scrapes = meta
            .scrapes
            .iter()
            .map(|scrape| {
                let name = Path::new(&scrape.file)
                    .file_name()
                    .and_then(|name| name.to_str())
                    .ok_or_else(|| format!("meta.json: `{}` is no file name", scrape.file))?;
                Ok(Scrape {
                    unix_seconds: scrape.unix_start,
                    body: read(name)?,
                })
            })
            .collect::<Result<Vec<_>, String>>()?;
        if scrapes.is_empty() {
            return Err("meta.json lists no scrapes".to_owned());
        }
        Ok(Self {
            scrapes,
            directory: directory.to_owned(),
            speed,
            start: Instant::now(),
        })
    }

    /// The scrape whose time has come. After the last it starts again, as an engine that was restarted.
    fn now(&self) -> String {
        self.at(self.start.elapsed().as_secs_f64() * self.speed)
    }

    fn at(&self, recorded_seconds: f64) -> String {
        let (Some(first), Some(last)) = (self.scrapes.first(), self.scrapes.last()) else {
            return String::new();
        };
        // the last scrape stands for as long as the interval before it
        let before_last = self.scrapes.iter().rev().nth(1).unwrap_or(first);
        let length = last.unix_seconds - first.unix_seconds
            + (last.unix_seconds - before_last.unix_seconds).max(1.0);
        let round = (recorded_seconds / length).floor();
        let at = first.unix_seconds + recorded_seconds - round * length;
        let scrape = self
            .scrapes
            .iter()
            .rev()
            .find(|scrape| scrape.unix_seconds <= at)
            .unwrap_or(first);
        stamped(&scrape.body, scrape.unix_seconds + round * length)
    }

    pub(super) fn endpoint(&self, path: &str, query: Option<&str>) -> Option<String> {
        let mut name = path.trim_start_matches('/').replace('/', "_");
        if query == Some("config_format=json") {
            name += "_json";
        }
        // a name from outside must not leave the directory
        let is_plain = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let path = self.directory.join(format!("endpoint-{name}.json"));
        is_plain
            .then(|| std::fs::read_to_string(path).ok())
            .flatten()
    }
}

/// Adds the time to every sample of a body in the Prometheus format.
fn stamped(body: &str, unix_seconds: f64) -> String {
    let millis = (unix_seconds * 1e3).round();
    let mut out = String::with_capacity(body.len() * 5 / 4);
    for line in body.lines() {
        out += line;
        if !line.trim().is_empty() && !line.starts_with('#') {
            out += &format!(" {millis}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recording() -> Recording {
        Recording {
            scrapes: [(100.0, "a 1\n"), (105.0, "# x\na 2\n"), (110.0, "a 3\n")]
                .map(|(unix_seconds, body)| Scrape {
                    unix_seconds,
                    body: body.to_owned(),
                })
                .into(),
            directory: PathBuf::new(),
            speed: 1.0,
            start: Instant::now(),
        }
    }

    #[test]
    fn scrapes_come_at_their_time_and_say_it() {
        let recording = recording();
        assert_eq!(recording.at(0.0), "a 1 100000\n");
        assert_eq!(recording.at(4.9), "a 1 100000\n");
        assert_eq!(recording.at(5.0), "# x\na 2 105000\n");
        assert_eq!(recording.at(14.9), "a 3 110000\n");
        // time goes on when the recording starts again
        assert_eq!(recording.at(15.0), "a 1 115000\n");
        assert_eq!(recording.at(21.0), "# x\na 2 120000\n");
    }

    #[test]
    fn endpoints_do_not_leave_the_directory() {
        assert_eq!(recording().endpoint("/../../etc/passwd", None), None);
        assert_eq!(recording().endpoint("/version", None), None);
    }
}
