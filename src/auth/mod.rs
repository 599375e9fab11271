//! Who may call: roles, tokens, and the file that says which credential is whose. Pure but for the system's random
//! numbers; files are read at the edge.

mod credentials;
mod digest;
pub mod edit;
mod role;
mod token;

pub use credentials::{BadCredentials, Credentials, Entry, Identity, Proof};
pub use digest::Digest;
pub use role::{BadRole, Role};
pub use token::{NoRandomness, Token};
