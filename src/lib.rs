//! scaffolding
#![deny(unsafe_code)]
pub mod api;
pub mod clock;
pub mod config;
pub mod deadline;
pub mod error;
pub mod http;
mod json;
mod random;
pub mod secret;
pub mod token;
