use clap::CommandFactory;

use super::*;

fn parse(arguments: &str) -> Scenario {
    CommandLine::parse_from(
        ["chaos-loadtest"]
            .into_iter()
            .chain(arguments.split_whitespace()),
    )
    .scenario
}

#[test]
fn command_line_definition_is_valid() {
    CommandLine::command().debug_assert();
}

#[test]
fn http_base_is_derived_from_any_form_of_address() {
    for url in ["ws://h:1", "ws://h:1/v1/ws", "http://h:1/", "http://h:1?x"] {
        assert_eq!(http_base(url).expect(url), "http://h:1");
    }
    assert!(
        http_base("wss://h").is_err() && http_base("ws:///x").is_err() && http_base("h:1").is_err()
    );
}

#[test]
fn several_nodes_and_defaults_are_accepted() {
    let scenario = parse("chat --url ws://a:1 --url ws://b:2 --encoding both");
    let Scenario::Chat(ChatArgs {
        channels: 20,
        members: 10,
        common,
        ..
    }) = &scenario
    else {
        panic!("{scenario:?}")
    };
    assert_eq!(
        common.http_bases().expect("addresses"),
        ["http://a:1", "http://b:2"]
    );
    assert_eq!(
        (common.encoding.of(0), common.encoding.of(3)),
        (Encoding::MessagePack, Encoding::Json)
    );
    assert_eq!((scenario.connections(), scenario.sockets()), (200, 200));
    scenario.check().expect("the defaults are valid");
}

#[test]
fn values_out_of_range_are_refused() {
    for arguments in [
        "chat --channels 0",
        "chat --rate 0",
        "chat --payload 8",
        "fanout --passing --in-flight 65",
        "chat --seconds 0",
    ] {
        assert!(parse(arguments).check().is_err(), "{arguments}");
    }
}

#[test]
fn records_are_dropped_between_nodes_and_any_redis() {
    for store in ["redis", "sentinel", "cluster"] {
        let Scenario::Verify(verify) = parse(&format!("verify --store {store}")) else {
            panic!("another scenario")
        };
        let faults = verify.faults().expect("all that apply");
        assert!(faults.contains(&FaultKind::Drop), "{store}");
    }
    for nodes in ["--store embedded", "--running"] {
        let dropping = parse(&format!("verify {nodes} --faults drop"));
        assert!(dropping.check().is_err(), "{nodes}");
    }
}

#[test]
fn admin_key_is_read_from_the_data_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("admin-key"), "adm_x\n").expect("written");
    let scenario = parse(&format!("fanout --data {}", folder.path().display()));
    assert_eq!(scenario.common().admin_key().expect("a key"), "adm_x");
    let error = parse("chat --data /nowhere")
        .common()
        .admin_key()
        .expect_err("no key")
        .to_string();
    assert!(error.contains("--admin-key"), "{error}");
}

#[test]
fn memory_after_all_have_left_needs_a_process() {
    let parsed = |arguments: &str| {
        CommandLine::try_parse_from(["chaos-loadtest"].into_iter().chain(arguments.split(' ')))
    };
    assert!(parsed("chat --left-seconds 60").is_err());
    let scenario = parsed("chat --left-seconds 60 --pid 1")
        .expect("valid")
        .scenario;
    assert_eq!(scenario.common().left_seconds, Some(60));
}
