//! What asking for a live token costs through the C ABI: `cargo bench --bench hot_path`. Medians of repeated runs; the
//! floor beside them is a copy of the token into a buffer and nothing else.

use std::ffi::{CStr, CString, c_char};
use std::hint::black_box;
use std::ptr::null_mut;
use std::time::Instant;

use ghl_oauth::ffi::{
    client_from, ghl_access_token, ghl_access_token_into, ghl_client, ghl_client_free, ghl_string_free,
};
use ghl_oauth::tokens::ImportParams;
use ghl_oauth::{Client, Config};
use serde_json::json;

const CALLS: u32 = 200_000;
const RUNS: usize = 11;

#[derive(Clone, Copy)]
struct Handle(*mut ghl_client);

// SAFETY: a client may be used from any thread.
unsafe impl Send for Handle {}

fn main() {
    let token = "t".repeat(900);
    let mut buffer = vec![0_u8; 1024];
    report("the floor: 900 bytes copied", || {
        buffer[..900].copy_from_slice(black_box(token.as_bytes()));
        black_box(&mut buffer);
    });
    for held in [1, 1_000, 100_000] {
        let client = client_with(held, &token);
        let id = CString::new(resource_id(held / 2)).unwrap();
        report(&format!("ghl_access_token_into, {held} tokens held"), || into(client, &id, &mut buffer));
        report(&format!("ghl_access_token and ghl_string_free, {held} tokens held"), || owned(client, &id));
        if held == 1_000 {
            two_threads(client);
        }
        // SAFETY: made by `client_from`, freed once.
        unsafe { ghl_client_free(client.0) };
    }
}

fn into(client: Handle, id: &CStr, buffer: &mut [u8]) {
    let mut length = buffer.len();
    // SAFETY: a living client, a terminated id, and a buffer of that length.
    let status = unsafe {
        ghl_access_token_into(client.0, id.as_ptr(), buffer.as_mut_ptr().cast(), &mut length, null_mut())
    };
    assert_eq!((status, length), (0, 901));
}

fn owned(client: Handle, id: &CStr) {
    let mut token: *mut c_char = null_mut();
    // SAFETY: a living client and a terminated id; the token is freed once.
    unsafe {
        assert_eq!(ghl_access_token(client.0, id.as_ptr(), &mut token, null_mut()), 0);
        ghl_string_free(token);
    }
}

fn two_threads(client: Handle) {
    let rate = |threads: usize| {
        let began = Instant::now();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let client = client;
                    let id = CString::new(resource_id(thread * 7)).unwrap();
                    let mut buffer = [0; 1024];
                    for _ in 0..CALLS {
                        into(client, &id, &mut buffer);
                    }
                });
            }
        });
        f64::from(CALLS) * threads as f64 / began.elapsed().as_secs_f64()
    };
    let mut ratios: Vec<f64> = (0..RUNS).map(|_| rate(2) / rate(1)).collect();
    ratios.sort_by(f64::total_cmp);
    println!("two threads, two resources: {:.2} times the calls of one", ratios[RUNS / 2]);
}

fn report(what: &str, mut call: impl FnMut()) {
    let mut runs: Vec<f64> = (0..RUNS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..CALLS {
                call();
            }
            began.elapsed().as_nanos() as f64 / f64::from(CALLS)
        })
        .collect();
    runs.sort_by(f64::total_cmp);
    println!("{what}: {:.0} ns", runs[RUNS / 2]);
}

fn client_with(held: usize, token: &str) -> Handle {
    let client = Client::new(&Config::new("app-1", "secret")).unwrap();
    let tokens = (0..held)
        .map(|index| json!({"accessToken": token, "locationId": resource_id(index), "expiresIn": 86_399}))
        .map(|token| token.as_object().unwrap().clone())
        .collect();
    client.tokens_import(ImportParams { tokens, replace: false, next_page_token: None }).unwrap();
    Handle(client_from(client))
}

fn resource_id(index: usize) -> String {
    format!("location{index:012}")
}
