//! The interfaces as they are shipped and documented, held against the service.

use crate::support::bus::connect_to_transaction;
use crate::support::polkit::Polkit;
use crate::support::service::{NAME, Service, USER};
use apt_ostree::daemon::ACTIONS;
use apt_ostree::host::runner::Cmd;
use serde_json::json;
use std::path::Path;
use zbus::blocking::Connection;

fn shipped(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the lines of one interface, without indentation.
fn interface<'a>(xml: &'a str, name: &str) -> Vec<&'a str> {
    let start = format!("<interface name=\"{name}\">");
    let lines = xml.lines().map(str::trim).filter(|line| !line.is_empty());
    let inside = lines.skip_while(|line| *line != start);
    let mut found: Vec<&str> = inside.take_while(|line| *line != "</interface>").collect();
    found.push("</interface>");
    found
}

fn introspect(connection: &Connection, destination: Option<&str>, path: &str) -> String {
    let interface = Some("org.freedesktop.DBus.Introspectable");
    let reply = connection.call_method(destination, path, interface, "Introspect", &());
    reply.expect("an answer").body().deserialize().expect("text")
}

#[test]
fn the_shipped_interfaces_are_those_of_the_service() {
    let service = Service::start();
    let client = service.client(USER);
    let address = service.client(0).ask("pin", json!({}));
    let transaction = connect_to_transaction(&address.expect("granted"), USER);
    for (name, xml) in [
        (
            "Sysroot1",
            introspect(&client.bus, Some(NAME), "/org/aptostree/dev/Sysroot"),
        ),
        (
            "OS1",
            introspect(&client.bus, Some(NAME), "/org/aptostree/dev/OS/default"),
        ),
        ("Transaction1", introspect(&transaction, None, "/")),
    ] {
        let name = format!("{NAME}.{name}");
        let file = shipped(&format!("dist/dbus/{name}.xml"));
        assert_eq!(interface(&file, &name), interface(&xml, &name), "{xml}");
    }
}

#[test]
fn every_verb_that_changes_a_sysroot_is_a_method() {
    let all =
        shipped("dist/dbus/org.aptostree.dev.Sysroot1.xml") + &shipped("dist/dbus/org.aptostree.dev.OS1.xml");
    let verbs = verbs();
    assert!(verbs.len() > 20, "{verbs:?}");
    for verb in verbs {
        let method = verb
            .split('-')
            .map(|word| word[..1].to_uppercase() + &word[1..])
            .collect::<String>();
        assert!(
            all.contains(&format!("<method name=\"{method}\">")),
            "{verb} is no method"
        );
    }
}

/// Returns the verbs of all requests, which the library lists where it names them.
fn verbs() -> Vec<String> {
    let source = shipped("src/ops/request/mod.rs");
    let lines = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Self::"));
    let named = lines.filter_map(|line| line.split_once("(_) => \"")?.1.strip_suffix("\","));
    named.map(str::to_owned).collect()
}

#[test]
fn the_shipped_policy_has_every_action() {
    let policy = shipped("dist/polkit/org.aptostree.dev.policy");
    let named = policy
        .split("<action id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next());
    let mut found: Vec<&str> = named
        .filter_map(|id| id.strip_prefix("org.aptostree.dev."))
        .collect();
    found.sort_unstable();
    assert_eq!(found, ACTIONS);
    for action in policy.split("<action ").skip(1) {
        for part in [
            "<description>",
            "<message>",
            "<allow_any>auth_admin</allow_any>",
            "<allow_active>auth_admin",
        ] {
            assert!(action.contains(part), "{part} is missing: {action}");
        }
    }
}

/// Returns the code blocks of this language in the documentation.
fn examples(language: &str) -> Vec<String> {
    let document = shipped("docs/dbus.md");
    let fence = format!("```{language}\n");
    let blocks = document.split(fence.as_str()).skip(1);
    blocks
        .filter_map(|block| Some(block.split_once("\n```")?.0.to_owned()))
        .collect()
}

#[test]
fn the_documented_calls_work() {
    let service = Service::start();
    let polkit = Polkit::start(&service.bus);
    polkit.allow(ACTIONS);
    let calls: Vec<String> = examples("sh")
        .iter()
        .flat_map(|block| block.lines())
        .map(str::to_owned)
        .collect();
    assert!(calls.len() > 4, "{calls:?}");
    for call in calls {
        let words = call.strip_prefix("busctl ").unwrap_or_else(|| panic!("{call}"));
        let on_bus = format!("busctl --address={} {words}", service.bus.address());
        let output = Cmd::new("sh").args(["-c", &on_bus]).run_text();
        let output = output.unwrap_or_else(|error| panic!("{call}: {error:#}"));
        assert!(
            !output.trim().is_empty() || call.contains(" Reload"),
            "{call} prints nothing"
        );
        service
            .client(0)
            .service
            .cancel()
            .expect("what waits is cancelled");
    }
}

#[test]
fn the_documented_program_works() {
    let service = Service::start();
    service.machine.publish("2", []);
    let [program] = examples("python").try_into().expect("one program");
    let path = service.bus.path().join("upgrade.py");
    crate::support::write(&path, program);
    let output = Cmd::new("/usr/bin/python3")
        .arg(&path)
        .env("DBUS_SYSTEM_BUS_ADDRESS", service.bus.address())
        .run_text();
    let output = output.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(
        output.ends_with("done\n") && output.lines().count() > 2,
        "{output}"
    );
    assert_eq!(service.machine.versions(), ["2", "1"]);
}
