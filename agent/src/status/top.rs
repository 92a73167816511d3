//! Which tenants are shown first, and the lines that show where they come
//! from. Pure.

use super::document::{Document, Tenant};

/// By what tenants are sorted, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum By {
    #[default]
    Cpu,
    Memory,
    /// GPS points a second.
    Gps,
    /// Database connections.
    Connections,
    Storage,
}

impl By {
    fn value(self, tenant: &Tenant) -> u64 {
        let figure = match self {
            Self::Cpu => tenant.cpu_milli,
            Self::Memory => tenant.memory_bytes,
            Self::Gps => tenant.gps_points_per_s_milli,
            Self::Connections => tenant.db_connections,
            Self::Storage => tenant.storage_bytes,
        };
        figure.sum().unwrap_or(0)
    }
}

/// The tenants in order, the first `count` of them (0: all), and how many are
/// left out. Equal ones stand in the order of their slugs.
pub fn top(tenants: &[Tenant], by: By, count: usize) -> (Vec<&Tenant>, usize) {
    let mut sorted: Vec<&Tenant> = tenants.iter().collect();
    sorted.sort_by(|a, b| {
        by.value(b).cmp(&by.value(a)).then_with(|| (&a.slug, &a.id).cmp(&(&b.slug, &b.id)))
    });
    let shown = if count == 0 { sorted.len() } else { count.min(sorted.len()) };
    let left = sorted.len() - shown;
    sorted.truncate(shown);
    (sorted, left)
}

/// Leaves one tenant in the document, by slug or id; false when there is none
/// of that name, and then the document is as it was.
pub fn only(document: &mut Document, name: &str) -> bool {
    let is = |tenant: &Tenant| tenant.slug == name || tenant.id == name;
    let found = document.tenants.iter().any(is);
    if found {
        document.tenants.retain(is);
    }
    found
}

/// Values as a line of blocks, from zero to their highest.
pub fn sparkline(values: &[u64]) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = values.iter().copied().max().unwrap_or(0).max(1);
    values
        .iter()
        .map(|value| {
            let at = u128::from(*value) * 7 / u128::from(highest);
            BLOCKS[usize::try_from(at).unwrap_or(7).min(7)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::document::Figure;
    use super::*;

    fn tenant(slug: &str, cpu: u64, connections: u64) -> Tenant {
        Tenant {
            id: format!("id-{slug}"),
            slug: slug.into(),
            cpu_milli: Figure { measured: Some(cpu), attributed: None },
            db_connections: Figure { measured: None, attributed: Some(connections) },
            ..Tenant::default()
        }
    }

    #[test]
    fn the_largest_come_first_and_the_rest_is_counted() {
        let tenants = [tenant("b", 5, 1), tenant("a", 5, 9), tenant("c", 7, 3)];
        for (by, count, expected, left) in [
            (By::Cpu, 0, vec!["c", "a", "b"], 0),
            (By::Connections, 2, vec!["a", "c"], 1),
            (By::Memory, 9, vec!["a", "b", "c"], 0),
        ] {
            let (shown, rest) = top(&tenants, by, count);
            let slugs: Vec<&str> = shown.iter().map(|tenant| tenant.slug.as_str()).collect();
            assert_eq!((slugs, rest), (expected, left), "{by:?}");
        }
    }

    #[test]
    fn one_tenant_by_either_name() {
        let mut document =
            Document { tenants: vec![tenant("a", 1, 1), tenant("b", 1, 1)], ..Document::default() };
        assert!(!only(&mut document, "c"));
        assert_eq!(document.tenants.len(), 2);
        assert!(only(&mut document, "id-b"));
        assert_eq!(document.tenants[0].slug, "b");
    }

    #[test]
    fn lines_by_table() {
        for (values, expected) in [
            (&[][..], ""),
            (&[0, 0], "▁▁"),
            (&[0, 1], "▁█"),
            (&[7, 0, 3, 6, 7], "█▁▄▇█"),
            (&[u64::MAX, 0], "█▁"),
        ] {
            assert_eq!(sparkline(values), expected, "{values:?}");
        }
    }
}
