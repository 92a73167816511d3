use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::collect::postgres::{DbTenant, PostgresReading};
use crate::collect::source::{Health, Published};

fn tenant(n: u128) -> TenantId {
    TenantId(Uuid::from_u128(n))
}

/// Tenant 1 is "acme" in the database, tenant 2 has a host name of its own.
fn source(path: &Path) -> AccessSource {
    let config = AccessLog {
        path: path.into(),
        domain: Some("Fleet.example".into()),
        hosts: [("gps.own.example".to_owned(), tenant(2))].into(),
    };
    let row = DbTenant { slug: "acme".into(), ..DbTenant::default() };
    let reading =
        PostgresReading { tenants: [(tenant(1), row)].into(), ..PostgresReading::default() };
    let published = Published { value: Some(reading), health: Health::Ok, ..Published::waiting() };
    let hosts = Hosts::new(&config, Some(watch::channel(published).1));
    AccessSource::new(&config, hosts)
}

fn entry(host: &str, status: u16, ms: u32, client: &str) -> String {
    format!(
        "{{\"host\":\"{host}\",\"status\":{status},\"time\":0.{ms:03},\"bytes\":10,\
         \"client\":\"{client}\",\"country\":\"DE\"}}\n"
    )
}

fn write(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opens");
    file.write_all(text.as_bytes()).expect("writes");
}

fn good(source: &mut AccessSource) -> AccessReading {
    match source.sample() {
        Outcome::Good(reading) => reading,
        other => panic!("not good: {other:?}"),
    }
}

#[test]
fn requests_are_counted_for_whom_the_host_name_belongs_to() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.json");
    write(&path, &entry("acme.fleet.example", 200, 1, "10.0.0.1"));
    let mut source = source(&path);
    assert!(good(&mut source).tenants.is_empty(), "what was there before is not counted");

    for (host, status, ms, client) in [
        ("acme.fleet.example", 200, 10, "10.0.0.1"),
        ("ACME.fleet.example", 502, 100, "10.0.0.2"),
        ("acme.fleet.example", 404, 10, "10.0.0.1"),
        ("gps.own.example", 200, 5, "10.0.0.3"),
        ("fleet.example", 200, 5, "10.0.0.4"),
        ("nobody.fleet.example", 200, 5, "10.0.0.4"),
        ("acme.fleet.example.evil", 200, 5, "10.0.0.4"),
    ] {
        write(&path, &entry(host, status, ms, client));
    }
    let reading = good(&mut source);
    let acme = &reading.tenants[&tenant(1)];
    assert_eq!((acme.calls, acme.errors, acme.duration_us, acme.bytes), (3, 1, 120_000, 30));
    assert_eq!((acme.clients, acme.recent.count()), (2, 3));
    assert_eq!(acme.countries, [("DE".to_owned(), 3)].into());
    assert_eq!(reading.tenants[&tenant(2)].calls, 1);
    assert_eq!((reading.tenants.len(), reading.unknown), (2, 3));
}

#[test]
fn rotation_and_truncation_lose_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.json");
    File::create(&path).expect("creates");
    let mut source = source(&path);
    good(&mut source);
    let line = entry("acme.fleet.example", 200, 1, "10.0.0.1");
    let calls = |source: &mut AccessSource| good(source).tenants[&tenant(1)].calls;

    // A line that is half written counts when it is whole.
    let (half, rest) = line.split_at(20);
    write(&path, half);
    assert!(good(&mut source).tenants.is_empty());
    write(&path, rest);
    assert_eq!(calls(&mut source), 1);

    // Renamed; nginx writes on into the old file, then into the new one.
    let old = dir.path().join("access.json.1");
    write(&path, &line);
    std::fs::rename(&path, &old).expect("renames");
    write(&old, &line);
    assert_eq!(calls(&mut source), 3);
    write(&old, &line);
    write(&path, &line);
    assert_eq!(calls(&mut source), 5);
    write(&path, &line);
    assert_eq!(calls(&mut source), 6);

    // Truncated where it stands.
    File::create(&path).expect("truncates");
    assert_eq!(calls(&mut source), 6);
    write(&path, &line.repeat(2));
    assert_eq!(calls(&mut source), 8);
}

#[test]
fn what_can_not_be_read_is_said_and_the_rest_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.json");
    let mut source = source(&path);
    let Outcome::Failed(why) = source.sample() else { panic!("there is no file") };
    assert!(why.contains("access.json"), "{why}");

    // A log that appears later is read from its beginning.
    write(&path, "127.0.0.1 - - [nonsense]\n");
    write(&path, &format!("{}\n", "x".repeat(200_000)));
    write(&path, &entry("acme.fleet.example", 200, 1, "10.0.0.1"));
    let Outcome::Partial(reading, why) = source.sample() else { panic!("partial") };
    assert_eq!(reading.tenants[&tenant(1)].calls, 1);
    assert!(why.contains("1 entries could not be read"), "{why}");
    assert!(why.contains("1 entries were longer"), "{why}");
}

#[test]
fn a_log_that_runs_away_is_caught_up_with_and_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("access.json");
    File::create(&path).expect("creates");
    let mut source = source(&path);
    good(&mut source);
    let line = entry("acme.fleet.example", 200, 1, "10.0.0.1");
    let lines = 6 * 1024 * 1024 / line.len();
    write(&path, &line.repeat(lines));
    let Outcome::Partial(_, why) = source.sample() else { panic!("behind") };
    assert!(why.contains("behind the log's end"), "{why}");
    assert_eq!(good(&mut source).tenants[&tenant(1)].calls, lines as u64);
}
