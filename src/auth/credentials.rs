//! The credentials file: whose credential is which, and what its owner may do.
//!
//! One line each, `#` begins a comment line:
//!
//! ```text
//! grafana  viewer    sha256:<SHA-256 of the token, 64 hexadecimal digits>
//! deployer operator  cert:<SHA-256 of the client certificate's DER, 64 hexadecimal digits>
//! ```
//!
//! A principal may have several credentials, so that one can be replaced while the other still works; all of them
//! have the same role.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::{Digest, Role};

/// Who was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub principal: String,
    /// What it may do.
    pub role: Role,
}

/// What shows who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A bearer token with this digest.
    Token(Digest),
    /// A client certificate whose DER has this digest.
    Certificate(Digest),
}

impl Proof {
    /// The proof in a token that was presented; none in what is too long to be one.
    pub fn of_token(presented: &[u8]) -> Option<Self> {
        (presented.len() <= MAX_TOKEN_BYTES).then(|| Self::Token(Digest::of(presented)))
    }
}

/// One line of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub identity: Identity,
    /// What shows it.
    pub proof: Proof,
}

/// The credentials of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    entries: Vec<Entry>,
}

/// A line of a credentials file that cannot be used. Does not show what it holds: that may be a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct BadCredentials {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// Credentials of one file.
const MAX_ENTRIES: usize = 10_000;

/// Longer ones are no tokens of ours, nor of anybody who wishes us well.
const MAX_TOKEN_BYTES: usize = 1_024;

impl Credentials {
    /// Reads a credentials file.
    ///
    /// # Errors
    /// The first line that cannot be used.
    pub fn parse(text: &str) -> Result<Self, BadCredentials> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut roles: HashMap<String, Role> = HashMap::new();
        let mut known = HashSet::new();
        for (at, line) in text.lines().enumerate() {
            let wrong = |problem: String| BadCredentials {
                line: at + 1,
                problem,
            };
            let Some(entry) = entry_of(line).map_err(wrong)? else {
                continue;
            };
            if !known.insert(word_of(entry.proof)) {
                return Err(wrong(
                    "this credential is given on a line before".to_owned(),
                ));
            }
            let Identity { principal, role } = &entry.identity;
            if let Some(other) = roles.insert(principal.clone(), *role)
                && other != *role
            {
                let text = format!("{principal} has the role {other} on a line before");
                return Err(wrong(text));
            }
            if entries.len() == MAX_ENTRIES {
                return Err(wrong(format!("more than {MAX_ENTRIES} credentials")));
            }
            entries.push(entry);
        }
        Ok(Self { entries })
    }

    /// All of them, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Whose proof this is. Takes the same time whichever it is.
    pub fn by_proof(&self, proof: Proof) -> Option<&Identity> {
        // looks at all, not only up to the one
        self.entries.iter().fold(None, |found, entry| {
            if entry.proof == proof {
                Some(&entry.identity)
            } else {
                found
            }
        })
    }
}

impl fmt::Display for Entry {
    /// The line of the file.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { principal, role } = &self.identity;
        write!(out, "{principal} {role} {}", word_of(self.proof))
    }
}

fn word_of(proof: Proof) -> String {
    match proof {
        Proof::Token(digest) => format!("sha256:{}", digest.hex()),
        Proof::Certificate(digest) => format!("cert:{}", digest.hex()),
    }
}

/// The text with one more line.
pub(super) fn with_line(text: &str, entry: &Entry) -> String {
    let gap = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    format!("{text}{gap}{entry}\n")
}

/// The text without the lines for which `drop` holds; everything else, comments too, stays as it is.
pub(super) fn without_lines(text: &str, drop: impl Fn(&Entry) -> bool) -> String {
    let kept = text
        .split_inclusive('\n')
        .filter(|line| !matches!(entry_of(line), Ok(Some(entry)) if drop(&entry)));
    kept.collect()
}

fn entry_of(line: &str) -> Result<Option<Entry>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(principal), Some(role), Some(proof), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("a line is: principal role sha256:<digest of a token>".to_owned());
    };
    check_principal(principal)?;
    let role = role
        .parse()
        .map_err(|bad: super::BadRole| bad.to_string())?;
    let proof = match proof.split_once(':') {
        Some(("sha256", hex)) => Digest::from_hex(hex).map(Proof::Token),
        Some(("cert", hex)) => Digest::from_hex(hex).map(Proof::Certificate),
        _ => None,
    };
    let proof = proof.ok_or("a credential is sha256: or cert: and 64 hexadecimal digits")?;
    Ok(Some(Entry {
        identity: Identity {
            principal: principal.to_owned(),
            role,
        },
        proof,
    }))
}

/// Checks a principal's name: it is logged, kept with what it did, and must not pass for one that nobody chose.
pub(super) fn check_principal(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._@:/+-".contains(&byte);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(fits) {
        return Err("a principal has 1 to 128 letters, digits and ._@:/+-".to_owned());
    }
    if name == "anonymous" || name.starts_with("certificate:") {
        return Err(
            "`anonymous` and `certificate:` name those that are not in this file".to_owned(),
        );
    }
    Ok(())
}
