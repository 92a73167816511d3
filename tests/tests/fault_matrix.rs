//! The bounded part of the fault matrix: every fail point of every step, and
//! every fault; `make chaos` plays all of it.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;

use webhost_tests::chaos::{Report, Stage, bounded, play};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_step_survives_faults_at_each_of_its_points() {
    let child = PathBuf::from(env!("CARGO_BIN_EXE_mover-child"));
    let stage = tokio::task::spawn_blocking(|| Stage::start(child))
        .await
        .expect("a thread")
        .expect("PostgreSQL starts");
    let mut report = Report::default();
    let cases = bounded();
    for (seed, case) in (1000..).zip(cases.iter().copied()) {
        let outcome = play(&stage, case, seed).await;
        match &outcome {
            Ok(_) => println!("ok     {case}"),
            Err(error) => println!("FAILED {error:#}"),
        }
        report.add(case, outcome);
    }
    println!("{report}");
    assert!(report.failures.is_empty(), "\n{report}");
    assert_eq!(report.cases() as usize, cases.len());
}

/// A fail point that no step names would be in no matrix, and one that is
/// named and not there would be met by nobody.
#[test]
fn the_points_in_the_code_are_the_points_of_the_steps() {
    use std::collections::BTreeSet;
    use webhost_agent::mover::{fail::points, spec::Step};
    let (mut in_code, mut on_legs) = (BTreeSet::new(), BTreeSet::new());
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a parent")
        .join("agent/src/mover");
    let mut open = vec![root];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a file");
            if path.ends_with("fail.rs") {
                continue;
            }
            let name = |part: &str| part.split('"').next().expect("a name").to_owned();
            in_code.extend(text.split("fail.point(\"").skip(1).map(name));
            on_legs.extend(text.split("fail.on(\"").skip(1).map(name));
        }
    }
    let mut named = BTreeSet::new();
    let mut ends = BTreeSet::new();
    for step in Step::ALL {
        let points = points(step);
        named.extend(points.iter().map(|point| (*point).to_owned()));
        ends.extend([points[0], points[points.len() - 1]].map(str::to_owned));
    }
    // On a leg that goes back, a point has another name.
    for point in on_legs {
        let both = [point.clone(), format!("back_{point}")];
        assert!(both.iter().any(|name| named.contains(name)), "no step names {point}");
        in_code.extend(both.into_iter().filter(|name| named.contains(name)));
    }
    let unnamed: Vec<_> = in_code.difference(&named).collect();
    assert!(unnamed.is_empty(), "no step names {unnamed:?}");
    let missing: Vec<_> =
        named.difference(&in_code).filter(|point| !ends.contains(*point)).collect();
    assert!(missing.is_empty(), "nothing comes by {missing:?}");
}
