//! Posting JSON to a receiver, under the policy and the limits of every other request.

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::error::ScrapeFailure;
use super::fetch::Fetcher;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What a receiver answered. Its body is not read: it may be anything, and nothing of it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posted {
    /// HTTP status.
    pub status: u16,
    /// Its `Retry-After`, as it came.
    pub retry_after: Option<String>,
}

impl Fetcher {
    /// Posts JSON with headers. Any status is an answer.
    ///
    /// # Errors
    /// See [`ScrapeFailure`]. Of all but a refusal it is not known whether the receiver has it.
    pub async fn post_json(
        &self,
        url: &str,
        headers: &[(&'static str, String)],
        body: String,
    ) -> Result<Posted, ScrapeFailure> {
        let url = self.policy().check(url)?;
        let mut all = HeaderMap::new();
        all.insert(CONTENT_TYPE, JSON);
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|error| ScrapeFailure::Broken(error.to_string()))?;
            all.insert(HeaderName::from_static(name), value);
        }
        let sent = self.client.post(url).headers(all).body(body).send().await;
        let response = sent.map_err(|error| self.failure(&error))?;
        let retry_after = response.headers().get(RETRY_AFTER);
        Ok(Posted {
            status: response.status().as_u16(),
            retry_after: retry_after
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        })
    }
}
