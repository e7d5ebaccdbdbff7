//! The custom store: adapts the host's callbacks to the core's [`Host`] trait.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::{MaybeUninit, offset_of};
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::boundary::{self, render, set_null};
use super::client::{client_from, ghl_client};
use super::reentrancy::Owner;
use super::string;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Error, Result, Status};
use crate::store::Host;

/// A custom store: the host's functions that keep the tokens of a client made by
/// ghl_client_new_with_store.
///
/// The library reads and writes single records by ID, and encrypts them if store.encryptionKeys is
/// set. A record is one JSON object, which the store must return unchanged. The record of a token
/// is {"kind": "token", "resourceId", "version": 1 and up, "userType": "Company" or "Location",
/// "companyId" (or null), "renewAt" (milliseconds since the epoch), "sealedWith", "document"}. The
/// record of a note, whose ID begins with "~note/", is {"kind": "note", "resourceId", "version",
/// "list", "expiresAt" (milliseconds since the epoch), "document"}.
///
/// The "document" of a token contains its secrets, in clear text unless it is encrypted; a note
/// contains no secret. The other fields serve for queries. Ids are up to 300 bytes of UTF-8 without
/// control characters and come from outside: never insert one into a path or an SQL statement
/// without escaping.
///
/// Each callback returns GHL_OK or a failure code. GHL_ERR_CONFLICT from save and GHL_ERR_TIMEOUT
/// from lock have their own meaning, given below; every other code is a failure that the caller of
/// the library receives as GHL_ERR_STORE with the number in the message. A token that could not be
/// saved is kept in memory, and the save is retried.
///
/// Threads: the library may call several callbacks at once, from any thread that is inside a call
/// on the client and from the worker threads of ghl_tokens_mint and ghl_tokens_maintain. It holds
/// no lock meanwhile except the refresh lock of the resource. A callback must not unwind. It must
/// not call its own client: such calls fail with GHL_ERR_INVALID_ARGUMENT, and ghl_client_free of
/// that client is not allowed. ghl_client_cancel, calls on other clients, and functions without a
/// client are allowed.
///
/// Strings passed to a callback are valid until it returns. A forked child keeps using the same
/// callbacks, so the host's own handles must survive a fork; destroy is not called in the child.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ghl_store_callbacks {
    /// sizeof(ghl_store_callbacks), so that the struct can grow.
    pub size: usize,
    /// Passed to each callback unchanged; may be NULL.
    pub context: *mut c_void,
    /// Writes a copy of the record to *out_record_json, or NULL if there is no such record. On
    /// failure, *out_record_json may be an explanation, which becomes part of the error message
    /// unless it begins like JSON. Required.
    pub load: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            resource_id: *const c_char,
            out_record_json: *mut *mut c_char,
        ) -> i32,
    >,
    /// Saves a record if the "version" of the stored record equals expected_version (0: no record
    /// exists); otherwise returns GHL_ERR_CONFLICT. Compare and save in one atomic step across
    /// processes, and return only when the record would survive a crash: the token that it replaces
    /// is already invalid. Required.
    pub save: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            resource_id: *const c_char,
            record_json: *const c_char,
            expected_version: u64,
        ) -> i32,
    >,
    /// Removes a record; returns GHL_OK if there is no such record. Required.
    pub remove:
        Option<unsafe extern "C" fn(context: *mut c_void, resource_id: *const c_char) -> i32>,
    /// Writes a page to *out_page_json: {"items": [records…], "nextPageToken": the "resourceId" of
    /// the last item, or null on the last page}. A small store may answer every query with all its
    /// records and null.
    ///
    /// A large store evaluates the query: it returns the records whose IDs come after "pageToken"
    /// (if given) in byte order, at most "pageSize" of them. Every other field is a filter: "kind",
    /// "companyId", "userType" and "list" equal the record's field; "renewBy": the record's renewAt
    /// is not later; "expiredBy": its expiresAt is not later; "notSealedWith": its sealedWith
    /// differs. Filters only save work, because the library skips records that do not match; ignore
    /// a filter that you do not know. If "withoutDocuments" is true, the items need no "document".
    /// A failure may be explained as in load. Required.
    pub list: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            query_json: *const c_char,
            out_page_json: *mut *mut c_char,
        ) -> i32,
    >,
    /// Takes the lock of an ID, across all processes that share the store, and waits for at most
    /// timeout_ms milliseconds; returns GHL_ERR_TIMEOUT if the lock is still taken then. The lock
    /// must be released when its holder dies. The library itself keeps the threads of this process
    /// apart. One thread may hold the locks of several IDs. May be NULL together with unlock: then
    /// only the threads of this process are kept apart, and two processes that refresh the same
    /// token can lose it.
    pub lock: Option<
        unsafe extern "C" fn(
            context: *mut c_void,
            resource_id: *const c_char,
            timeout_ms: u64,
        ) -> i32,
    >,
    /// Releases the lock, on the thread that took it.
    pub unlock: Option<unsafe extern "C" fn(context: *mut c_void, resource_id: *const c_char)>,
    /// Frees a string that load or list returned. May be NULL: then the host frees the string
    /// itself, but not before the next callback on the same thread.
    pub free_string: Option<unsafe extern "C" fn(context: *mut c_void, string: *mut c_char)>,
    /// Called once, when the client is freed or could not be created: the context is no longer
    /// used. May be NULL.
    pub destroy: Option<unsafe extern "C" fn(context: *mut c_void)>,
}

/// Creates a client whose tokens are kept by a custom store. In all other respects it works like
/// ghl_client_new.
///
/// "store" may be omitted from the configuration. If present, its kind is "callbacks" ("memory" is
/// treated as omitted), and it may contain encryptionKeys, encryptionKeysPath and sealedOnly.
/// Without lock callbacks the library logs a warning, because tokens are then safe only while no
/// other process uses them.
///
/// @param config_json  as for ghl_client_new
/// @param store        the callbacks; copied, so the struct need not outlive the call. Bytes beyond
///                     the fields that this version knows must be zero. destroy is called even if
///                     this function fails, unless store is NULL or its size is too small
/// @param out_client   the client, to be freed with ghl_client_free; NULL on error
/// @param out_json     {"lock": "host"}, or {"lock": "process"} without lock callbacks; or the
///                     error; free with ghl_string_free; may be NULL
/// @return the results of ghl_client_new; also GHL_ERR_INVALID_ARGUMENT for a missing callback,
///         named by the error's "parameter" ("store.load"), and for lock without unlock or unlock
///         without lock
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ghl_client_new_with_store(
    config_json: *const c_char,
    store: *const ghl_store_callbacks,
    out_client: *mut *mut ghl_client,
    out_json: *mut *mut c_char,
) -> i32 {
    // SAFETY: the header requires valid pointers, or NULL, and callbacks that fulfil their
    // contracts.
    unsafe {
        set_null(out_client);
        boundary::call(out_json, || {
            let callbacks = Arc::new(Callbacks::read(store)?);
            callbacks.check()?;
            if out_client.is_null() {
                return Err(Error::invalid_argument("out_client", "out_client is NULL"));
            }
            let config = Config::from_json(string::read("config_json", config_json)?)?;
            let lock = if callbacks.has_lock() { "host" } else { "process" };
            let owner = Owner::of(&*callbacks);
            let core = Client::with_host(&config, callbacks)?;
            out_client.write(client_from(core));
            (**out_client).is_served_by(owner);
            render(serde_json::json!({"lock": lock}))
        })
    }
}

/// The host's callbacks. Calls `destroy` when dropped.
struct Callbacks {
    table: ghl_store_callbacks,
}

// SAFETY: the header requires that the callbacks and their context may be used from any thread.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl Drop for Callbacks {
    fn drop(&mut self) {
        if let Some(destroy) = self.table.destroy {
            // SAFETY: the header's contract; this is the last call, because no other reference to
            // the callbacks exists.
            unsafe { destroy(self.table.context) }
        }
    }
}

impl Callbacks {
    /// Checks the size of the table and copies it.
    ///
    /// # Safety
    /// `store` is NULL or points to at least `size` readable bytes, as given by its `size` field.
    unsafe fn read(store: *const ghl_store_callbacks) -> Result<Callbacks> {
        if store.is_null() {
            return Err(Error::invalid_argument("store", "store is NULL"));
        }
        // SAFETY: by the contract; a field that is zero is NULL.
        let (table, is_known) = unsafe { read_versioned(store, FIRST_SIZE) }.map_err(|size| {
            let message = format!("store.size is {size}, but must be at least {FIRST_SIZE}");
            Error::invalid_argument("store.size", message)
                .with_help("set it to sizeof(ghl_store_callbacks)")
        })?;
        let callbacks = Callbacks { table };
        if !is_known {
            let message = "store has callbacks that this version of the library does not know";
            return Err(Error::invalid_argument("store.size", message)
                .with_help("update the library, or set those fields to zero"));
        }
        Ok(callbacks)
    }

    /// Checks that the required callbacks are set.
    fn check(&self) -> Result<()> {
        let table = &self.table;
        let wrong = match () {
            () if table.load.is_none() => "load",
            () if table.save.is_none() => "save",
            () if table.remove.is_none() => "remove",
            () if table.list.is_none() => "list",
            () if table.lock.is_some() && table.unlock.is_none() => "unlock",
            () if table.lock.is_none() && table.unlock.is_some() => "lock",
            () => return Ok(()),
        };
        Err(Error::invalid_argument(format!("store.{wrong}"), format!("store.{wrong} is NULL")))
    }

    /// Runs a callback under the re-entrancy guard.
    fn call<T>(&self, callback: impl FnOnce(*mut c_void) -> T) -> T {
        Owner::of(self).run(|| callback(self.table.context))
    }

    /// Runs a callback that returns a string.
    fn call_for_string(
        &self,
        callback: impl FnOnce(*mut c_void, *mut *mut c_char) -> i32,
    ) -> Result<Option<Zeroizing<String>>> {
        let mut out: *mut c_char = ptr::null_mut();
        let code = self.call(|context| callback(context, &mut out));
        if out.is_null() {
            return outcome(code).map(|()| None);
        }
        // SAFETY: the header requires a NUL-terminated string unless it is NULL.
        let text = Zeroizing::new(unsafe { CStr::from_ptr(out) }.to_bytes().to_vec());
        if let Some(free_string) = self.table.free_string {
            // SAFETY: the header's contract; the string came from the host and is not used again.
            self.call(|context| unsafe { free_string(context, out) });
        }
        if let Err(error) = outcome(code) {
            // JSON is part of a record rather than an explanation, and may contain secrets.
            if matches!(text.trim_ascii_start().first(), Some(b'{' | b'[' | b'"')) {
                return Err(error);
            }
            let words: String = String::from_utf8_lossy(&text).chars().take(500).collect();
            return Err(Error::new(error.status(), format!("{}: {words}", error.message())));
        }
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(Some(Zeroizing::new(text.to_owned()))),
            Err(_) => {
                Err(Error::new(Status::Store, "it returned a string that is not valid UTF-8"))
            }
        }
    }
}

/// The size of the struct in ABI 1. Programs compiled with it work with every later version, in
/// which the struct may have more fields.
const FIRST_SIZE: usize = offset_of!(ghl_store_callbacks, destroy) + size_of::<usize>();

/// Copies a struct of any version, whose first field is its size. Fields that it lacks are zero.
/// Also returns whether all bytes beyond the known fields are zero.
///
/// # Errors
/// The size, if it is less than `least`.
///
/// # Safety
/// `source` points to at least as many readable bytes as its first field, a `usize`, says. Zero is
/// a valid value for each field of `T`.
unsafe fn read_versioned<T>(source: *const T, least: usize) -> Result<(T, bool), usize> {
    // SAFETY: by the contract; may be unaligned.
    let size = unsafe { source.cast::<usize>().read_unaligned() };
    if size < least {
        return Err(size);
    }
    let known = size.min(size_of::<T>());
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: both have at least `known` bytes, and `copy` is a new object.
    unsafe { ptr::copy_nonoverlapping(source.cast::<u8>(), copy.as_mut_ptr().cast(), known) };
    // SAFETY: by the contract, `size` bytes are readable.
    let rest = unsafe { std::slice::from_raw_parts(source.cast::<u8>().add(known), size - known) };
    // SAFETY: by the contract, each field is valid: copied or zero.
    Ok((unsafe { copy.assume_init() }, rest.iter().all(|byte| *byte == 0)))
}

/// The result of a callback from its status code.
fn outcome(code: i32) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    Err(match Status::from_code(code) {
        Some(status) => Error::new(status, format!("it answered {code} ({})", status.name())),
        None => Error::new(Status::Store, format!("it answered {code}")),
    })
}

/// An ID, a query or a document as a C string. None of them contains a NUL.
fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::invalid_argument("resource_id", "an ID contains a NUL"))
}

/// The error for a missing callback, which `check` prevents.
fn missing() -> Error {
    Error::new(Status::Internal, "a callback is missing")
}

impl Host for Callbacks {
    fn load(&self, id: &str) -> Result<Option<Zeroizing<String>>> {
        let (load, id) = (self.table.load.ok_or_else(missing)?, c_string(id)?);
        // SAFETY: the header's contract; the strings live until the callback returns.
        self.call_for_string(|context, out| unsafe { load(context, id.as_ptr(), out) })
    }

    fn save(&self, id: &str, record: &str, expected_version: u64) -> Result<()> {
        let (save, id) = (self.table.save.ok_or_else(missing)?, c_string(id)?);
        let record = Zeroizing::new(c_string(record)?.into_bytes_with_nul());
        // SAFETY: as above.
        outcome(self.call(|context| unsafe {
            save(context, id.as_ptr(), record.as_ptr().cast(), expected_version)
        }))
    }

    fn remove(&self, id: &str) -> Result<()> {
        let (remove, id) = (self.table.remove.ok_or_else(missing)?, c_string(id)?);
        // SAFETY: as above.
        outcome(self.call(|context| unsafe { remove(context, id.as_ptr()) }))
    }

    fn list(&self, query: &str) -> Result<Zeroizing<String>> {
        let (list, query) = (self.table.list.ok_or_else(missing)?, c_string(query)?);
        // SAFETY: as above.
        let page =
            self.call_for_string(|context, out| unsafe { list(context, query.as_ptr(), out) })?;
        page.ok_or_else(|| Error::new(Status::Store, "it returned no page"))
    }

    fn has_lock(&self) -> bool {
        self.table.lock.is_some()
    }

    fn lock(&self, id: &str, timeout: Duration) -> Result<()> {
        let (lock, id) = (self.table.lock.ok_or_else(missing)?, c_string(id)?);
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        // SAFETY: as above.
        outcome(self.call(|context| unsafe { lock(context, id.as_ptr(), timeout_ms) }))
    }

    fn unlock(&self, id: &str) {
        if let (Some(unlock), Ok(id)) = (self.table.unlock, c_string(id)) {
            // SAFETY: as above.
            self.call(|context| unsafe { unlock(context, id.as_ptr()) });
        }
    }
}

const _: () = assert!(offset_of!(ghl_store_callbacks, size) == 0);

#[cfg(test)]
mod tests {
    use super::*;

    /// A struct that grows by one field with each version.
    #[repr(C)]
    struct First {
        size: usize,
        a: usize,
    }

    #[repr(C)]
    struct Second {
        size: usize,
        a: usize,
        b: usize,
    }

    #[test]
    fn struct_of_an_older_program_is_read_with_zeros_in_the_new_fields() {
        let first = First { size: size_of::<First>(), a: 7 };
        // SAFETY: `size` is the size of the struct; integers may be zero.
        let read = unsafe { read_versioned(ptr::from_ref(&first).cast::<Second>(), first.size) };
        let (second, is_known) = read.unwrap_or_else(|size| panic!("{size} is refused"));
        assert_eq!((second.size, second.a, second.b, is_known), (first.size, 7, 0, true));
    }

    #[test]
    fn struct_of_a_newer_program_is_known_if_its_new_fields_are_zero() {
        for (b, expected) in [(0, true), (1, false), (1 << (usize::BITS - 1), false)] {
            let second = Second { size: size_of::<Second>(), a: 7, b };
            let source = ptr::from_ref(&second).cast::<First>();
            // SAFETY: as above.
            let read = unsafe { read_versioned(source, size_of::<First>()) };
            let (first, is_known) = read.unwrap_or_else(|size| panic!("{size} is refused"));
            assert_eq!((first.a, is_known, second.b), (7, expected, b));
        }
    }

    #[test]
    fn struct_that_is_smaller_than_its_first_version_is_refused() {
        for size in [0, size_of::<usize>(), size_of::<First>() - 1] {
            let first = First { size, a: 7 };
            // SAFETY: as above; only `size` is read.
            let read = unsafe { read_versioned(&raw const first, size_of::<First>()) };
            assert_eq!((read.err(), first.a), (Some(size), 7));
        }
    }
}
