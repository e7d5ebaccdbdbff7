//! The log callback: forwards the library's log records to the host.

use std::ffi::{CString, c_char, c_void};
use std::sync::OnceLock;

use log::{LevelFilter, Log, Metadata, Record};

use super::boundary::blocking;
use super::callback::{Callback, Context, Slot};
use super::fork;
use crate::deferred_callbacks;
use crate::error::Error;

/// Receives the library's log messages.
///
/// Called on a thread that is inside a library call, while the library holds no lock. The callback
/// may call the library, except ghl_set_log_callback; messages that the library logs on this thread
/// meanwhile are dropped. It must not unwind (no C++ exception, no longjmp).
///
/// @param level    1 error, 2 warning, 3 information, 4 debug, 5 trace
/// @param message  NUL-terminated UTF-8, valid until the callback returns; never contains a secret.
///                 A sentence with fields at its end: key=value, or key="..." with a JSON string
/// @param context  the context passed to ghl_set_log_callback
pub type ghl_log_callback =
    Option<unsafe extern "C" fn(level: i32, message: *const c_char, context: *mut c_void)>;

type Function = unsafe extern "C" fn(i32, *const c_char, *mut c_void);

static SLOT: Slot<Function> = Slot::new();

/// Whether [`HostLog`] is this process's logger.
static INSTALLED: OnceLock<bool> = OnceLock::new();

struct HostLog;

impl Log for HostLog {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // Dependencies log headers and bodies, which contain secrets.
        let ours = metadata.target().split("::").next() == Some("ghl_oauth");
        ours && !SLOT.is_running_here()
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = record.args().to_string().replace('\0', "");
        let Ok(message) = CString::new(message) else {
            return;
        };
        let level = record.level() as i32;
        deferred_callbacks::run_or_defer(Box::new(move || {
            SLOT.run(|function, context| {
                // SAFETY: the header requires a function of this type that is safe to call from any
                // thread.
                unsafe { function(level, message.as_ptr(), context) }
            });
        }));
    }

    fn flush(&self) {}
}

/// Sets the log callback of the whole process, or removes it if NULL.
///
/// Returns once the previous callback is no longer running, so its context may then be freed. Any
/// thread, but not from inside the callback. Without a callback nothing is logged.
///
/// @param callback   the callback, or NULL
/// @param context    passed to the callback unchanged; may be NULL
/// @param max_level  the most detailed level that is reported: 0 nothing, 1 errors, 2 warnings, 3
///                   information, 4 debug, 5 trace
/// @return GHL_OK; GHL_ERR_INVALID_ARGUMENT for another max_level, when called from inside the
///         callback, or if a Rust host has installed its own logger
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_set_log_callback(
    callback: ghl_log_callback,
    context: *mut c_void,
    max_level: i32,
) -> i32 {
    let levels = [
        LevelFilter::Off,
        LevelFilter::Error,
        LevelFilter::Warn,
        LevelFilter::Info,
        LevelFilter::Debug,
        LevelFilter::Trace,
    ];
    let outcome = blocking(|| {
        let level = usize::try_from(max_level).ok().and_then(|level| levels.get(level));
        let level = level
            .ok_or_else(|| Error::invalid_argument("max_level", "max_level must be from 0 to 5"))?;
        if !INSTALLED.get_or_init(|| log::set_logger(&HostLog).is_ok()) {
            return Err(Error::invalid_argument(
                "callback",
                "another logger is installed in this process",
            ));
        }
        // A forked child keeps using the callback.
        fork::register_handlers();
        let level = if callback.is_some() { *level } else { LevelFilter::Off };
        let callback = callback.map(|function| Callback { function, context: Context(context) });
        SLOT.replace(callback, || log::set_max_level(level))
    });
    outcome.map_or_else(|error| error.status().code(), |()| 0)
}
