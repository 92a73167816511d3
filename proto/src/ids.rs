//! Ids as newtypes, so that a node can't be passed where a tenant is meant.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A message carried an id that is not 16 bytes long.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{what} must be the 16 bytes of a UUID, got {length} bytes")]
pub struct IdError {
    /// What the id names.
    pub what: &'static str,
    /// How many bytes came.
    pub length: usize,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id; time-ordered (version 7), so that indexes stay compact.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// Reads the id from a message.
            ///
            /// # Errors
            /// [`IdError`] unless `bytes` are 16.
            pub fn from_wire(bytes: &[u8]) -> Result<Self, IdError> {
                Uuid::from_slice(bytes)
                    .map(Self)
                    .map_err(|_| IdError { what: $what, length: bytes.len() })
            }

            /// The id as a message carries it.
            pub fn to_wire(self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A customer: the `customer_id` of the WebHost schema.
    TenantId, "tenant_id"
);
id!(
    /// One machine with an agent. Never reused.
    NodeId, "node_id"
);
id!(
    /// One migration of one tenant between two nodes.
    MoveId, "move_id"
);
id!(
    /// One command to one agent.
    CommandId, "command id"
);

/// A tenant's generation: it grows by one with every change of the side that
/// serves it, and a step that carries an older one is refused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_ids_are_checked() {
        let id = TenantId::generate();
        assert_eq!(TenantId::from_wire(&id.to_wire()), Ok(id));
        for length in [0, 15, 17] {
            assert_eq!(
                NodeId::from_wire(&vec![0; length]),
                Err(IdError { what: "node_id", length })
            );
        }
    }
}
