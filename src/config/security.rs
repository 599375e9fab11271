//! What protects the agent: TLS, and who may call.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError, ServerConfig};

/// `[auth]`
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// File of digests of tokens and certificates; authentication is on when it is set. Written by `perfagent token`.
    pub credentials_file: Option<PathBuf>,
}

/// Checks that TLS is whole, and that nothing crosses the network in the clear unless it was said to.
pub(super) fn check(server: &ServerConfig) -> Result<(), ConfigError> {
    const CERT: &str = "server.tls_cert";
    const KEY: &str = "server.tls_key";
    let needs = |given, missing| Err(ConfigError::Tls { given, missing });
    match (&server.tls_cert, &server.tls_key, &server.tls_client_ca) {
        (Some(_), Some(_), _) => return Ok(()),
        (Some(_), None, _) => return needs(CERT, KEY),
        (None, Some(_), _) => return needs(KEY, CERT),
        (None, None, Some(_)) => return needs("server.tls_client_ca", CERT),
        (None, None, None) => {}
    }
    if !server.listen.ip().is_loopback() && !server.insecure_listen {
        return Err(ConfigError::InsecureListen(server.listen));
    }
    Ok(())
}

/// Sets what is unset by default.
pub(super) fn set_all(config: &mut Config) {
    let server = &mut config.server;
    for path in [
        &mut config.auth.credentials_file,
        &mut config.workflows.quality_prompts,
        &mut server.tls_cert,
        &mut server.tls_key,
        &mut server.tls_client_ca,
    ] {
        *path = Some(PathBuf::new());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn checked(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let config = Config::load(None, variables)?;
        config.check().map(|()| config)
    }

    #[test]
    fn tls_is_whole_or_not_at_all() {
        const CERT: (&str, &str) = ("PERFAGENT_SERVER__TLS_CERT", "/c.pem");
        const KEY: (&str, &str) = ("PERFAGENT_SERVER__TLS_KEY", "/k.pem");
        const CA: (&str, &str) = ("PERFAGENT_SERVER__TLS_CLIENT_CA", "/ca.pem");
        const WIDE: (&str, &str) = ("PERFAGENT_SERVER__LISTEN", "0.0.0.0:8002");
        checked(&[CERT, KEY]).unwrap();
        checked(&[CERT, KEY, CA, WIDE]).unwrap();
        for (half, missing) in [(CERT, "tls_key"), (KEY, "tls_cert"), (CA, "tls_cert")] {
            let error = checked(&[half]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("needs server.{missing}")),
                "{error}"
            );
        }
        // credentials do not make the clear safe
        let tokens = ("PERFAGENT_AUTH__CREDENTIALS_FILE", "/credentials");
        let error = checked(&[WIDE, tokens]).unwrap_err().to_string();
        assert!(error.contains("--insecure-listen"), "{error}");
        let config = checked(&[tokens]).unwrap();
        assert_eq!(
            config.auth.credentials_file.unwrap().to_str(),
            Some("/credentials")
        );
    }

    #[test]
    fn keys_that_are_unset_by_default_are_known() {
        let error = checked(&[("PERFAGENT_SERVER__TLS_CERTS", "x")]).unwrap_err();
        assert!(
            error.to_string().ends_with("is `server.tls_cert`"),
            "{error}"
        );
        let error = checked(&[("PERFAGENT_AUTH__CREDENTIAL_FILE", "x")]).unwrap_err();
        assert!(
            error.to_string().ends_with("is `auth.credentials_file`"),
            "{error}"
        );
        let error = checked(&[("PERFAGENT_SERVER__MAX_CONNECTIONS", "0")]).unwrap_err();
        assert!(error.to_string().contains("from 1 to 1000000"), "{error}");
    }
}
