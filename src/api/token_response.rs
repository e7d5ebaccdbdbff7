//! The token response (RFC 6749, section 5.1): parses the known fields and keeps the others.

use std::fmt;

use serde::Deserialize;
use serde::de::value::{Error as NeverKept, StrDeserializer};
use serde::de::{Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::{Failure, SuccessResponse, fault};
use crate::error::ApiFault;
use crate::json::{camel_case, integer, is_absent, secret, string};
use crate::token::{Token, UserType, expiry, is_token_text, is_valid_id};

/// The fields of the response, in camelCase.
#[derive(Default)]
struct TokenResponse {
    access_token: Option<Value>,
    refresh_token: Option<Value>,
    expires_in: Option<Value>,
    user_type: Option<Value>,
    company_id: Option<Value>,
    location_id: Option<Value>,
    scope: Option<Value>,
    others: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum FieldName {
    AccessToken,
    RefreshToken,
    ExpiresIn,
    UserType,
    CompanyId,
    LocationId,
    Scope,
    Other(String),
}

impl FieldName {
    fn of(name: String) -> FieldName {
        let source: StrDeserializer<NeverKept> = name.as_str().into_deserializer();
        FieldName::deserialize(source).unwrap_or(FieldName::Other(name))
    }
}

impl TokenResponse {
    /// The slot of a known field; otherwise the name.
    fn slot(&mut self, name: FieldName) -> Result<&mut Option<Value>, String> {
        Ok(match name {
            FieldName::AccessToken => &mut self.access_token,
            FieldName::RefreshToken => &mut self.refresh_token,
            FieldName::ExpiresIn => &mut self.expires_in,
            FieldName::UserType => &mut self.user_type,
            FieldName::CompanyId => &mut self.company_id,
            FieldName::LocationId => &mut self.location_id,
            FieldName::Scope => &mut self.scope,
            FieldName::Other(name) => return Err(name),
        })
    }
}

impl<'de> Deserialize<'de> for TokenResponse {
    fn deserialize<D: Deserializer<'de>>(source: D) -> Result<TokenResponse, D::Error> {
        source.deserialize_map(ResponseVisitor)
    }
}

struct ResponseVisitor;

impl<'de> Visitor<'de> for ResponseVisitor {
    type Value = TokenResponse;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut response: A) -> Result<TokenResponse, A::Error> {
        let mut fields = TokenResponse::default();
        let mut older = Vec::new();
        while let Some(name) = response.next_key()? {
            let value: Value = response.next_value()?;
            match fields.slot(name) {
                Ok(_) if is_absent(&value) => {}
                Ok(slot) => *slot = Some(value),
                Err(other) => match camel_case(&other) {
                    Some(newer) => older.push((newer, value)),
                    None => {
                        fields.others.insert(other, value);
                    }
                },
            }
        }
        // As in `in_camel_case`, camelCase wins unless it is null or empty.
        for (name, value) in older {
            match fields.slot(FieldName::of(name)) {
                Ok(slot) => {
                    slot.get_or_insert(value);
                }
                Err(other) => {
                    fields.others.entry(other).or_insert(value);
                }
            }
        }
        Ok(fields)
    }
}

pub(super) fn parse_token_response(reply: &SuccessResponse, now_ms: i64) -> Result<Token, Failure> {
    let TokenResponse {
        access_token,
        refresh_token,
        expires_in,
        user_type,
        company_id,
        location_id,
        scope,
        others,
    } = reply.read()?;
    let access_token = match secret(access_token) {
        Ok(Some(string)) if !is_token_text(string.expose()) => Err(()),
        access_token => access_token,
    };
    let (Ok(Some(access_token)), Ok(refresh_token)) = (access_token, secret(refresh_token)) else {
        let trace_id = fault::trace_id(&reply.response, &others, &reply.secrets);
        let fault = ApiFault { trace_id, ..ApiFault::default() };
        return Err(reply.unexpected("has no valid accessToken", fault));
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
        user_type: user_type.and_then(string).and_then(|name| UserType::from_name(&name)),
        company_id: company_id.and_then(id),
        location_id: location_id.and_then(id),
        scope: scope.and_then(string),
        fields,
    })
}

/// The ID of an owner. A string that cannot be an ID counts as absent.
fn id(value: Value) -> Option<String> {
    string(value).filter(|id| is_valid_id(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(response: &str) -> Result<TokenResponse, serde_json::Error> {
        serde_json::from_str(response)
    }

    #[test]
    fn newer_spelling_of_a_field_wins_in_any_order() {
        for response in [
            r#"{"accessToken":"new","access_token":"old","expires_in":5,"token_type":"Bearer","_id":1}"#,
            r#"{"access_token":"old","_id":1,"token_type":"Bearer","accessToken":"new","expires_in":5}"#,
            r#"{"access_token":"old","access\u0054oken":"new","tokenType":"Bearer","token_type":"x","expires_in":5,"_id":1}"#,
        ] {
            let fields = read(response).unwrap();
            assert_eq!(fields.access_token, Some(json!("new")), "{response}");
            assert_eq!(fields.expires_in, Some(json!(5)), "{response}");
            assert_eq!(
                Value::Object(fields.others),
                json!({"_id": 1, "tokenType": "Bearer"}),
                "{response}"
            );
        }
    }

    #[test]
    fn null_in_the_newer_spelling_does_not_hide_a_value_in_the_older_spelling() {
        for response in [
            r#"{"refreshToken":null,"refresh_token":"new"}"#,
            r#"{"refresh_token":"new","refreshToken":null}"#,
        ] {
            assert_eq!(read(response).unwrap().refresh_token, Some(json!("new")), "{response}");
        }
        assert_eq!(read(r#"{"refreshToken":null}"#).unwrap().refresh_token, None);
    }

    #[test]
    fn token_response_must_be_an_object() {
        for response in ["", "[]", "null", "\"accessToken\"", "{\"accessToken\":\"a\"", "{} x"] {
            assert!(read(response).is_err(), "{response}");
        }
        assert!(read("{}").unwrap().access_token.is_none());
    }
}
