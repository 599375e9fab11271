//! TLS as the configuration wants it. Protocols, ciphers and checks are those of rustls with ring.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig as Tls};

use crate::config::ServerConfig;
use crate::edge::files::{FileError, Reloaded, read};

/// What is agreed on within the handshake: gRPC, and HTTP/1 for `/metrics` and `/healthz`.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The files of a TLS server.
#[derive(Debug, Clone)]
pub(in crate::edge) struct TlsFiles {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Those of the configuration, if it wants TLS.
    pub(in crate::edge) fn of(config: &ServerConfig) -> Option<Self> {
        Some(Self {
            cert: config.tls_cert.clone()?,
            key: config.tls_key.clone()?,
            client_ca: config.tls_client_ca.clone(),
        })
    }

    /// The private key's file.
    pub(in crate::edge) fn key(&self) -> &Path {
        &self.key
    }

    /// Reads them.
    ///
    /// # Errors
    /// A file that cannot be read or used; a key that is not the certificate's.
    pub(in crate::edge) fn load(&self) -> Result<Arc<Tls>, FileError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let wrong = |path: &Path, problem: String| FileError::Tls {
            path: path.to_owned(),
            problem,
        };
        let chain = certificates(&self.cert)?;
        let key = private_key(&self.key)?;
        let builder = Tls::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&self.cert, error.to_string()))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    let added = roots.add(certificate);
                    added.map_err(|error| wrong(path, error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .build()
                    .map_err(|error| wrong(path, error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut tls = builder
            .with_single_cert(chain, key)
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => wrong(
                    &self.key,
                    format!("not the key of the certificate in {}", self.cert.display()),
                ),
                error => wrong(&self.cert, error.to_string()),
            })?;
        tls.alpn_protocols = ALPN.map(<[u8]>::to_vec).into();
        Ok(Arc::new(tls))
    }

    /// Reads them, now and whenever they change.
    ///
    /// # Errors
    /// As [`TlsFiles::load`], now.
    pub(super) fn watched(self) -> Result<Reloaded<Arc<Tls>>, FileError> {
        let mut paths = vec![self.cert.clone(), self.key.clone()];
        paths.extend(self.client_ca.clone());
        Reloaded::start("TLS certificate", paths, move || self.load())
    }
}

/// The certificates of a PEM file.
///
/// # Errors
/// A file that cannot be read or has none.
pub(in crate::edge) fn certificates(
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(FileError::Tls {
            path: path.to_owned(),
            problem: "no certificate in it; it must be PEM".to_owned(),
        }),
    }
}

/// The private key of a PEM file.
///
/// # Errors
/// A file that cannot be read or has none.
pub(in crate::edge) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|_| FileError::Tls {
        path: path.to_owned(),
        problem: "no private key in it; it must be PEM, and not be encrypted".to_owned(),
    })
}
