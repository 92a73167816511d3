//! What `tests/run.sh` lets run a second time, and what stands as it is.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::process::{Command, Output};

/// A log as cargo prints it: tests of one program that failed, each with what
/// its panic said; `counted` is what the program's last line tells.
fn log(failures: &[(&str, &str)], counted: usize, ends_with_a_result: bool) -> String {
    let mut log = "test fine ... ok\n\nfailures:\n\n".to_owned();
    for (name, said) in failures {
        log += &format!(
            "---- {name} stdout ----\nlooking at rows\n\nthread '{name}' (7) panicked at \
             a.rs:1:2:\n{said}\nstack backtrace:\n   0: a::row\n\n"
        );
    }
    if ends_with_a_result {
        log += &format!("test result: FAILED. 9 passed; {counted} failed; 0 ignored\n\n");
    }
    log + "error: test failed, to rerun pass `-p a --test b`\n"
}

fn judged(log: &str) -> Output {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), log).expect("writes");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("run.sh");
    Command::new("sh").arg(script).arg("judge").arg(file.path()).output().expect("sh starts")
}

/// Nothing runs again, for this reason.
fn stands(log: &str, reason: &str) {
    let output = judged(log);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(reason), "{log}: {output:?}");
}

#[test]
fn what_the_machine_may_have_done_runs_again() {
    let output = judged(&log(&[("a::late", "timed out after 60 s"), ("b", "refused")], 2, true));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "a::late\nb\n");
}

#[test]
fn failures_about_rows_stand() {
    for said in ["2 rows differ", "Findings { lost: 1 }", "the key of routes is not there"] {
        stands(&log(&[("a::sacred", said)], 1, true), "a::sacred");
    }
    stands(&log(&[("late", "timed out"), ("sacred", "a row is missing")], 2, true), "sacred");
}

#[test]
fn what_is_not_clear_stands() {
    let late = [("a", "late"), ("b", "late"), ("c", "late"), ("d", "late")];
    stands(&log(&late, 4, true), "4 tests failed");
    stands(&log(&late[..1], 2, true), "counts");
    stands(&log(&late[..1], 1, false), "without a result");
    let no_panic = log(&late[..1], 1, true).replace(" panicked at ", " ended at ");
    stands(&no_panic, "a: a failure");
    stands("error: could not compile `a`\n", "without a result");
}
