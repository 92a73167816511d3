//! How many moves may load the nodes at once. Pure.

use webhost_proto::ids::NodeId;

/// The most moves that are under way, between their first step and their
/// switch: a roll back and an undo count, a way back that is open does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From one node.
    pub per_source: u32,
    /// To one node.
    pub per_target: u32,
    /// In the whole fleet.
    pub in_fleet: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_source: 1, per_target: 2, in_fleet: 4 }
    }
}

/// One move that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy {
    /// From where.
    pub source: NodeId,
    /// To where.
    pub target: Option<NodeId>,
}

fn count(busy: &[Busy], is: impl Fn(&Busy) -> bool) -> u32 {
    u32::try_from(busy.iter().filter(|one| is(one)).count()).unwrap_or(u32::MAX)
}

impl Limits {
    /// Whether one more move from `source` may begin beside `busy`.
    ///
    /// # Errors
    /// The limit that is reached, for a person.
    pub fn source(&self, busy: &[Busy], source: NodeId) -> Result<(), String> {
        let fleet = count(busy, |_| true);
        if fleet >= self.in_fleet {
            return Err(format!(
                "waits for its turn: {fleet} moves are under way, max_in_fleet is {}",
                self.in_fleet
            ));
        }
        let from = count(busy, |one| one.source == source);
        if from >= self.per_source {
            return Err(format!(
                "waits for its turn: {from} moves from its node are under way, max_per_source is {}",
                self.per_source
            ));
        }
        Ok(())
    }

    /// As [`Limits::source`], without the reason.
    pub fn has_turn(&self, busy: &[Busy], source: NodeId) -> bool {
        count(busy, |_| true) < self.in_fleet
            && count(busy, |one| one.source == source) < self.per_source
    }

    /// Whether one more move to `target` may begin beside `busy`.
    pub fn takes(&self, busy: &[Busy], target: NodeId) -> bool {
        count(busy, |one| one.target == Some(target)) < self.per_target
    }

    /// Why nothing more goes to `target`, for a person.
    pub fn full(&self) -> String {
        format!(
            "waits for its turn: max_per_target, {}, moves to the node are under way",
            self.per_target
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_by_itself() {
        let (a, b, c) = (NodeId::generate(), NodeId::generate(), NodeId::generate());
        let limits = Limits { per_source: 1, per_target: 2, in_fleet: 3 };
        let busy = |pairs: &[(NodeId, NodeId)]| -> Vec<Busy> {
            pairs.iter().map(|&(source, t)| Busy { source, target: Some(t) }).collect()
        };
        let one = busy(&[(a, b)]);
        assert!(limits.source(&one, a).expect_err("full").contains("max_per_source is 1"));
        assert_eq!(limits.source(&one, b), Ok(()));
        assert!(limits.takes(&one, b));
        let two = busy(&[(a, b), (c, b)]);
        assert!(!limits.takes(&two, b) && limits.takes(&two, a));
        let three = busy(&[(a, b), (c, b), (c, a)]);
        let why = limits.source(&three, b).expect_err("full");
        assert!(why.contains("max_in_fleet is 3"), "{why}");
        assert_eq!(limits.source(&[], a), Ok(()));
        for (busy, source) in [(&one, a), (&one, b), (&three, b), (&Vec::new(), a)] {
            assert_eq!(limits.has_turn(busy, source), limits.source(busy, source).is_ok());
        }
    }
}
