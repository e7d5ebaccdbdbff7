//! The C ABI (FFI): all unsafe code of the crate, and no logic.
//!
//! Conventions of all exported functions:
//!
//! - A function that can fail returns 0 or the number of a [`ghl_status`], and writes one JSON
//!   document to its last parameter: the result or the error. Out-pointers that are not NULL are
//!   set to NULL or 0 on entry.
//! - A returned `char *` belongs to the caller, who frees it with `ghl_string_free`.
//! - String arguments are read only during the call. NULL and invalid UTF-8 are errors that name
//!   the parameter.
//! - No panic crosses the boundary, and the client remains usable after one.
//!
//! An exported function has a few lines: `boundary` catches panics and serializes, `string`
//! converts strings, and the core does the work. The doc comments of exported functions become the
//! C header, so they address C programmers.
#![allow(non_camel_case_types)]
// The doc comments become the C header: the conventions above and the text of each parameter are
// the contract.
#![allow(clippy::missing_safety_doc)]

mod boundary;
mod callback;
mod cancellation;
mod fork;
mod memory;
mod reentrancy;
mod string;

mod authorization;
mod client;
mod endpoints;
mod library;
mod log;
mod request;
mod status;
mod store;
mod tokens;
mod webhook;

pub use authorization::{
    ghl_authorization_complete, ghl_authorization_listen, ghl_authorization_url,
};
pub use client::{
    client_from, ghl_call_cancel, ghl_client, ghl_client_cancel, ghl_client_free,
    ghl_client_metrics, ghl_client_new, ghl_client_on_event, ghl_client_stats, ghl_event_callback,
};
pub use endpoints::{ghl_oauth_installed_locations, ghl_oauth_location_token, ghl_oauth_token};
pub use library::{
    ghl_abi_version, ghl_library_info, ghl_status_name, ghl_string_free, ghl_version,
};
pub use log::{ghl_log_callback, ghl_set_log_callback};
pub use request::ghl_request;
pub use status::ghl_status;
pub use store::{ghl_client_new_with_store, ghl_store_callbacks};
pub use tokens::{
    ghl_access_token, ghl_access_token_into, ghl_access_token_try_into, ghl_access_token_with,
    ghl_progress_callback, ghl_token_delete, ghl_token_refresh, ghl_token_refresh_with,
    ghl_tokens_adopt, ghl_tokens_export, ghl_tokens_import, ghl_tokens_list, ghl_tokens_maintain,
    ghl_tokens_mint,
};
pub use webhook::{ghl_webhook_apply, ghl_webhook_apply_with, ghl_webhook_verify};
