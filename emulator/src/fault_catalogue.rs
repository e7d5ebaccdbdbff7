//! Descriptions of the fault kinds and their parameters, for the dashboard, the control API and the
//! documentation.

use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultKindInfo {
    /// Its name in the control API.
    pub kind: &'static str,
    /// Its effect on a request.
    pub what: &'static str,
    /// Its parameters.
    pub parameters: &'static [FaultParameter],
}

/// A parameter of a kind of fault.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultParameter {
    /// Its name in the control API.
    pub name: &'static str,
    /// The type of its value.
    pub form: ParameterForm,
    /// Whether the parameter is required.
    pub required: bool,
    /// The default value, or an example if the parameter is required; in command-line syntax.
    pub value: &'static str,
}

/// The type of a parameter's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ParameterForm {
    /// A whole number.
    Number,
    /// True or false.
    Switch,
    /// A string.
    Text,
    /// A list of name-value pairs.
    Headers,
    /// `beforeProcessing` or `afterProcessing`.
    Stage,
    /// The same, with `afterProcessing` as the default.
    LateStage,
    /// `close`, `cut`, `reset` or `silence`.
    Ending,
    /// One of the real API's error responses.
    Refusal,
}

const fn required(name: &'static str, form: ParameterForm, value: &'static str) -> FaultParameter {
    FaultParameter { name, form, required: true, value }
}

const fn optional(name: &'static str, form: ParameterForm, value: &'static str) -> FaultParameter {
    FaultParameter { name, form, required: false, value }
}

const STAGE: FaultParameter = optional("stage", ParameterForm::Stage, "beforeProcessing");
const ENDING: FaultParameter = optional("ending", ParameterForm::Ending, "close");

const fn kind(
    kind: &'static str,
    what: &'static str,
    parameters: &'static [FaultParameter],
) -> FaultKindInfo {
    FaultKindInfo { kind, what, parameters }
}

use ParameterForm::{Headers, Number, Refusal, Switch, Text};

/// Every kind of fault.
pub const FAULT_KINDS: [FaultKindInfo; 22] = [
    kind("replyLost", "processed, then closed without a response", &[]),
    kind("reset", "a TCP reset before the first byte", &[STAGE]),
    kind(
        "cutBody",
        "processed; the complete head is sent, then only a part of the body",
        &[optional("bodyBytes", Number, "0"), ENDING],
    ),
    kind("stall", "held until the fault is deleted, then processed normally", &[STAGE]),
    kind(
        "drip",
        "processed; the response is sent one byte at a time",
        &[required("everyMs", Number, "50"), optional("bodyOnly", Switch, "false")],
    ),
    kind(
        "status",
        "a custom response",
        &[
            required("status", Number, "503"),
            optional("body", Text, ""),
            optional("contentType", Text, ""),
            optional("headers", Headers, ""),
            STAGE,
        ],
    ),
    kind(
        "refusal",
        "not processed; an error response of the real API",
        &[required("refusal", Refusal, "invalidGrant")],
    ),
    kind(
        "replaceStatus",
        "processed; the normal response with another status",
        &[required("status", Number, "201")],
    ),
    kind("emptyBody", "processed; a success response without a body", &[]),
    kind("truncatedJson", "processed; the first half of the JSON, in a complete HTTP message", &[]),
    kind("notJson", "processed; plain text labelled as JSON", &[]),
    kind("stringified", "processed; numbers and booleans as strings", &[]),
    kind("wrongTypes", "processed; numbers for strings, lists for numbers", &[]),
    kind("snakeCase", "processed; keys in `snake_case`, as in older versions", &[]),
    kind(
        "hugeBody",
        "processed; the normal JSON, followed by spaces",
        &[optional("bytes", Number, "200000000"), optional("chunked", Switch, "false")],
    ),
    kind(
        "gzip",
        "processed; gzip without `Accept-Encoding`",
        &[optional("marked", Switch, "false")],
    ),
    kind(
        "hugeHead",
        "processed; an oversized header section",
        &[optional("bytes", Number, "1048576"), optional("lines", Number, "1")],
    ),
    kind(
        "redirect",
        "not processed; redirected to another URL or to the same one",
        &[required("status", Number, "307"), optional("location", Text, "")],
    ),
    kind(
        "commandTimedOut",
        "a transient 401 `Command timed out`; with `asObject` its `message` is an object that \
         contains the text",
        &[STAGE, optional("asObject", Switch, "false")],
    ),
    kind(
        "unavailablePage",
        "a gateway's 503 page in HTML, without `Retry-After`",
        &[optional("stage", ParameterForm::LateStage, "afterProcessing")],
    ),
    kind(
        "otherOwner",
        "processed; a refresh, code or mint returns the token of another owner, by default the \
         location's company",
        &[optional("ownerId", Text, "")],
    ),
    kind(
        "raw",
        "not processed; arbitrary bytes instead of HTTP",
        &[required("text", Text, "SSH-2.0-x"), ENDING],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{FaultKind, from_json};
    use serde_json::{Map, Value, json};

    /// The names that serde lists in its error for an unknown name.
    fn expected(complaint: &str) -> Vec<String> {
        let (_, names) = complaint.split_once("expected").unwrap_or_default();
        names.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    fn value_of(parameter: &FaultParameter) -> Value {
        match parameter.form {
            Number => parameter.value.parse::<u64>().unwrap().into(),
            Switch => parameter.value.parse::<bool>().unwrap().into(),
            Headers => json!([]),
            _ => parameter.value.into(),
        }
    }

    fn fault_of(
        info: &FaultKindInfo,
        takes: impl Fn(&FaultParameter) -> bool,
    ) -> Map<String, Value> {
        let parameters = info.parameters.iter().filter(|parameter| takes(parameter));
        let mut fault = Map::from_iter([("kind".to_owned(), json!(info.kind))]);
        fault.extend(parameters.map(|parameter| (parameter.name.to_owned(), value_of(parameter))));
        fault
    }

    #[test]
    fn every_kind_is_listed_in_the_order_of_its_definition() {
        let complaint =
            serde_json::from_value::<FaultKind>(json!("no such kind")).unwrap_err().to_string();
        assert_eq!(expected(&complaint), FAULT_KINDS.map(|info| info.kind));
    }

    #[test]
    fn every_parameter_is_listed_with_its_default() {
        for info in &FAULT_KINDS {
            let mut wrong = fault_of(info, |parameter| parameter.required);
            let least = from_json(wrong.clone()).unwrap().1;
            let most =
                from_json(fault_of(info, |parameter| !parameter.value.is_empty())).unwrap().1;
            assert_eq!(least, most, "{}: the defaults", info.kind);
            for parameter in info.parameters.iter().filter(|parameter| parameter.required) {
                let without =
                    fault_of(info, |other| other.required && other.name != parameter.name);
                assert!(from_json(without).is_err(), "{} without {}", info.kind, parameter.name);
            }
            if !info.parameters.is_empty() {
                wrong.insert("no such parameter".to_owned(), Value::Null);
                let names: Vec<_> =
                    info.parameters.iter().map(|parameter| parameter.name.to_owned()).collect();
                let complaint = from_json(wrong).unwrap_err().to_string();
                assert_eq!(expected(&complaint), names, "{}", info.kind);
            }
        }
    }
}
