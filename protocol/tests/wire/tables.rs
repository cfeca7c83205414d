//! The tables of methods and routes in the specification, made from the declarations of the
//! operations.
//!
//! `CHAOS_TABLES=write cargo test -p chaos-protocol tables` rewrites them.

use std::{fmt::Write, fs, path::PathBuf};

use protocol::operation::{Caller, Description, Operation, Reply, path_field};
use serde_json::Value;
use utoipa::ToSchema;

use crate::schema::{Schemas, properties, reference, schema_of, schemas_of};

/// Objects that the specification describes under their own names.
const ENTITIES: [&str; 11] = [
    "Organization",
    "App",
    "Key",
    "TokenKey",
    "User",
    "Channel",
    "Participant",
    "Message",
    "Attachment",
    "Entry",
    "ErrorBody",
];

/// Marker in the descriptions of fields that only an app key may set.
const APP_KEYS_ONLY: &str = "app keys only";

#[derive(Default)]
struct Tables {
    methods: String,
    routes: String,
}

impl Tables {
    fn add<O: Operation>(&mut self) {
        let description = Description::of::<O>();
        let about = match description.details().as_str() {
            "" => description.summary().to_owned(),
            details => format!("{}. {details}", description.summary()),
        };
        let inputs = fields_of::<O::Input>();
        if let Some(websocket) = O::WEBSOCKET {
            let is_own = O::own_path(&protocol::UserId::from_bits(1)).is_some();
            let ids = if is_own {
                Vec::new()
            } else {
                fields_of::<O::Path>()
            };
            let for_users = inputs.iter().filter(|field| !field.is_for_app_keys);
            let params = listed(ids.iter().chain(for_users));
            let result = match websocket.reply {
                Reply::Field(name) => format!("{{{name}}}"),
                Reply::Output => output::<O::Output>(),
            };
            writeln!(
                self.methods,
                "| `{}` | {params} | `{result}` | {about} |",
                O::NAME
            )
            .unwrap();
        }
        if let Some(http) = O::HTTP {
            let callers: Vec<_> = O::CALLERS
                .iter()
                .map(|caller| credential(*caller))
                .collect();
            let success: Vec<_> = http
                .success
                .iter()
                .map(|(status, _)| {
                    if *status == 204 {
                        "204".to_owned()
                    } else {
                        format!("{status} `{}`", output::<O::Output>())
                    }
                })
                .collect();
            let ids: Vec<String> = http
                .path
                .split(['{', '}'])
                .skip(1)
                .step_by(2)
                .map(path_field)
                .collect();
            let parameters = listed(inputs.iter().filter(|field| !ids.contains(&field.name)));
            writeln!(
                self.routes,
                "| `{} {}` | {} | {parameters} | {} | `{}`: {about} |",
                http.method.as_str(),
                http.path,
                callers.join(", "),
                success.join(" or "),
                O::NAME,
            )
            .unwrap();
        }
    }

    fn all() -> Self {
        let mut tables = Self {
            methods: "\n| method | params | result | |\n|---|---|---|---|\n".to_owned(),
            routes: "\n| request | with | body or query | success | |\n|---|---|---|---|---|\n"
                .to_owned(),
        };
        macro_rules! add_all {
            (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
                $(tables.add::<protocol::operation::$session::$of_session>();)*
                $(tables.add::<protocol::operation::$resource::$operation>();)*
            };
        }
        protocol::operations!(add_all);
        tables
    }
}

fn credential(caller: Caller) -> &'static str {
    match caller {
        Caller::Admin => "admin key",
        Caller::Organization => "organization key",
        Caller::App => "app key",
        Caller::User => "user token",
    }
}

struct Field {
    name: String,
    /// The name, `?` if it may be absent, and what a list or an object holds.
    shape: String,
    is_required: bool,
    is_for_app_keys: bool,
}

fn listed<'a>(fields: impl Iterator<Item = &'a Field>) -> String {
    fields
        .map(|field| format!("`{}`", field.shape))
        .collect::<Vec<_>>()
        .join(", ")
}

fn fields_of<T: ToSchema>() -> Vec<Field> {
    fields(&schema_of::<T>(), &schemas_of::<T>())
}

/// Returns the fields of an object, required ones first.
fn fields(schema: &Value, schemas: &Schemas) -> Vec<Field> {
    let mut fields: Vec<Field> = properties(schema)
        .map(|property| {
            let marked = if property.is_required {
                property.name.to_owned()
            } else {
                format!("{}?", property.name)
            };
            let shape = match content(property.schema, schemas) {
                Some(content) if content != property.name => format!("{marked}: {content}"),
                _ => marked,
            };
            Field {
                name: property.name.to_owned(),
                shape,
                is_required: property.is_required,
                is_for_app_keys: property.schema.to_string().contains(APP_KEYS_ONLY),
            }
        })
        .collect();
    fields.sort_by_key(|field| !field.is_required);
    fields
}

/// Returns what a property holds, if it is an object or a list of objects.
fn content(property: &Value, schemas: &Schemas) -> Option<String> {
    if let Some(name) = reference(property) {
        return object(name, schemas);
    }
    let item = reference(&property["items"])?;
    if item == "EntryResult" {
        return Some("[entry…]".to_owned());
    }
    object(item, schemas).map(|object| format!("[{object}]"))
}

fn object(name: &str, schemas: &Schemas) -> Option<String> {
    if ENTITIES.contains(&name) {
        return Some(words(name));
    }
    let schema = schemas.get(name)?;
    schema.get("properties").map(|_| braced(schema, schemas))
}

fn braced(schema: &Value, schemas: &Schemas) -> String {
    let fields: Vec<_> = fields(schema, schemas)
        .into_iter()
        .map(|field| field.shape)
        .collect();
    format!("{{{}}}", fields.join(", "))
}

fn output<T: ToSchema>() -> String {
    let name = T::name();
    if ENTITIES.contains(&name.as_ref()) {
        words(&name)
    } else {
        braced(&schema_of::<T>(), &schemas_of::<T>())
    }
}

/// `TokenKey` as `token key`, `ErrorBody` as `error`.
fn words(name: &str) -> String {
    let spaced = name
        .trim_end_matches("Body")
        .chars()
        .enumerate()
        .flat_map(|(index, letter)| {
            let space = (index > 0 && letter.is_uppercase()).then_some(' ');
            space.into_iter().chain(letter.to_lowercase())
        });
    spaced.collect()
}

/// Returns the text with a table between its markers.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (
        format!("<!-- {name}: generated"),
        format!("<!-- {name}: end -->"),
    );
    let (head, rest) = text
        .split_once(&begin)
        .unwrap_or_else(|| panic!("the marker of {name}"));
    let (marker, rest) = rest.split_once('\n').unwrap();
    let (_, tail) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("the end of {name}"));
    format!("{head}{begin}{marker}\n{table}\n{end}{tail}")
}

#[test]
fn tables_in_the_specification_are_those_of_the_declarations() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let kept = fs::read_to_string(&path).unwrap();
    let tables = Tables::all();
    let text = with_table(
        &with_table(&kept, "methods", &tables.methods),
        "routes",
        &tables.routes,
    );
    if std::env::var_os("CHAOS_TABLES").is_some_and(|value| value == "write") {
        fs::write(&path, text).unwrap();
    } else {
        assert!(
            kept == text,
            "the tables in README.md are stale: CHAOS_TABLES=write cargo test -p chaos-protocol tables"
        );
    }
}
