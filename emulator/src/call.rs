//! A parsed HTTP request, as the endpoints use it.

use crate::answer::Answer;
use crate::fields::{FieldError, Fields};
use axum::body::to_bytes;
use axum::extract::Request;

/// Size limit of a request body; real requests are far smaller.
const BODY_LIMIT: usize = 1 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// Names in lower case, in the order of arrival.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Call {
    /// Reads a whole request.
    pub(crate) async fn read(request: Request) -> Result<Self, Answer> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, BODY_LIMIT)
            .await
            .map_err(|_| Answer::refusal(413, "Payload Too Large"))?;
        Ok(Self {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            headers: head
                .headers
                .iter()
                .map(|(name, value)| {
                    (
                        name.as_str().to_owned(),
                        String::from_utf8_lossy(value.as_bytes()).into_owned(),
                    )
                })
                .collect(),
            body: body.to_vec(),
        })
    }

    /// All values of a header.
    pub(crate) fn header_values<'a, 'n>(
        &'a self,
        name: &'n str,
    ) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The value of a header that occurs exactly once.
    pub(crate) fn only_header(&self, name: &str) -> Option<&str> {
        let mut values = self.header_values(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// The media type of the body, without parameters.
    pub(crate) fn media_type(&self) -> Option<String> {
        let value = self.only_header("content-type")?;
        let (media_type, _) = value.split_once(';').unwrap_or((value, ""));
        Some(media_type.trim().to_ascii_lowercase())
    }

    pub(crate) fn query_fields(&self) -> Result<Fields, FieldError> {
        match &self.query {
            Some(query) => Fields::from_form(query.as_bytes()),
            None => Ok(Fields::default()),
        }
    }

    /// The fields of a form body.
    pub(crate) fn form(&self) -> Result<Fields, Answer> {
        self.body_fields(false)
    }

    /// The fields of a body that is a form or JSON.
    pub(crate) fn form_or_json(&self) -> Result<Fields, Answer> {
        self.body_fields(true)
    }

    fn body_fields(&self, json_too: bool) -> Result<Fields, Answer> {
        // The real server would ignore fields in the query, and its logs would contain the secrets.
        let query = self.query_fields().map_err(|error| error.answer())?;
        query.allow_only(&[])?;
        let fields = match self.media_type().as_deref() {
            Some("application/x-www-form-urlencoded") => Fields::from_form(&self.body),
            Some("application/json") if json_too => Fields::from_json(&self.body),
            _ => return Err(Answer::refusal(415, "Unsupported Media Type")),
        };
        fields.map_err(|error| error.answer())
    }

    /// Refuses a request with a body.
    pub(crate) fn without_body(&self) -> Result<(), Answer> {
        if self.body.is_empty() { Ok(()) } else { Err(Answer::refusal(400, "Unexpected body")) }
    }
}
