//! The order of tables: parents before what points to them.

use super::Table;

/// Tables after those that their foreign keys point to. Of a circle, which
/// has no such order, the first one given comes first, in which each comes
/// after what it belongs to the tenant through; what points into a circle
/// still comes after it.
pub(in crate::mover) fn parents_first(mut left: Vec<Table>) -> Vec<Table> {
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        // A table that only waits for what waits for it: on no way out of its
        // circle. One without parents is the simplest of them.
        let ready = |table: &Table| {
            above(table, &left).iter().all(|parent| above(parent, &left).contains(&table))
        };
        let at = left.iter().position(ready).unwrap_or(0);
        ordered.push(left.remove(at));
    }
    ordered
}

/// The tables among `all` that `table` points to, over any number of keys.
fn above<'a>(table: &Table, all: &'a [Table]) -> Vec<&'a Table> {
    let mut found: Vec<&Table> = Vec::new();
    let mut keys: Vec<&str> = table.foreign_keys.iter().map(|key| key.parent.as_str()).collect();
    while let Some(name) = keys.pop() {
        if let Some(parent) = all.iter().find(|other| other.name == name)
            && parent.name != table.name
            && !found.iter().any(|known| known.name == name)
        {
            keys.extend(parent.foreign_keys.iter().map(|key| key.parent.as_str()));
            found.push(parent);
        }
    }
    found
}
