//! Reads the fields of the token endpoints in the configured naming style.
//!
//! The endpoints use camelCase names. In snake_case mode, the names of a request are translated
//! before processing, and the names in error responses are translated back.

use crate::answer::Answer;
use crate::behaviour::FieldNames;
use crate::distortion::snake;
use crate::fields::Fields;

/// The fields of a request to a token endpoint, by camelCase name.
#[derive(Debug)]
pub(crate) struct NamedFields {
    fields: Fields,
    names: FieldNames,
}

impl NamedFields {
    /// Reads the fields and refuses unknown names, with one message for each.
    pub(crate) fn read(fields: Fields, known: &[&str], names: FieldNames) -> Result<Self, Answer> {
        let expected: Vec<_> = known.iter().map(|name| names.write(name)).collect();
        if names != FieldNames::SnakeCaseLenient {
            fields.allow_only(&expected.iter().map(String::as_str).collect::<Vec<_>>())?;
        }
        Ok(Self { fields, names })
    }

    /// The value of a field, by its camelCase name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.fields.get(&self.names.write(name))
    }

    /// The name of a field in the configured style.
    pub(crate) fn written(&self, name: &str) -> String {
        self.names.write(name)
    }
}

impl FieldNames {
    fn write(self, name: &str) -> String {
        match self {
            Self::CamelCase => name.to_owned(),
            Self::SnakeCase | Self::SnakeCaseLenient => snake(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(form: &str, names: FieldNames) -> Result<NamedFields, Answer> {
        NamedFields::read(Fields::from_form(form.as_bytes()).unwrap(), &["clientId", "code"], names)
    }

    #[test]
    fn unexpected_casing_is_refused_by_name() {
        for (form, names, stranger) in [
            ("client_id=a", FieldNames::CamelCase, "client_id"),
            ("clientId=a&client_id=a", FieldNames::CamelCase, "client_id"),
            ("clientId=a", FieldNames::SnakeCase, "clientId"),
            ("clientId=a&client_id=a", FieldNames::SnakeCase, "clientId"),
        ] {
            let refusal = read(form, names).unwrap_err();
            let body = String::from_utf8(refusal.body).unwrap();
            assert_eq!(refusal.status, 422);
            assert!(body.contains(&format!("property {stranger} should not exist")), "{body}");
        }
    }

    #[test]
    fn expected_casing_is_read_and_lenient_servers_ignore_the_other() {
        assert_eq!(read("clientId=a", FieldNames::CamelCase).unwrap().get("clientId"), Some("a"));
        assert_eq!(read("client_id=a", FieldNames::SnakeCase).unwrap().get("clientId"), Some("a"));
        let lenient = read("clientId=a&code=b", FieldNames::SnakeCaseLenient).unwrap();
        assert_eq!((lenient.get("clientId"), lenient.get("code")), (None, Some("b")));
        assert_eq!(lenient.written("clientId"), "client_id");
    }
}
