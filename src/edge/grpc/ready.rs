//! Answers whose messages are bytes already, and go out as they are: what a thousand watchers are told is written once,
//! and not copied for each of them.
//!
//! A handler answers with nothing and has its messages beside it, in the response's extensions; the innermost layer
//! puts them in the place of the body that tonic made of nothing.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as HttpBody, Frame};
use tokio_stream::Stream;
use tonic::{Response, Status};

use super::encoded::Framed;
use super::lifetime::{ReadTo, trailers};

/// The messages of an answer.
type Messages = Pin<Box<dyn Stream<Item = Result<Framed, Status>> + Send>>;

/// An answer's messages, until they are sent. Extensions are shared, streams are not.
#[derive(Clone)]
struct Ready(Arc<Mutex<Option<Messages>>>);

/// What a handler's stream is instead.
pub(super) type Nothing<T> = stream::Empty<Result<T, Status>>;

/// An answer of one message.
pub(super) fn one<T: Default>(message: Framed) -> Response<T> {
    beside(T::default(), stream::iter([Ok(message)]))
}

/// An answer of many.
pub(super) fn many<T>(
    messages: impl Stream<Item = Framed> + Send + 'static,
) -> Response<Nothing<T>> {
    beside(stream::empty(), messages.map(Ok))
}

/// An answer of many that can break off, and be gone on with from where its reader is.
pub(super) fn resumable<T>(
    messages: impl Stream<Item = Result<Framed, Status>> + Send + 'static,
    read_to: ReadTo,
) -> Response<Nothing<T>> {
    let mut response = beside(stream::empty(), messages);
    response.extensions_mut().insert(read_to);
    response
}

fn beside<T>(
    nothing: T,
    messages: impl Stream<Item = Result<Framed, Status>> + Send + 'static,
) -> Response<T> {
    let mut response = Response::new(nothing);
    let messages: Messages = Box::pin(messages);
    let ready = Ready(Arc::new(Mutex::new(Some(messages))));
    response.extensions_mut().insert(ready);
    response
}

/// Sends what is ready.
pub(super) async fn send_ready(mut response: axum::response::Response) -> axum::response::Response {
    let ready = response.extensions_mut().remove::<Ready>();
    let messages = ready.and_then(|Ready(messages)| {
        let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
        messages.take()
    });
    match messages {
        Some(messages) => response.map(|_| {
            Body::new(ReadyBody {
                messages: Some(messages),
            })
        }),
        None => response,
    }
}

/// The messages, one a frame, and that all is well.
struct ReadyBody {
    /// None once they have ended.
    messages: Option<Messages>,
}

impl HttpBody for ReadyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(messages) = &mut self.messages else {
            return Poll::Ready(None);
        };
        messages.as_mut().poll_next(context).map(|message| {
            Some(Ok(match message {
                Some(Ok(message)) => Frame::data(message.into_bytes()),
                Some(Err(status)) => {
                    self.messages = None;
                    Frame::trailers(trailers(&status))
                }
                None => {
                    self.messages = None;
                    let mut trailers = HeaderMap::new();
                    trailers.insert("grpc-status", HeaderValue::from_static("0"));
                    Frame::trailers(trailers)
                }
            }))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.messages.is_none()
    }
}
