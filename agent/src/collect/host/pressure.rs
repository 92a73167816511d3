//! Pressure stall information: how much of the last ten seconds somebody, or
//! everybody, waited for CPU, memory or disks. It says what a share of use
//! doesn't: whether it is too much.

use std::path::Path;

use webhost_proto::wire::Pressure;

/// What the files `cpu`, `memory` and `io` in `dir` (`/proc/pressure`) say.
/// `None` where one of them can't be read or understood: a kernel without the
/// measure, or one that was told (`psi=0`) not to take it.
pub fn pressure(dir: &Path) -> Option<Pressure> {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).ok();
    let (cpu, memory, io) = (read("cpu")?, read("memory")?, read("io")?);
    Some(Pressure {
        cpu_some_bp: average(&cpu, "some")?,
        memory_some_bp: average(&memory, "some")?,
        memory_full_bp: average(&memory, "full")?,
        io_some_bp: average(&io, "some")?,
        io_full_bp: average(&io, "full")?,
    })
}

/// `avg10` of a line, a percentage with two decimals, in hundredths.
fn average(text: &str, line: &str) -> Option<u32> {
    let words = text.lines().find_map(|text| text.strip_prefix(line))?;
    let value = words.split_ascii_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    let (whole, hundredths) = value.split_once('.')?;
    let value = whole.parse::<u32>().ok()?.checked_mul(100)?;
    let two = hundredths.len() == 2;
    value.checked_add(hundredths.parse().ok()?).filter(|value| two && *value <= 10_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_files() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/collect/testdata/pressure");
        let expected = Pressure {
            cpu_some_bp: 1_030,
            memory_some_bp: 637,
            memory_full_bp: 437,
            io_some_bp: 4,
            io_full_bp: 0,
        };
        assert_eq!(pressure(Path::new(dir)), Some(expected));
        assert_eq!(pressure(Path::new("/no/such/directory")), None);
    }

    #[test]
    fn averages_by_table() {
        for (text, expected) in [
            ("some avg10=10.30 avg60=4.25 avg300=23.20 total=1", Some(1_030)),
            ("full avg10=1.00 total=2\nsome avg10=100.00 total=1", Some(10_000)),
            ("some avg10=101.00", None),
            ("some avg10=1.5", None),
            ("some avg10=-1.00", None),
            ("some avg60=1.00", None),
            ("full avg10=1.00", None),
            ("", None),
        ] {
            assert_eq!(average(text, "some"), expected, "{text:?}");
        }
    }
}
