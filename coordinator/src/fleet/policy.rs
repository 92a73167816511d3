//! How nodes may be filled, and what makes a move worth its trouble.

use serde::{Deserialize, Serialize};

use crate::decide::Catalog;
use crate::decide::amount::Hundredths;

/// How many moves may be under way at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtOnce {
    /// Away from one node.
    pub source: u32,
    /// To one node.
    pub target: u32,
    /// In the whole fleet.
    pub all: u32,
}

/// The rules that placement and plans follow. Percentages are 0 to 100 of what
/// a node holds, and the three limits ascend as they are written here, so that
/// what relieves a node does not overload the next, and what was just placed
/// is not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// An overloaded node is relieved to this; a node is given up only when
    /// the others stay below it.
    pub relieve_to: u32,
    /// No dimension of any node is filled above this.
    pub place_limit: u32,
    /// A node above this is overloaded.
    pub act_limit: u32,
    /// A tenant that was moved stays so many hours before it is moved for the
    /// sake of balance, and so long it does not return to where it left.
    pub residency_h: u32,
    /// It may return earlier when what it takes changed by so many percent.
    pub changed: u32,
    /// Moves for the sake of balance in one plan, at most.
    pub balance_moves: u32,
    /// What a wave of moves keeps to.
    pub at_once: AtOnce,
    /// How many runners-up to name.
    pub runners_up: usize,
    /// How many refusals to spell out; all are counted.
    pub refusals: usize,
}

impl Default for Policy {
    /// Place to 75 %, act above 80 %, relieve to 72 %; stay a week, or until
    /// a change of 20 %; 300 moves for balance; one move at once from and to a
    /// node, eight in all; three runners-up, sixteen refusals.
    fn default() -> Self {
        Self {
            relieve_to: 72,
            place_limit: 75,
            act_limit: 80,
            residency_h: 7 * 24,
            changed: 20,
            balance_moves: 300,
            at_once: AtOnce { source: 1, target: 1, all: 8 },
            runners_up: 3,
            refusals: 16,
        }
    }
}

impl Policy {
    /// The catalogue's limits, and the defaults for the rest.
    pub fn of(catalog: &Catalog) -> Self {
        let limits = &catalog.thresholds;
        Self {
            relieve_to: percent(limits.relieve_to),
            place_limit: percent(limits.place_limit),
            act_limit: percent(limits.act_limit),
            ..Self::default()
        }
    }
}

/// A limit as whole percent, 0 to 100.
fn percent(limit: Hundredths) -> u32 {
    u32::try_from(limit.0).unwrap_or(0).min(100)
}
