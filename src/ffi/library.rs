//! The library itself: versions, names, and the way back for texts.

use std::ffi::{CStr, c_char};

use super::boundary::fixed;
use super::text;

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
        ($($(#[doc = $doc:literal])+ $status:ident = $code:literal, $name:ident, $class:ident, retryable: $retryable:literal;)+) => {
            match status {
                0 => c"GHL_OK",
                $($code => const {
                    match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                        Ok(name) => name,
                        Err(_) => panic!("a name has no NUL inside"),
                    }
                })+
                _ => c"GHL_ERR_UNKNOWN",
            }
        };
    }
    fixed(crate::error::statuses!(names))
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
