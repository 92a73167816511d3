//! Part of the coordinator.
