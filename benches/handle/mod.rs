//! Calls through the C ABI for the benchmarks of a cached token and of a refresh.
#![allow(dead_code)] // Each bench uses only a part.

use std::ffi::{CStr, c_char};
use std::hint::black_box;
use std::ptr::null_mut;

use ghl_oauth::internals::ffi::{
    ghl_access_token, ghl_access_token_into, ghl_client, ghl_client_free, ghl_string_free,
    ghl_token_refresh,
};

#[derive(Clone, Copy)]
pub struct Handle(pub *mut ghl_client);

// SAFETY: a client may be used from any thread.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

pub fn into(client: Handle, id: &CStr) {
    let mut buffer = std::mem::MaybeUninit::<[c_char; 1024]>::uninit();
    let mut length = 1024;
    // SAFETY: a valid client, a NUL-terminated ID, and a buffer of the given length.
    let status = unsafe {
        ghl_access_token_into(
            client.0,
            id.as_ptr(),
            buffer.as_mut_ptr().cast(),
            &mut length,
            null_mut(),
        )
    };
    black_box(&mut buffer);
    assert_eq!(status, 0);
}

pub fn owned(client: Handle, id: &CStr) {
    let mut token: *mut c_char = null_mut();
    // SAFETY: a valid client and a NUL-terminated ID; the token is freed once.
    unsafe {
        assert_eq!(ghl_access_token(client.0, id.as_ptr(), &mut token, null_mut()), 0);
        ghl_string_free(black_box(token));
    }
}

pub fn refresh(client: Handle, id: &CStr) {
    let mut metadata: *mut c_char = null_mut();
    // SAFETY: a valid client and a NUL-terminated ID; the metadata is freed once.
    unsafe {
        assert_eq!(ghl_token_refresh(client.0, id.as_ptr(), &mut metadata), 0);
        ghl_string_free(metadata);
    }
}

pub fn free(client: Handle) {
    // SAFETY: created by `client_from`, freed once.
    unsafe { ghl_client_free(client.0) };
}
