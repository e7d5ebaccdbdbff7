//! The status codes under their C names.

use crate::error::Status;

/// What a call returns: `GHL_OK`, or the reason of its failure.
///
/// A number never changes its meaning. Functions return `int32_t`, so that a newer library may return a code that
/// an older header does not name: treat any code that you do not know as a failure, and look at the error's
/// `retryable`. 22 to 63 are reserved.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ghl_status {
    /// Success.
    GHL_OK = 0,
    /// An argument is NULL, malformed, unknown or out of range; the error's `parameter` names it.
    GHL_ERR_INVALID_ARGUMENT = 1,
    /// The configuration cannot be used; the error's `parameter` names the key.
    GHL_ERR_CONFIG = 2,
    /// No token is held for the resource and none can be minted, or the API does not know it.
    GHL_ERR_NOT_FOUND = 3,
    /// Only a person's consent can help.
    GHL_ERR_REAUTHORIZATION_REQUIRED = 4,
    /// The location is paused or its subscription ended. Its token is kept: try again later.
    GHL_ERR_LOCATION_INACTIVE = 5,
    /// A 401 that a fresh token did not cure, or refused client credentials.
    GHL_ERR_UNAUTHORIZED = 6,
    /// The scope or the location is not granted.
    GHL_ERR_FORBIDDEN = 7,
    /// The API names what is wrong with the request (400, 422).
    GHL_ERR_INVALID_REQUEST = 8,
    /// Too many requests; `retryAfterMs` says when to try again.
    GHL_ERR_RATE_LIMITED = 9,
    /// Not sent, or no answer.
    GHL_ERR_NETWORK = 10,
    /// The deadline passed.
    GHL_ERR_TIMEOUT = 11,
    /// The API failed (5xx).
    GHL_ERR_SERVER = 12,
    /// An answer that is not what the contract says.
    GHL_ERR_PROTOCOL = 13,
    /// The token store failed.
    GHL_ERR_STORE = 14,
    /// The call was cancelled.
    GHL_ERR_CANCELLED = 15,
    /// The `state` of a consent is missing, unknown, expired or already used.
    GHL_ERR_STATE_MISMATCH = 16,
    /// The person, or the marketplace, refused consent.
    GHL_ERR_CONSENT_DENIED = 17,
    /// A webhook's signature does not fit.
    GHL_ERR_SIGNATURE_INVALID = 18,
    /// A defect of the library; the client stays usable.
    GHL_ERR_INTERNAL = 19,
    /// The buffer is too small; the size that is needed is given.
    GHL_ERR_BUFFER_TOO_SMALL = 20,
    /// A store's record has another version than expected.
    GHL_ERR_CONFLICT = 21,
}

/// The numbers of the header and of the core are the same; a difference does not compile.
const _: () = {
    use ghl_status::*;
    let pairs = [
        (GHL_ERR_INVALID_ARGUMENT, Status::InvalidArgument),
        (GHL_ERR_CONFIG, Status::Config),
        (GHL_ERR_NOT_FOUND, Status::NotFound),
        (GHL_ERR_REAUTHORIZATION_REQUIRED, Status::ReauthorizationRequired),
        (GHL_ERR_LOCATION_INACTIVE, Status::LocationInactive),
        (GHL_ERR_UNAUTHORIZED, Status::Unauthorized),
        (GHL_ERR_FORBIDDEN, Status::Forbidden),
        (GHL_ERR_INVALID_REQUEST, Status::InvalidRequest),
        (GHL_ERR_RATE_LIMITED, Status::RateLimited),
        (GHL_ERR_NETWORK, Status::Network),
        (GHL_ERR_TIMEOUT, Status::Timeout),
        (GHL_ERR_SERVER, Status::Server),
        (GHL_ERR_PROTOCOL, Status::Protocol),
        (GHL_ERR_STORE, Status::Store),
        (GHL_ERR_CANCELLED, Status::Cancelled),
        (GHL_ERR_STATE_MISMATCH, Status::StateMismatch),
        (GHL_ERR_CONSENT_DENIED, Status::ConsentDenied),
        (GHL_ERR_SIGNATURE_INVALID, Status::SignatureInvalid),
        (GHL_ERR_INTERNAL, Status::Internal),
        (GHL_ERR_BUFFER_TOO_SMALL, Status::BufferTooSmall),
        (GHL_ERR_CONFLICT, Status::Conflict),
    ];
    let mut index = 0;
    while index < pairs.len() {
        assert!(pairs[index].0 as i32 == pairs[index].1.code());
        index += 1;
    }
    assert!(pairs.len() == Status::ALL.len() && GHL_OK as i32 == 0);
};
