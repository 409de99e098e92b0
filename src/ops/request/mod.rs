//! Everything that changes a sysroot, as one value: what the command line and the service are asked for, and what a
//! process of its own is told to do.
//!
//! The keys of the options are the command line's names of options and arguments. A request that was read is known to
//! have no option that the verb lacks, and none that contradicts another.

mod perform;
mod recorded;

pub use perform::{Initiator, open, perform};

use crate::deployment::sysroot::Host;
use crate::fault::{Fault, Kind};
use crate::ops::store::Store;
use crate::ops::{
    Outcome, apply_live, automatic, cleanup, deploy, finalize, fsck, image, initramfs, initramfs_etc,
    install, kargs, overrides, pin, rebase, refresh_md, reset, rollback, uninstall, upgrade, usroverlay,
};
use crate::report::Report;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A request by its verb.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", content = "options", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is documented where its options are")]
pub enum Request {
    Upgrade(upgrade::Options),
    Rebase(rebase::Options),
    Deploy(deploy::Options),
    Install(install::Options),
    Uninstall(uninstall::Options),
    OverrideReplace(overrides::Replace),
    OverrideRemove(overrides::Remove),
    OverrideReset(overrides::Reset),
    Reset(reset::Options),
    Initramfs(initramfs::Options),
    InitramfsEtc(initramfs_etc::Options),
    Rollback(rollback::Options),
    Cleanup(cleanup::Options),
    Kargs(kargs::Options),
    Pin(pin::Options),
    Unpin(pin::Options),
    FinalizeDeployment(finalize::Options),
    ApplyLive(apply_live::Options),
    Usroverlay(usroverlay::Options),
    RefreshMd(refresh_md::Options),
    AutomaticUpdate(automatic::Options),
    ImagePull(image::Named),
    ImageRemove(image::Named),
    ImagePrune(image::Unneeded),
    Fsck(fsck::Options),
}

impl Request {
    /// Reads a request from its verb and options.
    ///
    /// Fails with the name of an option that the verb does not have, of one whose value is of another type, and of two
    /// that contradict each other.
    pub fn parse(verb: &str, options: &Map<String, Value>) -> Result<Self, Fault> {
        let read = |options: &Map<String, Value>| {
            serde_json::from_value::<Self>(serde_json::json!({ "verb": verb, "options": options }))
        };
        let known = read(&Map::new())
            .map_err(|_| {
                Fault::new(
                    Kind::Usage,
                    format!("There is no verb `{verb}` that changes a sysroot"),
                )
            })?
            .options();
        for (name, value) in options {
            if !known.contains_key(name) {
                return Err(
                    Fault::new(Kind::Usage, format!("`{verb}` has no option `{name}`")).hint(format!(
                        "see `apt-ostree {} --help`",
                        verb.replace("override-", "override ")
                    )),
                );
            }
            let alone = Map::from_iter([(name.clone(), value.clone())]);
            read(&alone).map_err(|error| {
                Fault::new(
                    Kind::Usage,
                    format!("The option `{name}` of `{verb}` cannot be used: {error}"),
                )
            })?;
        }
        let request = read(options).map_err(|error| {
            Fault::new(
                Kind::Usage,
                format!("The options of `{verb}` cannot be used: {error}"),
            )
        })?;
        request.check()?;
        Ok(request)
    }

    /// Returns the verb, with a hyphen where it consists of two words.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Upgrade(_) => "upgrade",
            Self::Rebase(_) => "rebase",
            Self::Deploy(_) => "deploy",
            Self::Install(_) => "install",
            Self::Uninstall(_) => "uninstall",
            Self::OverrideReplace(_) => "override-replace",
            Self::OverrideRemove(_) => "override-remove",
            Self::OverrideReset(_) => "override-reset",
            Self::Reset(_) => "reset",
            Self::Initramfs(_) => "initramfs",
            Self::InitramfsEtc(_) => "initramfs-etc",
            Self::Rollback(_) => "rollback",
            Self::Cleanup(_) => "cleanup",
            Self::Kargs(_) => "kargs",
            Self::Pin(_) => "pin",
            Self::Unpin(_) => "unpin",
            Self::FinalizeDeployment(_) => "finalize-deployment",
            Self::ApplyLive(_) => "apply-live",
            Self::Usroverlay(_) => "usroverlay",
            Self::RefreshMd(_) => "refresh-md",
            Self::AutomaticUpdate(_) => "automatic-update",
            Self::ImagePull(_) => "image-pull",
            Self::ImageRemove(_) => "image-remove",
            Self::ImagePrune(_) => "image-prune",
            Self::Fsck(_) => "fsck",
        }
    }

    /// Returns every option with its value; what was not given has its default.
    pub fn options(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(mut request)) => match request.remove("options") {
                Some(Value::Object(options)) => options,
                _ => Map::new(),
            },
            // The options are plain data, which always has a JSON form.
            _ => Map::new(),
        }
    }

    /// Returns whether the machine reboots when something changed.
    pub fn reboots(&self) -> bool {
        matches!(self, Self::FinalizeDeployment(_))
            || self.options().get("reboot") == Some(&Value::Bool(true))
    }

    /// Returns whether it is refused while something else drives the updates of this host.
    fn minds_driver(&self) -> bool {
        match self {
            Self::Upgrade(options) => !options.bypass_driver,
            Self::Rebase(options) => !options.bypass_driver,
            // Whoever registers is the driver from then on.
            Self::Deploy(options) => !options.bypass_driver && options.register_driver.is_none(),
            Self::AutomaticUpdate(_) => true,
            _ => false,
        }
    }

    /// Does what is asked for; the process must be in a mount namespace of its own.
    pub fn run(&self, host: Host, report: &dyn Report) -> Result<Outcome> {
        match self {
            Self::Upgrade(options) => upgrade::run(&host, options, report),
            Self::Rebase(options) => rebase::run(&host, options, report),
            Self::Deploy(options) => deploy::run(&host, options, report),
            Self::Install(options) => install::run(&host, options, report),
            Self::Uninstall(options) => uninstall::run(&host, options, report),
            Self::OverrideReplace(options) => overrides::replace(&host, options, report),
            Self::OverrideRemove(options) => overrides::remove(&host, options, report),
            Self::OverrideReset(options) => overrides::reset(&host, options, report),
            Self::Reset(options) => reset::run(&host, options, report),
            Self::Initramfs(options) => initramfs::run(&host, options, report),
            Self::InitramfsEtc(options) => initramfs_etc::run(&host, options, report),
            Self::Rollback(options) => rollback::run(&host, options, report),
            Self::Cleanup(options) => cleanup::run(&host, options, report),
            Self::Kargs(options) => kargs::run(&host, options, report),
            Self::Pin(options) => pin::run(&host, options, true, report),
            Self::Unpin(options) => pin::run(&host, options, false, report),
            Self::FinalizeDeployment(options) => finalize::run(&host, options, report),
            Self::ApplyLive(options) => apply_live::run(&host, options, report),
            Self::Usroverlay(options) => usroverlay::run(&host, options),
            Self::RefreshMd(options) => refresh_md::run(&host, options, report),
            Self::AutomaticUpdate(options) => automatic::run(&host, options, report),
            Self::ImagePull(named) => image::pull(&Store::Sysroot(host), named, report)
                .map(|pulled| Outcome::Pulled(Box::new(pulled))),
            Self::ImageRemove(named) => {
                image::remove(&Store::Sysroot(host), named, report).map(Outcome::Freed)
            }
            Self::ImagePrune(unneeded) => {
                image::prune(&Store::Sysroot(host), unneeded, report).map(Outcome::Freed)
            }
            Self::Fsck(options) => fsck::repair(&host, options, report),
        }
    }

    /// Refuses options that contradict each other; the command line does the same by itself.
    fn check(&self) -> Result<(), Fault> {
        let options = self.options();
        let is_set = |name: &str| match options.get(name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        for (one, other) in CONTRADICTIONS {
            if is_set(one) && is_set(other) {
                return Err(Fault::new(
                    Kind::Usage,
                    format!("`{}` takes either `{one}` or `{other}`, not both", self.verb()),
                ));
            }
        }
        for (verb, wanted) in NEEDED {
            if *verb == self.verb() && !wanted.iter().any(|name| is_set(name)) {
                return Err(Fault::new(
                    Kind::Usage,
                    format!("`{verb}` needs {}", wanted.join(" or ")),
                ));
            }
        }
        Ok(())
    }
}

/// Options that no verb takes together.
const CONTRADICTIONS: &[(&str, &str)] = &[
    ("cache-only", "download-only"),
    ("dry-run", "download-only"),
    ("dry-run", "reboot"),
    ("download-only", "reboot"),
    ("force-replacefiles", "conflicts"),
    ("all", "packages"),
    ("enable", "disable"),
    ("untrack-all", "untrack"),
    ("delete", "replace"),
    ("import-proc-cmdline", "deploy-index"),
    ("editor", "append"),
    ("editor", "append-if-missing"),
    ("editor", "delete"),
    ("editor", "delete-if-present"),
    ("editor", "replace"),
    ("hotfix", "transient"),
    ("target", "reset"),
];

/// What a verb cannot do without: one of these.
const NEEDED: &[(&str, &[&str])] = &[
    ("rebase", &["reference"]),
    ("deploy", &["revision", "register-driver"]),
    ("install", &["packages"]),
    ("uninstall", &["packages", "all"]),
    ("override-replace", &["packages"]),
    ("override-remove", &["packages"]),
    ("override-reset", &["packages", "all"]),
    ("initramfs", &["enable", "disable"]),
    (
        "initramfs-etc",
        &["track", "untrack", "untrack-all", "force-sync"],
    ),
    ("cleanup", &["base", "pending", "rollback", "repomd"]),
    (
        "kargs",
        &[
            "append",
            "append-if-missing",
            "delete",
            "delete-if-present",
            "replace",
            "import-proc-cmdline",
            "editor",
        ],
    ),
    ("finalize-deployment", &["checksum", "allow-missing-checksum"]),
    ("image-pull", &["reference"]),
    ("image-remove", &["reference"]),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(verb: &str, options: Value) -> Result<Request, Fault> {
        Request::parse(verb, options.as_object().unwrap())
    }

    #[test]
    fn requests_are_read_and_written() {
        let options =
            json!({ "install": ["htop"], "cache-only": true, "scripts": "strict", "script-timeout": 90 });
        let request = parse("upgrade", options).unwrap();
        let Request::Upgrade(read) = &request else {
            panic!("{request:?}")
        };
        assert!(read.fetch.cache_only && read.on_top.install == ["htop"]);
        assert_eq!(read.set_up.script_timeout, Some(90));
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        assert_eq!(Request::parse("upgrade", &request.options()).unwrap(), request);
    }

    #[test]
    fn mistakes_are_named() {
        for (verb, options, part) in [
            (
                "upgrade",
                json!({ "chache-only": true }),
                "no option `chache-only`",
            ),
            (
                "upgrade",
                json!({ "cache-only": "yes" }),
                "`cache-only` of `upgrade`",
            ),
            ("upgrade", json!({ "scripts": "perhaps" }), "`perhaps` is no mode"),
            (
                "upgrade",
                json!({ "cache-only": true, "download-only": true }),
                "either",
            ),
            ("install", json!({}), "`install` needs packages"),
            ("status", json!({}), "no verb `status`"),
            ("pin", json!({ "index": -1 }), "`index` of `pin`"),
        ] {
            let fault = parse(verb, options).unwrap_err();
            assert!(fault.message.contains(part), "{fault}");
        }
        assert!(parse("pin", json!({ "index": 1 })).is_ok());
        assert!(
            parse("rebase", json!({ "reference": "a:b", "reboot": true }))
                .unwrap()
                .reboots()
        );
    }

    #[test]
    fn each_verb_is_the_word_it_is_read_by() {
        for (verb, wanted) in NEEDED {
            assert!(
                parse(verb, json!({})).unwrap_err().message.contains(wanted[0]),
                "{verb}"
            );
        }
    }
}
