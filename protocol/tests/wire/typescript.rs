//! The types of the TypeScript client, made from the declarations of operations and events.
//!
//! `CHAOS_TYPES=write cargo test -p chaos-protocol typescript` rewrites them.

use std::{collections::BTreeSet, fmt::Write, fs, path::PathBuf};

use protocol::{
    ChannelId, ErrorCode,
    entity::{Channel, Entry, Message, Participant, User},
    error::ErrorAnswer,
    event::{DrainingData, ExpiringData, GapData, PresenceData, Reaction, ReadData, TypingData},
    operation::{Description, HttpMethod, Operation, Reply},
};
use serde_json::Value;
use utoipa::ToSchema;

use crate::schema::{Schemas, id_prefix, properties, schema_of, schemas_of};

const FILE: &str = "clients/typescript/client/src/protocol/generated.ts";

const HEADER: &str = "// Generated from the declarations in protocol/src. Do not edit:\n\
    // CHAOS_TYPES=write cargo test -p chaos-protocol typescript\n";

/// Marker in the descriptions of fields that only an app key may set.
const APP_KEYS_ONLY: &str = "app keys only";

/// Events with a greater number are not stored and have no `seq`.
const LAST_DURABLE_EVENT: u8 = 31;

#[derive(Default)]
struct Types {
    schemas: Schemas,
    /// Names that `methods` and `events` refer to.
    used: BTreeSet<String>,
    /// Names of merge patches, in which null removes a field.
    patches: BTreeSet<String>,
    methods: String,
    durable: String,
    passing: String,
}

impl Types {
    fn add<O: Operation>(&mut self) {
        let Some(websocket) = O::WEBSOCKET else {
            return;
        };
        let is_own = O::own_path(&protocol::UserId::from_bits(1)).is_some();
        let mut params = Vec::new();
        if !is_own {
            self.schemas.append(&mut schemas_of::<O::Path>());
            let path = schema_of::<O::Path>();
            let ids = self.fields(&path, Nullable::No, "");
            if !ids.is_empty() {
                params.push(format!("{{ {} }}", ids.join("; ")));
            }
        }
        self.schemas.append(&mut schemas_of::<O::Input>());
        if O::HTTP.is_some_and(|http| http.method == HttpMethod::Patch) {
            self.patches.insert(ts_name(&O::Input::name()));
        }
        let input = schema_of::<O::Input>();
        if !self.fields(&input, Nullable::No, "").is_empty() {
            params.push(self.refer(&O::Input::name()));
        }
        if params.is_empty() {
            params.push("NoParams".to_owned());
        }
        self.schemas.append(&mut schemas_of::<O::Output>());
        let output = self.refer(&O::Output::name());
        let result = match websocket.reply {
            Reply::Field(name) => format!("{{ {name}: {output} }}"),
            Reply::Output => output,
        };
        let description = Description::of::<O>();
        let about = format!("{}. {}", description.summary(), description.details());
        comment(&mut self.methods, "  ", about.trim());
        let params = params.join(" & ");
        writeln!(
            self.methods,
            "  \"{}\": {{ params: {params}; result: {result} }};",
            O::NAME
        )
        .unwrap();
    }

    fn add_event<T: ToSchema>(&mut self, word: &str, number: u8, field: Option<&str>) {
        self.schemas.append(&mut schemas_of::<T>());
        let data = self.refer(&T::name());
        let data = field.map_or(data.clone(), |field| format!("{{ {field}: {data} }}"));
        let list = if number <= LAST_DURABLE_EVENT {
            &mut self.durable
        } else {
            &mut self.passing
        };
        writeln!(list, "  \"{word}\": {data};").unwrap();
    }

    /// Returns the name of a type, which is to be written too.
    fn refer(&mut self, name: &str) -> String {
        self.used.insert(name.to_owned());
        ts_name(name)
    }

    /// Returns the fields of an object, without those for app keys, as members of an interface.
    fn fields(&mut self, schema: &Value, nullable: Nullable, indent: &str) -> Vec<String> {
        let fields: Vec<_> = properties(schema)
            .map(|property| {
                (
                    property.name.to_owned(),
                    property.schema.clone(),
                    property.is_required,
                )
            })
            .filter(|(_, schema, _)| !schema.to_string().contains(APP_KEYS_ONLY))
            .collect();
        fields
            .into_iter()
            .map(|(name, schema, is_required)| {
                let mut member = String::new();
                if !indent.is_empty()
                    && let Some(about) = schema["description"].as_str()
                {
                    comment(&mut member, indent, about);
                }
                let mark = if is_required { "" } else { "?" };
                let null = match nullable {
                    Nullable::Yes if !is_required => " | null",
                    _ => "",
                };
                let kind = self.kind(&schema);
                write!(member, "{indent}{name}{mark}: {kind}{null}").unwrap();
                member
            })
            .collect()
    }

    /// Returns the TypeScript type of a schema. Absent is absent: null is left out.
    fn kind(&mut self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
            return self.refer(name);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let kinds: Vec<_> = choices
                .iter()
                .filter(|choice| choice["type"] != "null")
                .map(|choice| self.kind(choice))
                .collect();
            return kinds.join(" | ");
        }
        if let Some(words) = schema["enum"].as_array() {
            let words: Vec<_> = words.iter().map(Value::to_string).collect();
            return words.join(" | ");
        }
        if let Some(parts) = schema["prefixItems"].as_array() {
            let kinds: Vec<_> = parts.iter().map(|part| self.kind(part)).collect();
            return format!("[{}]", kinds.join(", "));
        }
        match crate::schema::type_of(schema) {
            Some("string") => "string".to_owned(),
            Some("integer" | "number") => "number".to_owned(),
            Some("boolean") => "boolean".to_owned(),
            Some("array") => format!("Array<{}>", self.kind(&schema["items"])),
            Some("object") if schema["additionalProperties"].is_object() => {
                format!(
                    "Record<string, {}>",
                    self.kind(&schema["additionalProperties"])
                )
            }
            Some("object") if schema["properties"].is_object() => {
                format!("{{ {} }}", self.fields(schema, Nullable::No, "").join("; "))
            }
            Some("object") => "Record<string, unknown>".to_owned(),
            other => panic!("no type for {other:?}: {schema}"),
        }
    }

    /// Returns the declarations of all types that are referred to.
    fn declarations(&mut self) -> String {
        let mut written: BTreeSet<String> = BTreeSet::new();
        let mut texts = Vec::new();
        while let Some(name) = self.used.difference(&written).next().cloned() {
            written.insert(name.clone());
            let schema = self
                .schemas
                .get(&name)
                .cloned()
                .unwrap_or_else(|| panic!("no schema of {name}"));
            texts.push((name.clone(), self.declaration(&name, &schema)));
        }
        texts.sort();
        texts.into_iter().map(|(_, text)| text).collect()
    }

    fn declaration(&mut self, name: &str, schema: &Value) -> String {
        let mut text = "\n".to_owned();
        if let Some(about) = schema["description"].as_str() {
            comment(&mut text, "", about);
        }
        let name = ts_name(name);
        if name == "Cursor" {
            text.push_str("export type Cursor = [] | [seq: number, at: number];\n");
        } else if schema["properties"].is_object() {
            let nullable = if self.patches.contains(&name) {
                Nullable::Yes
            } else {
                Nullable::No
            };
            let fields = self.fields(schema, nullable, "  ");
            writeln!(text, "export interface {name} {{").unwrap();
            for field in fields {
                writeln!(text, "{field};").unwrap();
            }
            text.push_str("}\n");
        } else if let Some(prefix) = id_prefix(schema) {
            let about = match name.as_str() {
                "UserId" | "ChannelId" => ", or one that the app has chosen",
                _ => "",
            };
            writeln!(text, "/** An id: `{prefix}…`{about}. */").unwrap();
            writeln!(text, "export type {name} = string;").unwrap();
        } else if schema["type"] == "object" && schema["additionalProperties"].is_null() {
            let kind = if name == "Metadata" {
                "Record<string, unknown>"
            } else {
                "Record<string, never>"
            };
            writeln!(text, "export type {name} = {kind};").unwrap();
        } else {
            writeln!(text, "export type {name} = {};", self.kind(schema)).unwrap();
        }
        text
    }

    fn all() -> String {
        let mut types = Self::default();
        macro_rules! add_all {
            (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
                $(types.add::<protocol::operation::$session::$of_session>();)*
                $(types.add::<protocol::operation::$resource::$operation>();)*
            };
        }
        protocol::operations!(add_all);
        macro_rules! add_events {
            ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal: $data:ident $(in $field:literal)?, $shape:ident;)*) => {
                $(
                    let field: &[&str] = &[$($field)?];
                    types.add_event::<$data>($word, $number, field.first().copied());
                )*
            };
        }
        protocol::events!(add_events);
        types.schemas.append(&mut schemas_of::<ErrorAnswer>());
        types.used.insert("ErrorBody".to_owned());
        let declarations = types.declarations();
        let codes: Vec<_> = ErrorCode::ALL
            .iter()
            .map(|code| format!("\"{code}\""))
            .collect();
        format!(
            "{HEADER}\n\
            /** Codes of errors. A client treats an unknown one like `internal`. */\n\
            export type ErrorCode =\n  | {codes};\n\n\
            /** No parameters. */\n\
            export type NoParams = Record<string, never>;\n\n\
            /** The requests of a session, by method. */\n\
            export interface Methods {{\n{methods}}}\n\n\
            /** Events that are stored, with `seq` and `at`, by name. */\n\
            export interface DurableEvents {{\n{durable}}}\n\n\
            /** Events that are not stored, by name. */\n\
            export interface PassingEvents {{\n{passing}}}\n\
            {declarations}",
            codes = codes.join("\n  | "),
            methods = types.methods,
            durable = types.durable,
            passing = types.passing,
        )
    }
}

/// Whether null is allowed in a field, to remove it.
#[derive(Clone, Copy)]
enum Nullable {
    Yes,
    No,
}

fn comment(text: &mut String, indent: &str, about: &str) {
    let lines: Vec<_> = about.split('\n').map(str::trim).collect();
    writeln!(text, "{indent}/** {} */", lines.join(" ")).unwrap();
}

/// `List_Participant` as `ListParticipant`.
fn ts_name(name: &str) -> String {
    name.replace('_', "")
}

#[test]
fn typescript_types_are_those_of_the_declarations() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let text = Types::all();
    if std::env::var_os("CHAOS_TYPES").is_some_and(|value| value == "write") {
        fs::write(&path, text).unwrap();
    } else {
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            kept == text,
            "{FILE} is stale: CHAOS_TYPES=write cargo test -p chaos-protocol typescript"
        );
    }
}
