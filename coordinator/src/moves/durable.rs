//! What a move remembers, and what a crash of the coordinator does to it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use webhost_proto::ids::{CommandId, Epoch, NodeId};

use super::state::Ending;

/// The secret that lets the source's mover through the target's tunnel: 32
/// random bytes. It lives in the state database for as long as the move does,
/// because every step's command carries it; the target learns its hash only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ticket([u8; 32]);

impl Ticket {
    /// A new one.
    pub fn generate() -> Self {
        Self(rand::random())
    }

    /// The bytes that the mover presents.
    pub fn to_wire(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// SHA-256 of what the mover presents.
    pub fn sha256(&self) -> Vec<u8> {
        ring::digest::digest(&ring::digest::SHA256, &self.0).as_ref().to_vec()
    }
}

impl From<Ticket> for String {
    fn from(ticket: Ticket) -> Self {
        URL_SAFE_NO_PAD.encode(ticket.0)
    }
}

impl TryFrom<String> for Ticket {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        // The text is a secret: an error must not repeat it.
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "a ticket is no base64url")?;
        let bytes = bytes.try_into().map_err(|_| "a ticket is not 32 bytes long")?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ticket(…)")
    }
}

/// What is wanted of the target; decided when the move is asked for, so that
/// waiting for a node needs no second decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The target's mode: "multi_tenant" or "single_tenant".
    pub mode: String,
    /// The plan whose machine the target must have.
    pub plan: String,
    /// Where it must (dedicated) or should (shared) stand.
    #[serde(default)]
    pub regions: Vec<String>,
    /// The one node that a person chose.
    #[serde(default)]
    pub node: Option<NodeId>,
}

/// How a move that goes back will end, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// True when a person asked for it.
    pub by_person: bool,
    /// In a sentence.
    pub why: String,
}

impl Stopped {
    /// The state that the move ends in.
    pub const fn ending(&self) -> Ending {
        if self.by_person { Ending::Cancelled } else { Ending::Failed }
    }
}

/// The part of a move that is saved with every transition, in its row. A crash
/// loses nothing of it; a restarted coordinator, or a second one, goes on from
/// here. Times are absolute, so that a crash gives no deadline back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// Grows by one with every saved change; an update names the one that it
    /// was made from, so that of two drivers one wins.
    pub revision: u64,
    /// What is wanted of the target.
    pub wanted: Wanted,
    /// The command whose answer the current step waits for.
    #[serde(default)]
    pub command: Option<CommandId>,
    /// How often the current step was begun.
    #[serde(default)]
    pub attempts: u32,
    /// When the current step may be begun again.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// When patience with the current step ends.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    /// When somebody must be told that nothing moves.
    #[serde(default)]
    pub alarm_at: Option<Timestamp>,
    /// The tunnel's ticket, from the first step to the end.
    #[serde(default)]
    pub ticket: Option<Ticket>,
    /// When the target forgets the ticket by itself.
    #[serde(default)]
    pub ticket_expires_at: Option<Timestamp>,
    /// "host:port" where the target's tunnel listens.
    #[serde(default)]
    pub target_tunnel: String,
    /// What a writer that comes to the old database is told: the target's
    /// name.
    #[serde(default)]
    pub target_place: String,
    /// The target's agent takes the tenant's HTTP requests.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub target_http: bool,
    /// The tenant's host name when the move began; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant_host: String,
    /// The cut-over was asked for: from here on only the agent says whether
    /// the move can still go back.
    #[serde(default)]
    pub cut_over_sent: bool,
    /// The epoch under which the target is active, once it is.
    #[serde(default)]
    pub new_epoch: Option<Epoch>,
    /// A person wants the move stopped, or a step failed for good.
    #[serde(default)]
    pub stopped: Option<Stopped>,
}

impl Durable {
    /// A move that has not begun.
    pub const fn new(wanted: Wanted) -> Self {
        Self {
            revision: 0,
            wanted,
            command: None,
            attempts: 0,
            not_before: None,
            deadline: None,
            alarm_at: None,
            ticket: None,
            ticket_expires_at: None,
            target_tunnel: String::new(),
            target_place: String::new(),
            target_http: false,
            tenant_host: String::new(),
            cut_over_sent: false,
            new_epoch: None,
            stopped: None,
        }
    }

    /// A person asked to stop the move.
    pub fn is_cancelled(&self) -> bool {
        self.stopped.as_ref().is_some_and(|stopped| stopped.by_person)
    }

    /// What the move ends as when it goes back.
    pub fn ending(&self) -> Ending {
        self.stopped.as_ref().map_or(Ending::Failed, Stopped::ending)
    }

    /// Forgets what belonged to the step before: a new one begins.
    pub fn begin_step(&mut self, deadline: Option<Timestamp>, alarm_at: Option<Timestamp>) {
        self.command = None;
        self.attempts = 0;
        self.not_before = None;
        self.deadline = deadline;
        self.alarm_at = alarm_at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Durable {
        let id = "01900000-0000-7000-8000-000000000001".parse().expect("a uuid");
        let at = |text: &str| Some(text.parse().expect("a time"));
        Durable {
            revision: 17,
            wanted: Wanted {
                mode: "single_tenant".into(),
                plan: "starter".into(),
                regions: vec!["iad".into()],
                node: Some(NodeId(id)),
            },
            command: Some(CommandId(id)),
            attempts: 3,
            not_before: at("2026-11-21T22:00:00.25Z"),
            deadline: at("2026-11-22T22:00:00Z"),
            alarm_at: at("2026-11-21T22:10:00Z"),
            ticket: Some(Ticket([7; 32])),
            ticket_expires_at: at("2026-11-30T00:00:00Z"),
            target_tunnel: "10.0.0.2:7403".into(),
            target_place: "dedicated-1".into(),
            target_http: true,
            tenant_host: "acme.example.net".into(),
            cut_over_sent: true,
            new_epoch: Some(Epoch(2)),
            stopped: Some(Stopped { by_person: true, why: "not today".into() }),
        }
    }

    /// Bytes that a coordinator wrote once must load for ever: a change that
    /// breaks this test breaks moves that are under way during an upgrade.
    const FROZEN: &str = r#"{"revision":17,"wanted":{"mode":"single_tenant","plan":"starter","regions":["iad"],"node":"01900000-0000-7000-8000-000000000001"},"command":"01900000-0000-7000-8000-000000000001","attempts":3,"not_before":"2026-11-21T22:00:00.25Z","deadline":"2026-11-22T22:00:00Z","alarm_at":"2026-11-21T22:10:00Z","ticket":"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc","ticket_expires_at":"2026-11-30T00:00:00Z","target_tunnel":"10.0.0.2:7403","target_place":"dedicated-1","target_http":true,"tenant_host":"acme.example.net","cut_over_sent":true,"new_epoch":2,"stopped":{"by_person":true,"why":"not today"}}"#;

    /// The least that was ever written.
    const FROZEN_LEAST: &str =
        r#"{"revision":0,"wanted":{"mode":"single_tenant","plan":"starter"}}"#;

    #[test]
    fn frozen_bytes_load() {
        assert_eq!(serde_json::from_str::<Durable>(FROZEN).expect("loads"), full());
        assert_eq!(serde_json::to_string(&full()).expect("writes"), FROZEN);
        let least: Durable = serde_json::from_str(FROZEN_LEAST).expect("loads");
        let wanted = Wanted {
            mode: "single_tenant".into(),
            plan: "starter".into(),
            regions: vec![],
            node: None,
        };
        assert_eq!(least, Durable::new(wanted));
    }

    #[test]
    fn a_ticket_tells_nothing_in_logs_and_only_its_hash_to_the_target() {
        let ticket = Ticket::generate();
        assert_ne!(ticket, Ticket::generate());
        assert_eq!(ticket.to_wire().len(), 32);
        assert_eq!(ticket.sha256().len(), 32);
        assert_ne!(ticket.to_wire(), ticket.sha256());
        assert_eq!(format!("{:?}", Some(&ticket)), "Some(Ticket(…))");
    }
}
