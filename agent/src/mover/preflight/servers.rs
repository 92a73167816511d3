//! The two servers: versions, privileges, transactions that hold locks.

use crate::mover::catalog::Table;
use crate::mover::connect::Conn;
use crate::mover::error::MoveError;
use crate::mover::report::{Preflight, Topic};
use crate::mover::run::Pair;
use crate::mover::sql::{self, SCHEMA};

/// What our tests run with.
const TESTED: i32 = 15;

pub(super) async fn versions(pair: &Pair, report: &mut Preflight) -> Result<(), MoveError> {
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
            report.problem(
                Topic::Servers,
                format!("PostgreSQL 15 or later is needed (source {here}, target {there})"),
                "upgrade the older one",
            );
        } else if here != there {
            report.problem(
                Topic::Servers,
                format!("the two servers' major versions differ (source {here}, target {there})"),
                "move to a node with the same version",
            );
        } else {
            report.fact(Topic::Servers, format!("PostgreSQL {here} on both sides"));
            if here != TESTED {
                report.warn(
                    Topic::Servers,
                    format!("moves are tested with PostgreSQL {TESTED}, not {here}"),
                    "",
                );
            }
        }
    }
    if encodings.first() != encodings.last() {
        report.problem(
            Topic::Servers,
            format!("the databases' encodings differ: {}", encodings.join(", ")),
            "create the target's database with the same encoding",
        );
    }
    if let [here, there] = &extensions[..] {
        for (name, version) in here {
            match there.iter().find(|(other, _)| other == name) {
                None => {
                    report.problem(
                        Topic::Servers,
                        format!("extension {name} {version} is missing on the target"),
                        format!("CREATE EXTENSION {} there", sql::ident(name)),
                    );
                }
                Some((_, other)) if other != version => report.warn(
                    Topic::Servers,
                    format!(
                        "extension {name} is {version} on the source and {other} on the target"
                    ),
                    format!("ALTER EXTENSION {} UPDATE on the older one", sql::ident(name)),
                ),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// The role may do all that a move does, without being a superuser; what is
/// missing is said as the statement that gives it.
pub(super) async fn privileges(
    conn: &Conn,
    tables: &[Table],
    report: &mut Preflight,
) -> Result<(), MoveError> {
    let side = conn.side();
    let row = conn
        .one(
            &format!(
                "select current_user::text, current_database()::text, \
                 has_parameter_privilege('session_replication_role', 'SET'), \
                 (to_regnamespace('{SCHEMA}') is not null or has_database_privilege(current_database(), 'CREATE')) \
                   and (to_regnamespace('{SCHEMA}') is null or has_schema_privilege(to_regnamespace('{SCHEMA}')::oid, 'CREATE')), \
                 has_database_privilege(current_database(), 'TEMPORARY'), \
                 pg_has_role('pg_read_all_stats', 'USAGE')"
            ),
            &[],
        )
        .await?;
    let role: String = row.get(0);
    let (to, database) = (sql::ident(&role), sql::ident(row.get(1)));
    let mut lacking = |what: String, grant: String| {
        report.problem(
            Topic::Privileges,
            format!("role {role} on the {side} {what}"),
            format!("there {grant};"),
        );
    };
    if !row.get::<_, bool>(2) {
        lacking(
            "may not set session_replication_role".into(),
            format!("a superuser runs GRANT SET ON PARAMETER session_replication_role TO {to}"),
        );
    }
    if !row.get::<_, bool>(3) {
        lacking(
            format!("may not create in the schema {SCHEMA}"),
            format!("GRANT CREATE ON DATABASE {database} TO {to}"),
        );
    }
    if !row.get::<_, bool>(4) {
        lacking(
            "may not create temporary tables".into(),
            format!("GRANT TEMPORARY ON DATABASE {database} TO {to}"),
        );
    }
    let names: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
    for row in conn
        .query(
            "select string_agg(n.name, ', ' order by n.name), c.relowner::regrole::text \
             from unnest($1::text[]) n(name) join pg_class c on c.oid = to_regclass(n.name) \
             where not pg_has_role(c.relowner, 'USAGE') group by c.relowner",
            &[&names],
        )
        .await?
    {
        let (tables, owner): (String, String) = (row.get(0), row.get(1));
        lacking(
            format!("is not a member of the owner of {tables}"),
            format!("GRANT {owner} TO {to}"),
        );
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
        lacking(
            format!("may not read and set the sequence {name}"),
            format!("GRANT SELECT, UPDATE ON SEQUENCE {name} TO {to}"),
        );
    }
    if !row.get::<_, bool>(5) {
        report.warn(
            Topic::Privileges,
            format!("role {role} on the {side} can't see other sessions' transactions"),
            format!("there GRANT pg_monitor TO {to};"),
        );
    }
    Ok(())
}

/// Sessions of one move on one side, at most.
const SESSIONS: i64 = 8;

/// Whether both servers have sessions left for the move.
pub(super) async fn connections(pair: &Pair, report: &mut Preflight) -> Result<(), MoveError> {
    for conn in [&pair.source, &pair.target] {
        let side = conn.side();
        let row = conn
            .one(
                "select current_setting('max_connections')::int8, \
                 current_setting('max_connections')::int8 - current_setting('superuser_reserved_connections')::int8 \
                   - (select count(*) from pg_stat_activity where backend_type in ('client backend', 'walsender')), \
                 (select case when rolconnlimit < 0 then null else rolconnlimit - \
                    (select count(*) from pg_stat_activity a where a.usesysid = r.oid) end::int8 \
                  from pg_roles r where rolname = current_user)",
                &[],
            )
            .await?;
        let (max, left): (i64, i64) = (row.get(0), row.get(1));
        let left = row.get::<_, Option<i64>>(2).map_or(left, |role| role.min(left));
        let text = format!("the {side} has {left} of {max} connections left");
        if left < SESSIONS {
            report.problem(
                Topic::Servers,
                format!("{text}, the move needs {SESSIONS}"),
                "raise max_connections, or the role's CONNECTION LIMIT",
            );
        } else {
            report.fact(Topic::Servers, text);
        }
    }
    Ok(())
}

pub(super) async fn transactions(pair: &Pair, report: &mut Preflight) -> Result<(), MoveError> {
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
            report.problem(
                Topic::Transactions,
                format!(
                    "the {side} has the prepared transaction {gid}, which would hold its locks"
                ),
                format!("COMMIT PREPARED {0} or ROLLBACK PREPARED {0}", sql::literal(&gid)),
            );
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
            report.warn(
                Topic::Transactions,
                format!("a long transaction on the {side} may delay the guards: {who}"),
                "the guards wait for it a minute, then the step is tried again",
            );
        }
    }
    Ok(())
}
