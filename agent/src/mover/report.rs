//! What a preflight answers: a verdict on every table, and facts, warnings and
//! problems, each naming its thing and the way out.

use serde::{Deserialize, Serialize};
use webhost_proto::wire;

/// Bytes of findings, and of tables, in a message; the rest is counted.
const ROOM: usize = 90_000;
/// Characters of one text in a message.
const LONGEST: usize = 400;

/// What a move does with one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub table: String,
    pub verdict: VerdictKind,
    pub reason: String,
    pub rows_estimated: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    Move,
    Reference,
    Ignore,
    Refuse,
}

impl VerdictKind {
    /// As the wire names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Move => "move",
            Self::Reference => "reference",
            Self::Ignore => "ignore",
            Self::Refuse => "refuse",
        }
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Fact,
    Warning,
    /// Stands against the move.
    Problem,
}

/// What a finding is about; the order is the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    Standing,
    Servers,
    Tables,
    Privileges,
    Transactions,
    Statements,
    Jobs,
    Rows,
    References,
    Disk,
}

impl Topic {
    /// As the wire names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Standing => "standing",
            Self::Servers => "servers",
            Self::Tables => "tables",
            Self::Privileges => "privileges",
            Self::Transactions => "transactions",
            Self::Statements => "statements",
            Self::Jobs => "jobs",
            Self::Rows => "rows",
            Self::References => "references",
            Self::Disk => "disk",
        }
    }
}

/// One thing that was found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub level: Level,
    pub topic: Topic,
    /// Names the thing and the value.
    pub text: String,
    /// What a person can do; may be empty.
    pub way_out: String,
}

impl Finding {
    /// Both in one line.
    pub fn line(&self) -> String {
        if self.way_out.is_empty() {
            self.text.clone()
        } else {
            format!("{}: {}", self.text, self.way_out)
        }
    }
}

/// Everything that a preflight found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    pub tables: Vec<Verdict>,
    pub findings: Vec<Finding>,
    pub rows_estimated: u64,
    pub bytes_estimated: u64,
    /// Rows of a downgrade that are older than what the target keeps.
    pub rows_left_behind: u64,
    /// Microseconds that copy and verification may take; 0 is not known.
    pub duration_estimated_us: u64,
    /// 0 is not known.
    pub disk_free_bytes: u64,
    pub disk_needed_bytes: u64,
}

impl Preflight {
    pub fn fact(&mut self, topic: Topic, text: impl Into<String>) {
        self.find(Level::Fact, topic, text.into(), String::new());
    }

    pub fn warn(&mut self, topic: Topic, text: impl Into<String>, way_out: impl Into<String>) {
        self.find(Level::Warning, topic, text.into(), way_out.into());
    }

    pub fn problem(&mut self, topic: Topic, text: impl Into<String>, way_out: impl Into<String>) {
        self.find(Level::Problem, topic, text.into(), way_out.into());
    }

    pub fn find(&mut self, level: Level, topic: Topic, text: String, way_out: String) {
        let finding = Finding { level, topic, text, way_out };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// The lines of one level.
    pub fn lines(&self, level: Level) -> Vec<String> {
        self.findings.iter().filter(|f| f.level == level).map(Finding::line).collect()
    }

    /// What stands against the move.
    pub fn problems(&self) -> Vec<String> {
        self.lines(Level::Problem)
    }

    /// What a person should know before.
    pub fn warnings(&self) -> Vec<String> {
        self.lines(Level::Warning)
    }

    /// Whether anything stands against the move.
    pub fn refuses(&self) -> bool {
        self.findings.iter().any(|finding| finding.level == Level::Problem)
    }

    /// In the order of reading: problems first, then by topic.
    pub fn sort(&mut self) {
        self.findings.sort_by(|a, b| (b.level, a.topic).cmp(&(a.level, b.topic)));
    }

    /// The report as a message carries it, cut where it would not fit.
    pub fn to_wire(&self) -> wire::PreflightResult {
        let findings = to_wire(&self.findings);
        let verdicts = self.tables.iter().map(|verdict| wire::TableVerdict {
            table: verdict.table.clone(),
            verdict: verdict.verdict.as_str().into(),
            reason: cut(&verdict.reason),
            rows_estimated: verdict.rows_estimated,
        });
        let (mut tables, more) =
            fitting(verdicts, |verdict| verdict.table.len() + verdict.reason.len());
        if more > 0 {
            tables.push(wire::TableVerdict {
                table: format!("({more} more tables)"),
                ..wire::TableVerdict::default()
            });
        }
        wire::PreflightResult {
            tables,
            warnings: self.warnings().iter().take(20).map(|line| cut(line)).collect(),
            rows_estimated: self.rows_estimated,
            bytes_estimated: self.bytes_estimated,
            rows_left_behind: self.rows_left_behind,
            duration_estimated_us: self.duration_estimated_us,
            findings,
            disk_free_bytes: self.disk_free_bytes,
            disk_needed_bytes: self.disk_needed_bytes,
        }
    }
}

/// Findings as a message carries them, cut where they would not fit.
pub(super) fn to_wire(findings: &[Finding]) -> Vec<wire::Finding> {
    let (mut findings, more) = fitting(findings.iter().map(finding), |finding| {
        finding.text.len() + finding.way_out.len() + finding.topic.len()
    });
    if more > 0 {
        findings.push(wire::Finding {
            level: wire::FindingLevel::Warning.into(),
            topic: Topic::Standing.as_str().into(),
            text: format!("{more} more findings don't fit this report"),
            way_out: "settle these first".into(),
        });
    }
    findings
}

/// As many items as there is room for, and how many there are beyond.
fn fitting<T>(items: impl Iterator<Item = T>, bytes: impl Fn(&T) -> usize) -> (Vec<T>, usize) {
    let (mut taken, mut used, mut more) = (Vec::new(), 0, 0);
    for item in items {
        used += bytes(&item) + 16;
        if used <= ROOM {
            taken.push(item);
        } else {
            more += 1;
        }
    }
    (taken, more)
}

fn finding(finding: &Finding) -> wire::Finding {
    let level = match finding.level {
        Level::Fact => wire::FindingLevel::Fact,
        Level::Warning => wire::FindingLevel::Warning,
        Level::Problem => wire::FindingLevel::Problem,
    };
    wire::Finding {
        level: level.into(),
        topic: finding.topic.as_str().into(),
        text: cut(&finding.text),
        way_out: cut(&finding.way_out),
    }
}

fn cut(text: &str) -> String {
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_come_first_and_refuse() {
        let mut report = Preflight::default();
        report.fact(Topic::Servers, "PostgreSQL 15");
        report.warn(Topic::Disk, "little room", "make some");
        assert!(!report.refuses());
        report.problem(Topic::Tables, "t has no key", "give it one");
        report.problem(Topic::Tables, "t has no key", "give it one");
        report.sort();
        assert!(report.refuses());
        assert_eq!(report.problems(), ["t has no key: give it one"]);
        assert_eq!(report.findings.first().map(|f| f.level), Some(Level::Problem));
    }

    /// Whatever a database holds, the report fits the link.
    #[test]
    fn a_report_fits_a_message() {
        let mut report = Preflight::default();
        for number in 0..5_000 {
            let long = format!("{number} {}", "ä".repeat(5_000));
            report.findings.push(Finding {
                level: Level::Warning,
                topic: Topic::Rows,
                text: long.clone(),
                way_out: long,
            });
        }
        for number in 0..20_000 {
            report.tables.push(Verdict {
                table: format!("public.table_{number}"),
                verdict: VerdictKind::Ignore,
                reason: "x".repeat(9_000),
                rows_estimated: 1,
            });
        }
        let wire = report.to_wire();
        assert!(prost::Message::encoded_len(&wire) < webhost_proto::MAX_MESSAGE_BYTES);
        let said = wire.findings.last().map(|f| f.text.clone()).unwrap_or_default();
        assert!(said.contains("more findings") && wire.findings.len() > 20, "{said}");
    }
}
