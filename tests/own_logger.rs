//! A Rust host with its own logger. The only test of its file, because a process has one logger for
//! its lifetime.

use std::ptr;

use ghl_oauth::Status;
use ghl_oauth::internals::ffi::ghl_set_log_callback;
use log::{Log, Metadata, Record};

struct HostLogger;

impl Log for HostLogger {
    fn enabled(&self, _: &Metadata) -> bool {
        false
    }
    fn log(&self, _: &Record) {}
    fn flush(&self) {}
}

fn remove_log_callback(max_level: i32) -> i32 {
    // SAFETY: neither a callback nor a context.
    unsafe { ghl_set_log_callback(None, ptr::null_mut(), max_level) }
}

#[test]
fn refused_call_does_not_install_a_logger() {
    let invalid = Status::InvalidArgument.code();
    for level in [-1, 6] {
        assert_eq!(remove_log_callback(level), invalid);
    }
    log::set_logger(&HostLogger).expect("a refused call installs no logger");
    assert_eq!(remove_log_callback(0), invalid, "the host has its own logger");
}
