use super::*;

const MAX_TENANTS: usize = 10;

fn tenants(count: u8) -> wire::TenantDictionary {
    let tenants = (0..count)
        .map(|id| wire::DictionaryTenant { tenant_id: vec![id; 16], slug: format!("t{id}") })
        .collect();
    wire::TenantDictionary { version: 3, tenants }
}

fn column(present: &[u8], values: &[u64]) -> wire::Column {
    wire::Column {
        metric: Metric::ApiCalls.into(),
        basis: Basis::Measured.into(),
        present: present.to_vec(),
        values: values.to_vec(),
        ..wire::Column::default()
    }
}

fn source(name: &str) -> wire::SourceHealth {
    wire::SourceHealth {
        source: name.into(),
        state: SourceState::Ok.into(),
        message: String::new(),
    }
}

/// A report about nine tenants that nothing is wrong with.
fn sound() -> wire::Report {
    wire::Report {
        epoch: 1,
        sequence: 1,
        collected_at_us: 1,
        interval_ms: 1,
        dictionary_version: 3,
        dictionary: Some(tenants(9)),
        host: Some(wire::HostSample::default()),
        columns: vec![column(&[0b1000_0001, 1], &[1, 2, 3])],
        sources: vec![source("host")],
        more_columns: vec![of(Metric::OomKills, column(&[], &[1; 9]))],
        mounts: vec![mount()],
        database: Some(wire::DatabaseSample::default()),
        minutes: vec![minute(8)],
        checks: Some(wire::HealthChecks { checks: vec![check_of("app")], ..Default::default() }),
        ..wire::Report::default()
    }
}

fn of(metric: Metric, column: wire::Column) -> wire::Column {
    wire::Column { metric: metric.into(), ..column }
}

fn mount() -> wire::Mount {
    wire::Mount { path: "/srv".into(), total_mib: 2, free_mib: 1 }
}

fn minute(tenant: u32) -> wire::TenantMinute {
    let counted = wire::CountryRequests { country: "DE".into(), requests: 1 };
    wire::TenantMinute { tenant, countries: vec![counted], ..wire::TenantMinute::default() }
}

fn check_of(name: &str) -> wire::HealthCheck {
    wire::HealthCheck { name: name.into(), ..wire::HealthCheck::default() }
}

fn check(report: &wire::Report) -> Result<Verdict, String> {
    validate_report(report, MAX_TENANTS, None)
}

#[test]
fn a_sound_report_passes_and_its_dictionary_is_held() {
    let held = Held { version: 3, tenants: 9 };
    assert_eq!(check(&sound()), Ok(Verdict::Apply(held)));
    let bare = wire::Report { dictionary: None, ..sound() };
    assert_eq!(validate_report(&bare, MAX_TENANTS, Some(held)), Ok(Verdict::Apply(held)));
}

#[test]
fn a_dictionary_that_is_not_held_is_asked_for() {
    let bare = wire::Report { dictionary: None, ..sound() };
    let other = Held { version: 2, tenants: 9 };
    for held in [None, Some(other)] {
        assert_eq!(validate_report(&bare, MAX_TENANTS, held), Ok(Verdict::NeedDictionary));
    }
}

/// Each bound, at the limit and one beyond.
#[test]
fn every_bound_holds_where_it_says() {
    let with = |change: fn(&mut wire::Report)| {
        let mut report = sound();
        change(&mut report);
        report
    };
    let cases: Vec<(&str, wire::Report, Option<&str>)> = vec![
        ("epoch 0", with(|r| r.epoch = 0), Some("report.epoch")),
        ("epoch", with(|r| r.epoch = i64::MAX as u64), None),
        ("epoch +1", with(|r| r.epoch = i64::MAX as u64 + 1), Some("report.epoch")),
        ("sequence 0", with(|r| r.sequence = 0), Some("report.sequence")),
        ("sequence +1", with(|r| r.sequence = 1 << 63), Some("report.sequence")),
        ("no time", with(|r| r.collected_at_us = 0), Some("collected_at_us")),
        ("before 1970", with(|r| r.collected_at_us = -1), Some("collected_at_us")),
        ("no interval", with(|r| r.interval_ms = 0), Some("interval_ms")),
        ("a day", with(|r| r.interval_ms = MAX_INTERVAL_MS), None),
        ("a day +1", with(|r| r.interval_ms = MAX_INTERVAL_MS + 1), Some("interval_ms")),
        ("no host", with(|r| r.host = None), Some("report.host")),
        (
            "host beyond",
            with(|r| {
                r.host = Some(wire::HostSample { uptime_s: MAX_VALUE + 1, ..Default::default() });
            }),
            Some("report.host"),
        ),
        (
            "tenants at the limit",
            with(|r| {
                r.dictionary = Some(tenants(10));
                r.columns = vec![column(&[], &[1; 10])];
                r.more_columns.clear();
            }),
            None,
        ),
        ("tenants +1", with(|r| r.dictionary = Some(tenants(11))), Some("11 tenants")),
        (
            "a tenant twice",
            with(|r| {
                let dictionary = r.dictionary.as_mut().expect("one");
                dictionary.tenants[1] = dictionary.tenants[0].clone();
            }),
            Some("twice"),
        ),
        (
            "an id of 15 bytes",
            with(|r| r.dictionary.as_mut().expect("one").tenants[0].tenant_id.truncate(15)),
            Some("tenant_id"),
        ),
        (
            "a long slug",
            with(|r| r.dictionary.as_mut().expect("one").tenants[0].slug = "x".repeat(129)),
            Some("slug"),
        ),
        ("another version", with(|r| r.dictionary_version = 4), Some("another version")),
        ("metric 0", with(|r| r.columns[0].metric = 0), Some("metric 0")),
        ("metric 99", with(|r| r.columns[0].metric = 99), Some("metric 99")),
        ("basis 0", with(|r| r.columns[0].basis = 0), Some("basis 0")),
        ("basis 9", with(|r| r.columns[0].basis = 9), Some("basis 9")),
        ("a bound", with(|r| r.columns[0].bound = 1), Some("bound")),
        ("a column twice", with(|r| r.columns.push(r.columns[0].clone())), Some("twice")),
        (
            "columns +1",
            with(|r| {
                r.columns = vec![wire::Column::default(); MAX_COLUMNS + 1];
                r.more_columns.clear();
            }),
            Some("129 columns"),
        ),
        ("a short bitmap", with(|r| r.columns[0].present.truncate(1)), Some("bitmap")),
        ("a long bitmap", with(|r| r.columns[0].present.push(0)), Some("bitmap")),
        ("a bit beyond", with(|r| r.columns[0].present[1] = 0b11), Some("beyond the dictionary")),
        ("a value too few", with(|r| r.columns[0].values.truncate(2)), Some("2 values where 3")),
        ("a value too many", with(|r| r.columns[0].values.push(1)), Some("4 values where 3")),
        ("all, but fewer", with(|r| r.columns[0].present.clear()), Some("3 values where 9")),
        ("a value at the limit", with(|r| r.columns[0].values[0] = MAX_VALUE), None),
        ("a value +1", with(|r| r.columns[0].values[0] = MAX_VALUE + 1), Some("beyond")),
        (
            "sources at the limit",
            with(|r| r.sources = (0..16).map(|n| source(&n.to_string())).collect()),
            None,
        ),
        (
            "sources +1",
            with(|r| r.sources = (0..17).map(|n| source(&n.to_string())).collect()),
            Some("17 sources"),
        ),
        ("a source twice", with(|r| r.sources.push(source("host"))), Some("twice")),
        ("a nameless source", with(|r| r.sources[0].source.clear()), Some("name")),
        ("a long message", with(|r| r.sources[0].message = "x".repeat(1025)), Some("message")),
        (
            "an early metric among the later",
            with(|r| r.more_columns[0] = of(Metric::CpuUs, r.more_columns[0].clone())),
            Some("wrong columns"),
        ),
        (
            "a later metric among the first",
            with(|r| r.columns[0] = of(Metric::Tasks, r.columns[0].clone())),
            Some("wrong columns"),
        ),
        ("a later value too few", with(|r| r.more_columns[0].values.truncate(8)), Some("8 values")),
        (
            "columns of both kinds +1",
            with(|r| r.more_columns = vec![wire::Column::default(); MAX_COLUMNS]),
            Some("129 columns"),
        ),
        ("mounts at the limit", with(|r| r.mounts = vec![mount(); MAX_MOUNTS]), None),
        ("mounts +1", with(|r| r.mounts = vec![mount(); MAX_MOUNTS + 1]), Some("33 mounts")),
        ("a mount's path", with(|r| r.mounts[0].path = "/".repeat(256)), Some("path of a mount")),
        ("an escape", with(|r| r.mounts[0].path = "/\u{1b}[2J".into()), Some("path of a mount")),
        ("a minute of nobody", with(|r| r.minutes[0].tenant = 9), Some("the dictionary names 9")),
        ("two minutes", with(|r| r.minutes = vec![minute(1), minute(1)]), Some("two minutes")),
        (
            "countries at the limit",
            with(|r| r.minutes[0].countries = vec![minute(0).countries[0].clone(); 13]),
            None,
        ),
        (
            "countries +1",
            with(|r| r.minutes[0].countries = vec![minute(0).countries[0].clone(); 14]),
            Some("14 countries"),
        ),
        (
            "a country's name",
            with(|r| r.minutes[0].countries[0].country = "\u{1b}[2J".into()),
            Some("a country must"),
        ),
        (
            "a country's requests",
            with(|r| r.minutes[0].countries[0].requests = MAX_VALUE + 1),
            Some("a country has"),
        ),
        (
            "a response time",
            with(|r| {
                let p99_us = MAX_VALUE + 1;
                let times = wire::ResponseTimes { p99_us, ..Default::default() };
                r.minutes[0].response = Some(times);
            }),
            Some("a minute has"),
        ),
        (
            "checks +1",
            with(|r| {
                let checks = vec![check_of("app"); MAX_CHECKS + 1];
                r.checks = Some(wire::HealthChecks { overall: 1, checks });
            }),
            Some("33 checks"),
        ),
        (
            "a check's message",
            with(|r| {
                let checks =
                    vec![wire::HealthCheck { message: "x".repeat(256), ..check_of("app") }];
                r.checks = Some(wire::HealthChecks { overall: 1, checks });
            }),
            Some("the message of a check"),
        ),
        ("a mount's size", with(|r| r.mounts[0].free_mib = MAX_VALUE + 1), Some("a mount")),
        (
            "pressure",
            with(|r| {
                let pressure = wire::Pressure { io_full_bp: 10_001, ..Default::default() };
                r.host = Some(wire::HostSample { pressure: Some(pressure), ..Default::default() });
            }),
            Some("pressure"),
        ),
        (
            "a clock",
            with(|r| {
                let clock = wire::Clock { offset_us: i64::MIN, error_us: 0 };
                r.host = Some(wire::HostSample { clock: Some(clock), ..Default::default() });
            }),
            Some("report.host"),
        ),
        (
            "standbys +1",
            with(|r| {
                let standbys = vec![wire::Standby::default(); MAX_STANDBYS + 1];
                r.database = Some(wire::DatabaseSample { standbys, ..Default::default() });
            }),
            Some("33 standbys"),
        ),
        (
            "a standby's name",
            with(|r| {
                let standbys = vec![wire::Standby { name: "a\n".into(), ..Default::default() }];
                r.database = Some(wire::DatabaseSample { standbys, ..Default::default() });
            }),
            Some("name of a standby"),
        ),
        (
            "the archive's age",
            with(|r| {
                let age_us = Some(MAX_VALUE + 1);
                let archiving = Some(wire::Archiving { age_us, ..Default::default() });
                r.database = Some(wire::DatabaseSample { archiving, ..Default::default() });
            }),
            Some("report.database"),
        ),
        ("a source's state", with(|r| r.sources[0].state = 0), Some("state 0")),
    ];
    for (what, report, expected) in cases {
        match (check(&report), expected) {
            (Ok(_), None) => {}
            (Err(text), Some(part)) => assert!(text.contains(part), "{what}: {text}"),
            (outcome, expected) => panic!("{what}: {outcome:?} instead of {expected:?}"),
        }
    }
}

#[test]
fn buckets_may_differ_by_their_bound() {
    let bucket = |bound| wire::Column {
        metric: Metric::RequestDurationBucket.into(),
        bound,
        ..column(&[], &[1; 9])
    };
    let columns = vec![bucket(50_000), bucket(u64::MAX)];
    assert!(check(&wire::Report { columns, ..sound() }).is_ok());
    let columns = vec![bucket(50_000), bucket(50_000)];
    assert!(check(&wire::Report { columns, ..sound() }).is_err());
}

#[test]
fn a_hello_is_bounded() {
    let hello = || wire::Hello { protocol_version: PROTOCOL_VERSION, ..wire::Hello::default() };
    assert_eq!(validate_hello(&hello()), Ok(()));
    for (what, wrong) in [
        ("version", wire::Hello { protocol_version: 0, ..hello() }),
        ("agent_version", wire::Hello { agent_version: "x".repeat(65), ..hello() }),
        ("boot_id", wire::Hello { boot_id: "a\nb".into(), ..hello() }),
        ("tunnel_address", wire::Hello { tunnel_address: "x".repeat(262), ..hello() }),
        ("capabilities", wire::Hello { capabilities: vec![String::new(); 17], ..hello() }),
    ] {
        let text = validate_hello(&wrong).expect_err(what);
        assert!(text.contains(what), "{what}: {text}");
    }
}
