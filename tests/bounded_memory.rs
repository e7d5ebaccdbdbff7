//! The library buffers at most `limits.responseBytes` of a response of any size. The only test of
//! its process, whose memory it measures.

mod support;

use std::fs;

use ghl_oauth::Status;
use ghl_oauth_emulator::{FaultKind, Rule};
use serde_json::json;

use support::with_company;

/// More than the responses, the emulator's blocks and the allocator's overhead need; far less than
/// is sent.
const MOST: u64 = 8 << 20;

/// The peak memory of this process since the last call, in bytes.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    fs::write("/proc/self/clear_refs", "5").ok()?;
    Some(kilobytes << 10)
}

#[test]
fn response_of_any_size_uses_bounded_memory() {
    let (emulator, abi, company) = with_company(1);
    let list = || abi.oauth_installed_locations(json!({"companyId": company}));
    list().ok();
    let Some(_) = peak() else {
        println!("skipped: peak memory needs /proc/self/clear_refs of Linux");
        return;
    };
    let before = peak().unwrap();
    for chunked in [false, true] {
        emulator.inject(Rule::default(), FaultKind::HugeBody { bytes: 200_000_000, chunked });
        list().fails(Status::Protocol);
        abi.token_refresh(&company).fails(Status::Protocol);
        emulator.clear_faults();
    }
    for lines in [1, 4_000] {
        emulator.inject(Rule::default(), FaultKind::HugeHead { bytes: 1 << 20, lines });
        list().fails(Status::Protocol);
        emulator.clear_faults();
    }
    let after = peak().unwrap();
    assert!(after < before + MOST, "it took {} KiB more", (after - before) >> 10);
    list().ok();
}
