//! gRPC calls as bytes over HTTP/2: no message is decoded, so that the server is what is measured.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::{ResponseFuture, SendRequest};
use http::Request;
use prost::Message;
use tokio::net::TcpSocket;

/// Bytes of a stream that may be under way unread.
#[derive(Clone, Copy)]
pub(crate) enum Window {
    /// As hyper's clients have it, and so tonic's.
    Large = 2 << 20,
    /// The protocol's default, as gRPC's C and Go clients begin with.
    Small = 65_535,
}

/// The same of a connection, as hyper's clients have it.
const CONNECTION_WINDOW: u32 = 5 << 20;

/// One HTTP/2 connection.
#[derive(Clone)]
pub(crate) struct Connection {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Connection {
    /// From this address of ours, so that a server which counts by address takes us for another peer.
    pub(crate) async fn open(address: SocketAddr, from: IpAddr, window: Window) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(window as u32)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        Self { send, address }
    }

    /// Sends a request.
    pub(crate) async fn call(&self, path: &str, message: &Bytes) -> ResponseFuture {
        let request = Request::post(format!("http://{}{path}", self.address))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .unwrap();
        let mut send = self.send.clone().ready().await.unwrap();
        let (response, mut body) = send.send_request(request, false).unwrap();
        body.send_data(message.clone(), true).unwrap();
        response
    }
}

/// A message as it goes over the wire.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// Reads an answer to its end and throws it away: how many bytes it had. Anything but OK is a panic.
pub(crate) async fn drain(response: ResponseFuture) -> usize {
    let mut body = response.await.unwrap().into_body();
    let mut bytes = 0;
    while let Some(chunk) = body.data().await {
        let chunk = chunk.unwrap();
        bytes += chunk.len();
        body.flow_control().release_capacity(chunk.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap();
    let status = trailers.as_ref().and_then(|them| them.get("grpc-status"));
    assert_eq!(status.unwrap(), "0");
    bytes
}

/// Messages of a stream, one after another. Most of a message is passed over and not copied.
pub(crate) struct Messages {
    body: RecvStream,
    chunk: Bytes,
}

impl Messages {
    pub(crate) async fn of(response: ResponseFuture) -> Self {
        let response = response.await.unwrap();
        assert_eq!(
            response.headers().get("grpc-status"),
            None,
            "refused: {response:?}"
        );
        Self {
            body: response.into_body(),
            chunk: Bytes::new(),
        }
    }

    /// The next message, the whole of it or its first bytes, when all of it is there; none at the end of the stream.
    pub(crate) async fn next(&mut self, whole: bool) -> Option<Vec<u8>> {
        const HEAD: usize = 64;
        let mut frame = [0; 5];
        for byte in &mut frame {
            while self.chunk.is_empty() {
                self.more().await?;
            }
            *byte = self.chunk.split_to(1)[0];
        }
        let mut left = u32::from_be_bytes([frame[1], frame[2], frame[3], frame[4]]) as usize;
        let mut kept = Vec::new();
        while left > 0 {
            if self.chunk.is_empty() {
                self.more().await?;
            }
            let part = self.chunk.split_to(left.min(self.chunk.len()));
            left -= part.len();
            if whole || kept.is_empty() {
                let keep = if whole {
                    part.len()
                } else {
                    part.len().min(HEAD)
                };
                kept.extend_from_slice(&part[..keep]);
            }
        }
        Some(kept)
    }

    async fn more(&mut self) -> Option<()> {
        self.chunk = self.body.data().await?.ok()?;
        self.body
            .flow_control()
            .release_capacity(self.chunk.len())
            .unwrap();
        Some(())
    }
}
