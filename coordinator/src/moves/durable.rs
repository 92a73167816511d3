//! What a move remembers, and what a crash of the coordinator does to it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use webhost_proto::ids::{CommandId, Epoch, NodeId};

use super::state::{Ending, State, Step};

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
    /// Only the preflight, and its report.
    #[serde(default)]
    pub dry_run: bool,
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

/// What a person, or a policy, wants of a move that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// "token NAME", "operator", "policy".
    pub by: String,
    /// In a sentence.
    pub why: String,
}

/// Who gave a node up for good, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// "token NAME" or "operator".
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// The tenant's requests before the switch, with which those after it are
/// compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Microseconds; none where there were no requests.
    pub mean_response_us: Option<u64>,
    /// Hundredths of a percent of the requests.
    pub error_rate_bp: Option<u32>,
}

/// A state that the move has left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Which.
    pub state: State,
    /// When it was entered.
    pub began: Timestamp,
    /// When it was left.
    pub ended: Timestamp,
    /// How often its command was sent.
    pub tries: u32,
}

/// How many states the history of timings holds; a move whose way back is
/// tried again and again must not grow without end.
const MOST_PASSED: usize = 64;

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
    /// It has not begun because it is not its turn; it could otherwise.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub queued: bool,
    /// It waits for a node with room, and for nothing else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_room: bool,
    /// When patience with the current step ends.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    /// When somebody must be told that nothing moves.
    #[serde(default)]
    pub alarm_at: Option<Timestamp>,
    /// When a person was reminded that it waits for an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reminded_at: Option<Timestamp>,
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
    /// What a writer that comes to the new database after a roll back is told:
    /// the source's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source_place: String,
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
    /// Rows of time series that are older stay behind: the target plan's
    /// retention, fixed once.
    #[serde(default)]
    pub retain_from: Option<Timestamp>,
    /// How many rows stay behind, as the preflight counted them.
    #[serde(default)]
    pub rows_left_behind: u64,
    /// How many rows a person lets stay behind.
    #[serde(default)]
    pub confirmed_rows: u64,
    /// A pause is wanted, or is had.
    #[serde(default)]
    pub pause: Option<Wish>,
    /// A person lets it begin although its windows are closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outside_window: Option<Wish>,
    /// With which step a paused move goes on.
    #[serde(default)]
    pub resume_at: Option<Step>,
    /// How long the way back will be open, in seconds; 0 opens none.
    #[serde(default)]
    pub way_back_s: u64,
    /// When the way back ends, once it is open.
    #[serde(default)]
    pub way_back_until: Option<Timestamp>,
    /// A person wants the way back closed before that.
    #[serde(default)]
    pub close_way_back: Option<Wish>,
    /// The roll back is wanted.
    #[serde(default)]
    pub roll_back: Option<Wish>,
    /// The epoch under which the source is active again.
    #[serde(default)]
    pub back_epoch: Option<Epoch>,
    /// The books have followed the roll back.
    #[serde(default)]
    pub rolled_back: bool,
    /// Until when the old copy is kept.
    #[serde(default)]
    pub keep_until: Option<Timestamp>,
    /// The source has let go of a target that can't be reached.
    #[serde(default)]
    pub abandoned: bool,
    /// What is left on the node that doesn't serve the tenant is not waited
    /// for: that node is gone, said a person. Of an abandoned move the target,
    /// after a switch the node with the old copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten: Option<Forgotten>,
    /// The step's command went to the target's agent: the source's is silent.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked_target: bool,
    /// The agent was told to end the running step, for a pause.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pause_sent: bool,
    /// When the first step began.
    #[serde(default)]
    pub began_at: Option<Timestamp>,
    /// Somebody was told that it is slow.
    #[serde(default)]
    pub slow_told: bool,
    /// The tenant's requests before the switch.
    #[serde(default)]
    pub health_before: Option<Health>,
    /// Since when they have been worse than the policy allows.
    #[serde(default)]
    pub unhealthy_since: Option<Timestamp>,
    /// The states that it has left, oldest first.
    #[serde(default)]
    pub passed: Vec<Passed>,
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
            queued: false,
            no_room: false,
            deadline: None,
            alarm_at: None,
            reminded_at: None,
            ticket: None,
            ticket_expires_at: None,
            target_tunnel: String::new(),
            target_place: String::new(),
            source_place: String::new(),
            target_http: false,
            tenant_host: String::new(),
            cut_over_sent: false,
            new_epoch: None,
            stopped: None,
            retain_from: None,
            rows_left_behind: 0,
            confirmed_rows: 0,
            pause: None,
            outside_window: None,
            resume_at: None,
            way_back_s: 0,
            way_back_until: None,
            close_way_back: None,
            roll_back: None,
            back_epoch: None,
            rolled_back: false,
            keep_until: None,
            abandoned: false,
            forgotten: None,
            asked_target: false,
            pause_sent: false,
            began_at: None,
            slow_told: false,
            health_before: None,
            unhealthy_since: None,
            passed: Vec::new(),
        }
    }

    /// A person asked to stop the move.
    pub fn is_cancelled(&self) -> bool {
        self.stopped.as_ref().is_some_and(|stopped| stopped.by_person)
    }

    /// What the move ends as when it goes back.
    pub fn ending(&self) -> Ending {
        match &self.stopped {
            Some(stopped) => stopped.ending(),
            None if self.wanted.dry_run => Ending::Checked,
            None => Ending::Failed,
        }
    }

    /// Remembers that a state was left.
    pub fn pass(&mut self, state: State, began: Timestamp, ended: Timestamp) {
        if self.passed.len() >= MOST_PASSED {
            self.passed.remove(0);
        }
        self.passed.push(Passed { state, began, ended, tries: self.attempts });
    }

    /// Forgets what belonged to the step before: a new one begins.
    pub fn begin_step(&mut self, deadline: Option<Timestamp>, alarm_at: Option<Timestamp>) {
        self.command = None;
        self.asked_target = false;
        self.pause_sent = false;
        self.attempts = 0;
        self.not_before = None;
        self.queued = false;
        self.deadline = deadline;
        self.alarm_at = alarm_at;
    }
}

#[cfg(test)]
mod tests;
