//! Rules about the repository's shape that nothing else would hold: a written
//! rule that no test checks does not last.

// Clippy spares only what carries #[test]; all of this file is one.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Lines that a file of the product may have.
const LONGEST: usize = 400;

/// Files of the product that are longer, each with the reason.
const LONGER: &[(&str, &str)] = &[];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_path_buf()
}

/// Every file of ours with its path from the root, build results left out.
fn files() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    let mut open = vec![root()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).expect("a directory").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            // `.git` is a file in a linked worktree.
            if name == ".git" || (name == "target" && dir == root()) {
                continue;
            }
            if path.is_dir() {
                open.push(path);
            } else {
                let relative = path.strip_prefix(root()).expect("below the root");
                found.push((relative.to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_test(name: &str) -> bool {
    let helpers = ["/tests.rs", "/testing.rs", "/world.rs"];
    name.contains("/tests/") || helpers.iter().any(|helper| name.ends_with(helper))
}

/// The product's Rust files without their tests.
fn product() -> Vec<(String, String)> {
    let crates = ["proto/src/", "agent/src/", "coordinator/src/"];
    files()
        .into_iter()
        .filter(|(name, _)| name.ends_with(".rs") && !is_test(name))
        .filter(|(name, _)| crates.iter().any(|part| name.starts_with(part)))
        .map(|(name, path)| (name, text(&path)))
        .collect()
}

#[test]
fn a_file_is_one_idea() {
    let mut too_long = Vec::new();
    for (name, text) in product() {
        // What declares and holds the tests does not count.
        let code = text.split("\n#[cfg(test)]\n").next().unwrap_or(&text);
        let lines = code.lines().count();
        match LONGER.iter().find(|(known, _)| *known == name) {
            Some((_, reason)) => {
                assert!(!reason.is_empty(), "{name} needs a reason");
                assert!(lines > LONGEST, "{name} has become short: take it off the list");
            }
            None if lines > LONGEST => too_long.push(format!("{name}: {lines} lines")),
            None => {}
        }
    }
    assert!(too_long.is_empty(), "split these, or list them with a reason: {too_long:#?}");
}

#[test]
fn the_coordinators_sql_is_in_its_store() {
    let mut elsewhere = Vec::new();
    for (name, text) in product() {
        if !name.starts_with("coordinator/src/") || name.starts_with("coordinator/src/store/") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("//") || !line.contains('"') {
                continue;
            }
            let lower = line.to_lowercase();
            let has = |words: &str| lower.contains(words);
            if has("insert into ")
                || has("delete from ")
                || (has("\"select ") && has(" from "))
                || (has("\"update ") && has(" set "))
            {
                elsewhere.push(format!("{name}:{}: {line}", number + 1));
            }
        }
    }
    assert!(elsewhere.is_empty(), "SQL belongs in coordinator/src/store: {elsewhere:#?}");
}

#[test]
fn nothing_is_left_for_later_or_switched_off() {
    // Put together here, so that this file does not find itself.
    let needles = ["TO", "FIX", "#[ig"].map(|start| match start {
        "TO" => format!("{start}DO"),
        "FIX" => format!("{start}ME"),
        _ => format!("{start}nore"),
    });
    let mut left = Vec::new();
    for (name, path) in files() {
        if !(name.ends_with(".rs") || name.ends_with(".sql") || name.ends_with(".proto")) {
            continue;
        }
        for (number, line) in text(&path).lines().enumerate() {
            if needles.iter().any(|needle| line.contains(needle.as_str())) {
                left.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(left.is_empty(), "do it now, or leave it out: {left:#?}");
}

#[test]
fn no_path_of_one_persons_machine() {
    let needles =
        [["/wo", "rk/"], ["/tmp/", "wt"], ["/ro", "ot/."], ["/ho", "me/"]].map(|p| p.concat());
    let mut found = Vec::new();
    for (name, path) in files() {
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            if needles.iter().any(|needle| line.contains(needle.as_str())) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// The targets of the Makefile that `make help` lists.
fn make_targets() -> BTreeSet<String> {
    text(&root().join("Makefile"))
        .lines()
        .filter(|line| line.contains(":") && line.contains("## "))
        .filter_map(|line| line.split_once(':').map(|(target, _)| target.to_owned()))
        .filter(|target| target.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .collect()
}

/// Each `make word` in the README's code.
fn make_words(readme: &str) -> BTreeSet<String> {
    readme
        .split("make ")
        .skip(1)
        .zip(readme.split("make "))
        // Prose has words like "make sure"; a command stands after a backtick
        // or opens a line.
        .filter(|(_, before)| before.ends_with(['`', '\n']) || before.ends_with("1 "))
        .map(|(after, _)| {
            after.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect::<String>()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn the_readme_promises_what_the_makefile_keeps() {
    let readme = text(&root().join("README.md"));
    let targets = make_targets();
    let benches: BTreeSet<String> = files()
        .into_iter()
        .filter_map(|(name, _)| {
            let file = name.strip_prefix("tests/src/bin/")?;
            Some(file.split(['/', '.']).next().unwrap_or(file).to_owned())
        })
        .collect();
    for word in make_words(&readme) {
        // `make bench-NAME` stands for all of them.
        assert!(
            targets.contains(&word) || benches.contains(&word) || word == "bench-",
            "README.md says `make {word}`; the Makefile has {targets:?}"
        );
    }
    for target in targets.iter().filter(|target| *target != "help") {
        assert!(readme.contains(&format!("make {target}")), "README.md never says `make {target}`");
    }
}

#[test]
fn the_code_map_names_every_room() {
    let readme = text(&root().join("README.md"));
    let map = readme.split_once("## Code map").expect("README.md has a code map").1;
    let map = map.split("\n## ").next().expect("its section");
    let mut missing = Vec::new();
    for part in ["proto", "agent", "coordinator"] {
        let section = map
            .split_once(&format!("\n{part}/"))
            .unwrap_or_else(|| panic!("the code map has no {part}/"))
            .1;
        let section: String = section
            .lines()
            .enumerate()
            .take_while(|(number, line)| *number == 0 || line.starts_with(' '))
            .map(|(_, line)| format!("{line}\n"))
            .collect();
        for line in text(&root().join(part).join("src/lib.rs")).lines() {
            let Some(module) = line.strip_prefix("pub mod ") else { continue };
            let module = module.trim_end_matches(';').trim_end_matches(" {");
            let named = section.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            if !named.into_iter().any(|word| word == module) {
                missing.push(format!("{part}/src/{module}"));
            }
        }
    }
    for entry in std::fs::read_dir(root()).expect("the root").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() && !name.starts_with('.') && name != "target" {
            assert!(map.contains(&format!("\n{name}/")), "the code map has no {name}/");
        }
    }
    assert!(missing.is_empty(), "the code map in README.md lacks {missing:#?}");
}

#[test]
fn shell_scripts_are_shell() {
    let scripts: Vec<PathBuf> = files()
        .into_iter()
        .filter(|(name, _)| name.ends_with(".sh") || name == ".ci/run")
        .map(|(_, path)| path)
        .collect();
    assert!(scripts.len() >= 2, "{scripts:?}");
    for script in scripts {
        let output =
            std::process::Command::new("sh").arg("-n").arg(&script).output().expect("sh starts");
        assert!(
            output.status.success(),
            "{}: {}",
            script.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
