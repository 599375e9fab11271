//! Streams that would go on for ever end in good order: when the agent is stopped, and after a while of their own, so
//! that they spread over agents anew and no proxy in between cuts them off.

use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use super::status::refusal;
use crate::agent::Reason;

/// When streams end.
#[derive(Debug)]
pub(super) struct Lifetimes {
    /// Methods whose streams do not end by themselves.
    endless: HashSet<&'static str>,
    lifetime: Duration,
    draining: CancellationToken,
    /// How many such streams are open.
    open: Arc<AtomicI64>,
}

/// Lifetimes differ by up to this part of them, so that streams which began together do not end together.
const JITTER_RATIO: f64 = 0.2;

impl Lifetimes {
    pub(super) fn new(
        endless: impl IntoIterator<Item = &'static str>,
        lifetime: Duration,
        draining: CancellationToken,
        open: Arc<AtomicI64>,
    ) -> Self {
        Self {
            endless: endless.into_iter().collect(),
            lifetime,
            draining,
            open,
        }
    }

    /// Between 80 and 120 % of what is configured.
    fn one(&self) -> Duration {
        // as random as this needs to be
        let random = RandomState::new().hash_one(0) as f64 / u64::MAX as f64;
        self.lifetime
            .mul_f64(1.0 + JITTER_RATIO * (2.0 * random - 1.0))
    }
}

/// Gives endless streams their end.
pub(super) async fn end_streams(
    State(lifetimes): State<Arc<Lifetimes>>,
    request: Request,
    next: Next,
) -> Response {
    let endless = lifetimes.endless.contains(request.uri().path());
    let response = next.run(request).await;
    // an error is a response without a body
    if !endless || response.headers().contains_key("grpc-status") {
        return response;
    }
    response.map(|inner| {
        Body::new(Mortal {
            inner,
            age: Box::pin(sleep(lifetimes.one())),
            draining: Box::pin(lifetimes.draining.clone().cancelled_owned()),
            last_word: false,
            _open: Open::new(lifetimes.open.clone()),
            over: false,
        })
    })
}

/// A body that ends when its time is over and it has nothing more to say.
struct Mortal {
    inner: Body,
    age: Pin<Box<Sleep>>,
    draining: Pin<Box<WaitForCancellationFutureOwned>>,
    /// It was asked for what it had to say when the agent was told to stop.
    last_word: bool,
    over: bool,
    _open: Open,
}

/// Counts a stream as long as it is open.
struct Open(Arc<AtomicI64>);

impl Open {
    fn new(count: Arc<AtomicI64>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl HttpBody for Mortal {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        // before the body: one that always has more to say would never end. A frame holds whole messages, so between two
        // of them is between two messages
        let draining = self.draining.as_mut().poll(context).is_ready();
        let over = self.age.as_mut().poll(context).is_ready();
        // a last word is heard, such as that the agent serves no more
        let heard = draining && std::mem::replace(&mut self.last_word, true);
        if !heard && !over {
            let polled = Pin::new(&mut self.inner).poll_frame(context);
            if polled.is_ready() || !draining {
                return polled;
            }
        }
        let end = if draining {
            refusal(
                Code::Unavailable,
                Reason::Draining,
                "the agent is being stopped; call again, another agent may answer",
            )
        } else {
            refusal(
                Code::Unavailable,
                Reason::StreamLifetime,
                "the stream has lived as long as streams live here; call again",
            )
        };
        self.over = true;
        // whatever works for it stops
        self.inner = Body::empty();
        Poll::Ready(Some(Ok(Frame::trailers(trailers(&end)))))
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // cannot fail: the details are ours and fit a header
    let _ = status.add_header(&mut trailers);
    trailers
}
