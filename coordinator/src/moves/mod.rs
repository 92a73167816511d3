//! Moves: a tenant's way from one node to another, driven step by step.
//!
//! **Background.** The rows travel between two databases, from the source's
//! agent through a tunnel to the target's. The coordinator never touches them:
//! it says which step is next, remembers where a move is, and keeps the books
//! (placements, the tenant's epoch). Which side is active is decided by the
//! fence rows in the two databases alone; what stands here is a copy.
//!
//! | state | done by | what it does | undone by |
//! |---|---|---|---|
//! | awaiting_approval | a person | nothing yet | refuse, cancel: the move ends |
//! | waiting_for_node | coordinator | waits for its turn, promises the target (`incoming`) | the promise ends with the move |
//! | open_tunnel | target | lets the source's mover in, by ticket | undo_tunnel |
//! | preflight | source | looks at both sides | – |
//! | awaiting_confirmation | a person | says how many rows may stay behind | undo_tunnel |
//! | guard | source | guards, key log | undo_source |
//! | copy | source | the rows, from one snapshot | undo_source |
//! | drain | source | what was written meanwhile | undo_source |
//! | verify | source | both sides hashed | – |
//! | paused | a person | nothing, between two steps above | undo_source, undo_tunnel |
//! | **cut_over** | source | the switch: **the point of no return is inside** | only on the source agent's word that its side is active |
//! | route | coordinator | placements and the tenant's epoch follow | roll_back |
//! | way_back | source | the old copy follows the new one | roll_back |
//! | **roll_back** | source | the switch back, by the fence rows as in cut_over | on the agent's word that the target is active: way_back again |
//! | route_back | coordinator | the books follow | another move |
//! | finish | source | log and triggers removed | another move |
//! | kept | coordinator | waits; the old copy stays as it is | – |
//! | clean_up | who has the old copy | deletes it | only from backup |
//! | close_tunnel | target | the ticket is forgotten | – |
//! | undo_source | source | guards dropped, the target's rows deleted; refused by a source that is not active: the move goes forward | |
//! | undo_tunnel | target | the ticket is forgotten | |
//! | abandon | source | lets go of a target that stays silent | |
//! | clean_target | target | deletes what the abandoned move left, once it is back; a person can forget a target that is gone | |
//!
//! **Theory of operation.** A move is one row. [`next`] says what follows what,
//! [`consider`] what is to be done now, [`apply`] what the row becomes: pure
//! functions. [`driver`] reads every open row with the answer to its command,
//! does what `consider` says, and writes the change, its event, its audit row
//! and the next command in one transaction. It keeps nothing that a crash
//! could cost: killed anywhere, it goes on from the rows.
//!
//! What each state means for a person stands in `RUNBOOK.md`; [`runbook`]
//! holds it to the states.
//!
//! **Invariant:** after the cut-over was asked for, nothing is undone unless
//! the source's agent answers that the source is active.
//! **Invariant:** what a target's agent read in its own database alone settles
//! a switch only where it says that the target is active; see `steps/recover`.
//! **Invariant:** two drivers on one database are harmless: the UPDATE compares
//! state, epoch and revision, and the loser writes nothing.
//! **Invariant:** a step's command is sent once per try; a command whose answer
//! is awaited over a restart stays the same command.
//! **Invariant:** every step before the point of no return ends by its durable
//! deadline; what must not be given up repeats for ever, and tells somebody.
//! **Invariant:** a tenant has one move at most that is under way or can be
//! rolled back. Old copies of earlier ones may be left on nodes that are no
//! target then.
//! **Invariant:** after the switch only a wish leads back, a person's or the
//! policy's, by a switch of its own; see [`wishes`] and [`policy`].

pub mod apply;
pub mod consider;
pub mod drains;
pub mod driver;
pub mod durable;
pub mod forget;
pub mod kind;
pub mod limits;
pub mod next;
pub mod policy;
pub mod progress;
pub mod proposals;
pub mod request;
pub mod runbook;
pub mod schedule;
pub mod state;
pub mod steps;
pub mod target;
pub mod timing;
pub mod view;
pub mod window;
pub mod windows;
pub mod wishes;

pub use driver::{Driver, Rules};
pub use forget::forget;
pub use kind::Kind;
pub use progress::{Progress, Seen};
pub use request::{Approval, MoveRefused, NewMove, request};
pub use timing::Timing;
pub use view::{MoveView, get, list};
pub use wishes::{
    approve, begin_now, cancel, clean_up, close_way_back, confirm, pause, refuse, resume, roll_back,
};
