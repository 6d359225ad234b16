//! What users can do: the use-cases around the core. No IO, no clock, no luck: the same events give the same effects.

pub mod error;
pub mod ports;
