//! `[store] url` → a PostgreSQL that several agents share.

use std::path::PathBuf;

use url::Url;

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

/// What a URL should look like.
const FORM: &str = "write it as postgres://user@host:5432/database";

impl PostgresOptions {
    /// What is wrong with the URLs, if anything is. Nothing is connected to.
    ///
    /// # Errors
    /// What is wrong, in words without the URL, which may hold a secret.
    pub fn check(&self) -> Result<(), String> {
        check("url", &self.url)?;
        self.listen_url
            .as_ref()
            .map_or(Ok(()), |url| check("listen_url", url))
    }

    /// Whether `url` is a pooler: a way past it is given, or the URL says that nothing stays prepared.
    pub fn is_pooled(&self) -> bool {
        let nothing_kept = |url: Url| {
            url.query_pairs()
                .any(|(name, value)| name == "statement-cache-capacity" && value == "0")
        };
        self.listen_url.is_some() || Url::parse(&self.url).is_ok_and(nothing_kept)
    }

    /// The database as it is shown: without who asks and without a secret.
    pub fn place(&self) -> String {
        let Ok(url) = Url::parse(&self.url) else {
            return "postgres".to_owned();
        };
        let port = url.port().map(|port| format!(":{port}"));
        let host = url.host_str().unwrap_or_default();
        format!(
            "postgres://{host}{}{}",
            port.unwrap_or_default(),
            url.path()
        )
    }
}

fn check(key: &str, text: &str) -> Result<(), String> {
    let url = Url::parse(text).map_err(|error| format!("{key}: {error}; {FORM}"))?;
    if !matches!(url.scheme(), "postgres" | "postgresql") {
        return Err(format!("{key}: it is of no kind that is known; {FORM}"));
    }
    if url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password") {
        return Err(format!(
            "{key}: a password does not belong here; put it into a file and name it with password_file"
        ));
    }
    Ok(())
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
    fn a_secret_in_a_url_is_refused_and_not_shown() {
        for url in [
            "postgres://agent:hunter2@db.example/perfagent",
            "postgres://agent@db.example/perfagent?password=hunter2",
        ] {
            let listens = PostgresOptions {
                listen_url: Some(url.to_owned()),
                ..at("postgres://agent@db.example/perfagent")
            };
            for options in [at(url), listens] {
                let refused = options.check().unwrap_err();
                assert!(refused.contains("password_file"), "{refused}");
                assert!(!refused.contains("hunter2"), "{refused}");
                assert!(!options.place().contains("hunter2"));
            }
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
        at("postgresql://agent@[::1]/x").check().unwrap();
    }
}
