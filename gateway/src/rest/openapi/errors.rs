//! Errors that operations may return.

use protocol::{ErrorCode, operation::HttpMethod};
use serde_json::{Value, json};

/// Returns the errors that an operation may return.
pub(super) fn errors(method: HttpMethod) -> Vec<ErrorCode> {
    let mut errors = vec![
        ErrorCode::BadRequest,
        ErrorCode::Unauthenticated,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::RateLimited,
        ErrorCode::Internal,
        ErrorCode::Unavailable,
    ];
    match method {
        HttpMethod::Get => {}
        HttpMethod::Delete => errors.extend([ErrorCode::Conflict, ErrorCode::PreconditionFailed]),
        HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch => errors.extend([
            ErrorCode::Conflict,
            ErrorCode::PreconditionFailed,
            ErrorCode::TooLarge,
            ErrorCode::Unsupported,
            ErrorCode::LimitReached,
        ]),
    }
    errors
}

pub(super) fn error_response(code: ErrorCode) -> Value {
    let description = match code {
        ErrorCode::BadRequest => "The request does not fit its description",
        ErrorCode::Unauthenticated => "No credential, or one that is not valid",
        ErrorCode::Forbidden => "The credential may not do this",
        ErrorCode::NotFound => "It does not exist, or may not be seen",
        ErrorCode::MethodNotAllowed => "The path has other methods: see `Allow`",
        ErrorCode::Conflict => "It exists already, or changed meanwhile",
        ErrorCode::PreconditionFailed => "`If-Match` names another version",
        ErrorCode::TooLarge => "The body, a text or free data is larger than its limit",
        ErrorCode::Unsupported => "A media type that is not read here",
        ErrorCode::LimitReached => "A count is full; trying again does not help",
        ErrorCode::RateLimited => "Too many requests; `Retry-After` tells when to go on",
        ErrorCode::Internal => "A defect of the server; the cause is in its log",
        ErrorCode::Unavailable => {
            "The store cannot be reached: nothing was done, or whether it was is unknown"
        }
    };
    let schema = json!({ "$ref": "#/components/schemas/ErrorAnswer" });
    let example = json!({ "error": { "code": code.as_str(), "message": description } });
    json!({ "description": description, "content": { "application/json": { "schema": schema, "example": example } } })
}
