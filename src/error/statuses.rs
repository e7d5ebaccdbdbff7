//! The table of statuses: the only place where a status is declared.
//!
//! The Rust enum, the C enum, the names and the bindings' exception classes are generated from it
//! or tested against it (`tests/statuses.rs`). `build.rs` includes this file, so it must not refer
//! to other parts of the crate.

/// Calls a macro with one row for each status: documentation, variant, number, C constant, Python
/// class, and whether the same call may succeed later. The C++ class has the name of the Python
/// class in snake case. A released number never changes its meaning.
macro_rules! statuses {
    ($make:ident $($with:ident)?) => {
        $make! {
            $($with)?
            /// An argument is NULL, malformed, unknown or out of range; the error's `parameter`
            /// names it.
            InvalidArgument = 1, GHL_ERR_INVALID_ARGUMENT, InvalidArgument, retryable: false;
            /// The configuration cannot be used; the error's `parameter` names the key.
            Config = 2, GHL_ERR_CONFIG, ConfigError, retryable: false;
            /// No token is held for the resource and none can be minted, or the API does not know
            /// the resource.
            NotFound = 3, GHL_ERR_NOT_FOUND, NotFound, retryable: false;
            /// The connection is lost: a user must consent again.
            ReauthorizationRequired = 4, GHL_ERR_REAUTHORIZATION_REQUIRED, ReauthorizationRequired,
            retryable: false;
            /// The location is paused or its subscription ended. Its token is kept: try again
            /// later.
            LocationInactive = 5, GHL_ERR_LOCATION_INACTIVE, LocationInactive, retryable: true;
            /// The API returned 401 although the token is fresh, or rejected the client
            /// credentials.
            Unauthorized = 6, GHL_ERR_UNAUTHORIZED, Unauthorized, retryable: false;
            /// The token lacks the scope, or access to the location.
            Forbidden = 7, GHL_ERR_FORBIDDEN, Forbidden, retryable: false;
            /// The API rejected the request as invalid (400, 422) and says why.
            InvalidRequest = 8, GHL_ERR_INVALID_REQUEST, InvalidRequest, retryable: false;
            /// Too many requests; `retryAfterMs` says when to try again.
            RateLimited = 9, GHL_ERR_RATE_LIMITED, RateLimited, retryable: true;
            /// The request could not be sent, or no response arrived.
            Network = 10, GHL_ERR_NETWORK, NetworkError, retryable: true;
            /// The deadline passed.
            Timeout = 11, GHL_ERR_TIMEOUT, Timeout, retryable: true;
            /// The API failed (5xx).
            Server = 12, GHL_ERR_SERVER, ServerError, retryable: true;
            /// The response does not have the documented form.
            Protocol = 13, GHL_ERR_PROTOCOL, ProtocolError, retryable: true;
            /// The token store failed.
            Store = 14, GHL_ERR_STORE, StoreError, retryable: true;
            /// The call was cancelled.
            Cancelled = 15, GHL_ERR_CANCELLED, Cancelled, retryable: true;
            /// The `state` of a consent is missing, unknown, expired or already used.
            StateMismatch = 16, GHL_ERR_STATE_MISMATCH, StateMismatch, retryable: false;
            /// The user, or the marketplace, refused consent.
            ConsentDenied = 17, GHL_ERR_CONSENT_DENIED, ConsentDenied, retryable: false;
            /// The signature of a webhook is invalid.
            SignatureInvalid = 18, GHL_ERR_SIGNATURE_INVALID, SignatureInvalid, retryable: false;
            /// A defect of the library; the client remains usable.
            Internal = 19, GHL_ERR_INTERNAL, InternalError, retryable: false;
            /// The buffer is too small; `length` is set to the size that is needed.
            BufferTooSmall = 20, GHL_ERR_BUFFER_TOO_SMALL, BufferTooSmall, retryable: false;
            /// A record in the store has another version than expected.
            Conflict = 21, GHL_ERR_CONFLICT, Conflict, retryable: true;
        }
    };
}

/// Passes the enum of the C header to a macro.
#[allow(unused_macros)] // Tests include this file for the table alone.
macro_rules! c_enum {
    ($give:ident $(
        $(#[doc = $doc:literal])+
        $status:ident = $code:literal, $name:ident, $class:ident, retryable: $retryable:literal;
    )+) => {
        $give! {
            /// The result of a call: `GHL_OK`, or the reason for its failure.
            ///
            /// A number never changes its meaning. Functions return `int32_t`, because a newer
            /// library may return a code that an older header does not name: treat an unknown code
            /// as a failure and read `retryable` in the error. Every other number up to 63 is
            /// reserved.
            #[repr(i32)]
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum ghl_status {
                /// Success.
                GHL_OK = 0,
                $($(#[doc = $doc])+ $name = $code,)+
            }
        }
    };
}

#[allow(unused_imports)]
pub(crate) use {c_enum, statuses};
