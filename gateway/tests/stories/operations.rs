//! Requests for every declared operation, and their fields that refer to entities of a tenant.

use hyper::Method as HttpMethod;
use protocol::operation::{
    Body, Description, Http, Operation, path_field,
    reference::{Object, Reference, ReferenceShape, input_references, path_references},
};
use serde_json::{Map, Value, json};

/// The kind of entity of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Organization,
    App,
    OrganizationKey,
    AppKey,
    TokenKey,
    User,
    Channel,
    Message,
    /// The cursor of a list.
    Cursor,
}

/// A declared operation, as data.
#[derive(Debug, Clone)]
pub(crate) struct Declared {
    pub(crate) about: Description,
    pub(crate) example: Value,
    pub(crate) places: Vec<Place>,
}

/// A parameter that refers to an entity.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Its path: `channel_id`, `items.user_id`.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) is_required: bool,
    is_in_path: bool,
    reference: Reference,
}

/// An HTTP request.
pub(crate) struct Request {
    pub(crate) method: HttpMethod,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

/// Returns the id for a parameter; `None` leaves it out.
pub(crate) type Choose<'a> = &'a mut dyn FnMut(&Place) -> Option<String>;

/// Returns all operations.
pub(crate) fn all() -> Vec<Declared> {
    macro_rules! declare_all {
        (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
            vec![
                $(Declared::of::<protocol::operation::$session::$of_session>(),)*
                $(Declared::of::<protocol::operation::$resource::$operation>(),)*
            ]
        };
    }
    protocol::operations!(declare_all)
}

/// Returns the operation of this name.
pub(crate) fn named(name: &str) -> Declared {
    all()
        .into_iter()
        .find(|operation| operation.about.name == name)
        .unwrap_or_else(|| panic!("{name} is not declared"))
}

impl Place {
    /// Returns whether it names the user for whom an app key acts.
    pub(crate) fn is_acting_user(&self) -> bool {
        let is_named_so = ["sender_id", "user_id"].contains(&self.name.as_str());
        is_named_so && !self.is_required && !self.is_in_path
    }
}

impl Declared {
    fn of<O: Operation>() -> Self {
        let path = path_references::<O>();
        let is_of_app = path.iter().any(|reference| reference.object == Object::App);
        let place = |reference: Reference, is_in_path| {
            let kind = match reference.object {
                Object::Organization => Kind::Organization,
                Object::App => Kind::App,
                Object::Key if is_of_app => Kind::AppKey,
                Object::Key => Kind::OrganizationKey,
                Object::TokenKey => Kind::TokenKey,
                Object::User => Kind::User,
                Object::Channel => Kind::Channel,
                Object::Message => Kind::Message,
                Object::Cursor => Kind::Cursor,
                // Uploads do not exist yet: an attachment that names one is refused.
                Object::Upload => return None,
            };
            let is_required = reference.is_required;
            Some(Place {
                name: reference.fields.join("."),
                kind,
                is_required,
                is_in_path,
                reference,
            })
        };
        let in_path = path
            .into_iter()
            .filter_map(|reference| place(reference, true));
        let places = in_path
            .chain(
                input_references::<O>()
                    .into_iter()
                    .filter_map(|reference| place(reference, false)),
            )
            .collect();
        Self {
            about: Description::of::<O>(),
            example: serde_json::to_value(O::example()).unwrap(),
            places,
        }
    }

    /// Returns the parameters over WebSocket.
    pub(crate) fn params(&self, choose: Choose<'_>) -> Value {
        let mut params = self.input(choose);
        for place in self.places.iter().filter(|place| place.is_in_path) {
            if let Some(id) = choose(place) {
                params[&place.name] = id.into();
            }
        }
        if params.get("emoji").is_none()
            && self
                .about
                .http
                .is_some_and(|http| http.path.contains("{emoji}"))
        {
            params["emoji"] = "x".into();
        }
        params
    }

    /// Returns the request over HTTP.
    pub(crate) fn request(&self, http: Http, choose: Choose<'_>) -> Request {
        let mut path = http.path.to_owned();
        for placeholder in http.path.split(['{', '}']).skip(1).step_by(2) {
            let field = path_field(placeholder);
            let value = match self
                .places
                .iter()
                .find(|place| place.is_in_path && place.name == field)
            {
                Some(place) => choose(place).expect("a path is whole"),
                None => "x".to_owned(),
            };
            path = path.replace(&format!("{{{placeholder}}}"), &client::segment(&value));
        }
        let input = self.input(choose);
        let body = (http.body != Body::None).then(|| input.clone());
        if body.is_none() {
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                Value::Array(all) => all
                    .iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join(","),
                other => other.to_string(),
            };
            let fields = input.as_object().unwrap().iter();
            let query: Vec<String> = fields
                .map(|(name, value)| format!("{name}={}", client::segment(&text(value))))
                .collect();
            if !query.is_empty() {
                path = format!("{path}?{}", query.join("&"));
            }
        }
        Request {
            method: HttpMethod::from_bytes(http.method.as_str().as_bytes()).unwrap(),
            path,
            body,
        }
    }

    /// Returns whether a successful request creates the entity of this parameter with this id.
    pub(crate) fn creates(&self, place: &Place) -> bool {
        let is_put = self.about.http.is_some_and(|http| {
            http.success.iter().any(|(status, _)| *status == 201)
                && http.method == protocol::operation::HttpMethod::Put
        });
        is_put && place.is_in_path
            || ["id", "items.id"].contains(&place.name.as_str())
            || self.about.name == "message.send" && place.name == "message_id"
    }

    fn input(&self, choose: Choose<'_>) -> Value {
        let mut input = self.example.clone();
        for place in self.places.iter().filter(|place| !place.is_in_path) {
            if let Some(id) = choose(place) {
                put(
                    &mut input,
                    &place.reference.fields,
                    place.reference.shape,
                    &id,
                );
            }
        }
        input
    }
}

/// Inserts an id at this path. Lists on the path have one element.
fn put(value: &mut Value, fields: &[String], shape: ReferenceShape, id: &str) {
    match (fields, &mut *value) {
        (fields, Value::Array(elements)) => {
            if elements.is_empty() {
                elements.push(json!({}));
            }
            put(&mut elements[0], fields, shape, id);
        }
        ([last], _) => {
            value[last] = match shape {
                ReferenceShape::One => json!(id),
                ReferenceShape::List => json!([id]),
                ReferenceShape::Keys => Value::Object(Map::from_iter([(id.to_owned(), json!([]))])),
            };
        }
        ([first, rest @ ..], _) => put(&mut value[first], rest, shape, id),
        ([], _) => {}
    }
}
