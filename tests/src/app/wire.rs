//! What clients and the application say to each other, in JSON.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One position of one vehicle; the id is made by the device, so that a
/// repeated upload is recognised.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Point {
    pub id: Uuid,
    pub vehicle_id: Uuid,
    pub recorded_at: Timestamp,
    /// Degrees north, −90 to 90.
    pub latitude: f64,
    /// Degrees east, −180 to 180.
    pub longitude: f64,
    /// Kilometres per hour.
    pub speed: f32,
    /// Degrees clockwise from north.
    pub heading: f32,
}

/// An upload of a device.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Upload {
    pub points: Vec<Point>,
}

/// A vehicle to register.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Vehicle {
    pub id: Uuid,
    pub name: String,
}

/// A customer to set up on this node, after the signup.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Customer {
    pub id: Uuid,
    pub name: String,
    pub slug: String,
    pub email: String,
    pub plan: String,
    pub vehicles: Vec<Vehicle>,
}

/// What was accepted: rows that are durable now, whether this request wrote
/// them or an earlier one.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Accepted {
    pub rows: u64,
}

/// Why a request was not served.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Problem {
    /// "moved", "unknown_customer", "unavailable", "refused".
    pub error: String,
    pub message: String,
    /// Where the customer lives now, by the node's name, when "moved".
    pub place: Option<String>,
}
