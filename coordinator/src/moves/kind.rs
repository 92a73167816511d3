//! What a move is called: by the modes that it leads from and to.

use std::fmt;
use std::str::FromStr;

use crate::decide::Mode;

/// The kinds of moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From a shared node to one of the tenant's own.
    Upgrade,
    /// Back to a shared node, limited to what the target's plan retains.
    Downgrade,
    /// From one shared node to another.
    Lateral,
    /// From one dedicated node to another.
    Dedicated,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Upgrade, Self::Downgrade, Self::Lateral, Self::Dedicated];

    /// The kind of a move between two modes.
    pub const fn of(from: Mode, to: Mode) -> Self {
        match (from, to) {
            (Mode::MultiTenant, Mode::SingleTenant) => Self::Upgrade,
            (Mode::SingleTenant, Mode::MultiTenant) => Self::Downgrade,
            (Mode::MultiTenant, Mode::MultiTenant) => Self::Lateral,
            (Mode::SingleTenant, Mode::SingleTenant) => Self::Dedicated,
        }
    }

    /// The mode that it leads to.
    pub const fn target_mode(self) -> Mode {
        match self {
            Self::Upgrade | Self::Dedicated => Mode::SingleTenant,
            Self::Downgrade | Self::Lateral => Mode::MultiTenant,
        }
    }

    /// The word in the store and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Upgrade => "upgrade",
            Self::Downgrade => "downgrade",
            Self::Lateral => "lateral",
            Self::Dedicated => "dedicated",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no kind of move.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no kind of move; write upgrade, downgrade, lateral or dedicated")]
pub struct UnknownKind(pub String);

impl FromStr for Kind {
    type Err = UnknownKind;
    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownKind(word.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_leads_to_its_mode() {
        for from in [Mode::MultiTenant, Mode::SingleTenant] {
            for to in [Mode::MultiTenant, Mode::SingleTenant] {
                let kind = Kind::of(from, to);
                assert_eq!(kind.target_mode(), to);
                assert_eq!(kind.as_str().parse(), Ok(kind));
            }
        }
        assert_eq!("sideways".parse::<Kind>(), Err(UnknownKind("sideways".into())));
    }
}
