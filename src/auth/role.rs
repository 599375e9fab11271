//! What a caller may do.

use std::fmt;
use std::str::FromStr;

/// What a caller may do. Roles are not steps of a ladder: who approves changes need not be able to start them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Looks at everything, changes nothing, and has nothing fetched that is not registered.
    Viewer,
    /// Also registers instances, names targets of its own, and starts changes.
    Operator,
    /// Looks at everything, and approves or rejects changes.
    Approver,
    /// Everything.
    Admin,
}

/// A word that is no role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("roles are viewer, operator, approver and admin")]
pub struct BadRole;

impl Role {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Viewer, Self::Operator, Self::Approver, Self::Admin];

    /// Those that may change what the agent looks after, and name targets to fetch.
    pub const OPERATING: &'static [Self] = &[Self::Operator, Self::Admin];

    /// Those that may agree to what changes it, or refuse it.
    pub const APPROVING: &'static [Self] = &[Self::Approver, Self::Admin];

    /// The word in files, flags and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Approver => "approver",
            Self::Admin => "admin",
        }
    }

    /// Roles as errors name them: `operator or admin`.
    pub fn names(roles: &[Self]) -> String {
        let names: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        match names.split_last() {
            Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
            _ => names.concat(),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = BadRole;

    fn from_str(word: &str) -> Result<Self, BadRole> {
        let known = Self::ALL.iter().find(|role| role.as_str() == word);
        known.copied().ok_or(BadRole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(*role));
        }
        assert_eq!("Admin".parse::<Role>(), Err(BadRole));
        assert_eq!(Role::names(Role::OPERATING), "operator or admin");
        assert_eq!(Role::names(&[Role::Viewer]), "viewer");
        assert_eq!(
            Role::names(Role::ALL),
            "viewer, operator, approver or admin"
        );
    }
}
