//! Certificates that are made for a test, and the files of an agent that is protected.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use perfagent::auth::edit::add;
use perfagent::auth::{Digest, Identity, Proof, Role, Token};
use perfagent::config::Config;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tonic::transport::{Certificate, ClientTlsConfig};

/// Somebody who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
    pub digest: Digest,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::self_signed(params, key).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// For this name, be it a server's or a client's.
    pub fn sign(&self, name: &str) -> Pair {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair {
            cert: cert.pem(),
            key: key.serialize_pem(),
            digest: Digest::of(cert.der()),
        }
    }

    /// A client that trusts only this authority.
    pub fn client(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.pem()))
    }
}

/// A directory with an agent's certificate, key and credentials.
pub struct Files {
    directory: TempDir,
}

impl Files {
    pub fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Replaces a file as a whole.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let beside = self.path("new");
        fs::write(&beside, text).unwrap();
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(&beside, self.path(name)).unwrap();
        self.path(name)
    }

    pub fn write_pair(&self, pair: &Pair) {
        self.write("cert.pem", &pair.cert);
        self.write("key.pem", &pair.key);
    }

    /// One more credential in the file.
    pub fn add(&self, principal: &str, role: Role, proof: Proof) {
        let before = fs::read_to_string(self.path("credentials")).unwrap_or_default();
        let identity = Identity {
            principal: principal.to_owned(),
            role,
        };
        self.write("credentials", &add(&before, &identity, proof).unwrap());
    }

    /// One more token in the file.
    pub fn token(&self, principal: &str, role: Role) -> Token {
        let token = Token::generate().unwrap();
        self.add(principal, role, Proof::Token(token.digest()));
        token
    }

    pub fn with_credentials(&self, config: &mut Config) {
        config.auth.credentials_file = Some(self.path("credentials"));
    }

    pub fn with_tls(&self, config: &mut Config) {
        config.server.tls_cert = Some(self.path("cert.pem"));
        config.server.tls_key = Some(self.path("key.pem"));
    }

    pub fn with_client_ca(&self, config: &mut Config, authority: &Authority) {
        config.server.tls_client_ca = Some(self.write("client-ca.pem", &authority.pem()));
    }
}
