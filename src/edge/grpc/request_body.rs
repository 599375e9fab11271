//! The body of a request: within its time, and with few large ones at once.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::ready;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::PollSemaphore;
use tonic::Code;

use super::status::refusal;
use crate::agent::Reason;

/// The place of a large request, which its call holds to its end.
pub(super) type Large = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

/// A request of ours is whole within this.
const TIME: Duration = Duration::from_secs(30);
/// From this size on a request is large.
const LARGE_BYTES: usize = 256 << 10;

/// Bounds a body in time, and has it wait for its place once it is large.
pub(super) fn bounded(body: Body, gate: Arc<Semaphore>, large: Large) -> Body {
    Body::new(Bounded {
        inner: body,
        expires: Box::pin(sleep(TIME)),
        bytes: 0,
        gate: PollSemaphore::new(gate),
        large,
    })
}

struct Bounded {
    inner: Body,
    expires: Pin<Box<Sleep>>,
    bytes: usize,
    gate: PollSemaphore,
    large: Large,
}

impl HttpBody for Bounded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.expires.as_mut().poll(context).is_ready() {
            let text = format!("the request was not whole within {} s", TIME.as_secs());
            let late = refusal(Code::DeadlineExceeded, Reason::DeadlineExceeded, text);
            return Poll::Ready(Some(Err(axum::Error::new(late))));
        }
        let has_place = |large: &Large| {
            large
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
        };
        if self.bytes > LARGE_BYTES && !has_place(&self.large) {
            let permit = ready!(self.gate.poll_acquire(context));
            *self.large.lock().unwrap_or_else(PoisonError::into_inner) = permit;
        }
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            self.bytes += frame.data_ref().map_or(0, Bytes::len);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
