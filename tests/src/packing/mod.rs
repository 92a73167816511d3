//! What the placement benchmark packs: a synthetic fleet of AX52 servers, the
//! CPU traces of real virtual machines and published vectors where they are
//! given, and the plain packers to hold ours against.

pub mod ax52;
pub mod durable;
pub mod plain;
pub mod planetlab;
pub mod quality;
pub mod speed;
pub mod vectors;
