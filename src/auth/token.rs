//! Bearer tokens.

use std::fmt;

use ring::rand::{SecureRandom, SystemRandom};

use super::digest::Digest;
use crate::units::hex;

/// A new bearer token: `pa_` and 64 hexadecimal digits. The agent keeps only its digest, so it can be shown once.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// The system has no random numbers.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// Random bytes of a token. With as many, guessing is out of question and a plain digest is as good as a slow one.
const RANDOM_BYTES: usize = 32;

impl Token {
    /// A token that nobody has seen.
    ///
    /// # Errors
    /// A system without random numbers.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut bytes = [0; RANDOM_BYTES];
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| NoRandomness)?;
        // the prefix lets scanners for leaked secrets find it
        Ok(Self(format!("pa_{}", hex(&bytes))))
    }

    /// The token itself, for the one who will use it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_new_each_time_and_not_shown() {
        let (one, other) = (Token::generate().unwrap(), Token::generate().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.expose().len(), 3 + 64);
        assert!(one.expose().starts_with("pa_"));
        assert_eq!(format!("{one:?}"), "Token(..)");
        assert_eq!(one.digest(), Digest::of(one.expose().as_bytes()));
    }
}
