//! C functions for versions, status names, and freeing strings.

use std::ffi::{CStr, c_char};

use super::boundary::static_string;
use super::string;

/// The version of this ABI. It is raised when something is added; existing items never change their
/// meaning.
///
/// Any thread; never fails.
#[unsafe(no_mangle)]
pub extern "C" fn ghl_abi_version() -> u32 {
    1
}

/// The version of the library, such as "0.1.0".
///
/// Any thread; never fails. The string is static: do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn ghl_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => panic!("a version has no NUL inside"),
        };
    static_string(VERSION)
}

/// The name of a status, such as "GHL_ERR_RATE_LIMITED", or "GHL_ERR_UNKNOWN" for an unknown
/// number.
///
/// Any thread; never fails. The string is static: do not free it.
///
/// @param status  the return value of a call
#[unsafe(no_mangle)]
pub extern "C" fn ghl_status_name(status: i32) -> *const c_char {
    macro_rules! names {
        ($(
            $(#[doc = $doc:literal])+
            $status:ident = $code:literal, $name:ident, $class:ident, retryable: $retryable:literal;
        )+) => {
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
    static_string(crate::error::statuses!(names))
}

/// Wipes and frees a string that the library returned.
///
/// Any thread; never fails. The caller may have modified the string: its length is stored
/// separately.
///
/// @param string  a string from this library, or NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_string_free(string: *mut c_char) {
    // SAFETY: the header requires a string of this library, freed once.
    unsafe { string::release(string) }
}
