pub mod containers;
pub mod schema;
