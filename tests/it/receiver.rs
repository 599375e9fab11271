//! A receiver of webhooks that verifies what it gets with the reference library.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What was posted.
#[derive(Debug, Clone)]
pub struct Post {
    pub id: String,
    pub headers: HeaderMap,
    pub body: String,
    /// What was answered; none where nothing was.
    pub status: Option<u16>,
}

/// What a receiver does with a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Does {
    Answers(u16),
    /// With a `Retry-After` of so many seconds.
    AnswersLater(u16, u64),
    /// Takes it in and says nothing.
    Hangs,
}

pub struct Receiver {
    pub address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
    count: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Post {
    /// Whether its signature is that of this secret, as the reference library has it.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = standardwebhooks::Webhook::new(secret).unwrap();
        key.verify(self.body.as_bytes(), &self.headers).is_ok()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Type, and from where to where.
    pub fn told(&self) -> (String, String, String) {
        let json = self.json();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        (
            text(&json["type"]),
            text(&json["data"]["from"]),
            text(&json["data"]["to"]),
        )
    }

    pub fn is_taken(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }
}

impl Receiver {
    /// One that does with each post what it is told, by how many there were before.
    pub async fn start(does: impl Fn(usize) -> Does + Send + Sync + 'static) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), does).await
    }

    pub async fn at(
        address: SocketAddr,
        does: impl Fn(usize) -> Does + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let posts: Arc<Mutex<Vec<Post>>> = Arc::default();
        let (counted, count) = watch::channel(0);
        let (kept, does, counted) = (posts.clone(), Arc::new(does), Arc::new(counted));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (kept, does, counted) = (kept.clone(), does.clone(), counted.clone());
                tokio::spawn(async move {
                    // a client that goes away is none of its business
                    let _ = serve(stream, &kept, &*does, &counted).await;
                });
            }
        });
        Self {
            address,
            posts,
            count,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook?token=canary-url", self.address)
    }

    pub fn posts(&self) -> Vec<Post> {
        self.posts.lock().unwrap().clone()
    }

    /// Waits until so many posts have come.
    pub async fn posted(&self, count: usize) -> Vec<Post> {
        let mut counted = self.count.clone();
        counted.wait_for(|now| *now >= count).await.unwrap();
        self.posts()
    }

    /// Waits until so many were taken, each counted once.
    pub async fn taken(&self, count: usize) -> Vec<Post> {
        let mut counted = self.count.clone();
        loop {
            let mut seen = HashMap::new();
            let posts = self.posts().into_iter();
            let taken: Vec<Post> = posts
                .filter(|post| post.is_taken() && seen.insert(post.id.clone(), ()).is_none())
                .collect();
            if taken.len() >= count {
                return taken;
            }
            counted.changed().await.unwrap();
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: TcpStream,
    posts: &Mutex<Vec<Post>>,
    does: &(dyn Fn(usize) -> Does + Send + Sync),
    counted: &watch::Sender<usize>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        assert!(line.starts_with("POST /hook?token=canary-url "), "{line}");
        let mut headers = HeaderMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let length: usize = headers["content-length"].to_str().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let act = {
            let mut posts = posts.lock().unwrap();
            let act = does(posts.len());
            posts.push(Post {
                id: headers["webhook-id"].to_str().unwrap().to_owned(),
                headers,
                body: String::from_utf8(body).unwrap(),
                status: match act {
                    Does::Answers(status) | Does::AnswersLater(status, _) => Some(status),
                    Does::Hangs => None,
                },
            });
            act
        };
        counted.send_modify(|count| *count += 1);
        let (status, more) = match act {
            Does::Answers(status) => (status, String::new()),
            Does::AnswersLater(status, seconds) => (status, format!("Retry-After: {seconds}\r\n")),
            Does::Hangs => std::future::pending().await,
        };
        // redirects are not followed, and what is said beside the status is nobody's to read
        let answer = format!(
            "HTTP/1.1 {status} -\r\n{more}Location: http://127.0.0.1:1/\r\nContent-Length: 6\r\n\r\ncanary"
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}
