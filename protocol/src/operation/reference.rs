//! Which parameters of an operation refer to objects of a tenant.
//!
//! Derived from the types of [`Path`](super::Operation::Path) and
//! [`Input`](super::Operation::Input): a parameter whose type is an id refers to an object. The
//! test of tenant isolation puts another tenant's ids into all of them.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

use super::Operation;
use crate::ChannelId;

/// Kind of an object that an id identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Object {
    /// An organization.
    Organization,
    /// An app.
    App,
    /// A key of an organization or of an app.
    Key,
    /// A key that verifies user tokens.
    TokenKey,
    /// A user.
    User,
    /// A channel.
    Channel,
    /// A message.
    Message,
    /// An uploaded file.
    Upload,
    /// Cursor of a list.
    Cursor,
}

/// A parameter that refers to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Names of the fields that lead to it, from the parameters inwards: `["items", "user_id"]`.
    pub fields: Vec<String>,
    /// Kind of the object.
    pub object: Object,
    /// How the parameter contains ids.
    pub shape: ReferenceShape,
    /// Whether the parameter is required.
    pub is_required: bool,
}

/// How a parameter contains ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReferenceShape {
    /// One id.
    One,
    /// A list of ids.
    List,
    /// A map whose keys are ids.
    Keys,
}

/// Returns the references in an operation's path.
pub fn path_references<O: Operation>() -> Vec<Reference> {
    of_type::<O::Path>()
}

/// Returns the references in an operation's input.
pub fn input_references<O: Operation>() -> Vec<Reference> {
    of_type::<O::Input>()
}

fn of_type<T: PartialSchema>() -> Vec<Reference> {
    let mut references = Vec::new();
    collect(&as_json(&T::schema()), &[], true, &mut references);
    references
}

/// Returns the schema of an input, or of a part of one, by its name.
fn named(name: &str) -> Option<&'static Value> {
    static SCHEMAS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| {
        let mut all = Vec::new();
        macro_rules! add_all {
            (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
                $(add::<super::$session::$of_session>(&mut all);)*
                $(add::<super::$resource::$operation>(&mut all);)*
            };
        }
        crate::operations!(add_all);
        all.into_iter()
            .map(|(name, schema)| (name, as_json(&schema)))
            .collect()
    });
    SCHEMAS.get(name)
}

fn add<O: Operation>(all: &mut Vec<(String, RefOr<Schema>)>) {
    all.push((O::Input::name().into_owned(), O::Input::schema()));
    O::Input::schemas(all);
}

fn as_json<T: serde::Serialize>(schema: &T) -> Value {
    serde_json::to_value(schema).expect("a schema is JSON")
}

fn collect(schema: &Value, to: &[String], is_needed: bool, found: &mut Vec<Reference>) {
    let required = schema["required"].as_array();
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let fields: Vec<String> = to.iter().cloned().chain([name.clone()]).collect();
        let is_required =
            is_needed && required.is_some_and(|all| all.iter().any(|field| field == name));
        let mut push = |object, shape| {
            found.push(Reference {
                fields: fields.clone(),
                object,
                shape,
                is_required,
            })
        };
        if name == "cursor" {
            push(Object::Cursor, ReferenceShape::One);
        } else if let Some(object) = object_of(property) {
            push(object, ReferenceShape::One);
        } else if let Some(object) = object_of(&property["items"]) {
            push(object, ReferenceShape::List);
        } else if property["propertyNames"]["pattern"]
            .as_str()
            .is_some_and(|pattern| pattern.contains(ChannelId::PREFIX))
        {
            // Keys are described in full, not by reference. Only channels stand as keys.
            let object = Object::Channel;
            push(object, ReferenceShape::Keys);
        } else if let Some(inner) = reference_in(&property["items"]).and_then(named) {
            collect(inner, &fields, is_required, found);
        }
    }
}

/// Returns the kind of object that ids of this schema identify.
fn object_of(schema: &Value) -> Option<Object> {
    Some(match reference_in(schema)? {
        "OrganizationId" => Object::Organization,
        "AppId" => Object::App,
        "KeyId" => Object::Key,
        "TokenKeyId" => Object::TokenKey,
        "UserId" => Object::User,
        "ChannelId" => Object::Channel,
        "MessageId" => Object::Message,
        "UploadId" => Object::Upload,
        _ => return None,
    })
}

/// Returns the name of the schema that this one refers to, optional or not.
fn reference_in(schema: &Value) -> Option<&str> {
    let direct = schema["$ref"].as_str();
    let optional = || {
        schema["oneOf"]
            .as_array()?
            .iter()
            .find_map(|choice| choice["$ref"].as_str())
    };
    direct.or_else(optional)?.rsplit('/').next()
}
