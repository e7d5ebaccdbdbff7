//! A Rust host that logs by itself. One test to the file: a process has one logger, for good.

use std::ptr;

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::ghl_set_log_callback;
use log::{Log, Metadata, Record};

struct HostsOwn;

impl Log for HostsOwn {
    fn enabled(&self, _: &Metadata) -> bool {
        false
    }
    fn log(&self, _: &Record) {}
    fn flush(&self) {}
}

fn take_the_receiver_away(max_level: i32) -> i32 {
    // SAFETY: neither a callback nor a context.
    unsafe { ghl_set_log_callback(None, ptr::null_mut(), max_level) }
}

#[test]
fn a_call_that_is_refused_leaves_the_logger_to_the_host() {
    let invalid = Status::InvalidArgument.code();
    for level in [-1, 6] {
        assert_eq!(take_the_receiver_away(level), invalid);
    }
    log::set_logger(&HostsOwn).expect("a refused call sets no logger");
    assert_eq!(take_the_receiver_away(0), invalid, "the host has its own");
}
