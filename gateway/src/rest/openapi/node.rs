//! Routes of the node that are not operations.

use protocol::ErrorCode;
use serde_json::{Map, Value, json};

/// Returns the routes for health, metrics and this document.
pub(super) fn paths() -> Map<String, Value> {
    let status = json!({ "type": "object", "required": ["status"], "properties": { "status": { "type": "string" } } });
    let get = |name: &str, summary: &str, media: &str, schema: &Value, security: Value| {
        let success = json!({ "description": "It is", "content": { media: { "schema": schema } } });
        let mut operation = json!({
            "operationId": name, "summary": summary, "tags": ["node"], "responses": { "200": success },
        });
        for code in [ErrorCode::Internal, ErrorCode::Unavailable] {
            operation["responses"][code.status().to_string()] =
                json!({ "$ref": format!("#/components/responses/{code}") });
        }
        if let Value::Array(_) = security {
            operation["security"] = security;
            for code in [
                ErrorCode::Unauthenticated,
                ErrorCode::Forbidden,
                ErrorCode::RateLimited,
            ] {
                operation["responses"][code.status().to_string()] =
                    json!({ "$ref": format!("#/components/responses/{code}") });
            }
        }
        json!({ "get": operation })
    };
    let text = json!({ "type": "string" });
    let object = json!({ "type": "object" });
    [
        (
            "/healthz",
            get(
                "node.health",
                "Tells whether the process is alive",
                "application/json",
                &status,
                Value::Null,
            ),
        ),
        (
            "/readyz",
            get(
                "node.readiness",
                "Tells whether the node takes requests",
                "application/json",
                &status,
                Value::Null,
            ),
        ),
        (
            "/metrics",
            get(
                "node.metrics",
                "Returns the node's metrics in the OpenMetrics format",
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
                &text,
                json!([{ "admin_key": [] }]),
            ),
        ),
        (
            "/v1/openapi.json",
            get(
                "node.openapi",
                "Returns this document",
                "application/json",
                &object,
                Value::Null,
            ),
        ),
    ]
    .map(|(path, operations)| (path.to_owned(), operations))
    .into_iter()
    .collect()
}
