//! A verdict on every table, from what the catalog and the rules say. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::order::parents_first;
use super::read::{RawForeignKey, Relation};
use super::{Catalog, Rules, TENANT_COLUMN, Table};
use crate::mover::membership::{Dependent, Hop, Membership, TIMES, Time};
use crate::mover::report::{Verdict, VerdictKind};
use crate::mover::sql;

/// Tables that frameworks bring along: their rows are of no tenant, and are
/// made anew where they are needed.
const KNOWN: [(&str, &str); 8] = [
    ("oban_jobs", "a job queue: jobs stay where they were enqueued"),
    ("oban_peers", "a job queue's leader election"),
    ("oban_producers", "a job queue's producers"),
    ("schema_migrations", "the application's list of migrations, compared with the target's"),
    ("ar_internal_metadata", "a framework's notes"),
    ("spatial_ref_sys", "PostGIS's own"),
    ("fun_with_flags_toggles", "switches of the application"),
    ("cache_entries", "a cache"),
];

/// What is known of a table that moves, before the tables have numbers.
struct Moved {
    oid: u32,
    depth: usize,
    table: Table,
}

struct Judge<'a> {
    rules: &'a Rules,
    moved: Vec<Moved>,
    verdicts: Vec<Verdict>,
    warnings: Vec<String>,
    problems: Vec<String>,
}

/// The verdicts, and the tables that move, parents before what belongs to the
/// tenant through them.
pub(super) fn judge(relations: &[Relation], rules: &Rules) -> Catalog {
    let parents = tenant_parents(relations);
    let mut judge = Judge {
        rules,
        moved: Vec::new(),
        verdicts: Vec::new(),
        warnings: Vec::new(),
        problems: Vec::new(),
    };
    let mut rest: Vec<&Relation> = Vec::new();
    for relation in relations.iter().filter(|relation| !relation.is_partition) {
        let carries = relation.columns.iter().any(|c| c.raw_name == TENANT_COLUMN);
        if Rules::names(&rules.ignore, &relation.schema, &relation.table) {
            judge.say(relation, VerdictKind::Ignore, "named in ignore_tables".into(), 0);
        } else if Rules::names(&rules.reference, &relation.schema, &relation.table) {
            rest.push(relation);
        } else if carries || parents.contains(&relation.oid) {
            let (column, why) = if carries {
                (TENANT_COLUMN, format!("rows name their tenant in {TENANT_COLUMN}"))
            } else {
                ("id", format!("the tenant's own row: {TENANT_COLUMN} points here"))
            };
            judge.moves(relation, 0, Membership::Column(sql::ident(column)), why);
        } else {
            rest.push(relation);
        }
    }
    if judge.moved.is_empty() {
        judge.nothing(format!("no table with a column {TENANT_COLUMN} is visible here"));
    } else if parents.is_empty() {
        judge.nothing(format!(
            "the tenant's own table was not found: no foreign key on {TENANT_COLUMN}, and no customers (id uuid)"
        ));
    }
    let pointed: BTreeSet<u32> = judge.pointed(relations);
    let rest = judge.through(rest, &pointed);

    let pointed = judge.pointed(relations);
    let mut references = BTreeSet::new();
    for relation in rest {
        let declared = Rules::names(&rules.reference, &relation.schema, &relation.table);
        if declared || pointed.contains(&relation.oid) {
            references.insert(relation.name.clone());
            let reason = if declared {
                "named in reference_tables"
            } else {
                "tenant rows point here; the rows must be on the target already"
            };
            judge.say(relation, VerdictKind::Reference, reason.into(), relation.rows);
        } else {
            let known = KNOWN.iter().find(|(name, _)| *name == relation.table);
            let reason = known.map_or("no tenant rows, and none point here", |(_, why)| why);
            judge.say(relation, VerdictKind::Ignore, reason.into(), relation.rows);
        }
    }
    judge.done(references)
}

impl Judge<'_> {
    fn say(&mut self, relation: &Relation, verdict: VerdictKind, reason: String, rows: u64) {
        self.verdicts.push(Verdict {
            table: relation.name.clone(),
            verdict,
            reason,
            rows_estimated: rows,
        });
    }

    fn nothing(&mut self, reason: String) {
        self.verdicts.push(Verdict {
            table: "(none)".into(),
            verdict: VerdictKind::Refuse,
            reason,
            rows_estimated: 0,
        });
    }

    /// Tables outside of what moves that its rows point to.
    fn pointed(&self, relations: &[Relation]) -> BTreeSet<u32> {
        relations
            .iter()
            .filter(|relation| self.find(relation.oid).is_some())
            .flat_map(|relation| relation.foreign_keys.iter().map(|key| key.parent_oid))
            .filter(|oid| self.find(*oid).is_none())
            .collect()
    }

    fn find(&self, oid: u32) -> Option<&Moved> {
        self.moved.iter().find(|moved| moved.oid == oid)
    }

    /// Takes a table in, or says why it can't move.
    fn moves(&mut self, relation: &Relation, depth: usize, membership: Membership, why: String) {
        let time = match self.time(relation) {
            Ok(time) => time,
            Err(reason) => return self.say(relation, VerdictKind::Refuse, reason, 0),
        };
        if let Some(reason) = relation.refusal(membership.column(), self.rules.hypertables) {
            return self.say(relation, VerdictKind::Refuse, reason, 0);
        }
        // A move that has begun compares what was stored, and stops by itself.
        if let Some(trigger) = relation.always_triggers.first() {
            self.problems.push(format!(
                "table {} can't move: its trigger {trigger} fires for replicated rows too and would change \
                 what is copied: ALTER TABLE {} ENABLE TRIGGER {}",
                relation.name,
                relation.name,
                sql::ident(trigger)
            ));
        }
        if let (Some(found), Some(tenant)) = (&relation.hypertable, membership.column()) {
            for doubt in found.doubts(tenant) {
                self.warnings.push(format!("hypertable {}: {doubt}", relation.name));
            }
        }
        let table = relation.table(membership, time);
        let reason = format!("{why}{}", relation.traits());
        self.say(relation, VerdictKind::Move, reason, relation.rows);
        self.moved.push(Moved { oid: relation.oid, depth, table });
    }

    fn time(&mut self, relation: &Relation) -> Result<Option<Time>, String> {
        let wanted = Rules::given(&self.rules.time_columns, &relation.schema, &relation.table);
        let Some(wanted) = wanted else { return Ok(None) };
        let Some(raw) = relation.columns.iter().find(|column| column.raw_name == wanted) else {
            self.warnings.push(format!(
                "{} has no column {wanted}, which moves.time_columns names: a downgrade moves all of it",
                relation.name
            ));
            return Ok(None);
        };
        let column = &raw.column;
        if !TIMES.contains(&column.cast.as_str()) {
            return Err(format!(
                "its time column {wanted} (moves.time_columns) is {}: a downgrade can't cut by it",
                column.full_type
            ));
        }
        Ok(Some(Time {
            column: column.name.clone(),
            cast: column.cast.clone(),
            not_null: column.not_null,
        }))
    }

    /// Tables whose rows belong to a tenant through a row of a table that
    /// moves, again and again; what is left has no tenant rows.
    fn through<'r>(
        &mut self,
        mut rest: Vec<&'r Relation>,
        pointed: &BTreeSet<u32>,
    ) -> Vec<&'r Relation> {
        loop {
            let mut left = Vec::new();
            let before = rest.len();
            for relation in rest {
                if !self.belongs(relation, pointed.contains(&relation.oid)) {
                    left.push(relation);
                }
            }
            rest = left;
            if rest.len() == before {
                return rest;
            }
        }
    }

    /// Settles a table that has rows below one that moves; false where it has
    /// none, or where it may get some later.
    fn belongs(&mut self, relation: &Relation, pointed: bool) -> bool {
        let rules = self.rules;
        if Rules::names(&rules.reference, &relation.schema, &relation.table) {
            return false;
        }
        let ways: Vec<&RawForeignKey> = relation
            .foreign_keys
            .iter()
            .filter(|key| key.parent_oid != relation.oid && self.find(key.parent_oid).is_some())
            .collect();
        if ways.is_empty() {
            return false;
        }
        let given = Rules::given(&rules.through, &relation.schema, &relation.table);
        let chosen = match given {
            Some(given) => ways
                .iter()
                .find(|key| key.key.name == given || key.key.columns == [sql::ident(given)]),
            None => {
                let sure = |key: &&&RawForeignKey| relation.never_null(&key.key.columns);
                let best = ways.iter().filter(sure).min_by_key(|key| {
                    let depth = self.find(key.parent_oid).map_or(usize::MAX, |m| m.depth);
                    (!key.cascades, depth, key.key.name.clone())
                });
                match (best, &ways[..]) {
                    (Some(best), _) => Some(best),
                    // Shared rows that mention a tenant, as who made them.
                    (None, _) if pointed => return false,
                    (None, [_]) => ways.first(),
                    (None, _) => None,
                }
            }
        };
        let Some(chosen) = chosen else {
            let reason = match given {
                Some(given) => format!(
                    "moves.through names {given}, which is no foreign key of it to a table that moves"
                ),
                None => format!(
                    "its rows belong to a tenant only through one of {}, and each may be null: \
                     give it a {TENANT_COLUMN}, or name the column in moves.through, or the table in ignore_tables",
                    ways.iter()
                        .map(|key| key
                            .key
                            .columns
                            .iter()
                            .map(|c| sql::bare(c))
                            .collect::<Vec<_>>()
                            .join("+"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            self.say(relation, VerdictKind::Refuse, reason, relation.rows);
            return true;
        };
        self.take_through(relation, chosen);
        true
    }

    fn take_through(&mut self, relation: &Relation, key: &RawForeignKey) {
        let Some(parent) = self.find(key.parent_oid) else { return };
        if parent.table.hypertable.is_some() {
            let reason = format!(
                "its rows belong to a tenant through the hypertable {}, which was not verified: give it a {TENANT_COLUMN}",
                parent.table.name
            );
            return self.say(relation, VerdictKind::Refuse, reason, relation.rows);
        }
        let columns: Vec<String> = key.key.columns.iter().map(|c| sql::bare(c)).collect();
        let columns = columns.join(", ");
        let depth = parent.depth + 1;
        let parent = parent.table.clone();
        let membership = match &parent.membership {
            // The foreign key carries the tenant's id itself.
            Membership::Column(column) if key.key.parent_columns == [column.clone()] => {
                Membership::Column(key.key.columns.concat())
            }
            above => {
                let mut hops = vec![Hop {
                    columns: key.key.columns.clone(),
                    parent: parent.name.clone(),
                    parent_columns: key.key.parent_columns.clone(),
                    parent_key: parent.key_columns().map(|c| c.name.clone()).collect(),
                    parent_number: 0,
                    parent_time: parent.time.clone(),
                    deferrable: key.deferrable,
                }];
                hops.extend(above.hops().iter().cloned());
                let tenant = match above {
                    Membership::Column(column) => column.clone(),
                    Membership::Through { tenant, .. } => tenant.clone(),
                };
                Membership::Through { hops, tenant }
            }
        };
        let is_through = membership.column().is_none();
        let before = self.moved.len();
        self.moves(
            relation,
            depth,
            membership,
            format!("through a parent: {columns} points to {}", parent.name),
        );
        if self.moved.len() == before || !is_through {
            return;
        }
        self.warnings.push(format!(
            "{} belongs to tenants only through {columns}: while the move lasts every tenant's write to it \
             looks up its {}",
            relation.name, parent.name
        ));
        if !key.indexed {
            self.warnings.push(format!(
                "{} has no index on ({columns}): each delete of a row of {} during the move reads all of it; \
                 create one first",
                relation.name, parent.name
            ));
        }
        if !relation.never_null(&key.key.columns) {
            self.warnings.push(format!(
                "rows of {} without {columns} belong to nobody and stay where they are",
                relation.name
            ));
        }
    }

    /// Numbers the tables, and tells each what is below it.
    fn done(mut self, references: BTreeSet<String>) -> Catalog {
        self.moved.sort_by(|a, b| (a.depth, &a.table.name).cmp(&(b.depth, &b.table.name)));
        let mut tables = parents_first(self.moved.into_iter().map(|moved| moved.table).collect());
        let numbers: BTreeMap<String, usize> =
            tables.iter().enumerate().map(|(at, table)| (table.name.clone(), at)).collect();
        let mut below: BTreeMap<usize, Vec<Dependent>> = BTreeMap::new();
        for (number, table) in tables.iter_mut().enumerate() {
            if let Membership::Through { hops, .. } = &mut table.membership {
                for hop in hops.iter_mut() {
                    hop.parent_number = numbers.get(&hop.parent).copied().unwrap_or(usize::MAX);
                }
            }
            let hops = table.membership.hops();
            for (at, hop) in hops.iter().enumerate() {
                below.entry(hop.parent_number).or_default().push(Dependent {
                    number,
                    name: table.name.clone(),
                    key: table.key_columns().map(|column| column.name.clone()).collect(),
                    path: hops.iter().take(at + 1).cloned().collect(),
                });
            }
        }
        for (number, dependents) in below {
            if let Some(table) = tables.get_mut(number) {
                table.dependents = dependents;
            }
        }
        self.verdicts.sort_by(|a, b| a.table.cmp(&b.table));
        Catalog {
            tables,
            references,
            verdicts: self.verdicts,
            warnings: self.warnings,
            problems: self.problems,
        }
    }
}

/// The tables that `customer_id` foreign keys point to; where there is none,
/// a table `customers` with an id.
fn tenant_parents(relations: &[Relation]) -> BTreeSet<u32> {
    let by_key: BTreeSet<u32> = relations
        .iter()
        .flat_map(|relation| &relation.foreign_keys)
        .filter(|key| key.key.columns == [sql::ident(TENANT_COLUMN)])
        .map(|key| key.parent_oid)
        .collect();
    if !by_key.is_empty() {
        return by_key;
    }
    relations.iter().filter(|relation| relation.table == "customers").map(|r| r.oid).collect()
}
