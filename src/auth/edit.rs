//! Changes of a credentials file, as text to text.

use super::credentials::{check_principal, with_line, without_lines};
use super::{BadCredentials, Credentials, Entry, Identity, Proof};

/// Why a credentials file was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The file, before or after the change.
    #[error(transparent)]
    Bad(#[from] BadCredentials),
    /// A name that is none.
    #[error("{0}")]
    Name(String),
    /// Nothing to take away.
    #[error("no such credential")]
    Nothing,
}

/// The text with one more credential.
///
/// # Errors
/// A file that cannot be read; a name that is none; a role that differs from what the principal has.
pub fn add(text: &str, identity: &Identity, proof: Proof) -> Result<String, EditError> {
    Credentials::parse(text)?;
    check_principal(&identity.principal).map_err(EditError::Name)?;
    let entry = Entry {
        identity: identity.clone(),
        proof,
    };
    let changed = with_line(text, &entry);
    Credentials::parse(&changed)?;
    Ok(changed)
}

/// The text without the principal's credentials, or without those of them whose digest begins with `id`; and how
/// many were taken away.
///
/// # Errors
/// A file that cannot be read; no such credential.
pub fn remove(text: &str, principal: &str, id: Option<&str>) -> Result<(String, usize), EditError> {
    let goes = |entry: &Entry| {
        let (Proof::Token(digest) | Proof::Certificate(digest)) = entry.proof;
        entry.identity.principal == principal && id.is_none_or(|id| digest.hex().starts_with(id))
    };
    let before = Credentials::parse(text)?;
    let count = before.entries().iter().filter(|entry| goes(entry)).count();
    if count == 0 {
        return Err(EditError::Nothing);
    }
    Ok((without_lines(text, goes), count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::auth::{Digest, Role, Token};
    use proptest::prelude::*;

    fn identity(principal: &str, role: Role) -> Identity {
        Identity {
            principal: principal.to_owned(),
            role,
        }
    }

    fn by_token<'a>(credentials: &'a Credentials, token: &[u8]) -> Option<&'a Identity> {
        credentials.by_proof(Proof::of_token(token)?)
    }

    #[test]
    fn what_is_added_is_found_and_what_is_removed_is_not() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        let certificate = Digest::of(b"certificate");
        let ann = identity("ann", Role::Operator);
        let text = add("# ours\n\n", &ann, Proof::Token(one.digest())).unwrap();
        let text = add(&text, &ann, Proof::Token(other.digest())).unwrap();
        let bob = identity("bob@example", Role::Viewer);
        let text = add(&text, &bob, Proof::Certificate(certificate)).unwrap();
        let credentials = Credentials::parse(&text).unwrap();
        assert_eq!(by_token(&credentials, one.expose().as_bytes()), Some(&ann));
        assert_eq!(
            by_token(&credentials, other.expose().as_bytes()),
            Some(&ann)
        );
        assert_eq!(
            credentials.by_proof(Proof::Certificate(certificate)),
            Some(&bob)
        );
        // a digest is no token, and a certificate's is not a token's
        assert_eq!(by_token(&credentials, one.digest().hex().as_bytes()), None);
        assert_eq!(by_token(&credentials, b"certificate"), None);
        assert_eq!(by_token(&credentials, b""), None);
        assert_eq!(by_token(&credentials, &[b'x'; 5_000]), None);

        let id = one.digest().short_hex();
        let (text, count) = remove(&text, "ann", Some(&id)).unwrap();
        assert_eq!(count, 1);
        let credentials = Credentials::parse(&text).unwrap();
        assert_eq!(by_token(&credentials, one.expose().as_bytes()), None);
        assert_eq!(
            by_token(&credentials, other.expose().as_bytes()),
            Some(&ann)
        );
        assert!(text.starts_with("# ours\n\n"), "{text}");
        assert_eq!(remove(&text, "ann", Some(&id)), Err(EditError::Nothing));
        assert_eq!(remove(&text, "eve", None), Err(EditError::Nothing));
        let (text, _) = remove(&text, "ann", None).unwrap();
        assert_eq!(Credentials::parse(&text).unwrap().entries().len(), 1);
    }

    #[test]
    fn a_principal_has_one_role_and_a_credential_one_owner() {
        let token = Token::generate().unwrap().digest();
        let text = add("", &identity("ann", Role::Viewer), Proof::Token(token)).unwrap();
        let again = add(&text, &identity("bob", Role::Viewer), Proof::Token(token));
        assert!(
            again
                .unwrap_err()
                .to_string()
                .starts_with("line 2: this credential")
        );
        let other = Proof::Token(Digest::of(b"other"));
        let raised = add(&text, &identity("ann", Role::Admin), other);
        assert!(
            raised
                .unwrap_err()
                .to_string()
                .contains("has the role viewer")
        );
        // no line feed at the end of the last line
        let text = add(text.trim_end(), &identity("bob", Role::Admin), other).unwrap();
        assert_eq!(Credentials::parse(&text).unwrap().entries().len(), 2);
        for name in [
            "",
            "a b",
            "anonymous",
            "certificate:0011",
            "a\nb",
            "#a#\u{1b}",
        ] {
            let refused = add("", &identity(name, Role::Admin), other);
            assert!(matches!(refused, Err(EditError::Name(_))), "{name}");
        }
    }

    #[test]
    fn a_wrong_line_is_named_and_not_shown() {
        let digest = "0".repeat(64);
        for line in [
            "ann viewer",
            "ann viewer pa_secret",
            "ann viewer sha256:secret",
            "ann viewer md5:00",
            "ann root sha256:{}",
            "ann viewer sha256:{} more",
            "an\u{e9} viewer sha256:{}",
        ] {
            let text = format!("# first\n{}\n", line.replace("{}", &digest));
            let error = Credentials::parse(&text).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
            let shown = error.to_string();
            assert!(
                !shown.contains("secret") && !shown.contains("000"),
                "{shown}"
            );
        }
        let many: String = (0..10_001)
            .map(|at| format!("p viewer sha256:{at:064x}\n"))
            .collect();
        assert_eq!(Credentials::parse(&many).unwrap_err().line, 10_001);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|\n){0,200}") {
            let _ = Credentials::parse(&text);
        }

        #[test]
        fn adding_and_removing_gives_the_text_back(
            name in "[a-z0-9._@/+-]{1,40}",
            token in prop::array::uniform32(any::<u8>()),
            before in "(# [a-z ]{0,20}\n){0,4}",
        ) {
            prop_assume!(name != "anonymous");
            let proof = Proof::Token(Digest::of(&token));
            let added = add(&before, &identity(&name, Role::Approver), proof).unwrap();
            prop_assert_eq!(remove(&added, &name, None).unwrap(), (before, 1));
        }
    }
}
