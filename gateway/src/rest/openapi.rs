//! The OpenAPI document: made from the routes themselves, then completed with what holds for all of them.
//!
//! A handler describes what is its own: path, parameters, body, successes. Errors, tags of entities, media types of patches and
//! credentials follow from that, and are added here in one place.

use bytes::Bytes;
use protocol::{
    AppId, ChannelId, ErrorCode, KeyId, MessageId, OrganizationId, TokenKeyId, UserId,
    model::ChannelType, results::ErrorAnswer,
};
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::{
    Shared, apps, channels, keys, messages, operations, organizations, participants, reactions,
    token_keys, users,
};

/// The entities that carry an `ETag`.
const ENTITIES: [&str; 7] = [
    "Organization",
    "OrganizationCreated",
    "App",
    "User",
    "Channel",
    "Participant",
    "Message",
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "CHAOS",
        version = "1",
        description = "The HTTP API of CHAOS, a chat backend. Clients that chat use the WebSocket at `/v1/ws`."
    ),
    components(schemas(
        AppId,
        ChannelId,
        KeyId,
        MessageId,
        OrganizationId,
        TokenKeyId,
        UserId,
        ChannelType,
        ErrorAnswer
    ))
)]
struct Base;

/// The routes, each with its description.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    let resources = [
        operations::routes(),
        organizations::routes(),
        keys::routes(),
        apps::routes(),
        token_keys::routes(),
        users::routes(),
        channels::routes(),
        participants::routes(),
        messages::routes(),
        reactions::routes(),
    ];
    resources.into_iter().fold(
        OpenApiRouter::with_openapi(Base::openapi()),
        OpenApiRouter::merge,
    )
}

/// The document, as JSON.
pub(super) fn bytes() -> Bytes {
    document().to_string().into()
}

/// The document.
pub fn document() -> Value {
    let mut document =
        serde_json::to_value(routes().into_openapi()).expect("an OpenAPI document is JSON");
    for path in members(&mut document["paths"]) {
        for (method, operation) in members(path.1) {
            complete(method, operation);
        }
    }
    for (name, schema) in members(&mut document["components"]["schemas"]) {
        // Only a patch gives null a meaning. Everywhere else, absent is absent.
        if !name.starts_with("Update") && !name.starts_with("Edit") {
            without_null(schema);
        }
        if let Some(example) = example(name) {
            schema["example"] = example;
        }
    }
    document["components"]["responses"] = ErrorCode::ALL
        .iter()
        .map(|code| (code.as_str().to_owned(), error_response(*code)))
        .collect();
    document["components"]["securitySchemes"] = security_schemes();
    document
}

fn members(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
    value.as_object_mut().into_iter().flatten()
}

/// Adds to an operation what follows from its method, parameters and answers.
fn complete(method: &str, operation: &mut Value) {
    let tag = operation["tags"][0].as_str().unwrap_or_default().to_owned();
    let name = operation["operationId"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if !name.starts_with(&tag) {
        operation["operationId"] = format!("{tag}_{name}").into();
    }
    if let Some(body) = operation.get_mut("requestBody") {
        without_null(body);
        if method == "patch" {
            let media = body["content"]["application/json"].clone();
            body["content"]["application/merge-patch+json"] = media;
        }
    }
    let is_conditional = operation["parameters"]
        .as_array()
        .is_some_and(|all| all.iter().any(|p| p["name"] == "If-None-Match"));
    let needs_credential = operation.get("security").is_some();
    let responses = operation["responses"]
        .as_object_mut()
        .expect("every operation has answers");
    for response in responses.values_mut() {
        let entity = response["content"]["application/json"]["schema"]["$ref"]
            .as_str()
            .and_then(|path| path.rsplit('/').next());
        if entity.is_some_and(|entity| ENTITIES.contains(&entity)) {
            response["headers"]["ETag"] = json!({ "description": "Changes whenever the entity does; for `If-Match`", "schema": { "type": "string" } });
        }
    }
    if is_conditional {
        responses.insert(
            "304".to_owned(),
            json!({ "description": "The caller has this very state" }),
        );
    }
    let mut may = vec![ErrorCode::Internal, ErrorCode::Unavailable];
    if needs_credential {
        may.extend([
            ErrorCode::BadRequest,
            ErrorCode::Unauthenticated,
            ErrorCode::Forbidden,
            ErrorCode::NotFound,
            ErrorCode::RateLimited,
        ]);
    }
    match method {
        "get" => {}
        "delete" => may.extend([ErrorCode::Conflict, ErrorCode::PreconditionFailed]),
        _ => may.extend([
            ErrorCode::Conflict,
            ErrorCode::PreconditionFailed,
            ErrorCode::TooLarge,
            ErrorCode::Unsupported,
            ErrorCode::LimitReached,
        ]),
    }
    for code in may {
        let reference = json!({ "$ref": format!("#/components/responses/{code}") });
        responses
            .entry(code.status().to_string())
            .or_insert(reference);
    }
}

fn error_response(code: ErrorCode) -> Value {
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

fn security_schemes() -> Value {
    let bearer = |about: &str| json!({ "type": "http", "scheme": "bearer", "description": about });
    json!({
        "admin_key": bearer("The operator's key, `adm_…`"),
        "organization_key": bearer("An organization's key, `ork_…`"),
        "app_key": bearer("An app's key of one environment, `sk_live_…` or `sk_test_…`; or an access key, `ak_live_…` or `ak_test_…`"),
        "user_token": bearer("A user's token: a JWT signed by one of the app's token keys"),
    })
}

/// Takes `null` out of the types that a schema allows.
fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("oneOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [only] = choices.as_slice() {
                    let only = only.as_object().cloned().unwrap_or_default();
                    fields.remove("oneOf");
                    let described: Map<String, Value> = std::mem::take(fields);
                    fields.extend(only);
                    fields.extend(described);
                }
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// A body that is accepted as it stands.
fn example(schema: &str) -> Option<Value> {
    Some(match schema {
        "CreateOrganization" => json!({ "name": "Example", "email": "team@example.org" }),
        "UpdateOrganization" => json!({ "name": "Example & Co" }),
        "CreateOrganizationKey" => json!({ "name": "console" }),
        "CreateApp" => json!({ "name": "Shop" }),
        "UpdateApp" => json!({ "settings": { "create_users_from_tokens": false } }),
        "CreateAppKey" => json!({ "environment": "live", "name": "backend" }),
        "CreateAccess" => json!({ "environment": "test", "expires_in": 600 }),
        "CreateTokenKey" => json!({ "environment": "live", "algorithm": "HS256" }),
        "PutUser" => {
            json!({ "username": "alice", "first_name": "Alice", "metadata": { "team": "red" } })
        }
        "UpdateUser" => json!({ "bio": "Likes chat", "last_name": null }),
        "MintToken" => json!({ "expires_in": 3600 }),
        "Disconnect" => json!({ "revoke": false }),
        "CreateChannel" => json!({ "type": "open", "name": "General" }),
        "ReplaceChannel" => {
            json!({ "type": "open", "name": "General", "description": "For everything" })
        }
        "UpdateChannel" => json!({ "name": "Everything", "description": null }),
        "UpdateParticipant" => json!({ "role": "moderator" }),
        "SendMessage" => json!({ "text": "Hello" }),
        "EditMessage" => json!({ "text": "Hello, world" }),
        _ => return None,
    })
}
