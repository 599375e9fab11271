//! Streams that would go on for ever end in good order: when the agent is stopped, and after a while of their own, so
//! that they spread over agents anew and no proxy in between cuts them off.

use std::collections::HashSet;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Code, Status};

use super::status::refusal_at;
use crate::agent::Reason;

/// When streams end.
#[derive(Debug)]
pub(super) struct Lifetimes {
    /// Methods whose streams do not end by themselves.
    endless: HashSet<&'static str>,
    lifetime: Duration,
    /// A reader that takes nothing for so long is too slow.
    stall: Duration,
    draining: CancellationToken,
    /// How many such streams are open.
    open: Arc<AtomicI64>,
}

/// Lifetimes differ by up to this part of them, so that streams which began together do not end together.
const JITTER_RATIO: f64 = 0.2;

impl Lifetimes {
    pub(super) fn new(
        endless: impl IntoIterator<Item = &'static str>,
        (lifetime, stall): (Duration, Duration),
        draining: CancellationToken,
        open: Arc<AtomicI64>,
    ) -> Self {
        Self {
            endless: endless.into_iter().collect(),
            lifetime,
            stall,
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

/// How far the reader of a stream that can be resumed is.
#[derive(Debug, Clone, Default)]
pub(super) struct ReadTo(Arc<AtomicU64>);

impl ReadTo {
    /// It is being sent what comes up to this revision; 0 tells nothing.
    pub(super) fn note(&self, revision: u64) {
        self.0.fetch_max(revision, Ordering::Relaxed);
    }

    /// Whoever resumes after it misses nothing; none where it was told nothing yet.
    pub(super) fn revision(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|revision| *revision > 0)
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
    let mut response = response;
    let read_to = response.extensions_mut().remove::<ReadTo>();
    response.map(|inner| {
        Body::new(Mortal {
            inner,
            read_to,
            stall: lifetimes.stall,
            handed: None,
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
    /// Of one that can be resumed.
    read_to: Option<ReadTo>,
    stall: Duration,
    /// When it was last asked, and gave something.
    handed: Option<Instant>,
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
        // whoever sends asks again when what it has is taken
        let handed = self.handed.take();
        let stalled = self.read_to.is_some()
            && !draining
            && !over
            && handed.is_some_and(|handed| handed.elapsed() >= self.stall);
        if !heard && !over && !stalled {
            let polled = Pin::new(&mut self.inner).poll_frame(context);
            self.handed = polled.is_ready().then(Instant::now);
            if polled.is_ready() || !draining {
                return polled;
            }
        }
        let revision = self.read_to.as_ref().and_then(ReadTo::revision);
        let end = if draining {
            refusal_at(
                revision,
                Code::Unavailable,
                Reason::Draining,
                "the agent is being stopped; call again, another agent may answer",
            )
        } else if stalled {
            refusal_at(
                revision,
                Code::ResourceExhausted,
                Reason::WatcherTooSlow,
                "nothing was taken for too long; watch on after the revision in the error's metadata",
            )
        } else {
            refusal_at(
                revision,
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

/// A status as the end of a stream.
pub(super) fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    // cannot fail: the details are ours and fit a header
    let _ = status.add_header(&mut trailers);
    trailers
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::task::Waker;

    use tonic_types::StatusExt;

    use super::*;

    /// Has a message at all times.
    struct Talker;

    impl HttpBody for Talker {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    fn talking(stall: Duration, read_to: Option<ReadTo>) -> Mortal {
        Mortal {
            inner: Body::new(Talker),
            read_to,
            stall,
            handed: None,
            age: Box::pin(sleep(Duration::from_secs(3_600))),
            draining: Box::pin(CancellationToken::new().cancelled_owned()),
            last_word: false,
            _open: Open::new(Arc::default()),
            over: false,
        }
    }

    fn next(body: &mut Mortal) -> Frame<Bytes> {
        let mut context = Context::from_waker(Waker::noop());
        match Pin::new(body).poll_frame(&mut context) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_reader_that_takes_nothing_for_too_long_is_told_where_it_was() {
        let read_to = ReadTo::default();
        // any time at all is too long
        let mut body = talking(Duration::ZERO, Some(read_to.clone()));
        assert!(next(&mut body).is_data());
        read_to.note(7);
        read_to.note(0);
        let trailers = next(&mut body).into_trailers().unwrap();
        let status = Status::from_header_map(&trailers).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let info = status.get_details_error_info().unwrap();
        assert_eq!(info.reason, "WATCHER_TOO_SLOW");
        assert_eq!(info.metadata["revision"], "7");
        assert!(status.get_details_retry_info().is_some());
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn who_reads_is_left_alone_and_so_are_streams_of_states() {
        let mut body = talking(Duration::from_secs(3_600), Some(ReadTo::default()));
        for _ in 0..3 {
            assert!(next(&mut body).is_data());
        }
        let mut body = talking(Duration::ZERO, None);
        for _ in 0..3 {
            assert!(next(&mut body).is_data());
        }
    }
}
