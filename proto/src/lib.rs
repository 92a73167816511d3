//! What agent and coordinator share: the wire types, the ids and units that
//! the domain speaks in, and TLS for both ends of the link.
//!
//! Read in this order: [`ids`] and [`units`] are the vocabulary, [`wire`] is
//! generated from `proto/webhost/fleet/v1/link.proto`, [`short`] says less where
//! little changed, [`tls`] builds the rustls configurations, [`words`] says errors.

pub mod ids;
pub mod short;
pub mod tls;
pub mod units;
pub mod words;

/// Generated from `link.proto`.
#[allow(clippy::all, unreachable_pub, unused_qualifications)]
pub mod wire {
    tonic::include_proto!("webhost.fleet.v1");
}

/// The protocol version that both ends speak; a Hello with another is refused.
pub const PROTOCOL_VERSION: u32 = 1;

/// The largest message either end accepts on the link, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 256 * 1024;

/// The most countries that a report names for one tenant, "other" besides.
pub const MAX_COUNTRIES: usize = 12;
