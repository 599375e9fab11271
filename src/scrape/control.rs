//! Reading and writing JSON at a control endpoint, under the policy and the limits of every other request.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::error::ScrapeFailure;
use super::fetch::Fetcher;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Settings of 256 KiB in base64 fit.
const LIMIT_BYTES: usize = 1 << 20;

/// What a control endpoint answered.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlAnswer {
    /// HTTP status.
    pub status: u16,
    /// The JSON of the body; null where it is none.
    pub body: Value,
}

impl Fetcher {
    /// Reads at a control endpoint. Statuses other than 200 are answers too.
    ///
    /// # Errors
    /// See [`ScrapeFailure`].
    pub async fn control_get(&self, url: &str) -> Result<ControlAnswer, ScrapeFailure> {
        let url = self.policy().check(url)?;
        self.control(self.client.get(url)).await
    }

    /// Writes at a control endpoint.
    ///
    /// # Errors
    /// See [`ScrapeFailure`]. Of all but a refusal it is not known what was written.
    pub async fn control_put(
        &self,
        url: &str,
        body: &Value,
    ) -> Result<ControlAnswer, ScrapeFailure> {
        let url = self.policy().check(url)?;
        let request = self.client.put(url).header(CONTENT_TYPE, JSON);
        self.control(request.body(body.to_string())).await
    }

    /// Asks an endpoint for something that takes its time.
    ///
    /// # Errors
    /// See [`ScrapeFailure`].
    pub async fn control_post(
        &self,
        url: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<ControlAnswer, ScrapeFailure> {
        let url = self.policy().check(url)?;
        let request = self
            .client
            .post(url)
            .header(CONTENT_TYPE, JSON)
            .timeout(timeout);
        self.control(request.body(body.to_string())).await
    }

    async fn control(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<ControlAnswer, ScrapeFailure> {
        let sent = request.header(ACCEPT, JSON).send().await;
        let mut response = sent.map_err(|error| self.failure(&error))?;
        let status = response.status().as_u16();
        let (body, _room) = self.body(&mut response, LIMIT_BYTES).await?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        Ok(ControlAnswer { status, body })
    }
}
