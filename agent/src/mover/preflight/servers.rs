//! The two servers: versions, privileges, transactions that hold locks.

use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::{MoveError, Side};
use crate::mover::run::Pair;
use crate::mover::sql::{self, SCHEMA};

pub(super) async fn versions(
    pair: &Pair,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), MoveError> {
    let mut majors = Vec::new();
    let mut extensions = Vec::new();
    let mut encodings = Vec::new();
    for conn in [&pair.source, &pair.target] {
        let row = conn
            .one(
                "select current_setting('server_version_num')::int4 / 10000, \
                 (select pg_encoding_to_char(encoding)::text from pg_database where datname = current_database())",
                &[],
            )
            .await?;
        majors.push(row.get::<_, i32>(0));
        encodings.push(row.get::<_, String>(1));
        extensions.push(
            conn.query("select extname::text, extversion from pg_extension order by 1", &[])
                .await?
                .iter()
                .map(|row| (row.get(0), row.get(1)))
                .collect::<Vec<(String, String)>>(),
        );
    }
    if let [here, there] = majors[..] {
        if here < 15 || there < 15 {
            problems
                .push(format!("PostgreSQL 15 or later is needed (source {here}, target {there})"));
        } else if here != there {
            problems.push(format!(
                "the two servers' major versions differ (source {here}, target {there})"
            ));
        }
    }
    if encodings.first() != encodings.last() {
        problems.push(format!("the databases' encodings differ: {}", encodings.join(", ")));
    }
    if let [here, there] = &extensions[..] {
        for (name, version) in here {
            match there.iter().find(|(other, _)| other == name) {
                None => {
                    problems.push(format!("extension {name} {version} is missing on the target"))
                }
                Some((_, other)) if other != version => warnings.push(format!(
                    "extension {name} is {version} on the source and {other} on the target"
                )),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

pub(super) async fn privileges(
    conn: &Conn,
    tables: &[Table],
    problems: &mut Vec<String>,
) -> Result<(), MoveError> {
    let side = conn.side();
    let row = conn
        .one(
            &format!(
                "select current_user::text, has_parameter_privilege('session_replication_role', 'SET'), \
                 has_database_privilege(current_database(), 'CREATE'), \
                 to_regnamespace('{SCHEMA}') is null or has_schema_privilege(to_regnamespace('{SCHEMA}')::oid, 'CREATE')"
            ),
            &[],
        )
        .await?;
    let role: String = row.get(0);
    if !row.get::<_, bool>(1) && side == Side::Target {
        problems.push(format!(
            "role {role} on the {side} may not set session_replication_role: a superuser must run \
             GRANT SET ON PARAMETER session_replication_role TO {}",
            sql::ident(&role)
        ));
    }
    let has_schema: bool =
        conn.one(&format!("select to_regnamespace('{SCHEMA}') is not null"), &[]).await?.get(0);
    if (!has_schema && !row.get::<_, bool>(2)) || !row.get::<_, bool>(3) {
        problems.push(format!(
            "role {role} on the {side} may not create the schema {SCHEMA}: GRANT CREATE ON DATABASE is needed"
        ));
    }
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    for row in conn
        .query(
            "select n.name from unnest($1::text[]) n(name) join pg_class c on c.oid = n.name::regclass \
             where not pg_has_role(c.relowner, 'USAGE')",
            &[&names],
        )
        .await?
    {
        let table: String = row.get(0);
        problems.push(format!(
            "role {role} on the {side} is not a member of the owner of {table}: GRANT its owner TO {}",
            sql::ident(&role)
        ));
    }
    let sequences: Vec<&str> =
        tables.iter().flat_map(|table| &table.sequences).map(String::as_str).collect();
    for row in conn
        .query(
            "select distinct n.name from unnest($1::text[]) n(name) where to_regclass(n.name) is not null \
             and not (has_sequence_privilege(n.name, 'SELECT') and has_sequence_privilege(n.name, 'UPDATE'))",
            &[&sequences],
        )
        .await?
    {
        let name: String = row.get(0);
        problems.push(format!("role {role} on the {side} may not read and set the sequence {name}"));
    }
    Ok(())
}

pub(super) async fn transactions(
    pair: &Pair,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Result<(), MoveError> {
    for conn in [&pair.source, &pair.target] {
        let side = conn.side();
        for row in conn
            .query(
                "select gid from pg_prepared_xacts where database = current_database() order by 1",
                &[],
            )
            .await?
        {
            let gid: String = row.get(0);
            problems.push(format!(
                "the {side} has the prepared transaction {gid}, which would hold its locks: commit or roll it back"
            ));
        }
        for row in conn
            .query(
                "select format('pid %s (%s) has been open for %s s', pid, \
                   coalesce(nullif(application_name, ''), usename::text), \
                   extract(epoch from clock_timestamp() - xact_start)::int) from pg_stat_activity \
                 where datname = current_database() and pid <> pg_backend_pid() \
                 and xact_start < clock_timestamp() - interval '10 seconds' order by 1 limit 5",
                &[],
            )
            .await?
        {
            let who: String = row.get(0);
            warnings.push(format!("a long transaction on the {side} may delay the guards: {who}"));
        }
    }
    Ok(())
}
