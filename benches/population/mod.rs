//! Companies with a thousand resources each, the first of which is the company itself; their tokens
//! are as long as the vendor's.
#![allow(dead_code)] // Each bench uses only a part.

use serde_json::{Value, json};

/// One location in a hundred is due.
const DUE: usize = 100;

const DAY_MS: i64 = 86_400_000;

/// A token of the resource, live for a day, or for a tenth of a day if it is due.
pub fn token(index: usize, now: i64) -> serde_json::Map<String, Value> {
    let is_company = index.is_multiple_of(1000);
    let expires_at = if index % DUE == 1 { now + DAY_MS / 10 } else { now + DAY_MS };
    let token = json!({
        "accessToken": format!("{index:0>900}"), "refreshToken": format!("{index:0>400}"),
        "expiresAt": expires_at,
        "userType": if is_company { "Company" } else { "Location" }, "companyId": company_id(index),
        "locationId": if is_company { Value::Null } else { location_id(index).into() },
        "scope": "contacts.readonly contacts.write locations.readonly",
    });
    let Value::Object(token) = token else { unreachable!("a JSON object") };
    token
}

/// The company of the resource.
pub fn company_id(index: usize) -> String {
    format!("company{:0>13}", index / 1000)
}

/// IDs are in no order, as in the API.
pub fn location_id(index: usize) -> String {
    if index.is_multiple_of(1000) {
        return company_id(index);
    }
    format!("{:016x}{:04x}", (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15), index % 0xffff)
}
