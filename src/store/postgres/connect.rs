//! Where the database is, who asks and how the way there is kept safe.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use url::Url;

use crate::store::OpenError;

/// How a PostgreSQL is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresOptions {
    /// `postgres://user@host:5432/database?sslmode=verify-full&sslrootcert=/path`, without a password.
    pub url: String,
    /// A file that holds the password and nothing else. Without one it is that of `PGPASSWORD` or of the password file of
    /// PostgreSQL's own clients, where there is one.
    pub password_file: Option<PathBuf>,
    /// The database itself, where `url` is a pooler that gives connections for a transaction: over it agents hear of each
    /// other at once, and without it when they look, once a second.
    pub listen_url: Option<String>,
}

/// What a password file may hold.
const PASSWORD_BYTES: u64 = 10_000;

impl PostgresOptions {
    /// What is wrong with the URL, if anything is. Nothing is connected to.
    ///
    /// # Errors
    /// What is wrong, in words without the URL, which may hold a secret.
    pub fn check(&self) -> Result<(), String> {
        self.parsed()?;
        match &self.listen_url {
            None => Ok(()),
            Some(url) => Self {
                url: url.clone(),
                listen_url: None,
                password_file: None,
            }
            .check()
            .map_err(|problem| format!("listen_{problem}")),
        }
    }

    /// The database as it is shown: without who asks and without a secret.
    pub fn place(&self) -> String {
        let Ok(url) = Url::parse(&self.url) else {
            return "postgres".to_owned();
        };
        let port = url
            .port()
            .map(|port| format!(":{port}"))
            .unwrap_or_default();
        let host = url.host_str().unwrap_or_default();
        format!("postgres://{host}{port}{}", url.path())
    }

    pub(super) fn resolve(&self) -> Result<PgConnectOptions, OpenError> {
        let failed = |message: String| OpenError::Database {
            place: self.place(),
            message,
        };
        let mut options = self.parsed().map_err(failed)?;
        if let Some(file) = &self.password_file {
            let password = read_password(file)
                .map_err(|why| failed(format!("password_file {}: {why}", file.display())))?;
            options = options.password(&password);
        }
        Ok(options)
    }

    /// The same on the way on which it is listened.
    pub(super) fn resolve_listener(&self) -> Result<PgConnectOptions, OpenError> {
        match &self.listen_url {
            None => self.resolve(),
            Some(url) => Self {
                url: url.clone(),
                listen_url: None,
                ..self.clone()
            }
            .resolve(),
        }
    }

    /// An error on the way, with what to do about it.
    pub(super) fn failed(&self, error: &sqlx::Error) -> OpenError {
        let hint = match error {
            sqlx::Error::PoolTimedOut => {
                "; it cannot be reached: is it running, and does [store] url say where?"
            }
            sqlx::Error::Tls(_) => {
                "; set sslmode and sslrootcert in [store] url to what the database offers"
            }
            _ => "",
        };
        OpenError::Database {
            place: self.place(),
            message: format!("{error}{hint}"),
        }
    }

    fn parsed(&self) -> Result<PgConnectOptions, String> {
        let wrong = "write it as postgres://user@host:5432/database";
        let url = Url::parse(&self.url).map_err(|error| format!("url: {error}; {wrong}"))?;
        if !matches!(url.scheme(), "postgres" | "postgresql") {
            return Err(format!("url: it is of no kind that is known; {wrong}"));
        }
        let says = |name: &str| url.query_pairs().any(|(key, _)| key == name);
        if url.password().is_some() || says("password") {
            return Err(
                "url: a password does not belong here; put it into a file and name it with password_file"
                    .to_owned(),
            );
        }
        let options = PgConnectOptions::from_str(&self.url)
            .map_err(|error| format!("url: {error}; {wrong}"))?;
        let options = match says("sslmode") || says("ssl-mode") || is_here(&options) {
            true => options,
            // over a network nothing is told to who is not the database
            false => options.ssl_mode(PgSslMode::VerifyFull),
        };
        Ok(options
            .application_name("perfagent")
            // a pooler may refuse what it does not know
            .extra_float_digits(None)
            .disable_statement_logging())
    }
}

/// A socket, or this machine.
fn is_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || address.is_ok_and(|address| address.is_loopback())
}

fn read_password(file: &std::path::Path) -> Result<String, String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(PASSWORD_BYTES).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    let password = text.trim_end_matches(['\r', '\n']);
    match password.is_empty() {
        true => Err("it is empty".to_owned()),
        false => Ok(password.to_owned()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(url: &str) -> PostgresOptions {
        PostgresOptions {
            url: url.to_owned(),
            password_file: None,
            listen_url: None,
        }
    }

    #[test]
    fn over_a_network_the_database_shows_who_it_is() {
        let mode = |url: &str| at(url).parsed().unwrap().get_ssl_mode();
        let is = |url: &str, wanted: PgSslMode| {
            let mode = mode(url);
            assert_eq!(format!("{mode:?}"), format!("{wanted:?}"), "{url}");
        };
        is(
            "postgres://agent@db.example/perfagent",
            PgSslMode::VerifyFull,
        );
        is("postgres://agent@10.0.0.7/perfagent", PgSslMode::VerifyFull);
        is("postgres://agent@127.0.0.1/perfagent", PgSslMode::Prefer);
        is("postgres://agent@[::1]:5433/perfagent", PgSslMode::Prefer);
        is("postgres://agent@localhost/perfagent", PgSslMode::Prefer);
        is("postgres://agent@%2Frun%2Fpg/perfagent", PgSslMode::Prefer);
        is(
            "postgres://agent@db.example/perfagent?sslmode=disable",
            PgSslMode::Disable,
        );
    }

    #[test]
    fn a_secret_in_the_url_is_refused_and_not_shown() {
        for url in [
            "postgres://agent:hunter2@db.example/perfagent",
            "postgres://agent@db.example/perfagent?password=hunter2",
        ] {
            let refused = at(url).check().unwrap_err();
            assert!(refused.contains("password_file"), "{refused}");
            assert!(!refused.contains("hunter2"), "{refused}");
            assert!(!at(url).place().contains("hunter2"));
        }
        assert_eq!(
            at("postgres://agent@db.example:5433/perfagent?sslmode=require").place(),
            "postgres://db.example:5433/perfagent"
        );
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "",
            "db.example",
            "mysql://db.example/x",
            "postgres://db:port/x",
        ] {
            assert!(at(url).check().is_err(), "{url}");
        }
    }

    #[test]
    fn a_password_file_holds_a_password() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let options = PostgresOptions {
            password_file: Some(file.clone()),
            ..at("postgres://agent@localhost/perfagent")
        };
        let missing = options.resolve().unwrap_err().to_string();
        assert!(missing.contains("password_file"), "{missing}");
        std::fs::write(&file, "\n").unwrap();
        assert!(options.resolve().unwrap_err().to_string().contains("empty"));
        std::fs::write(&file, "hunter2\n").unwrap();
        assert!(options.resolve().is_ok());
    }
}
