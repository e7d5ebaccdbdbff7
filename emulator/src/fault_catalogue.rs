//! The kinds of fault with their parameters, in words: for the dashboard's form, the control API and the documentation.

use serde::Serialize;

/// A kind of fault.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultKindInfo {
    /// Its name in the control API.
    pub kind: &'static str,
    /// What happens to a request.
    pub what: &'static str,
    /// What it can or must be given.
    pub parameters: &'static [FaultParameter],
}

/// A parameter of a kind of fault.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultParameter {
    /// Its name in the control API.
    pub name: &'static str,
    /// What its value is.
    pub form: ParameterForm,
    /// Whether the fault is refused without it.
    pub required: bool,
    /// What holds when it is not given; of a required one, an example. As it would be typed.
    pub value: &'static str,
}

/// What the value of a parameter is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ParameterForm {
    /// A whole number.
    Number,
    /// True or false.
    Switch,
    /// A text.
    Text,
    /// A list of pairs of name and value.
    Headers,
    /// `beforeProcessing` or `afterProcessing`.
    Stage,
    /// The same, where the second is the usual one.
    LateStage,
    /// `close`, `cut`, `reset` or `silence`.
    Ending,
    /// One of the real API's refusals.
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
    kind("replyLost", "processed, then closed without a byte", &[]),
    kind("reset", "a TCP reset before the first byte", &[STAGE]),
    kind(
        "cutBody",
        "processed; the whole head arrives, and a part of the body",
        &[optional("bodyBytes", Number, "0"), ENDING],
    ),
    kind("stall", "held until the fault is deleted, then as if nothing had been", &[STAGE]),
    kind(
        "drip",
        "processed; the answer comes a byte at a time",
        &[required("everyMs", Number, "50"), optional("bodyOnly", Switch, "false")],
    ),
    kind(
        "status",
        "an answer of your own",
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
        "not processed; a refusal in the real API's own words",
        &[required("refusal", Refusal, "invalidGrant")],
    ),
    kind(
        "replaceStatus",
        "processed; the right answer under another status",
        &[required("status", Number, "201")],
    ),
    kind("emptyBody", "processed; a success without a body", &[]),
    kind("truncatedJson", "processed; the first half of the JSON, in a complete message", &[]),
    kind("notJson", "processed; a text that calls itself JSON", &[]),
    kind("stringified", "processed; numbers and booleans as strings", &[]),
    kind("wrongTypes", "processed; numbers for strings, lists for numbers", &[]),
    kind("snakeCase", "processed; keys in `snake_case`, as older versions had them", &[]),
    kind(
        "hugeBody",
        "processed; the right JSON, then blanks",
        &[optional("bytes", Number, "200000000"), optional("chunked", Switch, "false")],
    ),
    kind("gzip", "processed; gzip, which nobody asked for", &[optional("marked", Switch, "false")]),
    kind(
        "hugeHead",
        "processed; headers, and more headers",
        &[optional("bytes", Number, "1048576"), optional("lines", Number, "1")],
    ),
    kind(
        "redirect",
        "not processed; sent elsewhere, or back to the same URL",
        &[required("status", Number, "307"), optional("location", Text, "")],
    ),
    kind(
        "commandTimedOut",
        "a transient 401 `Command timed out`; with `asObject` its `message` is an object that holds the text",
        &[STAGE, optional("asObject", Switch, "false")],
    ),
    kind(
        "unavailablePage",
        "a gateway's 503 page in HTML, without `Retry-After`",
        &[optional("stage", ParameterForm::LateStage, "afterProcessing")],
    ),
    kind(
        "otherOwner",
        "processed; a refresh, code or mint gets the token of another owner, by default of the location's company",
        &[optional("ownerId", Text, "")],
    ),
    kind("raw", "not processed; bytes that need not be HTTP", &[required("text", Text, "SSH-2.0-x"), ENDING]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{FaultKind, from_json};
    use serde_json::{Map, Value, json};

    /// The names that serde lists when it meets one that it does not know.
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

    fn fault_of(info: &FaultKindInfo, takes: impl Fn(&FaultParameter) -> bool) -> Map<String, Value> {
        let parameters = info.parameters.iter().filter(|parameter| takes(parameter));
        let mut fault = Map::from_iter([("kind".to_owned(), json!(info.kind))]);
        fault.extend(parameters.map(|parameter| (parameter.name.to_owned(), value_of(parameter))));
        fault
    }

    #[test]
    fn every_kind_is_listed_in_the_order_of_its_definition() {
        let complaint = serde_json::from_value::<FaultKind>(json!("no such kind")).unwrap_err().to_string();
        assert_eq!(expected(&complaint), FAULT_KINDS.map(|info| info.kind));
    }

    #[test]
    fn every_parameter_is_listed_with_its_default() {
        for info in &FAULT_KINDS {
            let mut wrong = fault_of(info, |parameter| parameter.required);
            let least = from_json(wrong.clone()).unwrap().1;
            let most = from_json(fault_of(info, |parameter| !parameter.value.is_empty())).unwrap().1;
            assert_eq!(least, most, "{}: the defaults", info.kind);
            for parameter in info.parameters.iter().filter(|parameter| parameter.required) {
                let without = fault_of(info, |other| other.required && other.name != parameter.name);
                assert!(from_json(without).is_err(), "{} without {}", info.kind, parameter.name);
            }
            if !info.parameters.is_empty() {
                wrong.insert("no such parameter".to_owned(), Value::Null);
                let names: Vec<_> =
                    info.parameters.iter().map(|parameter| parameter.name.to_owned()).collect();
                assert_eq!(expected(&from_json(wrong).unwrap_err()), names, "{}", info.kind);
            }
        }
    }
}
