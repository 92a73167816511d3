pub mod containers;
pub mod schema;
pub mod writers;
