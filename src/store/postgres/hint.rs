//! Word of writes from agent to agent, so that others look at once and not only when they look anyway. It may get lost, and
//! says nothing but that there is something to look for: what is true is read by revision.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPool};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pool;

const CHANNEL: &str = "perfagent";
/// Many writes are told as one: a NOTIFY holds up every commit of the database for a moment.
const BETWEEN: Duration = Duration::from_millis(25);
/// After a connection that could not be had or was lost.
const AFTER_TROUBLE: Duration = Duration::from_secs(2);

/// What is told and heard.
#[derive(Debug)]
pub(super) struct Hints {
    tell: Arc<Notify>,
    heard: watch::Receiver<u64>,
    _stop: DropGuard,
}

impl Hints {
    /// Begins to tell over one of the store's connections, and to listen over one of its own, which must reach the database
    /// itself: through a pooler that gives a connection only for a transaction nothing is heard.
    pub(super) fn begin(tells: PgPool, listens: PgConnectOptions) -> Self {
        let tell = Arc::new(Notify::new());
        let (hear, heard) = watch::channel(0);
        let stop = CancellationToken::new();
        let work = {
            let tell = tell.clone();
            async move { tokio::join!(tell_on(tells, tell), listen_on(listens, hear)) }
        };
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.cancelled() => {}
                _ = work => {}
            }
        });
        Self {
            tell,
            heard,
            _stop: stop.drop_guard(),
        }
    }

    /// Something was written.
    pub(super) fn tell(&self) {
        self.tell.notify_one();
    }

    /// Changes when something may have been.
    pub(super) fn heard(&self) -> watch::Receiver<u64> {
        self.heard.clone()
    }
}

async fn tell_on(tells: PgPool, tell: Arc<Notify>) {
    loop {
        tell.notified().await;
        // one message without anything prepared, which a pooler can give to any connection
        let told = sqlx::raw_sql("NOTIFY perfagent").execute(&tells).await;
        if let Err(error) = told {
            tracing::debug!("other agents look later: {error}");
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

async fn listen_on(options: PgConnectOptions, hear: watch::Sender<u64>) {
    let hears = || hear.send_modify(|count| *count = count.wrapping_add(1));
    loop {
        let lost = async {
            let pool = pool(1).connect_with(options.clone()).await?;
            let mut listener = PgListener::connect_with(&pool).await?;
            // one that is lost is begun anew here, with a look at what was missed meanwhile
            listener.eager_reconnect(false);
            listener.listen(CHANNEL).await?;
            loop {
                // before the first: what was written until now was told to nobody here
                hears();
                if listener.try_recv().await?.is_none() {
                    return Ok::<(), sqlx::Error>(());
                }
            }
        };
        if let Err(error) = lost.await {
            tracing::debug!("what other agents write is not heard of: {error}");
        }
        hears();
        tokio::time::sleep(AFTER_TROUBLE).await;
    }
}
