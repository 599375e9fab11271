//! One connection, with TLS or without, and who is at its other end.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::cork::Cork;
use super::listen::Place;
use crate::auth::Digest;

/// Who is at the other end. Handlers find it in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    /// Its address.
    pub(super) address: Option<SocketAddr>,
    /// For whom it calls, where it is a trusted proxy that says so.
    pub(super) forwarded_for: Option<IpAddr>,
    /// Digest of its certificate, which its private key and a trusted signature were shown for.
    pub(super) certificate: Option<Digest>,
}

impl Peer {
    /// Who calls, for limits.
    pub(super) fn caller(self) -> Option<IpAddr> {
        self.forwarded_for
            .or_else(|| self.address.map(|address| address.ip()))
    }

    /// Who calls, for logs: with the port where it is known.
    pub(super) fn shown(self) -> Option<String> {
        match (self.forwarded_for, self.address) {
            (Some(caller), _) => Some(caller.to_string()),
            (None, address) => address.map(|address| address.to_string()),
        }
    }
}

/// What carries the bytes.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection. Fails when its first request does not begin in time.
#[derive(Debug)]
pub(super) struct Connection {
    transport: Transport,
    peer: Peer,
    opening: Option<Opening>,
    /// Of HTTP/2.
    cork: Option<Cork>,
    _place: Place,
}

impl Connection {
    pub(super) fn new(transport: Transport, peer: Peer, place: Place, opening: Duration) -> Self {
        Self {
            transport,
            peer,
            opening: Some(Opening {
                read: 0,
                differs: false,
                expires: Box::pin(tokio::time::sleep(opening)),
            }),
            cork: None,
            _place: place,
        }
    }

    #[cfg(test)]
    pub(super) fn plain(&self) -> Option<&TcpStream> {
        match &self.transport {
            Transport::Plain(stream) => Some(stream),
            Transport::Tls(_) => None,
        }
    }

    #[cfg(test)]
    pub(super) fn is_opening(&self) -> bool {
        self.opening.is_some()
    }
}

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that has not shown yet which HTTP it speaks. hyper has no bound for that: only afterwards there are
/// its header timeout (HTTP/1) and its pings (HTTP/2).
#[derive(Debug)]
struct Opening {
    /// Bytes of the preface that have come.
    read: usize,
    /// What has come is not the preface.
    differs: bool,
    expires: Pin<Box<Sleep>>,
}

impl Opening {
    /// Whether it is settled now that these bytes have come.
    fn is_over_with(&mut self, bytes: &[u8]) -> bool {
        let expected = PREFACE.get(self.read..).unwrap_or_default();
        self.read += bytes.len();
        self.differs |= expected.iter().zip(bytes).any(|(a, b)| a != b);
        self.differs || self.read >= PREFACE.len()
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(cork) = &mut this.cork
            // where it has to wait, this is polled once there is room
            && let Poll::Ready(sent) = cork.send(&mut this.transport, context)
        {
            sent?;
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.transport).poll_read(context, buffer);
        let Some(opening) = &mut this.opening else {
            return polled;
        };
        if polled.is_pending() {
            return opening.expires.as_mut().poll(context).map(|()| {
                let text = "no request in time";
                Err(io::Error::new(io::ErrorKind::TimedOut, text))
            });
        }
        let new = buffer.filled().get(before..).unwrap_or_default();
        if opening.is_over_with(new) {
            // HTTP/1 may flush without reading afterwards
            this.cork = (!opening.differs).then(Cork::default);
            this.opening = None;
        }
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match &mut this.cork {
            Some(cork) => cork.write(&mut this.transport, context, slices),
            None => Pin::new(&mut this.transport).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.cork.as_mut().map(|cork| cork.put_off(context)) {
            Some(true) => Poll::Ready(Ok(())),
            _ => Pin::new(&mut this.transport).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(cork) = &mut this.cork {
            ready!(cork.send(&mut this.transport, context))?;
        }
        Pin::new(&mut this.transport).poll_shutdown(context)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(context, slices),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}
