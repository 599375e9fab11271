//! Responses that layers give themselves, and bodies that hold something until they end.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::Status;

/// A status as a whole response.
pub(super) fn response_of(status: Status) -> Response {
    status.into_http::<tonic::body::Body>().map(Body::new)
}

/// What looks at the frames of a response as they pass.
pub(super) trait Watch: Send + Unpin + 'static {
    /// A frame, or the end.
    fn frame(&mut self, frame: Option<&Frame<Bytes>>);
}

/// A response body that is watched until it ends or is dropped.
pub(super) struct Watched<W> {
    inner: Body,
    watch: W,
}

/// Has `watch` look at the response's frames.
pub(super) fn watched<W: Watch>(response: Response, watch: W) -> Response {
    response.map(|inner| Body::new(Watched { inner, watch }))
}

impl<W: Watch> HttpBody for Watched<W> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.watch.frame(Some(frame)),
            Poll::Ready(None) => self.watch.frame(None),
            _ => {}
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
