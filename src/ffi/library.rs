//! C functions for versions, status names, and freeing strings.

use std::ffi::{CStr, c_char};

use serde_json::json;

use super::boundary::{self, render, static_string};
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

/// Describes the library: for logs, and to check a library before use.
///
/// Any thread; does not wait.
///
/// @param out_json  {"version", "abiVersion", "stores": ["memory", "callbacks", "sqlite"?,
///                  "postgres"?], "features": the Cargo features it was built with, "tls":
///                  "rustls"}, or the error; free with ghl_string_free; may be NULL
/// @return GHL_OK
///
/// Example:
///
/// ```c
/// char *info;
/// if (ghl_library_info(&info) == GHL_OK) {
///     printf("%s\n", info);
/// }
/// ghl_string_free(info);
/// ```
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_library_info(out_json: *mut *mut c_char) -> i32 {
    let with = |built: bool, name: &'static str| built.then_some(name);
    let (sqlite, postgres) = (cfg!(feature = "sqlite"), cfg!(feature = "postgres"));
    let stores =
        [Some("memory"), Some("callbacks"), with(sqlite, "sqlite"), with(postgres, "postgres")];
    let features = [
        with(cfg!(feature = "bundled-sqlite"), "bundled-sqlite"),
        with(postgres, "postgres"),
        with(sqlite, "sqlite"),
        with(cfg!(feature = "wiping-allocator"), "wiping-allocator"),
    ];
    let info = || {
        render(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "abiVersion": ghl_abi_version(),
            "stores": stores.into_iter().flatten().collect::<Vec<_>>(),
            "features": features.into_iter().flatten().collect::<Vec<_>>(),
            "tls": "rustls",
        }))
    };
    // SAFETY: the header requires a valid pointer, or NULL.
    unsafe { boundary::call(out_json, info) }
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
