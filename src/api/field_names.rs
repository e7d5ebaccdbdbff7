//! Field-name negotiation: requests use camelCase until the server asks for snake_case. The vendor
//! documents both, and an endpoint rejects a request with both.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{Failure, Outcome};
use crate::error::Error;

/// A field name in camelCase and snake_case.
pub type Name = [&'static str; 2];

/// The casing of a request's field names: an index into a [`Name`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Casing(bool);

impl Casing {
    pub fn of(self, name: Name) -> &'static str {
        name[usize::from(self.0)]
    }

    fn other(self) -> Casing {
        Casing(!self.0)
    }

    /// Whether the server rejected this casing: it reports an unknown field, or a missing field of
    /// the other casing. It checks the names before it processes any value.
    fn is_refused(self, error: &Error, names: &[Name]) -> bool {
        let words = error.api().and_then(|fault| fault.message.as_deref()).unwrap_or_default();
        let says = |name: &Name| {
            let [camel, snake] = name;
            let unknown = format!("property {} should not exist", self.of(*name));
            camel != snake
                && (words.contains(&unknown) || is_missing(words, self.other().of(*name)))
        };
        matches!(error.http_status(), Some(400 | 422)) && names.iter().any(says)
    }
}

/// Whether a message says that the parameter `name` is missing.
fn is_missing(words: &str, name: &str) -> bool {
    words.split("; ").any(|part| {
        part.strip_prefix("Missing parameter: ").is_some_and(|missing| missing.trim() == name)
            || part
                .strip_suffix(" should not be empty")
                .is_some_and(|missing| missing.trim() == name)
    })
}

/// The casing that one endpoint accepts, learned from its rejections and kept until the client is
/// closed.
#[derive(Debug, Default)]
pub struct FieldNames(AtomicBool);

impl FieldNames {
    /// Sends a request in the known casing, and again in the other one if the server rejects the
    /// names.
    pub fn send<T>(
        &self,
        names: &[Name],
        send: impl Fn(Casing) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let casing = Casing(self.0.load(Ordering::Relaxed));
        let first = send(casing);
        let is_refused = |casing: Casing, result: &Result<T, Failure>| {
            result.as_ref().is_err_and(|failure| casing.is_refused(&failure.error, names))
        };
        if !is_refused(casing, &first) {
            return first;
        }
        let other = casing.other();
        let second = send(other);
        if is_refused(other, &second) {
            return first;
        }
        let was_read = |failure: &Failure| failure.outcome == Outcome::Refused;
        if second.as_ref().err().is_none_or(was_read) {
            log::warn!(
                "the API requires field names such as {}; using these from now on",
                other.of(names[0])
            );
            self.0.store(other.0, Ordering::Relaxed);
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ApiFault, Status};
    use std::cell::RefCell;

    const NAMES: [Name; 2] = [["clientId", "client_id"], ["code", "code"]];

    fn refusal(http_status: u16, message: &str) -> Failure {
        let fault =
            ApiFault { message: Some(message.to_owned()), is_of_api: true, ..ApiFault::default() };
        let error = Error::new(Status::InvalidRequest, "no").with_api(http_status, fault);
        Failure { error, outcome: Outcome::Refused }
    }

    /// The names that are sent if the server answers camelCase and snake_case with these refusals;
    /// `None` accepts the names.
    fn sent(
        names: &FieldNames,
        camel: Option<(u16, &str)>,
        snake: Option<(u16, &str)>,
    ) -> Vec<&'static str> {
        let sent = RefCell::new(Vec::new());
        let _ = names.send(&NAMES, |casing| {
            sent.borrow_mut().push(casing.of(NAMES[0]));
            let refused = if casing.0 { snake } else { camel };
            refused.map_or(Ok(()), |(status, message)| Err(refusal(status, message)))
        });
        sent.into_inner()
    }

    #[test]
    fn refused_field_name_is_retried_once_in_the_other_casing_which_is_remembered() {
        for refused in [
            (400, "Missing parameter: client_id"),
            (422, "property clientId should not exist"),
            (422, "client_id should not be empty; client_id must be a string"),
            (422, "property clientId should not exist; property grantType should not exist"),
        ] {
            let names = FieldNames::default();
            assert_eq!(sent(&names, Some(refused), None), ["clientId", "client_id"], "{refused:?}");
            assert_eq!(sent(&names, Some(refused), None), ["client_id"], "{refused:?}");
            let back = (422, "property client_id should not exist");
            assert_eq!(
                sent(&names, None, Some(back)),
                ["client_id", "clientId"],
                "the server was changed"
            );
            assert_eq!(sent(&names, None, Some(back)), ["clientId"]);
        }
    }

    #[test]
    fn other_refusals_are_returned_and_two_refused_casings_return_the_first_refusal() {
        for other in [
            (400, "Missing parameter: clientId"),
            (400, "Missing parameter: client_identity"),
            (422, "clientId should not be empty"),
            (422, "client_id must be a string"),
            (422, "property client_id should not exist"),
            (422, "property code should not exist"),
            (500, "Missing parameter: client_id"),
        ] {
            assert_eq!(sent(&FieldNames::default(), Some(other), None), ["clientId"], "{other:?}");
        }
        let names = FieldNames::default();
        let both = [
            (422, "property clientId should not exist"),
            (422, "property client_id should not exist"),
        ];
        let error = names.send(&NAMES, |casing| {
            let (status, message) = both[usize::from(casing.0)];
            Err::<(), _>(refusal(status, message))
        });
        let error = error.unwrap_err().error;
        assert!(error.api().unwrap().message.as_ref().unwrap().contains("clientId"), "{error}");
        assert_eq!(
            sent(&names, Some(both[0]), Some(both[1])),
            ["clientId", "client_id"],
            "nothing was learned"
        );
    }
}
