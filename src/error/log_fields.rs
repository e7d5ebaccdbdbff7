//! The fields at the end of a log line: ` key=value`, with a JSON string for a value that is no
//! plain word.

use std::fmt::{self, Write};

use super::Error;

/// The fields of a log line about a company or location, and perhaps about an error.
pub struct LogFields<'a> {
    resource_id: &'a str,
    error: Option<&'a Error>,
}

/// The fields of a log line about a company or location.
pub fn about(resource_id: &str) -> LogFields<'_> {
    LogFields { resource_id, error: None }
}

impl Error {
    /// The fields of a log line about this error, of the named company or location.
    pub fn fields<'a>(&'a self, resource_id: &'a str) -> LogFields<'a> {
        LogFields { resource_id, error: Some(self) }
    }
}

impl fmt::Display for LogFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.resource_id.is_empty() {
            field(f, "resource_id", self.resource_id)?;
        }
        let Some(error) = self.error else { return Ok(()) };
        field(f, "status", error.status().name())?;
        if let Some(http_status) = error.http_status() {
            write!(f, " http_status={http_status}")?;
        }
        if let Some(trace_id) = error.api().and_then(|fault| fault.trace_id.as_deref()) {
            field(f, "trace_id", trace_id)?;
        }
        // The error may be about another resource, such as the location's company.
        if let Some(other) = error.resource_id().filter(|other| *other != self.resource_id) {
            field(f, "of", other)?;
        }
        field(f, "reason", error.message())?;
        error.help().map_or(Ok(()), |help| field(f, "help", help))
    }
}

/// Writes ` key=value`.
fn field(f: &mut fmt::Formatter<'_>, key: &str, value: &str) -> fmt::Result {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    if !value.is_empty() && value.bytes().all(is_word) {
        write!(f, " {key}={value}")?;
        return Ok(());
    }
    write!(f, " {key}=")?;
    for character in serde_json::Value::from(value).to_string().chars() {
        // JSON escapes only C0: these characters change how a terminal shows the line as well.
        match character {
            '\u{7f}'..='\u{9f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                write!(f, "\\u{:04x}", u32::from(character))?;
            }
            other => f.write_char(other)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Status;

    #[test]
    fn words_are_plain_and_other_values_are_json_strings() {
        let error = Error::new(Status::Store, "the disk is \"full\"\nnow")
            .with_help("free it")
            .with_resource("company");
        assert_eq!(
            error.fields("a b").to_string(),
            r#" resource_id="a b" status=GHL_ERR_STORE of=company reason="the disk is \"full\"\nnow" help="free it""#
        );
        assert_eq!(about("c-1").to_string(), " resource_id=c-1");
        assert_eq!(
            about("a\u{9b}\u{202e}\u{2069}ü").to_string(),
            r#" resource_id="a\u009b\u202e\u2069ü""#
        );
    }
}
