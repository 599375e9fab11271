//! Deadlines that hold for the whole call.
//!
//! tonic's own bound the time to the headers only, and answer CANCELLED. This layer stands inside tonic's and starts
//! its clock no later, so its answer comes first: DEADLINE_EXCEEDED, in mid-stream too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body as HttpBody, Frame};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::context::{CallContext, REQUEST_ID};
use super::status::refusal;
use crate::agent::Reason;

/// When the caller stops waiting. Handlers find it in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(in crate::edge) struct Deadline(pub(super) Instant);

impl Deadline {
    /// How long that is.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// Enforces `grpc-timeout`.
#[derive(Debug, Clone, Copy)]
pub(super) struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService { inner }
    }
}

#[derive(Debug, Clone)]
pub(super) struct DeadlineService<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for DeadlineService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // here, so that the answer to a call whose time is over has its id too
        let context = CallContext::of(request.headers());
        let id = context.header();
        request.extensions_mut().insert(context);
        let Some(timeout) = timeout_of(request.headers()) else {
            return Box::pin(self.inner.call(request));
        };
        // taken here and not when first polled: tonic's clock starts after this returns
        let at = Instant::now() + timeout;
        request.extensions_mut().insert(Deadline(at));
        let answer = self.inner.call(request);
        Box::pin(async move {
            tokio::select! {
                biased;
                response = answer => Ok(response?.map(|inner| {
                    Body::new(Limited { inner, expiry: Box::pin(sleep_until(at)), over: false })
                })),
                () = sleep_until(at) => {
                    let mut response = exceeded().into_http();
                    if let Some(id) = id {
                        response.headers_mut().insert(REQUEST_ID, id);
                    }
                    Ok(response)
                }
            }
        })
    }
}

fn exceeded() -> Status {
    refusal(
        Code::DeadlineExceeded,
        Reason::DeadlineExceeded,
        "the call's deadline passed before the answer was complete",
    )
}

/// A body that ends with DEADLINE_EXCEEDED when its time is over.
struct Limited {
    inner: Body,
    expiry: Pin<Box<Sleep>>,
    over: bool,
}

impl HttpBody for Limited {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // before the body: one that always has more to say would never end
        if self.expiry.as_mut().poll(context).is_ready() {
            self.over = true;
            self.inner = Body::empty();
            let mut trailers = HeaderMap::new();
            // cannot fail: the details are ours and fit a header
            let _ = exceeded().add_header(&mut trailers);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3_600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            timeout_of(&headers)
        };
        assert_eq!(read("2S"), Some(Duration::from_secs(2)));
        assert_eq!(read("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3_600)));
        for text in ["", "S", "2", "123456789S", "-1S", "2s", "é"] {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert("grpc-timeout", value);
            }
            assert_eq!(timeout_of(&headers), None, "{text}");
        }
    }
}
