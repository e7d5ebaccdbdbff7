//! The FFI boundary of every exported function: sets out-pointers to NULL, catches panics, and
//! serializes the result or the error.

use std::ffi::{CStr, c_char};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{cancellation, string};
use crate::error::{Error, Result, Status};
use crate::{json, panic_scope};

/// Runs one call and writes its JSON, or the error JSON, to `out` unless `out` is NULL.
///
/// # Safety
/// `out` is NULL or valid for a write.
pub unsafe fn call(out: *mut *mut c_char, work: impl FnOnce() -> Result<Zeroizing<String>>) -> i32 {
    // SAFETY: by the contract.
    unsafe { set_null(out) };
    let (code, mut document) = match blocking(work) {
        Ok(document) => (0, document),
        Err(error) => (error.status().code(), Zeroizing::new(error.to_json().to_string())),
    };
    if !out.is_null() {
        // SAFETY: not NULL, so valid by the contract.
        unsafe { out.write(string::allocate(&document)) };
    }
    // Cleared, the string is overwritten in one piece as spare capacity instead of byte by byte.
    document.clear();
    code
}

/// Sets an out-pointer to NULL, unless it is NULL itself.
///
/// # Safety
/// `out` is NULL or valid for a write.
pub unsafe fn set_null<T>(out: *mut *mut T) {
    if !out.is_null() {
        // SAFETY: not NULL, so valid by the contract.
        unsafe { out.write(std::ptr::null_mut()) };
    }
}

/// Parses the parameters of a call.
///
/// # Safety
/// As [`string::read`].
pub unsafe fn params<T: DeserializeOwned>(parameter: &str, document: *const c_char) -> Result<T> {
    // SAFETY: by the contract.
    json::read(parameter, unsafe { string::read(parameter, document) }?)
}

/// Serializes a result. It may contain secrets, so the buffers are zeroized.
pub fn render(result: impl Serialize) -> Result<Zeroizing<String>> {
    let mut document = Document(Zeroizing::new(Vec::with_capacity(1024)));
    let unwritable = |_| Error::new(Status::Internal, "the result could not be written as JSON");
    serde_json::to_writer(&mut document, &result).map_err(unwritable)?;
    // serde_json writes UTF-8.
    Ok(Zeroizing::new(String::from_utf8(std::mem::take(&mut *document.0)).unwrap_or_default()))
}

/// A buffer that zeroizes its old memory when it grows.
struct Document(Zeroizing<Vec<u8>>);

impl Write for Document {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.write_all(piece).map(|()| piece.len())
    }

    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        let (length, room) = (self.0.len() + piece.len(), self.0.capacity());
        if length > room {
            let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * room)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(piece);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Like [`guarded`], for work that may wait: a cancellation of this thread takes effect only when
/// the call has returned.
pub fn blocking<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _delayed = cancellation::Delayed::new();
    guarded(work)
}

/// Turns a panic into `INTERNAL`.
pub fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    install_panic_hook();
    let scope = panic_scope::enter();
    // Unwind safe: shared state is behind locks, whose poison is ignored, and is consistent at
    // every panic.
    let outcome = panic::catch_unwind(AssertUnwindSafe(work));
    drop(scope);
    outcome.unwrap_or_else(|payload| {
        // A payload may panic when it is dropped.
        std::mem::forget(payload);
        Err(Error::new(Status::Internal, "the library panicked; the client remains usable")
            .with_help("report this defect and attach the log")
            // Whether it was is unknown.
            .with_sent(true))
    })
}

/// Installs a panic hook that logs the location of a panic inside the library instead of printing
/// its message, which may contain secrets. Other panics go to the host's hook.
fn install_panic_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let host_hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            match (panic_scope::is_active(), panic.location()) {
                (true, Some(place)) => log::error!("panic at {}:{}", place.file(), place.line()),
                (true, None) => log::error!("panic at an unknown location"),
                (false, _) => host_hook(panic),
            }
        }));
    });
}

/// A static string for C.
pub const fn static_string(text: &'static CStr) -> *const c_char {
    text.as_ptr()
}
