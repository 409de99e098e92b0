//! The client's side: reaching the service, asking for a change, and watching it.
//!
//! A client opens the files it names itself and hands them over; the service opens no path for it.

use crate::daemon::error::BusError;
use crate::daemon::files::{COMMAND_LINE, FILES};
use crate::daemon::variant;
use crate::daemon::{BUS_NAME, OS_PATH, SYSROOT_PATH};
use crate::fault::{Fault, Kind};
use crate::ops::Outcome;
use crate::ops::layering::Wanted;
use crate::ops::request::Request;
use crate::report::{Event, Report};
use anyhow::{Context, Result};
use serde_json::{Map, Value as Json};
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use zbus::blocking::{Connection, MessageIterator, Proxy, connection};
use zbus::proxy::MethodFlags;
use zbus::zvariant::{Fd, OwnedValue, StructureBuilder, Value};

/// How many messages may wait to be looked at; the service cuts a client off before.
const QUEUE: usize = 4096;

/// Verbs that are methods of the sysroot; all others are methods of a stateroot.
const OF_SYSROOT: &[&str] = &[
    "pin",
    "unpin",
    "image-pull",
    "image-remove",
    "image-prune",
    "fsck",
];

/// Options that a method takes by position.
const POSITIONAL: &[(&str, &str)] = &[
    ("rebase", "reference"),
    ("deploy", "revision"),
    ("install", "packages"),
    ("uninstall", "packages"),
    ("override-replace", "packages"),
    ("override-remove", "packages"),
    ("override-reset", "packages"),
    ("image-pull", "reference"),
    ("image-remove", "reference"),
];

/// Options whose words may be files, with the verbs of which `packages` is one.
const MAY_BE_FILES: &[&str] = &["install", "override-replace"];

/// A connection to the service.
#[derive(Clone, Debug)]
pub struct Service {
    bus: Connection,
}

/// What runs, as [`Service::active`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Active {
    /// What it does, in the words of who asked for it.
    pub title: String,
    /// Who asked for it.
    pub initiator: String,
    /// Where it is watched.
    pub address: String,
}

/// A transaction that is watched.
#[derive(Debug)]
pub struct Transaction {
    connection: Connection,
    messages: MessageIterator,
}

/// Stops a transaction, from any thread.
#[derive(Clone, Debug)]
pub struct Canceller {
    connection: Connection,
}

/// What a watcher hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something happened.
    Event(Event),
    /// The transaction is over; [`Transaction::result`] tells how.
    Finished,
}

impl Service {
    /// Reaches the service on the system bus, which starts it where it does not run.
    ///
    /// Fails when there is no bus, and when the service cannot be started.
    pub fn connect() -> Result<Self> {
        let bus = Connection::system().context("Connecting to the system bus")?;
        Self::on(bus)
    }

    /// Reaches the service on the bus at `address`.
    pub fn connect_to(address: &str) -> Result<Self> {
        let bus = connection::Builder::address(address)?
            .build()
            .with_context(|| format!("Connecting to the bus at {address}"))?;
        Self::on(bus)
    }

    /// Reaches the service where it runs already; starts nothing.
    pub fn running() -> Result<Option<Self>> {
        let bus = Connection::system().context("Connecting to the system bus")?;
        let names = zbus::blocking::fdo::DBusProxy::new(&bus)?;
        let runs = names.name_has_owner(BUS_NAME.try_into()?)?;
        Ok(runs.then_some(Self { bus }))
    }

    /// Reaches the service over a connection to its bus.
    pub fn on(bus: Connection) -> Result<Self> {
        // The first call starts the service, and its error tells best what is wrong.
        let peer = Some("org.freedesktop.DBus.Peer");
        bus.call_method(Some(BUS_NAME), SYSROOT_PATH, peer, "Ping", &())
            .map_err(fault)
            .context("Starting the service")?;
        Ok(Self { bus })
    }

    /// Asks the service to stay until this connection ends; `id` is the name the client gives itself.
    pub fn register(&self, id: &str) -> Result<()> {
        let options = HashMap::from([("id", Value::from(id))]);
        self.call(SYSROOT_PATH, "RegisterClient", &(options,))
    }

    /// Returns the sysroot that it works on.
    pub fn path(&self) -> Result<PathBuf> {
        let path: String = self.proxy(SYSROOT_PATH)?.get_property("Path").map_err(fault)?;
        Ok(path.into())
    }

    /// Returns what `status --json` prints.
    pub fn status(&self) -> Result<String> {
        self.call(SYSROOT_PATH, "GetStatus", &())
    }

    /// Lets the service read the sysroot again.
    pub fn reload(&self) -> Result<()> {
        self.call(SYSROOT_PATH, "Reload", &())
    }

    /// Lets the service read its settings again.
    pub fn reload_config(&self) -> Result<()> {
        self.call(SYSROOT_PATH, "ReloadConfig", &())
    }

    /// Stops what runs; returns whether something did.
    pub fn cancel(&self) -> Result<bool> {
        self.call(SYSROOT_PATH, "Cancel", &())
    }

    /// Returns what runs.
    pub fn active(&self) -> Result<Option<Active>> {
        let proxy = self.proxy(SYSROOT_PATH)?;
        let (title, initiator, address): (String, String, String) =
            proxy.get_property("ActiveTransaction").map_err(fault)?;
        Ok((!address.is_empty()).then_some(Active {
            title,
            initiator,
            address,
        }))
    }

    /// Asks for a change, as [`Service::ask`] does, and attaches to its transaction.
    pub fn begin(&self, request: &Request, title: &str) -> Result<Transaction> {
        Transaction::attach(&self.ask(request, title)?)
    }

    /// Asks for a change and returns where its transaction waits for [`Transaction::start`].
    ///
    /// `title` is what people are shown, normally the words of the command line. Files that the request names are
    /// opened here. Fails with the service's fault: the right is missing, something else runs, the request makes no
    /// sense.
    pub fn ask(&self, request: &Request, title: &str) -> Result<String> {
        let verb = request.verb();
        let mut options = request.options();
        options.retain(|_, value| is_given(value));
        let files = hand_over(verb, &mut options)?;
        let mut body = StructureBuilder::new();
        if let Some((_, name)) = POSITIONAL.iter().find(|(of, _)| *of == verb) {
            body = body.append_field(positional(name, options.remove(*name)));
        }
        let mut fields = variant::fields(&Json::Object(options));
        fields.insert(COMMAND_LINE.to_owned(), OwnedValue::try_from(Value::from(title))?);
        if !files.is_empty() {
            let files: Vec<Fd<'_>> = files.into_iter().map(Fd::from).collect();
            fields.insert(FILES.to_owned(), Value::from(files).try_into_owned()?);
        }
        let body = body.append_field(Value::from(fields)).build()?;
        let path = if OF_SYSROOT.contains(&verb) {
            SYSROOT_PATH
        } else {
            OS_PATH
        };
        self.call(path, &method(verb), &body)
    }

    fn proxy(&self, path: &'static str) -> Result<Proxy<'static>> {
        let interface = if path == SYSROOT_PATH {
            "org.aptostree.dev.Sysroot1"
        } else {
            "org.aptostree.dev.OS1"
        };
        let builder = zbus::blocking::proxy::Builder::new(&self.bus)
            .destination(BUS_NAME)?
            .path(path)?
            .interface(interface)?
            .cache_properties(zbus::proxy::CacheProperties::No);
        Ok(builder.build()?)
    }

    /// Calls a method; a person may be asked for a password.
    fn call<B, R>(&self, path: &'static str, method: &str, body: &B) -> Result<R>
    where
        B: serde::Serialize + zbus::zvariant::DynamicType,
        R: for<'d> zbus::zvariant::DynamicDeserialize<'d>,
    {
        let flags = MethodFlags::AllowInteractiveAuth.into();
        let reply = self
            .proxy(path)?
            .call_with_flags(method, flags, body)
            .map_err(fault)?;
        reply.context("The service did not reply")
    }
}

impl Transaction {
    /// Connects to the transaction that is watched at `address`.
    pub fn attach(address: &str) -> Result<Self> {
        let connection = connection::Builder::address(address)?
            .p2p()
            .max_queued(QUEUE)
            .build()
            .context("Connecting to the transaction")?;
        Ok(Self::on(connection))
    }

    /// Watches the transaction at the other end of a connection.
    pub fn on(connection: Connection) -> Self {
        Self {
            // Before anything is called, so that nothing is missed.
            messages: MessageIterator::from(&connection),
            connection,
        }
    }

    /// Begins the transaction, or is told where it stands; returns whether this call began it.
    pub fn start(&self) -> Result<bool> {
        transaction(&self.connection)?
            .call("Start", &())
            .map_err(fault_of_transaction)
    }

    /// Returns what stops it.
    pub fn canceller(&self) -> Canceller {
        Canceller {
            connection: self.connection.clone(),
        }
    }

    /// Waits for what happens next.
    ///
    /// Fails when the service goes away.
    pub fn hear(&mut self) -> Result<Told> {
        loop {
            let message = match self.messages.next() {
                Some(Ok(message)) => message,
                Some(Err(_)) | None => return Err(gone().into()),
            };
            if message.message_type() != zbus::message::Type::Signal {
                continue;
            }
            match message.header().member().map(|member| member.as_str()) {
                Some("Event") => {
                    let json: String = message.body().deserialize()?;
                    // A newer service may tell what this client has no word for.
                    if let Ok(event) = serde_json::from_str(&json) {
                        return Ok(Told::Event(event));
                    }
                }
                Some("Finished") => return Ok(Told::Finished),
                _ => {}
            }
        }
    }

    /// Returns how it ended.
    ///
    /// Fails with the transaction's fault, and before its end.
    pub fn result(&self) -> Result<Outcome> {
        let fields: HashMap<String, OwnedValue> = transaction(&self.connection)?
            .get_property("Result")
            .map_err(fault_of_transaction)?;
        let fields: Map<String, Json> = fields
            .iter()
            .map(|(name, value)| Ok((name.clone(), variant::json(name, value)?)))
            .collect::<Result<_, Fault>>()?;
        let text = |name: &str| {
            fields
                .get(name)
                .and_then(Json::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        if fields.get("success") == Some(&Json::Bool(true)) {
            return serde_json::from_str(&text("outcome")).context("Reading what the service did");
        }
        if fields.is_empty() {
            return Err(Fault::new(Kind::Busy, "The transaction is not over").into());
        }
        let Ok(kind) = serde_json::from_value::<Kind>(Json::from(text("kind"))) else {
            return Err(anyhow::Error::msg(text("message")));
        };
        let names = fields.get("names").and_then(Json::as_array).into_iter().flatten();
        let mut found = Fault::new(kind, text("message")).about(names.filter_map(Json::as_str));
        found.hint = Some(text("hint")).filter(|hint| !hint.is_empty());
        Err(found.into())
    }

    /// Begins it, hands over every event, and returns how it ended.
    pub fn run(mut self, report: &dyn Report) -> Result<Outcome> {
        self.start()?;
        loop {
            match self.hear()? {
                Told::Event(event) => report.event(event),
                Told::Finished => return self.result(),
            }
        }
    }
}

impl Canceller {
    /// Stops the transaction; returns at once, the transaction tells when it is over.
    pub fn cancel(&self) -> Result<()> {
        transaction(&self.connection)?
            .call("Cancel", &())
            .map_err(fault_of_transaction)
    }
}

fn transaction(connection: &Connection) -> Result<Proxy<'static>> {
    let builder = zbus::blocking::proxy::Builder::new(connection)
        .destination(BUS_NAME)?
        .path("/")?
        .interface("org.aptostree.dev.Transaction1")?
        .cache_properties(zbus::proxy::CacheProperties::No);
    Ok(builder.build()?)
}

fn fault(error: zbus::Error) -> anyhow::Error {
    BusError::from(error).into_error()
}

/// Returns what a call to a transaction failed with; its socket ends with the service.
fn fault_of_transaction(error: zbus::Error) -> anyhow::Error {
    match error {
        zbus::Error::InputOutput(_) => gone().into(),
        error => fault(error),
    }
}

fn gone() -> Fault {
    Fault::new(Kind::Unreachable, "The service went away while the transaction ran")
        .hint("see what happened with `journalctl -u apt-ostreed`, and where the host stands with `apt-ostree status`")
}

/// Returns the method of a verb: `override-reset` is `OverrideReset`.
fn method(verb: &str) -> String {
    let mut method = String::new();
    for word in verb.split('-') {
        let (first, rest) = word.split_at(1);
        method.push_str(&first.to_ascii_uppercase());
        method.push_str(rest);
    }
    method
}

/// Returns whether an option has another value than the one it has without being given.
fn is_given(value: &Json) -> bool {
    match value {
        Json::Null | Json::Bool(false) => false,
        Json::Array(list) => !list.is_empty(),
        _ => true,
    }
}

fn positional(name: &str, value: Option<Json>) -> Value<'static> {
    match value {
        Some(Json::Array(list)) => Value::from(strings(&list)),
        Some(Json::String(text)) => Value::from(text),
        _ if name == "packages" => Value::from(Vec::<String>::new()),
        _ => Value::from(String::new()),
    }
}

fn strings(list: &[Json]) -> Vec<String> {
    list.iter().filter_map(Json::as_str).map(str::to_owned).collect()
}

/// Opens the files that options name, and lets the options name their places in the list instead.
fn hand_over(verb: &str, options: &mut Map<String, Json>) -> Result<Vec<OwnedFd>> {
    let mut files = Vec::new();
    let mut open = |word: &mut Json| -> Result<()> {
        let path = word.as_str().unwrap_or_default().to_owned();
        let file = File::open(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                Fault::new(Kind::NotFound, format!("There is no file {path}")).into()
            }
            _ => anyhow::Error::from(error).context(format!("Opening {path}")),
        })?;
        *word = Json::from(format!("@{}", files.len()));
        files.push(OwnedFd::from(file));
        Ok(())
    };
    let mut lists = vec!["install"];
    if MAY_BE_FILES.contains(&verb) {
        lists.push("packages");
    }
    if verb == "override-remove" {
        lists.push("replace");
    }
    for name in lists {
        let Some(Json::Array(words)) = options.get_mut(name) else {
            continue;
        };
        let wanted = Wanted::parse(&strings(words))?;
        for word in words {
            let is_path =
                |file: &String| Some(file.as_str()) == word.as_str() && !file.starts_with("https://");
            if wanted.files.iter().any(is_path) {
                open(word)?;
            }
        }
    }
    if let Some(word) = options.get_mut("debconf") {
        open(word)?;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn files_are_opened_and_named_by_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.deb");
        std::fs::write(&path, "").unwrap();
        let mut options = json!({ "packages": ["htop", path, "https://h/b.deb"], "debconf": path });
        let options = options.as_object_mut().unwrap();
        assert_eq!(hand_over("install", options).unwrap().len(), 2);
        assert_eq!(options["packages"], json!(["htop", "@0", "https://h/b.deb"]));
        assert_eq!(options["debconf"], "@1");
        let mut missing = json!({ "install": ["./no.deb"] });
        let error = hand_over("upgrade", missing.as_object_mut().unwrap()).unwrap_err();
        assert_eq!(Fault::find(&error).map(|fault| fault.kind), Some(Kind::NotFound));
    }

    #[test]
    fn verbs_are_methods() {
        assert_eq!(method("finalize-deployment"), "FinalizeDeployment");
    }
}
