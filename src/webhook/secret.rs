//! Secrets of webhooks, and what is signed with them.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// How long the secret before is signed with beside a new one.
pub const OLD_SECRET_KEPT: Duration = Duration::from_secs(24 * 3_600);
/// Random bytes of a secret that the agent makes.
pub const SECRET_BYTES: usize = 32;
/// How many bytes Standard Webhooks lets a secret have.
const BYTES: std::ops::RangeInclusive<usize> = 24..=64;
/// Scanners for leaked secrets know it.
const PREFIX: &str = "whsec_";
/// Most secrets that are signed with at once.
const MAX_AT_ONCE: usize = 4;

/// A secret: `whsec_` and base64 of 24 to 64 bytes.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Secret(String);

/// Text that is no secret. Does not show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadSecret {
    /// Not the form.
    #[error("must be `whsec_` and base64 of 24 to 64 bytes, as Standard Webhooks has them")]
    Form,
    /// A file without any.
    #[error("holds no secret: write one a line, `whsec_` and base64 of 24 to 64 bytes")]
    None,
    /// A file with more than are signed with at once.
    #[error("holds more than {MAX_AT_ONCE} secrets: take old ones out")]
    TooMany,
}

impl Secret {
    /// A secret of these bytes.
    pub fn of(bytes: &[u8; SECRET_BYTES]) -> Self {
        Self(format!("{PREFIX}{}", STANDARD.encode(bytes)))
    }

    /// A secret as it is written.
    ///
    /// # Errors
    /// Text that is none.
    pub fn parse(text: &str) -> Result<Self, BadSecret> {
        let encoded = text.strip_prefix(PREFIX).ok_or(BadSecret::Form)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| BadSecret::Form)?;
        match BYTES.contains(&bytes.len()) {
            true => Ok(Self(text.to_owned())),
            false => Err(BadSecret::Form),
        }
    }

    /// Secrets of a file, one a line: the first is the newest. Each is signed with, so that a receiver may know either.
    ///
    /// # Errors
    /// A line that is none, no line, too many.
    pub fn all_of(text: &str) -> Result<Vec<Self>, BadSecret> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let secrets: Vec<Self> = lines.map(Self::parse).collect::<Result<_, _>>()?;
        match secrets.len() {
            0 => Err(BadSecret::None),
            count if count > MAX_AT_ONCE => Err(BadSecret::TooMany),
            _ => Ok(secrets),
        }
    }

    /// The secret itself, for the receiver.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Secret {
    type Error = BadSecret;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Secret> for String {
    fn from(secret: Secret) -> Self {
        secret.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(..)")
    }
}

/// One attempt, signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// `webhook-id`
    pub id: String,
    /// `webhook-timestamp`, unix time in seconds.
    pub timestamp: i64,
    /// `webhook-signature`: one a secret.
    pub signature: String,
    /// The body that is signed, byte for byte.
    pub body: String,
}

/// Signs an attempt that is made at this time, unix time in seconds, with each of these secrets.
///
/// # Errors
/// A secret that is none, or no secret.
pub fn sign(id: &str, timestamp: i64, body: &str, secrets: &[Secret]) -> Result<Signed, BadSecret> {
    let sign = |secret: &Secret| {
        let key = standardwebhooks::Webhook::new(secret.expose()).map_err(|_| BadSecret::Form)?;
        let signed = key.sign(id, timestamp, body.as_bytes());
        signed.map_err(|_| BadSecret::Form)
    };
    let signatures: Vec<String> = secrets.iter().map(sign).collect::<Result<_, _>>()?;
    if signatures.is_empty() {
        return Err(BadSecret::None);
    }
    Ok(Signed {
        id: id.to_owned(),
        timestamp,
        signature: signatures.join(" "),
        body: body.to_owned(),
    })
}
