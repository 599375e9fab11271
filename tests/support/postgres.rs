//! A real PostgreSQL, for all tests of a process, with a database for each; it ends with the process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A server that was started for tests.
pub(crate) struct Postgres {
    /// Of a database that no test uses.
    url: String,
    talk: Mutex<Talk>,
    databases: AtomicU32,
}

struct Talk {
    /// It ends when this is closed, however the process ends.
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    _child: Child,
}

impl Postgres {
    /// The one that tests share. None of them stops it.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    /// One of its own, for a test that stops it.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with these variables.
    pub(crate) fn start_with(variables: &[(&str, &str)]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres");
        let mut child = Command::new(script)
            .arg("run")
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let commands = child.stdin.take().unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        let mut url = String::new();
        answers.read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "tests/postgres: {url:?}");
        Self {
            url: url.trim().to_owned(),
            talk: Mutex::new(Talk {
                commands,
                answers,
                _child: child,
            }),
            databases: AtomicU32::new(0),
        }
    }

    /// URL of a new and empty database.
    pub(crate) async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::SeqCst));
        let mut connection = PgConnection::connect(&self.url).await.unwrap();
        let create = format!("CREATE DATABASE {name}");
        sqlx::query(AssertSqlSafe(create))
            .execute(&mut connection)
            .await
            .unwrap();
        connection.close().await.unwrap();
        let server = self.url.rsplit_once('/').unwrap().0;
        format!("{server}/{name}")
    }

    /// It stops as in a crash: what was committed is there after [`Postgres::start_again`].
    pub(crate) fn stop(&self) {
        self.tell("stop");
    }

    /// It takes connections again.
    pub(crate) fn start_again(&self) {
        self.tell("start");
    }

    fn tell(&self, command: &str) {
        let mut talk = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(talk.commands, "{command}").unwrap();
        let mut answer = String::new();
        talk.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "tests/postgres {command}");
    }
}
