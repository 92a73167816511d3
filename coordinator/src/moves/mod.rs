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
//! | waiting_for_node | coordinator | promises the target (`incoming`) | the promise ends with the move |
//! | open_tunnel | target | lets the source's mover in, by ticket | undo_tunnel |
//! | preflight | source | looks at both sides | – |
//! | guard | source | guards, key log | undo_source |
//! | copy | source | the rows, from one snapshot | undo_source |
//! | drain | source | what was written meanwhile | undo_source |
//! | verify | source | both sides hashed | – |
//! | **cut_over** | source | the switch: **the point of no return is inside** | only on the source agent's word that its side is active |
//! | route | coordinator | placements and the tenant's epoch follow | – |
//! | finish | source | log and triggers removed | – |
//! | close_tunnel | target | the ticket is forgotten | – |
//! | undo_source | source | guards dropped, the target's rows deleted; refused by a source that is not active: the move goes forward | |
//! | undo_tunnel | target | the ticket is forgotten | |
//!
//! **Theory of operation.** A move is one row. [`next`] says what follows what,
//! [`consider`] what is to be done now, [`apply`] what the row becomes: pure
//! functions. [`driver`] reads every open row with the answer to its command,
//! does what `consider` says, and writes the change, its event, its audit row
//! and the next command in one transaction. It keeps nothing that a crash
//! could cost: killed anywhere, it goes on from the rows.
//!
//! **Invariant:** after the cut-over was asked for, nothing is undone unless
//! the source's agent answers that the source is active.
//! **Invariant:** two drivers on one database are harmless: the UPDATE compares
//! state, epoch and revision, and the loser writes nothing.
//! **Invariant:** a step's command is sent once per try; a command whose answer
//! is awaited over a restart stays the same command.
//! **Invariant:** every step before the point of no return ends by its durable
//! deadline; what must not be given up repeats for ever, and tells somebody.
//! **Invariant:** a tenant has one open move at most.

pub mod apply;
pub mod consider;
pub mod driver;
pub mod durable;
pub mod next;
pub mod progress;
pub mod request;
pub mod state;
pub mod steps;
pub mod target;
pub mod timing;
pub mod view;

pub use driver::Driver;
pub use progress::{Progress, Seen};
pub use request::{Approval, MoveRefused, NewMove, approve, cancel, refuse, request};
pub use timing::Timing;
pub use view::{MoveView, get, list};
