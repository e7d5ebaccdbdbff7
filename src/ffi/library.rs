//! The library itself: versions, names, and the way back for texts.

use std::ffi::{CStr, c_char};

use super::boundary::fixed;
use super::text;
use crate::error::Status;

/// The version of this ABI: 1. It rises when something is added; what exists never changes its meaning.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ghl_abi_version() -> u32 {
    1
}

/// The version of the library, such as "0.1.0".
///
/// Any thread; never fails. The text is static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn ghl_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL inside"),
        };
    fixed(VERSION)
}

/// The name of a status, such as "GHL_ERR_RATE_LIMITED"; "GHL_ERR_UNKNOWN" for a number that is none.
///
/// Any thread; never fails. The text is static: do not free it.
///
/// @param status  what a call returned
#[unsafe(no_mangle)]
pub extern "C" fn ghl_status_name(status: i32) -> *const c_char {
    macro_rules! names {
        ($($status:ident),*) => {
            match Status::from_code(status) {
                $(Some(Status::$status) => {
                    const NAME: &CStr = match CStr::from_bytes_until_nul(&terminated(Status::$status.name())) {
                        Ok(name) => name,
                        Err(_) => panic!("the array ends with a NUL"),
                    };
                    fixed(NAME)
                })*
                None if status == 0 => fixed(c"GHL_OK"),
                None => fixed(c"GHL_ERR_UNKNOWN"),
            }
        };
    }
    names!(
        InvalidArgument,
        Config,
        NotFound,
        ReauthorizationRequired,
        LocationInactive,
        Unauthorized,
        Forbidden,
        InvalidRequest,
        RateLimited,
        Network,
        Timeout,
        Server,
        Protocol,
        Store,
        Cancelled,
        StateMismatch,
        ConsentDenied,
        SignatureInvalid,
        Internal,
        BufferTooSmall,
        Conflict
    )
}

/// A name with a NUL behind it, for C.
const fn terminated(name: &str) -> [u8; 48] {
    let mut bytes = [0; 48];
    let mut index = 0;
    while index < name.len() {
        bytes[index] = name.as_bytes()[index];
        index += 1;
    }
    bytes
}

/// Frees a text that the library handed out, after wiping it.
///
/// Any thread; never fails. The text may have been changed by its owner before: it carries its own length.
///
/// @param string  a text from this library, or NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_string_free(string: *mut c_char) {
    // SAFETY: the header requires a text of this library, freed once.
    unsafe { text::take_back(string) }
}
