//! Guards of tables whose rows belong to the tenant through a parent, and of
//! the parents: what their functions do beside what all guards do.
//!
//! A WHEN clause can't look a parent up, so such a guard runs for every
//! tenant's rows and leaves those of others alone, as its first act. See
//! [`membership`](crate::mover::membership) for why the locks are right.

use crate::mover::membership::{changed, deciding, of};
use crate::mover::statements::TableSql;

/// Variables of the function.
pub(super) fn declarations(sql: &TableSql<'_>) -> String {
    match sql.table.membership.column() {
        Some(_) => String::new(),
        None => format!("mine boolean := false; {}", sql.table.membership.variables()),
    }
}

/// Returns from the function for another tenant's row. Empty where the
/// trigger's WHEN says it already. A function that is not VOLATILE can't lock.
pub(super) fn leave_others(sql: &TableSql<'_>, lock: bool) -> String {
    let membership = &sql.table.membership;
    if membership.column().is_some() {
        return String::new();
    }
    format!(
        "IF TG_LEVEL = 'ROW' THEN
           IF TG_OP <> 'DELETE' THEN {} END IF;
           IF TG_OP <> 'INSERT' THEN {} END IF;
           IF NOT mine THEN IF TG_OP = 'DELETE' THEN RETURN OLD; ELSE RETURN NEW; END IF; END IF;
         END IF;",
        membership.look_up("NEW", sql.tenant(), lock),
        membership.look_up("OLD", sql.tenant(), lock),
    )
}

/// Appends the keys of the rows below to `log` when the write may change whose
/// they are: before the write, while they can be found, and after whoever
/// writes one of them is done. Where the setting `retention.0` is on, what is
/// deleted goes to the list `retention.1` instead.
pub(super) fn log_below(sql: &TableSql<'_>, log: &str, retention: Option<(&str, &str)>) -> String {
    let table = sql.table;
    if table.dependents.is_empty() {
        return String::new();
    }
    let append = |row: &str, into: &str, tail: &str, wanted: &dyn Fn(bool) -> bool| -> String {
        table
            .dependents
            .iter()
            .filter(|dependent| wanted(dependent.deferrable()))
            .map(|dependent| {
                let (from, below) = dependent.below(&of(row));
                format!(
                    "INSERT INTO {into}(tab, k) SELECT {}, {} FROM {from} WHERE {below}{tail};",
                    dependent.number,
                    dependent.logged_key()
                )
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let same: Vec<String> =
        table.key_columns().map(|c| format!("x.{name} = OLD.{name}", name = c.name)).collect();
    let all = append("OLD", log, "", &|_| true);
    let gone = match retention {
        None => all.clone(),
        Some((setting, kept)) => format!(
            "IF pg_catalog.current_setting('{setting}', true) = 'on' THEN {} ELSE {all} END IF;",
            append("OLD", kept, " ON CONFLICT DO NOTHING", &|_| true)
        ),
    };
    let mut text = format!(
        "IF TG_OP = 'DELETE' THEN {gone} END IF;
         IF TG_OP = 'UPDATE' THEN
           IF {changed} THEN
             PERFORM 1 FROM {name} AS x WHERE {same} FOR UPDATE;
             {all}
           END IF;
         END IF;",
        changed = changed(&deciding(&table.membership, table.time.as_ref(), &table.dependents)),
        name = table.name,
        same = same.join(" AND "),
    );
    // Rows that a deferred constraint let in before their parent.
    let early = append("NEW", log, "", &|deferrable| deferrable);
    if !early.is_empty() {
        text.push_str(&format!("IF TG_OP <> 'DELETE' THEN {early} END IF;"));
    }
    text
}

/// The conditions of the row triggers: on INSERT, UPDATE and DELETE.
pub(super) fn conditions(sql: &TableSql<'_>) -> [String; 3] {
    if sql.table.membership.column().is_none() {
        return ["true".into(), "true".into(), "true".into()];
    }
    let (old, new) = (sql.of_tenant("OLD"), sql.of_tenant("NEW"));
    [new.clone(), format!("{old} OR {new}"), old]
}
