//! Who asks, and how the way to the database is kept safe.

use std::io::Read;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::config::PostgresOptions;
use crate::store::OpenError;

/// What a password file may hold.
const PASSWORD_BYTES: u64 = 10_000;

/// How it is connected to.
pub(super) fn resolve(options: &PostgresOptions) -> Result<PgConnectOptions, OpenError> {
    to(&options.url, options)
}

/// The same on the way on which it is listened.
pub(super) fn resolve_listener(options: &PostgresOptions) -> Result<PgConnectOptions, OpenError> {
    to(options.listen_url.as_ref().unwrap_or(&options.url), options)
}

/// An error on the way, with what to do about it.
pub(super) fn failed(options: &PostgresOptions, error: &sqlx::Error) -> OpenError {
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
        place: options.place(),
        message: format!("{error}{hint}"),
    }
}

fn to(url: &str, options: &PostgresOptions) -> Result<PgConnectOptions, OpenError> {
    let failed = |message: String| OpenError::Database {
        place: options.place(),
        message,
    };
    options.check().map_err(failed)?;
    let connect = parsed(url).map_err(failed)?;
    let Some(file) = &options.password_file else {
        return Ok(connect);
    };
    let password = read_password(file)
        .map_err(|why| failed(format!("password_file {}: {why}", file.display())))?;
    Ok(connect.password(&password))
}

fn parsed(url: &str) -> Result<PgConnectOptions, String> {
    let options = PgConnectOptions::from_str(url).map_err(|error| format!("url: {error}"))?;
    let says = url.contains("sslmode=") || url.contains("ssl-mode=");
    let options = match says || is_here(&options) {
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
/// A socket, or this machine.
fn is_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || address.is_ok_and(|address| address.is_loopback())
}

fn read_password(file: &Path) -> Result<String, String> {
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

    #[test]
    fn over_a_network_the_database_shows_who_it_is() {
        let is = |url: &str, wanted: PgSslMode| {
            let mode = parsed(url).unwrap().get_ssl_mode();
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
    fn a_password_file_holds_a_password() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let options = PostgresOptions {
            url: "postgres://agent@localhost/perfagent".to_owned(),
            password_file: Some(file.clone()),
            listen_url: None,
        };
        let missing = resolve(&options).unwrap_err().to_string();
        assert!(missing.contains("password_file"), "{missing}");
        std::fs::write(&file, "\n").unwrap();
        let empty = resolve(&options).unwrap_err().to_string();
        assert!(empty.contains("empty"), "{empty}");
        std::fs::write(&file, "hunter2\n").unwrap();
        assert!(resolve(&options).is_ok());
    }
}
