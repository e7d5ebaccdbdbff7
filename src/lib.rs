#![doc = include_str!("../README.md")]
//!
//! # Architecture
//!
//! The modules below stand in the order of their layers: each uses those further down, never one above it.
//! C programs come in through [`ffi`], Rust programs through [`Client`].
//!
//! ```text
//!                   ffi                    the C ABI: all the unsafe code, no decisions
//!                    |
//!                  client                  builds the parts, gives each call its deadline
//!          /         |         \
//! authorization   request   webhook        consent; any endpoint with a live token; deliveries that begin and end tokens
//!          \         |         /
//!                  tokens                  the life of a token
//!                 /      \
//!               api     store              the endpoints, and what their answers mean; where tokens are kept
//!                |
//!               http                       deadlines, pace, retries, size caps
//! ```
//!
//! Leaves that everyone may use: [`config`], [`error`], [`token`], [`secret`], [`clock`], [`deadline`], [`event`].
//! What each layer must not know, the order of the locks, and the path of a refresh: `docs/architecture.md`.
#![deny(missing_docs)]
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod ffi;

mod client;

#[cfg(fuzzing)]
pub mod fuzzing;

#[cfg(all(test, not(ghl_loom)))]
mod simulation;

pub mod authorization;
pub mod request;
pub mod webhook;

pub mod tokens;

pub mod api;
mod http;
pub mod store;

pub mod clock;
pub mod config;
pub mod deadline;
pub mod error;
pub mod event;
pub mod secret;
pub mod token;

mod ca_bundle;
mod crew;
mod der;
mod fork_safety;
mod inside;
mod json;
mod lookup;
mod outbox;
mod random;
pub mod signal;

pub use client::Client;
pub use config::Config;
pub use error::{Error, Result, Status};
