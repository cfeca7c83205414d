//! Consistency of the declarations of operations.

use std::collections::HashSet;

use protocol::{
    Encoding,
    operation::{Body, Caller, Conditions, HttpMethod, Operation, descriptions, path_field},
};
use serde_json::Value;

#[test]
fn names_and_routes_are_unique() {
    let mut names = HashSet::new();
    let mut routes = HashSet::new();
    for operation in descriptions() {
        assert!(
            names.insert(operation.name),
            "{} is declared twice",
            operation.name
        );
        assert!(
            operation.websocket.is_some() || operation.http.is_some(),
            "{} cannot be reached",
            operation.name
        );
        if let Some(http) = operation.http {
            assert!(
                routes.insert((http.method, http.path)),
                "{} has the route of another",
                operation.name
            );
        }
    }
}

#[test]
fn every_operation_has_a_summary_and_callers() {
    for operation in descriptions() {
        let summary = operation.summary();
        assert!(
            !summary.is_empty() && !summary.contains('\n') && !summary.ends_with('.'),
            "{}: {summary}",
            operation.name
        );
        assert!(!operation.callers.is_empty(), "{}", operation.name);
        assert!(
            operation.websocket.is_none() || operation.callers.contains(&Caller::User),
            "{} has no caller",
            operation.name
        );
    }
}

#[test]
fn bodies_and_conditions_fit_the_http_method() {
    for operation in descriptions() {
        let Some(http) = operation.http else { continue };
        let takes_body = matches!(
            http.method,
            HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch
        );
        assert!(takes_body || http.body == Body::None, "{}", operation.name);
        let conditions = match http.method {
            HttpMethod::Get => [Conditions::None, Conditions::Read],
            _ => [Conditions::None, Conditions::Write],
        };
        assert!(conditions.contains(&http.conditions), "{}", operation.name);
        assert!(
            !http.success.is_empty()
                && http
                    .success
                    .iter()
                    .all(|(status, _)| (200..300).contains(status)),
            "{}",
            operation.name
        );
    }
}

fn check_types<O: Operation>() {
    let example = O::example();
    for encoding in Encoding::ALL {
        let decoded: O::Input = encoding.decode(&encoding.encode(&example)).unwrap();
        assert_eq!(decoded, example, "{} in {encoding:?}", O::NAME);
    }
    let Some(http) = O::HTTP else { return };
    let placeholders = || http.path.split(['{', '}']).skip(1).step_by(2);
    let ids: Value = placeholders()
        .map(|name| (path_field(name), Value::from(id(http.path, name))))
        .collect();
    let path: O::Path =
        serde_json::from_value(ids.clone()).unwrap_or_else(|error| panic!("{}: {error}", O::NAME));
    assert_eq!(
        serde_json::to_value(&path).unwrap(),
        ids,
        "{}: the path and its type name the same",
        O::NAME
    );
}

fn id(path: &str, placeholder: &str) -> &'static str {
    match placeholder {
        "org" => "org_0000000000000001",
        "app" => "app_0000000000000001",
        "key" if path.contains("/token-keys/") => "tk_0000000000000001",
        "key" => "key_0000000000000001",
        "message" => "msg_0000000000000001",
        _ => "x",
    }
}

macro_rules! check_all {
    (session: [$($session:ident :: $of_session:ident,)*] domain: [$($resource:ident :: $operation:ident,)*]) => {
        #[test]
        fn examples_survive_both_encodings_and_paths_name_their_fields() {
            $(check_types::<protocol::operation::$session::$of_session>();)*
            $(check_types::<protocol::operation::$resource::$operation>();)*
        }
    };
}
protocol::operations!(check_all);
