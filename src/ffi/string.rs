//! C strings: reading arguments and allocating results.

use std::alloc::{GlobalAlloc, Layout, handle_alloc_error};
use std::ffi::{CStr, c_char};
use std::ptr;

use super::memory::Wiping;
use crate::error::{Error, Result};

/// The size of the length field before the first byte of a returned string. With it, the whole
/// string is wiped and freed even if the caller has written a NUL into it.
const LENGTH_FIELD: usize = size_of::<usize>();

/// Reads a string argument.
///
/// # Safety
/// `text` is NULL or points to a NUL-terminated string that does not change while the result is in
/// use.
pub unsafe fn read<'a>(parameter: &str, text: *const c_char) -> Result<&'a str> {
    if text.is_null() {
        return Err(Error::invalid_argument(parameter, format!("{parameter} is NULL")));
    }
    // SAFETY: not NULL, and NUL-terminated by this function's contract.
    let text = unsafe { CStr::from_ptr(text) };
    if text.to_bytes().is_ascii() {
        // SAFETY: ASCII is UTF-8. Checking an ID for ASCII takes a quarter of the time of UTF-8
        // validation.
        return Ok(unsafe { str::from_utf8_unchecked(text.to_bytes()) });
    }
    text.to_str()
        .map_err(|_| Error::invalid_argument(parameter, format!("{parameter} is not valid UTF-8")))
}

/// Copies a string into memory that the caller frees with `ghl_string_free`.
pub fn allocate(text: &str) -> *mut c_char {
    let layout = layout(text.len());
    // SAFETY: the layout is not empty (it contains the length field), and every write below stays
    // inside it.
    unsafe {
        let block = Wiping.alloc(layout);
        if block.is_null() {
            handle_alloc_error(layout);
        }
        block.cast::<usize>().write(text.len());
        let bytes = block.add(LENGTH_FIELD);
        ptr::copy_nonoverlapping(text.as_ptr(), bytes, text.len());
        bytes.add(text.len()).write(0);
        bytes.cast()
    }
}

/// Wipes and frees a string; NULL is allowed.
///
/// # Safety
/// `text` is NULL or came from [`allocate`], and was not freed before.
pub unsafe fn release(text: *mut c_char) {
    if text.is_null() {
        return;
    }
    // SAFETY: by the contract, `allocate` wrote the length field and allocated the block with this
    // layout.
    unsafe {
        let block = text.cast::<u8>().sub(LENGTH_FIELD);
        let length = block.cast::<usize>().read();
        Wiping.dealloc(block, layout(length));
    }
}

fn layout(length: usize) -> Layout {
    // Never overflows: a string has at most `isize::MAX` bytes.
    match Layout::from_size_align(LENGTH_FIELD + length + 1, align_of::<usize>()) {
        Ok(layout) => layout,
        Err(_) => handle_alloc_error(Layout::new::<usize>()),
    }
}
