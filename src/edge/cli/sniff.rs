//! A connection in the clear that notices when the other side speaks something else: h2 would only say that a frame
//! is too large.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::{Service, service_fn};

/// What the other side speaks that is not HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    Tls,
    Http1,
}

/// What was noticed, if anything.
pub(super) type Noticed = Arc<OnceLock<Speaks>>;

/// Connects without TLS.
pub(super) fn connector(
    noticed: Noticed,
) -> impl Service<Uri, Response = TokioIo<Sniffed>, Error = io::Error, Future = Connecting> + Send {
    service_fn(move |uri: Uri| -> Connecting {
        let noticed = noticed.clone();
        Box::pin(async move {
            let address = uri.authority().map(ToString::to_string);
            let stream = TcpStream::connect(address.unwrap_or_default()).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(Sniffed {
                stream,
                noticed,
                begun: false,
            }))
        })
    })
}

type Connecting = BoxFuture<'static, io::Result<TokioIo<Sniffed>>>;

/// A TCP stream whose first byte is looked at.
#[derive(Debug)]
pub(super) struct Sniffed {
    stream: TcpStream,
    noticed: Noticed,
    begun: bool,
}

/// By the first byte: HTTP/2 begins with a SETTINGS frame, whose length is less than 2^16.
fn what_begins_with(first: u8) -> Option<Speaks> {
    match first {
        // an alert, or a handshake message (RFC 8446, section 5.1)
        0x15 | 0x16 => Some(Speaks::Tls),
        b'H' => Some(Speaks::Http1),
        _ => None,
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if this.begun {
            return polled;
        }
        let Some(first) = buffer.filled().get(before) else {
            return polled;
        };
        this.begun = true;
        let Some(speaks) = what_begins_with(*first) else {
            return polled;
        };
        // a second connection would notice the same
        let _ = this.noticed.set(speaks);
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "the other side does not speak HTTP/2",
        )))
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
