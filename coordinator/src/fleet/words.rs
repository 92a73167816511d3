//! Why nodes can't take a tenant, in words for a person.

use super::place::{NoRoom, Refusal};
use crate::decide::plans::NodeKind;

/// What is said of `nodes` nodes that refuse for the reason of that name (see
/// [`Refusal::kind`]): "lacks CPU", "lack CPU".
pub fn words(kind: &str, nodes: u32) -> &str {
    let (one, many) = match kind {
        "cpu" => ("lacks CPU", "lack CPU"),
        "memory" => ("lacks memory", "lack memory"),
        "disk" => ("lacks disk space", "lack disk space"),
        "db_connections" => ("lacks database connections", "lack database connections"),
        "gps" => ("can take no more GPS points", "can take no more GPS points"),
        "tenants" => ("has no slot left", "have no slot left"),
        "other_kind" => ("is of the other kind", "are of the other kind"),
        "not_active" => ("is draining or not in use", "are draining or not in use"),
        "not_seen" => ("has a silent agent", "have silent agents"),
        "other_region" => ("stands elsewhere", "stand elsewhere"),
        "pinned" => {
            ("is not the one the tenant is pinned to", "are not the one the tenant is pinned to")
        }
        "apart" => {
            ("has one the tenant is kept apart from", "have some the tenant is kept apart from")
        }
        "just_left" => {
            ("was left by the tenant within the week", "were left by the tenant within the week")
        }
        "taken" => ("has its tenant", "have their tenants"),
        "shape_too_small" => ("is smaller than the plan's", "are smaller than the plan's"),
        // Of a newer coordinator.
        other => (other, other),
    };
    if nodes == 1 { one } else { many }
}

impl NoRoom {
    /// "2 lack memory, 1 has a silent agent", the most first; "there is none"
    /// where no node is of the kind that is needed.
    pub fn summary(&self) -> String {
        let other = Refusal::OtherKind.kind();
        let mut counts: Vec<(&str, u32)> = self
            .counts
            .iter()
            .map(|(kind, nodes)| (kind.as_str(), *nodes))
            .filter(|(kind, nodes)| *kind != other && *nodes > 0)
            .collect();
        if counts.is_empty() {
            return "there is none".to_owned();
        }
        counts.sort_by_key(|(_, nodes)| std::cmp::Reverse(*nodes));
        let parts = counts.iter().map(|(kind, nodes)| format!("{nodes} {}", words(kind, *nodes)));
        parts.collect::<Vec<_>>().join(", ")
    }

    /// The same as a sentence about the nodes of `kind`: "no shared node has
    /// room: 1 lacks CPU, 1 lacks disk space".
    pub fn said(&self, kind: NodeKind) -> String {
        format!("no {} node has room: {}", kind.as_str(), self.summary())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::load::Dimension;

    #[test]
    fn counts_are_sentences_the_most_first() {
        let said = |counts: &[(&str, u32)]| {
            let counts = counts.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect();
            NoRoom { counts, refused: Vec::new() }.said(NodeKind::Shared)
        };
        for (counts, expected) in [
            (&[("cpu", 1), ("disk", 1)][..], "1 lacks CPU, 1 lacks disk space"),
            (&[("memory", 1), ("not_seen", 3)], "3 have silent agents, 1 lacks memory"),
            (&[("other_kind", 7), ("tenants", 2)], "2 have no slot left"),
            (&[("other_kind", 7)], "there is none"),
            (&[], "there is none"),
            (&[("of_tomorrow", 1)], "1 of_tomorrow"),
        ] {
            assert_eq!(said(counts), format!("no shared node has room: {expected}"));
        }
    }

    #[test]
    fn every_reason_has_its_words() {
        let dimension = Dimension::Cpu;
        let mut kinds: Vec<&str> = Dimension::ALL.iter().map(|one| one.as_str()).collect();
        kinds.extend([
            Refusal::OtherKind.kind(),
            Refusal::NotActive { standing: crate::fleet::Standing::Joining }.kind(),
            Refusal::NotSeen.kind(),
            Refusal::OtherRegion.kind(),
            Refusal::Pinned { node: webhost_proto::ids::NodeId::generate() }.kind(),
            Refusal::Apart { tenant: webhost_proto::ids::TenantId::generate() }.kind(),
            Refusal::JustLeft.kind(),
            Refusal::Taken.kind(),
            Refusal::Full { tenants: 1 }.kind(),
            Refusal::ShapeTooSmall { dimension }.kind(),
        ]);
        for kind in kinds {
            for nodes in [1, 2] {
                assert_ne!(words(kind, nodes), kind, "{kind} is told by its name");
            }
        }
    }
}
