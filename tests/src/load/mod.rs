//! Devices and users of all tenants, as real clients: HTTP to the application
//! of the node where the tenant lives, retries until an upload is
//! acknowledged, and an exact ledger of what was.
//!
//! A client learns where its tenant lives from the coordinator, remembers it,
//! and follows a refusal that names another place. Positions carry ids that
//! the client made, so a retry after an unclear outcome is harmless.
//!
//! **Invariant:** an id is in [`ledger::Ledger`]'s acknowledged rows if and
//! only if some application answered 201 for it; what was still unanswered
//! when the load ended is in doubt, and may or may not be found.

pub mod audit;
pub mod client;
pub mod device;
pub mod ledger;
pub mod pause;
