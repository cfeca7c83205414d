//! The OpenAPI document, made from the declarations of the operations.
//!
//! A declaration gives name, summary, parameters, body, successes and callers of its operation.
//! Errors, `ETag` headers, media types of patches and security schemes follow from these by rules
//! that hold for all operations.

mod errors;
mod node;
mod parameters;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use protocol::{
    ErrorCode,
    error::ErrorAnswer,
    operation::{Body, Caller, Conditions, Description, HttpMethod, Operation},
};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use self::{
    errors::{error_response, errors},
    parameters::{headers, path_parameters, query_parameters},
    schema::{as_json, constrain, reachable, reference, schema_name, without_null},
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

/// The document, as JSON.
pub(super) fn bytes() -> Bytes {
    document().to_string().into()
}

/// The document.
pub fn document() -> Value {
    let mut document = Document::default();
    macro_rules! add_all {
        (session: [$($session:tt)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            $(document.add::<protocol::operation::$resource::$operation>();)*
        };
    }
    protocol::operations!(add_all);
    document.add_schema::<ErrorAnswer>();
    document.finish()
}

#[derive(Default)]
struct Document {
    /// Operations by path and method.
    paths: BTreeMap<&'static str, Map<String, Value>>,
    schemas: BTreeMap<String, Value>,
    /// Examples of inputs, by schema.
    examples: BTreeMap<String, Value>,
    /// The schemas of bodies of requests, and of answers.
    requests: BTreeSet<String>,
    answers: BTreeSet<String>,
}

impl Document {
    fn add<O: Operation>(&mut self) {
        let Some(http) = O::HTTP else { return };
        let about = Description::of::<O>();
        let mut parameters = path_parameters::<O::Path>(http.path);
        if http.body == Body::None {
            parameters.extend(query_parameters::<O::Input>());
        }
        parameters.extend(headers(http.method, http.conditions));
        let mut operation = json!({
            "operationId": O::NAME,
            "summary": about.summary(),
            "tags": [about.resource()],
            "security": O::CALLERS.iter().map(|caller| json!({ security(*caller): [] })).collect::<Vec<_>>(),
            "responses": self.successes::<O>(),
        });
        let details = about.details();
        if !details.is_empty() {
            operation["description"] = details.into();
        }
        if !parameters.is_empty() {
            operation["parameters"] = parameters.into();
        }
        if http.body != Body::None {
            operation["requestBody"] = self.body::<O>(
                http.body == Body::Required,
                http.method == HttpMethod::Patch,
            );
        }
        let responses = operation["responses"]
            .as_object_mut()
            .expect("it was made as one");
        if http.conditions == Conditions::Read {
            responses.insert(
                "304".to_owned(),
                json!({ "description": "The caller has this state" }),
            );
        }
        for code in errors(http.method) {
            let reference = json!({ "$ref": format!("#/components/responses/{code}") });
            responses
                .entry(code.status().to_string())
                .or_insert(reference);
        }
        self.paths
            .entry(http.path)
            .or_default()
            .insert(http.method.as_str().to_lowercase(), operation);
    }

    fn successes<O: Operation>(&mut self) -> Value {
        let schema = self.add_schema::<O::Output>();
        self.answers.insert(schema.clone());
        let success = O::HTTP.map_or(&[][..], |http| http.success);
        let mut responses = Map::new();
        for (status, description) in success {
            let mut response = json!({ "description": description });
            if *status != 204 {
                response["content"]["application/json"]["schema"] = reference(&schema);
                if ENTITIES.contains(&schema.as_str()) {
                    response["headers"]["ETag"] = json!({ "description": "Changes whenever the entity does; for `If-Match`", "schema": { "type": "string" } });
                }
            }
            responses.insert(status.to_string(), response);
        }
        responses.into()
    }

    fn body<O: Operation>(&mut self, is_required: bool, is_patch: bool) -> Value {
        let schema = self.add_schema::<O::Input>();
        let media = json!({ "schema": reference(&schema) });
        let example = serde_json::to_value(O::example()).expect("an input is JSON");
        self.requests.insert(schema.clone());
        self.examples.insert(schema, example);
        let mut body = json!({ "required": is_required, "content": { "application/json": media } });
        if is_patch {
            body["content"]["application/merge-patch+json"] =
                body["content"]["application/json"].clone();
        }
        body
    }

    /// Adds a type's schema with all that it refers to. Returns its name.
    fn add_schema<T: ToSchema>(&mut self) -> String {
        let name = schema_name::<T>();
        let mut all = vec![(name.clone(), T::schema())];
        T::schemas(&mut all);
        for (name, schema) in all {
            let schema = as_json(&schema);
            let kept = self.schemas.entry(name).or_insert_with(|| schema.clone());
            debug_assert_eq!(*kept, schema, "two types share the name of a schema");
        }
        name
    }

    fn finish(self) -> Value {
        let mut schemas = self.schemas;
        for (name, schema) in &mut schemas {
            // Only a patch gives null a meaning. Everywhere else, absent is absent.
            if !name.starts_with("Update") && !name.starts_with("Edit") {
                without_null(schema);
            }
        }
        // Requests have no unknown fields. Answers may get new ones, which clients ignore.
        let answers = reachable(self.answers, &schemas);
        let requests = reachable(self.requests, &schemas);
        for name in requests.difference(&answers) {
            let object = schemas
                .get_mut(name)
                .filter(|schema| schema.get("properties").is_some());
            object
                .into_iter()
                .for_each(|schema| schema["additionalProperties"] = false.into());
        }
        for name in &requests {
            let properties = schemas
                .get_mut(name)
                .and_then(|schema| schema.get_mut("properties")?.as_object_mut());
            properties
                .into_iter()
                .flatten()
                .for_each(|(field, schema)| constrain(name, field, schema));
        }
        for (name, example) in self.examples {
            schemas
                .entry(name)
                .and_modify(|schema| schema["example"] = example);
        }
        let responses: Map<String, Value> = ErrorCode::ALL
            .iter()
            .map(|code| (code.as_str().to_owned(), error_response(*code)))
            .collect();
        let mut paths: Map<String, Value> = self
            .paths
            .into_iter()
            .map(|(path, operations)| (path.to_owned(), operations.into()))
            .collect();
        paths.extend(node::paths());
        json!({
            "openapi": "3.1.0",
            "info": {
                "title": "CHAOS",
                "version": "1",
                "description": "The HTTP API of CHAOS, a chat backend. Clients that chat use the WebSocket at `/v1/ws`.",
            },
            "paths": paths,
            "components": { "schemas": schemas, "responses": responses, "securitySchemes": security_schemes() },
        })
    }
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

fn security(caller: Caller) -> &'static str {
    match caller {
        Caller::Admin => "admin_key",
        Caller::Organization => "organization_key",
        Caller::App => "app_key",
        Caller::User => "user_token",
    }
}
