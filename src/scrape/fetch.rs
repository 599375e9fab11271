//! One HTTP request, with limits on time and size.

use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, CONNECTION, HeaderValue};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ScrapeFailure;
use super::policy::{Refusal, UrlPolicy};

/// Metrics text of either kind; the body tells which came.
const ACCEPT_METRICS: HeaderValue = HeaderValue::from_static(
    "text/plain;version=1.0.0;q=1.0, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1",
);

/// Limits of a request.
#[derive(Debug, Clone, Copy)]
pub struct FetchLimits {
    /// Time for the connection.
    pub connect_timeout: Duration,
    /// Time for the whole request.
    pub timeout: Duration,
    /// Bytes of the answer, decompressed.
    pub body_bytes: usize,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            timeout: Duration::from_secs(10),
            body_bytes: 16 << 20,
        }
    }
}

/// Fetches URLs that the policy allows. No redirects, no proxies, no cookies.
#[derive(Debug, Clone)]
pub struct Fetcher {
    pub(super) client: reqwest::Client,
    policy: Arc<UrlPolicy>,
    limits: FetchLimits,
    /// Connections are kept for the next request.
    keeps: bool,
    /// Room for answers that are larger than engines give.
    large: Arc<Semaphore>,
}

/// How long a connection is kept for the next request: long enough for the next sample of a window, short enough not to
/// pile up over many hosts.
const KEPT_FOR: Duration = Duration::from_secs(3);
/// From this size on an answer needs room that few share.
const LARGE_BYTES: usize = 1 << 20;
/// How many large answers may be in memory at once.
const LARGE_AT_ONCE: usize = 4;

/// The HTTP client cannot be set up on this machine.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot set up the HTTP client: {0}")]
pub struct ClientError(String);

/// An answer.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Body, decompressed.
    pub body: Vec<u8>,
    /// When its headers came: engines write their metrics just before they send them.
    pub at: Instant,
    /// Time to the headers of the answer.
    pub request_time: Duration,
    /// Time for its body.
    pub body_time: Duration,
    /// Room that a large answer takes until it is dropped.
    _room: Option<Arc<OwnedSemaphorePermit>>,
}

impl Fetcher {
    /// A fetcher with its own connections.
    ///
    /// # Errors
    /// The TLS set-up of this machine.
    pub fn new(policy: UrlPolicy, limits: FetchLimits) -> Result<Self, ClientError> {
        // a second installation is refused and does no harm
        let _ = rustls::crypto::ring::default_provider().install_default();
        let policy = Arc::new(policy);
        let builder = || {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .dns_resolver(Arc::new(CheckedResolver(policy.clone())))
                .connect_timeout(limits.connect_timeout)
                .timeout(limits.timeout)
                .pool_max_idle_per_host(1)
                .pool_idle_timeout(KEPT_FOR)
                .tcp_nodelay(true)
                .http1_only()
                .user_agent(concat!("perfagent/", env!("CARGO_PKG_VERSION")))
        };
        // a machine without root certificates still fetches over http; https then fails at the target
        let client = builder().build().or_else(|error| {
            tracing::warn!("https targets cannot be checked: {}", root_message(&error));
            let without_roots = builder().tls_certs_only([]).build();
            without_roots.map_err(|error| ClientError(root_message(&error)))
        })?;
        Ok(Self {
            client,
            policy,
            limits,
            keeps: true,
            large: Arc::new(Semaphore::new(LARGE_AT_ONCE)),
        })
    }

    /// The same for requests that come this far apart: where a connection would not be kept until the next, it is closed
    /// at once, and its buffers do not wait for that.
    pub fn each(&self, interval: Duration) -> Self {
        Self {
            keeps: interval <= KEPT_FOR,
            ..self.clone()
        }
    }

    /// The policy that every request is checked by.
    pub fn policy(&self) -> &UrlPolicy {
        &self.policy
    }

    /// Fetches a URL. An answer other than 200 is a failure.
    ///
    /// # Errors
    /// See [`ScrapeFailure`].
    pub async fn get(&self, url: &str) -> Result<Fetched, ScrapeFailure> {
        self.get_within(url, self.limits.body_bytes).await
    }

    /// The same with a bound of its own on the answer.
    ///
    /// # Errors
    /// See [`ScrapeFailure`].
    pub async fn get_within(
        &self,
        url: &str,
        limit_bytes: usize,
    ) -> Result<Fetched, ScrapeFailure> {
        let url = self.policy.check(url)?;
        let start = Instant::now();
        let mut request = self.client.get(url).header(ACCEPT, ACCEPT_METRICS);
        if !self.keeps {
            request = request.header(CONNECTION, HeaderValue::from_static("close"));
        }
        let mut response = request.send().await.map_err(|error| self.failure(&error))?;
        let request_time = start.elapsed();
        if response.status() != reqwest::StatusCode::OK {
            return Err(ScrapeFailure::Status(response.status().as_u16()));
        }
        let (body, large) = self.body(&mut response, limit_bytes).await?;
        Ok(Fetched {
            body,
            at: start + request_time,
            request_time,
            body_time: start.elapsed() - request_time,
            _room: large.map(Arc::new),
        })
    }

    /// The body of an answer, and the room that it takes.
    pub(super) async fn body(
        &self,
        response: &mut reqwest::Response,
        limit_bytes: usize,
    ) -> Result<(Vec<u8>, Option<OwnedSemaphorePermit>), ScrapeFailure> {
        let too_large = || ScrapeFailure::TooLarge { limit_bytes };
        let announced = usize::try_from(response.content_length().unwrap_or(0));
        let announced = announced.map_err(|_| too_large())?;
        if announced > limit_bytes {
            return Err(too_large());
        }
        let mut body = Vec::with_capacity(announced.min(LARGE_BYTES));
        let mut large = None;
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| self.failure(&error))?
        {
            if body.len() + chunk.len() > limit_bytes {
                return Err(too_large());
            }
            if large.is_none() && body.len() + chunk.len() > LARGE_BYTES {
                // the semaphore is never closed
                large = self.large.clone().acquire_owned().await.ok();
            }
            body.extend_from_slice(&chunk);
        }
        Ok((body, large))
    }

    pub(super) fn failure(&self, error: &reqwest::Error) -> ScrapeFailure {
        if let Some(failure) = cause::<Unresolved>(error) {
            return failure.0.clone();
        }
        if error.is_timeout() {
            let limit = if error.is_connect() {
                self.limits.connect_timeout
            } else {
                self.limits.timeout
            };
            return match error.is_connect() {
                true => {
                    ScrapeFailure::Connect(format!("no answer within {} s", limit.as_secs_f64()))
                }
                false => ScrapeFailure::TimedOut {
                    seconds: limit.as_secs_f64(),
                },
            };
        }
        if let Some(tls) = cause::<rustls::Error>(error) {
            return ScrapeFailure::Tls(tls.to_string());
        }
        let root = root_message(error);
        if error.is_connect() {
            ScrapeFailure::Connect(root)
        } else {
            ScrapeFailure::Broken(root)
        }
    }
}

/// Resolves names and refuses addresses, in one step.
struct CheckedResolver(Arc<UrlPolicy>);

/// A look-up that gave nothing that may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unresolved(ScrapeFailure);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let addresses: Vec<SocketAddr> = found
                .map_err(|error| Unresolved(ScrapeFailure::Resolve(error.to_string())))?
                .collect();
            if addresses.is_empty() {
                let none = ScrapeFailure::Resolve("the name has no address".to_owned());
                return Err(Unresolved(none).into());
            }
            // every answer counts: one bad address among good ones is how a rebinding attack looks
            for address in &addresses {
                policy
                    .check_address(address.ip(), Some(name.as_str()))
                    .map_err(|refusal: Refusal| Unresolved(refusal.into()))?;
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// The error of this type in the chain of causes.
fn cause<'e, E: StdError + 'static>(error: &'e (dyn StdError + 'static)) -> Option<&'e E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        // an I/O error hides what it wraps from `source`
        let wrapped = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What lies at the bottom of a chain of causes; the layers above repeat the URL.
fn root_message(error: &dyn StdError) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}
