//! Connections to an agent that notice why they are of no use. What hyper and h2 make of it would only be that a
//! frame is too large or an operation was cancelled.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower::{Service, service_fn};

/// Why nothing can be said over a connection.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Problem {
    /// The other side speaks TLS, and we do not.
    SpeaksTls,
    /// The other side speaks HTTP/1.
    SpeaksHttp1,
    /// No TLS session.
    Tls(rustls::Error),
}

/// The first problem that was noticed, if any.
pub(super) type Noticed = Arc<OnceLock<Problem>>;

type Connecting = BoxFuture<'static, io::Result<TokioIo<Noticing>>>;

/// Connects, with TLS where its configuration is given.
pub(super) fn connector(
    tls: Option<Arc<ClientConfig>>,
    noticed: Noticed,
) -> impl Service<Uri, Response = TokioIo<Noticing>, Error = io::Error, Future = Connecting> + Send
{
    service_fn(move |uri: Uri| -> Connecting {
        let (tls, noticed) = (tls.clone(), noticed.clone());
        Box::pin(async move {
            let address = uri.authority().map(ToString::to_string);
            let stream = TcpStream::connect(address.unwrap_or_default()).await?;
            stream.set_nodelay(true)?;
            let stream: Box<dyn Stream> = match tls {
                None => Box::new(stream),
                Some(tls) => Box::new(handshake(tls, &uri, stream, &noticed).await?),
            };
            Ok(TokioIo::new(Noticing {
                stream,
                noticed,
                begun: false,
            }))
        })
    })
}

async fn handshake(
    tls: Arc<ClientConfig>,
    uri: &Uri,
    stream: TcpStream,
    noticed: &Noticed,
) -> io::Result<impl Stream + use<>> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let connected = TlsConnector::from(tls).connect(name, stream).await;
    let stream = connected.inspect_err(|error| note(error, noticed))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        let _ = noticed.set(Problem::SpeaksHttp1);
        return Err(not_http2());
    }
    Ok(stream)
}

/// Keeps what rustls said; whoever is told of the error may not hear of it.
fn note(error: &io::Error, noticed: &Noticed) {
    let wrapped = error.get_ref().and_then(|inner| inner.downcast_ref());
    if let Some(error) = wrapped {
        let _ = noticed.set(Problem::Tls(rustls::Error::clone(error)));
    }
}

fn not_http2() -> io::Error {
    let text = "the other side does not speak HTTP/2";
    io::Error::new(io::ErrorKind::InvalidData, text)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A stream whose first byte and whose errors are looked at.
pub(super) struct Noticing {
    stream: Box<dyn Stream>,
    noticed: Noticed,
    begun: bool,
}

/// By the first byte: HTTP/2 begins with a SETTINGS frame, whose length is less than 2^16.
fn what_begins_with(first: u8) -> Option<Problem> {
    match first {
        // an alert, or a handshake message (RFC 8446, section 5.1)
        0x15 | 0x16 => Some(Problem::SpeaksTls),
        b'H' => Some(Problem::SpeaksHttp1),
        _ => None,
    }
}

impl AsyncRead for Noticing {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &polled {
            note(error, &this.noticed);
        }
        if this.begun {
            return polled;
        }
        let Some(first) = buffer.filled().get(before) else {
            return polled;
        };
        this.begun = true;
        let Some(problem) = what_begins_with(*first) else {
            return polled;
        };
        // a second connection would notice the same
        let _ = this.noticed.set(problem);
        Poll::Ready(Err(not_http2()))
    }
}

impl Noticing {
    /// Keeps back that the other side has hung up on us until what it said before that has been read: why it did.
    fn after_looking<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        let Poll::Ready(Err(error)) = &polled else {
            return polled;
        };
        if !matches!(error.kind(), BrokenPipe | ConnectionReset) {
            return polled;
        }
        loop {
            let mut bytes = [0; 1_024];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *self).poll_read(context, &mut buffer) {
                // the end of what there is to read comes too, since the connection is broken
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return polled,
            }
        }
    }
}

impl AsyncWrite for Noticing {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.after_looking(polled, context)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_flush(context);
        this.after_looking(polled, context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
