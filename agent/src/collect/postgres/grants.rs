//! The SQL that gives the agent its role: printed, and run by a superuser.

/// What a superuser runs once in the tenants' database; may be run again.
/// With `read_only` the role reads and nothing else: moves need more.
///
/// # Errors
/// When a role's name is none that a service's user could have, so that quotes
/// are all that it needs.
pub fn sql(role: &str, owner: &str, read_only: bool) -> Result<String, String> {
    for name in [role, owner] {
        let plain = name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        let first = name.bytes().next();
        if !plain || name.len() > 63 || !first.is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        {
            return Err(format!(
                "{name:?} is not a role's name of small letters, digits, hyphens and underscores"
            ));
        }
    }
    let bare = role;
    let [role, owner] = [role, owner].map(|name| format!("\"{name}\""));
    let mut text = format!(
        "-- The role of webhost-agent. Run once by a superuser in the tenants' database, in\n\
         -- one transaction (psql -v ON_ERROR_STOP=1 --single-transaction); running it again\n\
         -- changes nothing.\n\
         -- It has no password: peer authentication, or set one yourself.\n\
         do $$\n\
         begin\n\
         \x20   if not exists (select from pg_roles where rolname = '{bare}') then\n\
         \x20       create role {role} login nosuperuser nocreatedb nocreaterole inherit;\n\
         \x20   end if;\n\
         \x20   execute format('grant connect on database %I to {role}', current_database());\n\
         end\n\
         $$;\n\n\
         -- Connections, sizes and statistics of everybody, nobody's rows.\n\
         grant pg_monitor to {role};\n\n"
    );
    if read_only {
        text.push_str(&format!(
            "-- Who lives here, and how many vehicles they have. No writing, no moves.\n\
             grant usage on schema public to {role};\n\
             grant select on all tables in schema public to {role};\n\
             alter default privileges for role {owner} in schema public\n\
             \x20   grant select on tables to {role};\n"
        ));
    } else {
        text.push_str(&format!(
            "-- The tenants' tables: read always; guarded, copied and cleaned up by moves.\n\
             grant {owner} to {role};\n\
             do $$\n\
             begin\n\
             \x20   execute format('grant create, temporary on database %I to {role}',\n\
             \x20                  current_database());\n\
             end\n\
             $$;\n\n\
             -- Moves apply changes without firing the application's triggers again.\n\
             grant set on parameter session_replication_role to {role};\n"
        ));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_quoting_are_refused() {
        for name in ["", "a b", "x\"; drop role y", "Agent", "1st", "-a", "ä", "a'b"] {
            assert!(sql(name, "webhost_app", true).is_err(), "{name:?}");
            assert!(sql("webhost-agent", name, false).is_err(), "{name:?}");
        }
        let reads = sql("reader", "webhost_app", true).expect("prints");
        assert!(!reads.contains("session_replication_role") && !reads.contains("grant create"));
    }
}
