//! The committed header matches the sources.

use std::{env, fs, path::Path};

#[test]
fn committed_header_is_up_to_date() {
    let made = fs::read_to_string(concat!(env!("OUT_DIR"), "/ghl_oauth.h")).unwrap();
    let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/ghl_oauth.h");
    if env::var_os("GHL_UPDATE_HEADER").is_some() {
        fs::write(&committed, &made).unwrap();
    }
    assert!(
        fs::read_to_string(&committed).unwrap_or_default() == made,
        "include/ghl_oauth.h is out of date: run GHL_UPDATE_HEADER=1 cargo test --test header"
    );
}
