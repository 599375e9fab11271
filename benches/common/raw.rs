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
pub enum Window {
    /// As hyper's clients have it, and so tonic's.
    Large = 2 << 20,
    /// The protocol's default, as gRPC's C and Go clients begin with.
    Small = 65_535,
}

/// The same of a connection, as hyper's clients have it.
const CONNECTION_WINDOW: u32 = 5 << 20;

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Connection {
    send: SendRequest<Bytes>,
    address: SocketAddr,
}

impl Connection {
    /// From this address of ours, so that a server which counts by address takes us for another peer.
    pub async fn open(address: SocketAddr, from: IpAddr, window: Window) -> Self {
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
    pub async fn call(&self, path: &str, message: &Bytes) -> ResponseFuture {
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
pub fn framed(message: &impl Message) -> Bytes {
    let message = message.encode_to_vec();
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// Reads an answer to its end and throws it away: how many bytes it had. Anything but OK is a panic.
pub async fn drain(response: ResponseFuture) -> usize {
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

/// Messages of a stream, one after another.
pub struct Messages {
    body: RecvStream,
    held: Vec<u8>,
}

impl Messages {
    pub async fn of(response: ResponseFuture) -> Self {
        let response = response.await.unwrap();
        assert_eq!(
            response.headers().get("grpc-status"),
            None,
            "refused: {response:?}"
        );
        Self {
            body: response.into_body(),
            held: Vec::new(),
        }
    }

    /// The next message; none at the end of the stream.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(head) = self.held.first_chunk::<5>() {
                let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.held.len() >= 5 + length {
                    let rest = self.held.split_off(5 + length);
                    let message = std::mem::replace(&mut self.held, rest);
                    return Some(message[5..].to_vec());
                }
            }
            let chunk = self.body.data().await?.ok()?;
            self.body
                .flow_control()
                .release_capacity(chunk.len())
                .unwrap();
            self.held.extend_from_slice(&chunk);
        }
    }
}
