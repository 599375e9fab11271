//! Who calls, and whether they may. Every request that passes leaves here with a [`Caller`].

use std::sync::{Arc, OnceLock};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use tonic::{Code, Status};

use super::access::{Who, rule_of};
use super::connection::Peer;
use super::reply::response_of;
use super::revoke::{Admission, revocable};
use super::status::{ROLE_HINT, refusal, refusal_with_hint};
use crate::agent::{Caller, Reason};
use crate::auth::{Credentials, Digest, Identity, Proof, Role};
use crate::config::security::AuthConfig;
use crate::edge::files::{FileError, Reloaded, read_credentials};
use crate::edge::http::PATHS;

/// By what callers are recognised.
#[derive(Debug)]
pub(super) struct Authentication {
    /// None: authentication is off.
    credentials: Option<Reloaded<Credentials>>,
}

/// Where a request's principal is noted once it is known, for those who let it in before that.
#[derive(Debug, Clone, Default)]
pub(super) struct PrincipalCell(pub(super) Arc<OnceLock<String>>);

/// Marks the request of somebody who showed no credential, for what needs none though others do.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stranger;

/// Why a request is not let in.
enum Denied {
    /// No credential, or one that is nobody's. Which of the two is not said.
    Unauthenticated,
    /// Somebody who may not.
    Role {
        role: Role,
        allowed: &'static [Role],
    },
    /// There is no such method, or nobody said who may call it.
    Unknown,
}

impl Authentication {
    /// As the configuration wants it.
    ///
    /// # Errors
    /// A credentials file that cannot be used.
    pub(super) fn new(config: &AuthConfig) -> Result<Self, FileError> {
        let credentials = match &config.credentials_file {
            None => None,
            Some(path) => {
                let (path, watched) = (path.clone(), vec![path.clone()]);
                let load = move || read_credentials(&path);
                Some(Reloaded::start("credentials file", watched, load)?)
            }
        };
        Ok(Self { credentials })
    }

    /// Who the caller is, and whether that is somebody who may call this; and with what it was let in, where it can
    /// be taken away. The principal is noted as soon as it is known, so that the log says who was refused.
    fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
        certificate: Option<Digest>,
        noted: &PrincipalCell,
    ) -> Result<(Identity, Option<Proof>), Denied> {
        let Some(credentials) = &self.credentials else {
            let identity = unchecked(certificate);
            noted.set(&identity);
            return Ok((identity, None));
        };
        let credentials = credentials.current();
        let proof = proof_in(headers, certificate);
        let identity = proof.and_then(|proof| credentials.by_proof(proof));
        if let Some(identity) = identity {
            noted.set(identity);
        }
        match (rule_of(path).map(|rule| rule.who), identity.cloned()) {
            (Some(Who::Public), identity) => {
                let nobody = || Identity {
                    principal: "anonymous".to_owned(),
                    role: Role::Viewer,
                };
                Ok((identity.unwrap_or_else(nobody), None))
            }
            (_, None) => Err(Denied::Unauthenticated),
            (None, Some(_)) => Err(Denied::Unknown),
            (Some(Who::Roles(allowed)), Some(identity)) => {
                let role = identity.role;
                if allowed.contains(&role) {
                    Ok((identity, proof))
                } else {
                    Err(Denied::Role { role, allowed })
                }
            }
        }
    }
}

impl PrincipalCell {
    fn set(&self, identity: &Identity) {
        // the cell is new with each request
        let _ = self.0.set(identity.principal.clone());
    }
}

/// The caller while authentication is off.
fn unchecked(certificate: Option<Digest>) -> Identity {
    Identity {
        principal: match certificate {
            Some(digest) => format!("certificate:{}", digest.short_hex()),
            None => "anonymous".to_owned(),
        },
        role: Role::Admin,
    }
}

/// What a request shows for itself. A token counts above the certificate of the connection, which may be a proxy's.
fn proof_in(headers: &HeaderMap, certificate: Option<Digest>) -> Option<Proof> {
    let mut given = headers.get_all(AUTHORIZATION).into_iter();
    match (given.next(), given.next()) {
        (Some(header), None) => Proof::of_token(bearer(header.as_bytes())?),
        (None, _) => certificate.map(Proof::Certificate),
        (Some(_), Some(_)) => None,
    }
}

/// The token of an `Authorization` header (RFC 6750, section 2.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(b"Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| token.trim_ascii())
}

/// Puts the caller into the request, or refuses it.
pub(super) async fn authenticate(
    State(authentication): State<Arc<Authentication>>,
    mut request: Request,
    next: Next,
) -> Response {
    let known = request.extensions();
    let certificate = known.get::<Peer>().and_then(|peer| peer.certificate);
    let noted = known.get::<PrincipalCell>().cloned().unwrap_or_default();
    let path = request.uri().path();
    let admitted = authentication.admit(path, request.headers(), certificate, &noted);
    let (identity, proof) = match admitted {
        Ok(admitted) => admitted,
        Err(denied) if PATHS.contains(&path) => return denied.into_http(),
        Err(denied) => return denied.into_grpc(),
    };
    let is_grpc = !PATHS.contains(&path);
    let mut caller = Caller::anonymous();
    caller.principal = identity.principal.clone();
    caller.role = identity.role;
    request.extensions_mut().insert(caller);
    if noted.0.get().is_none() {
        request.extensions_mut().insert(Stranger);
    }
    let response = next.run(request).await;
    match (&authentication.credentials, proof) {
        (Some(credentials), Some(proof)) if is_grpc => {
            let admission = Admission { identity, proof };
            revocable(response, admission, credentials.changes(), unauthenticated)
        }
        _ => response,
    }
}

fn unauthenticated() -> Status {
    refusal_with_hint(
        Code::Unauthenticated,
        Reason::Unauthenticated,
        "the call carries no credential that this agent knows",
        "send `authorization: Bearer <token>`; perfagent's own commands take it from \
         PERFAGENT_TOKEN or --token-file",
    )
}

/// The caller of a request that came through [`authenticate`].
pub(super) fn caller_of<T>(request: &tonic::Request<T>) -> Caller {
    // one that did not come through it may look at what everybody may, with means of its own
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .unwrap_or_else(|| Caller {
            role: Role::Viewer,
            ..Caller::anonymous()
        })
}

impl Denied {
    fn into_grpc(self) -> Response {
        response_of(match self {
            Self::Unauthenticated => unauthenticated(),
            Self::Role { role, allowed } => refusal_with_hint(
                Code::PermissionDenied,
                Reason::RoleNotAllowed,
                format!(
                    "the role {role} may not call this; {} may",
                    Role::names(allowed)
                ),
                ROLE_HINT,
            ),
            Self::Unknown => refusal(
                Code::Unimplemented,
                Reason::UnknownMethod,
                "no such method; list what there is with reflection, as grpcurl does",
            ),
        })
    }

    fn into_http(self) -> Response {
        match self {
            Self::Unauthenticated => (
                StatusCode::UNAUTHORIZED,
                [(WWW_AUTHENTICATE, "Bearer realm=\"perfagent\"")],
                "send `Authorization: Bearer <token>` with a token that this agent knows\n",
            )
                .into_response(),
            Self::Role { .. } | Self::Unknown => (
                StatusCode::FORBIDDEN,
                "this credential's role may not read this\n",
            )
                .into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_behind_their_scheme_only() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer   abc "), Some(&b"abc"[..]));
        for header in [&b"abc"[..], b"Bearer", b"Basic abc123", b"Bearer\tabc", b""] {
            assert_eq!(bearer(header), None);
        }
    }
}
