//! Who this agent is: its key, which never leaves the machine, and what the
//! coordinator signed for it.
//!
//! Theory of operation. A join token, read from a file or standard input and
//! never from an argument, says which root the coordinator must prove and
//! carries a secret that works once. [`enrol`] makes a key, has it signed, and
//! [`stored`] keeps the outcome as one file, so that key and certificate never
//! come apart.

mod token;

mod stored;

mod enrol;

pub use enrol::{EnrolError, Enrolled, enrol};
pub use stored::{IdentityError, StoredIdentity};
pub use token::{JoinToken, TokenError, read_token};
