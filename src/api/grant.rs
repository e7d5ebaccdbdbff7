//! The answer that grants a token. What the library knows of it is read right into its place, everything else goes along.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{Error as NeverKept, StrDeserializer};
use serde::de::{Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Failure, Reply, fault};
use crate::error::ApiFault;
use crate::json::{camel_case, integer, secret, text};
use crate::token::{Token, UserType, expiry, is_token_text};

/// The answer's fields, in camelCase.
#[derive(Default)]
struct Grant {
    access_token: Option<Value>,
    refresh_token: Option<Value>,
    expires_in: Option<Value>,
    user_type: Option<Value>,
    company_id: Option<Value>,
    location_id: Option<Value>,
    scope: Option<Value>,
    others: Map<String, Value>,
}

/// The name of a field.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Name {
    AccessToken,
    RefreshToken,
    ExpiresIn,
    UserType,
    CompanyId,
    LocationId,
    Scope,
    Other(String),
}

impl Name {
    fn of(name: String) -> Name {
        let source: StrDeserializer<NeverKept> = name.as_str().into_deserializer();
        Name::deserialize(source).unwrap_or(Name::Other(name))
    }
}

impl Grant {
    /// Where a field goes that the library knows; else its name again.
    fn place(&mut self, name: Name) -> Result<&mut Option<Value>, String> {
        Ok(match name {
            Name::AccessToken => &mut self.access_token,
            Name::RefreshToken => &mut self.refresh_token,
            Name::ExpiresIn => &mut self.expires_in,
            Name::UserType => &mut self.user_type,
            Name::CompanyId => &mut self.company_id,
            Name::LocationId => &mut self.location_id,
            Name::Scope => &mut self.scope,
            Name::Other(name) => return Err(name),
        })
    }
}

impl<'de> Deserialize<'de> for Grant {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<Grant, D::Error> {
        source.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Grant;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut answer: A) -> Result<Grant, A::Error> {
        let mut grant = Grant::default();
        let mut older = Vec::new();
        while let Some(name) = answer.next_key()? {
            let value = answer.next_value()?;
            match grant.place(name) {
                Ok(place) => *place = Some(value),
                Err(other) => match camel_case(&other) {
                    Some(newer) => older.push((newer, value)),
                    None => {
                        grant.others.insert(other, value);
                    }
                },
            }
        }
        // As in `in_camel_case`: the newer spelling wins.
        for (name, value) in older {
            match grant.place(Name::of(name)) {
                Ok(place) => {
                    place.get_or_insert(value);
                }
                Err(other) => {
                    grant.others.entry(other).or_insert(value);
                }
            }
        }
        Ok(grant)
    }
}

/// Reads a token out of an answer; every field that is not known goes along.
pub(super) fn granted(reply: &Reply, now_ms: i64) -> Result<Token, Failure> {
    let Grant { access_token, refresh_token, expires_in, user_type, company_id, location_id, scope, others } =
        reply.read()?;
    let access_token = match secret(access_token) {
        Ok(Some(text)) if !is_token_text(text.expose()) => Err(()),
        access_token => access_token,
    };
    let (Ok(Some(access_token)), Ok(refresh_token)) = (access_token, secret(refresh_token)) else {
        let trace_id = fault::trace_id(&reply.answer, &others, &reply.secrets);
        let fault = ApiFault { trace_id, ..ApiFault::default() };
        return Err(reply.not_understood("holds no accessToken, or none that can be read", fault));
    };
    let seconds = expires_in.as_ref().and_then(integer);
    let mut fields = others;
    if let Some(expires_in) = expires_in {
        fields.insert("expiresIn".into(), seconds.map_or(expires_in, Value::from));
    }
    Ok(Token {
        access_token,
        refresh_token,
        issued_at: Some(now_ms),
        expires_at: expiry(now_ms, seconds),
        user_type: user_type.and_then(text).and_then(|name| UserType::from_name(&name)),
        company_id: company_id.and_then(text),
        location_id: location_id.and_then(text),
        scope: scope.and_then(text),
        fields,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(answer: &str) -> Result<Grant, serde_json::Error> {
        serde_json::from_str(answer)
    }

    #[test]
    fn the_newer_spelling_of_a_field_wins_whatever_the_order() {
        for answer in [
            r#"{"accessToken":"new","access_token":"old","expires_in":5,"token_type":"Bearer","_id":1}"#,
            r#"{"access_token":"old","_id":1,"token_type":"Bearer","accessToken":"new","expires_in":5}"#,
            r#"{"access_token":"old","access\u0054oken":"new","tokenType":"Bearer","token_type":"x","expires_in":5,"_id":1}"#,
        ] {
            let grant = read(answer).unwrap();
            assert_eq!(grant.access_token, Some(json!("new")), "{answer}");
            assert_eq!(grant.expires_in, Some(json!(5)), "{answer}");
            assert_eq!(Value::Object(grant.others), json!({"_id": 1, "tokenType": "Bearer"}), "{answer}");
        }
    }

    #[test]
    fn nothing_but_an_object_is_an_answer() {
        for answer in ["", "[]", "null", "\"accessToken\"", "{\"accessToken\":\"a\"", "{} x"] {
            assert!(read(answer).is_err(), "{answer}");
        }
        assert!(read("{}").unwrap().access_token.is_none());
    }
}
