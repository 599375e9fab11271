//! Fetching from engines: where to (policy), how (limits), and what went wrong (one error a step).

mod control;
mod error;
mod fetch;
mod network;
mod policy;
mod post;

pub use control::ControlAnswer;
pub use error::{ScrapeError, ScrapeFailure, Step};
pub use fetch::{ClientError, FetchLimits, Fetched, Fetcher};
pub use network::{BadNetwork, Network};
pub use policy::{AllowRule, BadAllowRule, Purpose, Refusal, UrlPolicy, parse_url, shown_url};
pub use post::Posted;
