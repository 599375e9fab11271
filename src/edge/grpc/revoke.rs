//! Answers that end when the credential they were asked with is taken away: a stream may outlive it by days.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;
use tonic::Status;

use crate::auth::{Credentials, Identity, Proof};

/// What a call was let in with.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    pub(super) identity: Identity,
    pub(super) proof: Proof,
}

/// Ends the answer with `refusal` as soon as the credential is gone, or its owner is another or has another role.
pub(super) fn revocable(
    response: Response,
    admission: Admission,
    credentials: watch::Receiver<Arc<Credentials>>,
    refusal: fn() -> Status,
) -> Response {
    response.map(|inner| {
        Body::new(Revocable {
            inner,
            changes: WatchStream::from_changes(credentials),
            admission,
            refusal,
            over: false,
        })
    })
}

struct Revocable {
    inner: Body,
    changes: WatchStream<Arc<Credentials>>,
    admission: Admission,
    refusal: fn() -> Status,
    over: bool,
}

impl HttpBody for Revocable {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.over {
            return Poll::Ready(None);
        }
        while let Poll::Ready(Some(now)) = Pin::new(&mut self.changes).poll_next(context) {
            let Admission { identity, proof } = &self.admission;
            if now.by_proof(*proof) != Some(identity) {
                self.over = true;
                // whatever works for it stops
                self.inner = Body::empty();
                let mut trailers = HeaderMap::new();
                // cannot fail: the details are ours and fit a header
                let _ = (self.refusal)().add_header(&mut trailers);
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.over || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // it may end earlier
        SizeHint::default()
    }
}
