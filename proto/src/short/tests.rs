use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::wire::{Basis, DictionaryTenant, TenantDictionary};

const TENANTS: usize = 9;

fn dictionary(version: u32) -> TenantDictionary {
    let tenant = |id: usize| DictionaryTenant {
        tenant_id: vec![u8::try_from(id).expect("few"); 16],
        slug: String::new(),
    };
    TenantDictionary { version, tenants: (0..TENANTS).map(tenant).collect() }
}

fn column(metric: Metric, values: &[u64]) -> Column {
    Column {
        metric: metric.into(),
        basis: Basis::Measured.into(),
        values: values.to_vec(),
        ..Column::default()
    }
}

fn report(first: bool, columns: Vec<Column>) -> Report {
    Report {
        dictionary_version: 1,
        dictionary: first.then(|| dictionary(1)),
        columns,
        ..Report::default()
    }
}

/// A column of a gauge or counter, with some tenants left out.
fn any_column() -> impl Strategy<Value = Column> {
    let metric = prop_oneof![
        Just(Metric::ApiCalls),
        Just(Metric::CpuUs),
        Just(Metric::MemoryBytes),
        Just(Metric::Vehicles),
        Just(Metric::OomKills),
        Just(Metric::Tasks),
    ];
    // Few different values, so that columns repeat; and very different ones.
    let value = prop_oneof![Just(0_u64), 0..3_u64, (1_u64 << 52)..(1 << 53)];
    let values = prop_oneof![
        Just(vec![Some(0); TENANTS]),
        Just(vec![Some(7); TENANTS]),
        proptest::collection::vec(proptest::option::of(value), TENANTS),
    ];
    (metric, values).prop_map(|(metric, values)| {
        let mut present = vec![0_u8; TENANTS.div_ceil(8)];
        for (at, _) in values.iter().enumerate().filter(|(_, value)| value.is_some()) {
            present[at / 8] |= 1 << (at % 8);
        }
        if values.iter().all(Option::is_some) {
            present.clear();
        }
        let values: Vec<u64> = values.into_iter().flatten().collect();
        Column { present, ..column(metric, &values) }
    })
}

fn any_report() -> impl Strategy<Value = Report> {
    let columns = proptest::collection::vec(any_column(), 0..5);
    (columns, 0..3_usize, prop::bool::weighted(0.2)).prop_map(|(columns, source, dictionary)| {
        let mut seen = std::collections::BTreeSet::new();
        let columns: Vec<Column> =
            columns.into_iter().filter(|column| seen.insert(key(column))).collect();
        let (more_columns, columns): (Vec<Column>, _) =
            Vec::into_iter(columns).partition(|column: &Column| is_later(column.metric()));
        let mount = Mount { path: "/".into(), total_mib: 9, free_mib: source as u64 };
        let source = SourceHealth { source: format!("s{source}"), ..SourceHealth::default() };
        let (sources, mounts) = (vec![source], vec![mount]);
        Report { sources, mounts, more_columns, ..report(dictionary, columns) }
    })
}

proptest! {
    #[test]
    fn what_is_left_out_is_put_back(reports in proptest::collection::vec(any_report(), 1..20)) {
        let (mut agent, mut coordinator) = (Memory::default(), Memory::default());
        let mut known = false;
        for told in reports {
            known |= told.dictionary.is_some();
            let mut sent = told.clone();
            agent.shorten(&mut sent);
            let mut heard = Report::decode(sent.encode_to_vec().as_slice()).expect("decodes");
            coordinator.restore(&mut heard, TENANTS).expect("is sound");
            // Before the first dictionary nothing can be read.
            if known {
                prop_assert_eq!(heard, told);
            }
        }
    }

    #[test]
    fn no_report_makes_it_panic_or_grow(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut memory = Memory::default();
        memory.restore(&mut report(true, vec![]), TENANTS).expect("is sound");
        if let Ok(mut report) = Report::decode(bytes.as_slice()) {
            let _any = memory.restore(&mut report, TENANTS);
            let numbers: usize = report.columns.iter().map(|column| column.values.len()).sum();
            prop_assert!(numbers <= MAX_COLUMNS * TENANTS + bytes.len());
        }
    }
}

#[test]
fn forms_by_table() {
    let full = [5_000_000_000; TENANTS];
    let mut nearly = full;
    nearly[3] += 2;
    let mut memory = Memory::default();
    for (what, columns, unchanged, changes) in [
        ("the first says all", column(Metric::MemoryBytes, &full), false, 0),
        ("the same", column(Metric::MemoryBytes, &full), true, 0),
        ("one of them", column(Metric::MemoryBytes, &nearly), false, TENANTS),
        ("a counter that stood still", column(Metric::CpuUs, &[0; TENANTS]), true, 0),
        ("a counter that did not", column(Metric::CpuUs, &[1; TENANTS]), false, 0),
    ] {
        let mut report = report(what == "the first says all", vec![columns]);
        memory.shorten(&mut report);
        let got = &report.columns[0];
        assert_eq!((got.unchanged, got.changes.len()), (unchanged, changes), "{what}");
    }
}

#[test]
fn what_was_never_said_is_refused() {
    let unchanged = |metric| Column { unchanged: true, ..column(metric, &[]) };
    let changed = Column { changes: vec![-1; TENANTS], ..column(Metric::Vehicles, &[]) };
    let both = Column { unchanged: true, ..column(Metric::Vehicles, &[0; TENANTS]) };
    let short = Column { changes: vec![1], ..column(Metric::Vehicles, &[]) };
    for (told, then, words) in [
        (None, unchanged(Metric::Vehicles), "not told"),
        (None, changed.clone(), "not told"),
        (None, Column { changes: vec![1], ..column(Metric::CpuUs, &[]) }, "not told"),
        (Some([0; TENANTS]), changed, "is no value"),
        (Some([0; TENANTS]), both, "more than one"),
        (Some([0; TENANTS]), short, "1 changes of 9 values"),
    ] {
        let mut memory = Memory::default();
        let first = told.map(|values| column(Metric::Vehicles, &values));
        memory
            .restore(&mut report(true, first.into_iter().collect()), TENANTS)
            .expect("the first one is sound");
        let refused = memory.restore(&mut report(false, vec![then]), TENANTS);
        assert!(refused.as_ref().is_err_and(|why| why.contains(words)), "{words}: {refused:?}");
    }
    let mut sources = Report { sources_unchanged: true, ..report(true, vec![]) };
    assert!(Memory::default().restore(&mut sources, TENANTS).is_err());
    let mut mounts = Report { mounts_unchanged: true, ..report(true, vec![]) };
    assert!(Memory::default().restore(&mut mounts, TENANTS).is_err());
}

/// What a coordinator of before knows of a report.
#[derive(Clone, PartialEq, prost::Message)]
struct Before {
    #[prost(uint64, tag = "2")]
    sequence: u64,
    #[prost(message, repeated, tag = "8")]
    columns: Vec<Column>,
    #[prost(bool, tag = "10")]
    sources_unchanged: bool,
}

#[test]
fn who_does_not_know_the_later_fields_reads_the_rest() {
    let told = Report {
        sequence: 7,
        more_columns: vec![column(Metric::OomKills, &[1; TENANTS])],
        mounts: vec![Mount { path: "/".into(), total_mib: 2, free_mib: 1 }],
        mounts_unchanged: true,
        database: Some(crate::wire::DatabaseSample { blocks_hit: 3, ..Default::default() }),
        ..report(false, vec![column(Metric::CpuUs, &[5; TENANTS])])
    };
    let heard = Before::decode(told.encode_to_vec().as_slice()).expect("decodes");
    assert_eq!((heard.sequence, heard.columns, heard.sources_unchanged), (7, told.columns, false));
}

#[test]
fn the_first_metrics_travel_as_ever() {
    for number in 0..100 {
        let Ok(metric) = Metric::try_from(number) else { continue };
        let first = (0..=8).contains(&number) || (20..=25).contains(&number);
        assert_eq!(is_later(metric), !first, "{metric:?}");
    }
}
