#![doc = include_str!("../README.md")]
//!
//! # From Rust
//!
//! [`Client`] has one method for each function of the C ABI, with typed parameters ([`params`]) and
//! typed results. [`Config`] configures it. An [`Error`] has a [`Status`]. Results and enums are
//! `non_exhaustive` and parameters have defaults, so that a new version can add fields. All other
//! items are internal; `docs/architecture.md` describes the layers.
#![deny(missing_docs)]
#![deny(unsafe_code)]

#[allow(unsafe_code)]
mod ffi;
mod typed;

#[allow(missing_docs)]
mod client;

#[cfg(fuzzing)]
pub mod fuzzing;

#[cfg(all(test, not(ghl_loom)))]
mod simulation;

#[allow(missing_docs)]
mod authorization;
#[allow(missing_docs)]
mod request;
#[allow(missing_docs)]
mod webhook;

#[allow(missing_docs)]
mod tokens;

#[allow(missing_docs)]
mod api;
#[allow(missing_docs)]
mod http;
#[allow(missing_docs)]
mod store;

#[allow(missing_docs)]
mod clock;
pub mod config;
#[allow(missing_docs)]
mod deadline;
mod error;
#[allow(missing_docs)]
mod event;
mod secret;
mod token;

mod ca_bundle;
mod deferred_callbacks;
mod der;
mod fork_safety;
mod json;
mod lookup;
mod panic_scope;
mod random;
#[allow(missing_docs)]
mod signal;
mod socket;
// Functions of the system that std does not offer.
#[cfg(windows)]
#[allow(unsafe_code)]
mod windows;
mod worker_pool;

pub use config::Config;
pub use error::{ApiFault, Error, Result, Status};
pub use secret::Secret;
pub use store::Host;
pub use token::UserType;
pub use typed::*;
pub use zeroize::Zeroizing;

/// For the tests, benches and fuzz targets of this repository. Not covered by semantic versioning.
#[doc(hidden)]
pub mod internals {
    pub use crate::client::Client;
    #[cfg(fuzzing)]
    pub use crate::fuzzing;
    pub use crate::{Config, Error, Result, Status, config};

    macro_rules! open {
        ($($module:ident),+) => {
            $(pub mod $module {
                pub use crate::$module::*;
            })+
        };
    }
    open!(
        api,
        authorization,
        clock,
        deadline,
        error,
        event,
        ffi,
        request,
        secret,
        signal,
        store,
        token,
        tokens,
        webhook
    );
}
