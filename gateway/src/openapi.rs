//! The OpenAPI document of the server, written by hand; tests hold it to the routes and the fields.

use serde_json::{Value, json};

/// The document.
pub fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Polity edge",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "How agents act. Every request carries a bearer token of audience `polity`. A call is decided by the rules of the Org and of every Org above it, recorded, and only then run."
        },
        "security": [{"bearer": []}],
        "paths": {
            "/v1/orgs/{org}/calls": {
                "parameters": [path("org", "Name of the Org.")],
                "post": {
                    "operationId": "createCall",
                    "summary": "Call a Tool: decide, record, run, answer.",
                    "parameters": [traceparent()],
                    "requestBody": {"required": true, "content": content("CallRequest")},
                    "responses": responses(&["400", "401", "403", "408", "409", "413", "415", "429", "503"], &[
                        ("200", "The call has ended; see phase.", "Call"),
                        ("202", "The call runs, or waits for an Approval. Ask for it by its id.", "Call"),
                    ])
                }
            },
            "/v1/orgs/{org}/calls/{id}": {
                "parameters": [path("org", "Name of the Org."), path("id", "Id of a call of your own, or name of its ToolCall.")],
                "get": {
                    "operationId": "readCall",
                    "summary": "State of a call; waits for its end.",
                    "parameters": [{"name": "waitSeconds", "in": "query", "schema": wait()}],
                    "responses": responses(&["400", "401", "404", "429", "503"], &[
                        ("200", "The call has ended.", "Call"),
                        ("202", "The call has not ended yet.", "Call"),
                    ])
                }
            },
            "/v1/orgs/{org}/calls/{id}/cancel": {
                "parameters": [path("org", "Name of the Org."), path("id", "Id of a call of your own, or name of its ToolCall.")],
                "post": {
                    "operationId": "cancelCall",
                    "summary": "Cancel a call: one that has not begun never will, one that runs is stopped, whichever replica runs it.",
                    "responses": responses(&["400", "401", "403", "404", "409", "503"], &[
                        ("200", "The call has ended.", "Call"),
                        ("202", "The call will be canceled.", "Call"),
                    ])
                }
            },
            "/v1/orgs/{org}/evaluate": {
                "parameters": [path("org", "Name of the Org.")],
                "post": {
                    "operationId": "evaluate",
                    "summary": "What would be decided of one or several calls. Nothing runs and nothing is recorded; budgets and idempotency keys, which the ledger has, are not asked.",
                    "parameters": [traceparent()],
                    "requestBody": {"required": true, "content": content("EvaluateRequest")},
                    "responses": responses(&["400", "401", "408", "413", "415", "429", "503"], &[("200", "The decision, or one for each item in their order.", "Evaluation")])
                }
            },
            "/v1/evaluate": {
                "post": {
                    "operationId": "evaluateIn",
                    "summary": "The same, with the Org named in the body.",
                    "parameters": [traceparent()],
                    "requestBody": {"required": true, "content": content("EvaluateRequest")},
                    "responses": responses(&["400", "401", "408", "413", "415", "429", "503"], &[("200", "The decision, or one for each item in their order.", "Evaluation")])
                }
            },
            "/v1/orgs/{org}/mcp": {
                "parameters": [path("org", "Name of the Org.")],
                "post": {
                    "operationId": "mcp",
                    "summary": "Model Context Protocol over streamable HTTP, without sessions: one JSON-RPC message a request.",
                    "requestBody": {"required": true, "content": content("Any")},
                    "responses": {
                        "200": {"description": "A JSON-RPC response, alone or at the end of a stream of events.", "content": {"application/json": {"schema": any()}, "text/event-stream": {"schema": any()}}},
                        "202": {"description": "A notification was taken."},
                        "400": {"description": "Not a message of a protocol revision that is spoken here."},
                        "401": {"description": "No token that the API server accepts for audience polity.", "content": content("Problem")},
                        "403": {"description": "Asked by another name than the server's own, or by a page of a web site."},
                        "406": {"description": "The client does not accept both JSON and a stream of events."},
                        "408": {"description": "The request took too long to arrive.", "content": content("Problem")},
                        "413": {"description": "Too large.", "content": content("Problem")},
                        "415": {"description": "Not JSON.", "content": content("Problem")}
                    }
                }
            },
            "/v1/orgs/{org}/records": {
                "parameters": [path("org", "Name of the Org.")],
                "get": {
                    "operationId": "readRecords",
                    "summary": "The Org's chain of records, page by page, for those who may get records.polity.dev in its namespace. The header `polity-next` has the sequence after which the next page comes, `polity-head` that of the last record.",
                    "parameters": records(),
                    "responses": responses(&["400", "401", "403", "404", "429", "503"], &[("200", "Records, one JSON object a line (application/x-ndjson).", "Any")])
                }
            },
            "/v1/orgs/{org}/events": {
                "parameters": [path("org", "Name of the Org.")],
                "get": {
                    "operationId": "followEvents",
                    "summary": "The Org's chain of records as server-sent events, live: the id of an event is the record's sequence, its name the record's kind, its data the record. Without `after` and `Last-Event-ID` it starts with what comes next. An event `polity-end` says why a stream ends.",
                    "parameters": events(),
                    "responses": event_responses()
                }
            },
            "/v1/orgs/{org}/tools/{tool}/definition": {
                "parameters": [path("org", "Name of the Org."), path("tool", "Name of a Tool of its own, with runtime mcp.")],
                "get": {
                    "operationId": "readDefinition",
                    "summary": "What the Tool's server lists now, and its digest, for those who may update the Tool.",
                    "responses": responses(&["400", "401", "403", "404", "429", "502", "503"], &[("200", "`definition` as JSON text and its `digest`.", "Any")])
                }
            },
            "/shim/v1/runs/{id}/input": {
                "parameters": [path("id", "Id of the run.")],
                "get": {
                    "operationId": "runInput",
                    "summary": "For tool Pods: the input of the Pod's own run, any JSON value. The header `traceparent` has its trace context.",
                    "responses": responses(&["400", "401", "403", "404", "503"], &[("200", "The input.", "Any")])
                }
            },
            "/shim/v1/runs/{id}/result": {
                "parameters": [path("id", "Id of the run.")],
                "post": {
                    "operationId": "runResult",
                    "summary": "For tool Pods: what the tool left behind. The same again is answered the same.",
                    "requestBody": {"required": true, "content": content("RunResult")},
                    "responses": responses(&["400", "401", "403", "404", "408", "413", "415", "503"], &[("200", "Recorded.", "Any")])
                }
            },
            "/openapi.json": {
                "get": {
                    "operationId": "openapi",
                    "summary": "This document.",
                    "security": [],
                    "responses": {"200": {"description": "This document.", "content": content("Any")}}
                }
            }
        },
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "A ServiceAccount token of audience `polity`, or a token of a configured OpenID Connect issuer."}},
            "schemas": schemas()
        }
    })
}

fn schemas() -> Value {
    let text = |most: u32, description: &str| json!({"type": "string", "minLength": 1, "maxLength": most, "description": description});
    json!({
        "Any": {},
        "CallRequest": {
            "type": "object",
            "additionalProperties": false,
            "required": ["tool"],
            "properties": {
                "tool": text(253, "Name of the Tool."),
                "toolOrg": text(50, "Org above that has the Tool and exports it; default: the own Org."),
                "input": {"type": "object", "description": "Input, as the Tool's input schema says; at most 32 KiB."},
                "taskRef": text(253, "Task that the call is for."),
                "jobSpace": text(63, "Job space that the call is for; with taskRef, that Task's."),
                "context": text(128, "Opaque id of the conversation."),
                "idempotencyKey": text(128, "The same key with the same request never runs twice, for at least 24 h; with another request it is refused."),
                "waitSeconds": wait()
            }
        },
        "Call": {
            "type": "object",
            "required": ["id", "phase"],
            "properties": {
                "id": {"type": "string", "description": "Ask for the call by it."},
                "phase": {"type": "string", "enum": ["Pending", "WaitingApproval", "Running", "Succeeded", "Failed", "Denied", "Canceled", "Unknown"]},
                "call": {"type": "string", "description": "Name of the ToolCall, when there is one."},
                "approval": {"type": "string", "description": "Name of the Approval that the call waits for or rests on."},
                "reason": {"type": "string", "description": "Stable reason code of anything but a success."},
                "message": {"type": "string"},
                "input": {"type": "object", "description": "The input as rules have rewritten it; absent when they left it alone."},
                "result": {
                    "type": "object",
                    "properties": {
                        "output": {"description": "What came out, up to 16 KiB."},
                        "digest": digest(),
                        "size": {"type": "integer"},
                        "code": {"type": "integer", "description": "HTTP status or exit code."},
                        "stderrTail": {"type": "string"}
                    }
                },
                "decision": {"type": "object", "properties": decision()}
            }
        },
        "EvaluateRequest": {
            "type": "object",
            "additionalProperties": false,
            "description": "Either the fields of one call, or items with several.",
            "properties": {
                "org": text(50, "Name of the Org; only where the path does not name it."),
                "items": {"type": "array", "minItems": 1, "maxItems": crate::evaluate::MAX_ITEMS, "items": {"type": "object", "additionalProperties": false, "required": ["tool"], "properties": asked()}},
                "tool": asked()["tool"], "toolOrg": asked()["toolOrg"], "input": asked()["input"],
                "taskRef": asked()["taskRef"], "jobSpace": asked()["jobSpace"], "context": asked()["context"]
            }
        },
        "Evaluation": {
            "type": "object",
            "description": "The decision on one call, or items with one each. An item that cannot be read is a Deny with reason InvalidRequest.",
            "properties": evaluation()
        },
        "RunResult": {
            "type": "object",
            "required": ["exitCode", "stdout"],
            "properties": {
                "exitCode": {"type": "integer"},
                "stdout": {"type": "string", "description": "At most 1 MiB."},
                "stderrTail": {"type": "string"},
                "timedOut": {"type": "boolean"},
                "tooLarge": {"type": "boolean"}
            }
        },
        "Problem": {
            "type": "object",
            "required": ["reason", "message"],
            "properties": {
                "reason": {"type": "string", "description": "Stable reason code."},
                "message": {"type": "string"},
                "hint": {"type": "string", "description": "What would pass."},
                "rules": {"type": "array", "items": {"type": "string"}, "description": "Rules that led to it, as namespace/policy/rule."},
                "snapshot": {"type": "string", "description": "Digest of the view that decided."},
                "id": {"type": "string", "description": "Id under which a denial is recorded."}
            }
        }
    })
}

fn any() -> Value {
    json!({"$ref": "#/components/schemas/Any"})
}

/// Fields of a decision as shown.
fn decision() -> Value {
    json!({
        "verdict": {"type": "string", "enum": ["Allow", "Deny", "RequireApproval"]},
        "reason": {"type": "string"},
        "message": {"type": "string"},
        "hint": {"type": "string"},
        "rules": {"type": "array", "items": {"type": "string"}},
        "advisory": {"type": "array", "items": {"type": "string"}},
        "rewrites": {"type": "array", "description": "What rules changed in the input.", "items": {"type": "object", "properties": {
            "rule": {"type": "string"},
            "paths": {"type": "array", "items": {"type": "string"}, "description": "JSON Pointers."}
        }}},
        "snapshot": {"type": "string"},
        "input": digest(),
        "record": {"type": "integer"},
        "at": {"type": "string", "format": "date-time"},
        "by": {"type": "string"}
    })
}

/// Fields of a decision that nothing follows from: no record, no digest of the input.
fn evaluation() -> Value {
    let mut fields = decision();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("record");
        fields.remove("input");
        fields.insert(
            "requirements".to_owned(),
            json!({"type": "array", "items": {"type": "object"}, "description": "Who would have to approve."}),
        );
        fields.insert("items".to_owned(), json!({"type": "array", "items": {"$ref": "#/components/schemas/Evaluation"}}));
    }
    fields
}

/// Fields of a call that is asked about.
fn asked() -> Value {
    let text = |most: u32, description: &str| json!({"type": "string", "minLength": 1, "maxLength": most, "description": description});
    json!({
        "tool": text(253, "Name of the Tool."),
        "toolOrg": text(50, "Org above that has the Tool and exports it; default: the own Org."),
        "input": {"type": "object", "description": "Input, as the Tool's input schema says; at most 32 KiB."},
        "taskRef": text(253, "Task that the call is for."),
        "jobSpace": text(63, "Job space that the call is for; with taskRef, that Task's."),
        "context": text(128, "Opaque id of the conversation.")
    })
}

fn records() -> Value {
    let kind = |name: &str| match name {
        "after" | "limit" | "wait" => json!({"type": "integer", "minimum": 0}),
        "roots" => json!({"type": "boolean"}),
        "since" | "until" => json!({"type": "string", "format": "date-time"}),
        _ => json!({"type": "string"}),
    };
    crate::records::PARAMETERS.iter().map(|name| json!({"name": name, "in": "query", "schema": kind(name)})).collect()
}

fn events() -> Value {
    let kind = |name: &str| match name {
        "after" => json!({"type": "integer", "minimum": 0}),
        "since" => json!({"type": "string", "format": "date-time"}),
        _ => json!({"type": "string"}),
    };
    let mut parameters: Vec<Value> =
        crate::events::PARAMETERS.iter().map(|name| json!({"name": name, "in": "query", "schema": kind(name)})).collect();
    let seen = "The last id that was seen: the stream goes on behind it. Wins over `after`.";
    parameters.push(json!({"name": "Last-Event-ID", "in": "header", "schema": {"type": "integer", "minimum": 0}, "description": seen}));
    Value::Array(parameters)
}

fn event_responses() -> Value {
    let mut answers = responses(&["400", "401", "403", "404", "410", "429", "503"], &[]);
    answers["200"] = json!({"description": "The stream.", "content": {"text/event-stream": {"schema": {"type": "string"}}}});
    answers
}

fn wait() -> Value {
    json!({"type": "integer", "minimum": 0, "maximum": crate::body::MAX_WAIT, "default": 30, "description": "Seconds to wait for the end of the call."})
}

fn digest() -> Value {
    json!({"type": "object", "properties": {"digest": {"type": "string"}, "keyId": {"type": "string"}}})
}

fn traceparent() -> Value {
    json!({"name": "traceparent", "in": "header", "schema": {"type": "string"}, "description": "W3C trace context to go on with."})
}

fn path(name: &str, description: &str) -> Value {
    json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}, "description": description})
}

fn content(schema: &str) -> Value {
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}})
}

fn responses(problems: &[&str], good: &[(&str, &str, &str)]) -> Value {
    let meaning = |status: &str| match status {
        "400" => "The request is malformed.",
        "401" => "No token that the API server accepts for audience polity.",
        "403" => "Denied, with rule, reason and hint.",
        "404" => "There is no such thing, or it is not yours.",
        "408" => "The request took too long to arrive.",
        "409" => "It does not fit what was asked or done before.",
        "410" => "Records after that sequence are not there any more; the header `polity-oldest` has the oldest one left.",
        "413" => "Too large.",
        "415" => "Not JSON.",
        "429" => "Too much under way; see Retry-After.",
        "502" => "The Tool's server cannot be asked, or does not list it.",
        _ => "It cannot be decided or recorded now; see Retry-After.",
    };
    let bad = problems.iter().map(|status| ((*status).to_owned(), json!({"description": meaning(status), "content": content("Problem")})));
    let good = good
        .iter()
        .map(|(status, description, schema)| ((*status).to_owned(), json!({"description": description, "content": content(schema)})));
    Value::Object(bad.chain(good).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use polity_api::toolcall::{CallResult, Decision, Digest, Phase};

    use super::*;
    use crate::{answer::Answer, body::FIELDS, problem::Problem};

    fn names(value: &Value) -> BTreeSet<String> {
        value.as_object().unwrap().keys().cloned().collect()
    }

    fn properties(schema: &str) -> Value {
        document()["components"]["schemas"][schema]["properties"].clone()
    }

    #[test]
    fn has_every_path_and_no_other() {
        let routes: BTreeSet<String> = crate::routes().into_iter().map(|(path, _)| path.to_owned()).collect();
        assert_eq!(names(&document()["paths"]), routes);
    }

    #[test]
    fn has_every_field_and_no_other() {
        assert_eq!(names(&properties("CallRequest")), FIELDS.iter().map(|f| (*f).to_owned()).collect());
        let digest = Digest { digest: "d".into(), key_id: "k".into() };
        let result = CallResult {
            output: Some(json!(1)),
            digest: Some(digest.clone()),
            size: Some(1),
            code: Some(1),
            stderr_tail: Some("x".into()),
        };
        let decision = Decision {
            verdict: "Allow".into(),
            reason: "r".into(),
            message: "m".into(),
            hint: "h".into(),
            rules: vec!["r".into()],
            advisory: vec!["a".into()],
            rewrites: vec![polity_api::toolcall::Rewritten::default()],
            snapshot: "s".into(),
            input: Some(digest),
            record: Some(1),
            at: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH),
            by: "b".into(),
        };
        let mut answer = Answer::new("i", Phase::Failed).decided(Some(decision));
        (answer.call, answer.approval, answer.result) = (Some("c".into()), Some("a".into()), Some(result));
        answer.input = Some(json!({}));
        (answer.reason, answer.message) = ("r".into(), "m".into());
        let answer = serde_json::to_value(answer).unwrap();
        let call = properties("Call");
        assert_eq!(names(&call), names(&answer));
        assert_eq!(names(&call["result"]["properties"]), names(&answer["result"]));
        assert_eq!(names(&call["decision"]["properties"]), names(&answer["decision"]));
        assert_eq!(names(&asked()), crate::evaluate::ITEM_FIELDS.iter().map(|f| (*f).to_owned()).collect());
        assert_eq!(names(&properties("Problem")), names(&Problem::full()));
        let posted = json!({"exitCode": 1, "stdout": "", "stderrTail": "x", "timedOut": true, "tooLarge": true});
        let output: polity_runtime::internal::ShimOutput = serde_json::from_value(posted).unwrap();
        assert_eq!(names(&properties("RunResult")), names(&serde_json::to_value(output).unwrap()));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, document: &Value) {
            match value {
                Value::Object(object) => {
                    if let Some(Value::String(to)) = object.get("$ref") {
                        assert!(document.pointer(to.trim_start_matches('#')).is_some(), "{to}");
                    }
                    object.values().for_each(|v| walk(v, document));
                }
                Value::Array(list) => list.iter().for_each(|v| walk(v, document)),
                _ => {}
            }
        }
        walk(&document(), &document());
    }
}
