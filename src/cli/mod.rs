//! The command line: one file per verb with its arguments and `run`.
//!
//! Names, options and exit codes follow rpm-ostree; `docs/commands.md` lists where they differ. Data goes to
//! standard output, everything else to standard error. Exit status: 0 done, 1 error, 2 usage, 77 unchanged where
//! an option asks for it.

mod apply_live;
mod build;
mod cleanup;
mod completion;
pub mod container;
mod db;
mod deploy;
mod finalize;
mod generate;
mod image;
mod info;
mod initramfs;
mod initramfs_etc;
mod install;
mod kargs;
mod layering;
mod log;
mod manual;
mod outcome;
mod override_;
mod pin;
mod progress;
mod provision;
mod rebase;
mod refresh_md;
mod reset;
mod rollback;
mod search;
mod status;
mod status_layers;
mod transaction;
mod uninstall;
mod upgrade;
mod usroverlay;
mod version;

use crate::deployment::advance::Extent;
use crate::deployment::sysroot::{Host, Patience};
use crate::fault::{Fault, Kind};
use crate::host::{environment, interrupt, mounts};
use crate::ops::{Fetch, Target};
use crate::report::Report;
use anyhow::Result;
use clap::{Args, CommandFactory, Parser, Subcommand};
use ostree_ext::glib;
use outcome::After;
use progress::Progress;
use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit status of "nothing changed", and of `status --pending-exit-77`.
pub(crate) const UNCHANGED: u8 = 77;

/// Run Debian as an image: follow an OCI image, boot what was imported, go back at any time
#[derive(Debug, Parser)]
#[command(name = "apt-ostree", version, long_version = version::LONG, disable_version_flag = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// Options that every verb takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Options of every verb")]
pub(crate) struct Global {
    /// Work on the sysroot at DIR instead of the booted one
    #[arg(long, global = true, value_name = "DIR")]
    sysroot: Option<PathBuf>,
    /// Work on this stateroot instead of the booted one
    #[arg(long, global = true, value_name = "NAME", alias = "os")]
    stateroot: Option<String>,
    /// Print nothing but results and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// How to show progress, on standard error
    #[arg(long, global = true, value_name = "FORM", default_value = "auto")]
    progress: progress::Form,
    /// Fail at once when another process is changing the sysroot, instead of waiting for it
    #[arg(long, global = true)]
    no_wait: bool,
    /// Print the version and exit
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Status(status::Arguments),
    Upgrade(upgrade::Arguments),
    Rebase(rebase::Arguments),
    Deploy(deploy::Arguments),
    Install(install::Arguments),
    Uninstall(uninstall::Arguments),
    /// Packages of the image: replace, remove, reset, list
    #[command(subcommand)]
    Override(override_::Command),
    Reset(reset::Arguments),
    Initramfs(initramfs::Arguments),
    Rollback(rollback::Arguments),
    Cleanup(cleanup::Arguments),
    Kargs(kargs::Arguments),
    InitramfsEtc(initramfs_etc::Arguments),
    /// Keep a deployment from being removed by later ones
    Pin(pin::Arguments),
    /// Let a pinned deployment be removed again
    Unpin(pin::Arguments),
    FinalizeDeployment(finalize::Arguments),
    Search(search::Arguments),
    Info(info::Arguments),
    #[command(alias = "makecache")]
    RefreshMd(refresh_md::Arguments),
    ApplyLive(apply_live::Arguments),
    Usroverlay(usroverlay::Arguments),
    /// Images in the repository: pull, list, history, inspect, remove, prune
    #[command(subcommand)]
    Image(image::Command),
    /// Packages of deployments, images and commits: diff, list, version
    #[command(subcommand)]
    Db(db::Command),
    /// Install an image on a file system or a disk
    #[command(subcommand)]
    Provision(provision::Command),
    /// Build images: make a plain Debian root bootable, check an image
    #[command(subcommand)]
    Container(container::Command),
    Completion(completion::Arguments),
    #[command(subcommand, hide = true)]
    Generate(generate::Command),
}

/// Options of every verb that deploys an image.
#[derive(Args, Clone, Debug)]
pub(crate) struct FetchArguments {
    /// Use only what is stored on this host, no network
    #[arg(short = 'C', long, conflicts_with = "download_only")]
    cache_only: bool,
    /// Fetch and store the image, and deploy nothing
    #[arg(long)]
    download_only: bool,
    /// Stage the deployment, but do not apply it before `finalize-deployment`
    #[arg(long)]
    lock_finalization: bool,
    /// Reboot when a new deployment was made
    #[arg(short, long, conflicts_with = "download_only")]
    reboot: bool,
}

impl FetchArguments {
    fn fetch(&self) -> Fetch {
        Fetch {
            cache_only: self.cache_only,
            extent: if self.download_only {
                Extent::Download
            } else {
                Extent::Publish
            },
            lock_finalization: self.lock_finalization,
        }
    }
}

/// Options of the verbs that change what stands on top of the image.
#[derive(Args, Clone, Debug)]
pub(crate) struct ChangeArguments {
    /// Print what would be done and change nothing
    #[arg(short = 'n', long, conflicts_with = "reboot")]
    dry_run: bool,
    /// Print what would be done as JSON
    #[arg(long, requires = "dry_run")]
    json: bool,
    /// Answer every question with yes
    #[arg(short = 'y', long)]
    assumeyes: bool,
    /// End with 77 when nothing changed
    #[arg(long)]
    unchanged_exit_77: bool,
    /// Stage the deployment, but do not apply it before `finalize-deployment`
    #[arg(long)]
    lock_finalization: bool,
    /// Reboot when a new deployment was made
    #[arg(short, long)]
    reboot: bool,
}

impl Global {
    /// Returns whether an image is being built here and no sysroot was named.
    fn builds_image(&self) -> bool {
        self.sysroot.is_none() && environment::in_image_build(Path::new("/"))
    }
}

impl ChangeArguments {
    fn fetch(&self) -> Fetch {
        Fetch {
            cache_only: false,
            extent: if self.dry_run {
                Extent::Plan
            } else {
                Extent::Publish
            },
            lock_finalization: self.lock_finalization,
        }
    }

    /// Returns the options that mean nothing in the build of an image.
    fn given_in_build(&self) -> [build::Given; 5] {
        [
            ("--dry-run", self.dry_run),
            ("--json", self.json),
            ("--unchanged-exit-77", self.unchanged_exit_77),
            ("--lock-finalization", self.lock_finalization),
            ("--reboot", self.reboot),
        ]
    }

    fn after(&self) -> After {
        After {
            reboot: self.reboot,
            unchanged_exit_77: self.unchanged_exit_77,
            json: self.json,
        }
    }
}

/// What a verb gets besides its own arguments.
pub(crate) struct Context<'a> {
    global: &'a Global,
    report: &'a dyn Report,
    out: &'a mut dyn Write,
}

impl Context<'_> {
    fn host(&self, verb: &str, writes: bool) -> Result<Host> {
        Host::open(self.global.sysroot.as_deref(), verb, writes)
    }

    /// Opens the sysroot for a verb that writes and may be asked to reboot.
    ///
    /// A reboot on behalf of a sysroot that this machine did not boot from would hit the wrong machine.
    fn host_to_change(&self, verb: &str, reboot: bool) -> Result<Host> {
        let host = self.host(verb, true)?;
        if reboot && host.booted().is_none() {
            return Err(Fault::new(
                Kind::Usage,
                format!(
                    "`--reboot` makes no sense for {}, which this machine did not boot from",
                    host.path().display()
                ),
            )
            .into());
        }
        Ok(host)
    }

    fn target(&self) -> Target {
        Target {
            stateroot: self.global.stateroot.clone(),
            patience: self.patience(),
        }
    }

    fn patience(&self) -> Patience {
        if self.global.no_wait {
            Patience::Fail
        } else {
            Patience::Wait
        }
    }
}

impl Verb {
    /// Returns the verb's name when it changes a sysroot, and nothing when it only reads or works on other things.
    fn writes(&self) -> Option<&'static str> {
        match self {
            Self::Upgrade(arguments) if arguments.only_looks() => None,
            Self::Upgrade(_) => Some("upgrade"),
            Self::Rebase(_) => Some("rebase"),
            Self::Deploy(_) => Some("deploy"),
            Self::Install(_) => Some("install"),
            Self::Uninstall(_) => Some("uninstall"),
            Self::Override(command) => command.writes(),
            Self::Reset(_) => Some("reset"),
            Self::Initramfs(arguments) if arguments.only_looks() => None,
            Self::Initramfs(_) => Some("initramfs"),
            Self::Rollback(_) => Some("rollback"),
            Self::Cleanup(_) => Some("cleanup"),
            Self::Kargs(arguments) if arguments.only_looks() => None,
            Self::Kargs(_) => Some("kargs"),
            Self::InitramfsEtc(arguments) if arguments.only_looks() => None,
            Self::InitramfsEtc(_) => Some("initramfs-etc"),
            Self::Pin(_) => Some("pin"),
            Self::Unpin(_) => Some("unpin"),
            Self::FinalizeDeployment(_) => Some("finalize-deployment"),
            Self::ApplyLive(_) => Some("apply-live"),
            Self::Image(command) => command.writes(),
            Self::RefreshMd(_) => Some("refresh-md"),
            Self::Provision(_) => Some("provision"),
            Self::Status(_)
            | Self::Db(_)
            | Self::Search(_)
            | Self::Info(_)
            | Self::Usroverlay(_)
            | Self::Container(_)
            | Self::Completion(_)
            | Self::Generate(_) => None,
        }
    }
}

/// Parses the arguments, runs the verb and returns the exit status; the only place that prints an error.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // clap prints help and version to standard output and mistakes to standard error; a closed pipe is no news.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            return if error.print().is_ok() {
                ExitCode::from(status)
            } else {
                ExitCode::FAILURE
            };
        }
    };
    log::start();
    // libostree tells maintainers things on standard error; they belong with the log, not between our lines.
    let log = |text: &str| tracing::info!(target: "libostree", "{}", text.trim_end());
    glib::set_printerr_handler(log);
    glib::set_print_handler(log);
    let progress = Progress::new(cli.global.progress, cli.global.quiet);
    let mut out = std::io::stdout();
    let done = run(&cli, &progress, &mut out).and_then(|status| {
        out.flush()?;
        Ok(status)
    });
    progress.finish();
    match done {
        Ok(status) => ExitCode::from(status),
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error, cli.global.progress);
            ExitCode::from(status_of(&error))
        }
    }
}

fn run(cli: &Cli, report: &dyn Report, out: &mut dyn Write) -> Result<u8> {
    if let Some(verb) = cli.verb.writes() {
        // A build has no sysroot to be written, and often not the right to a mount namespace.
        let has_sysroot =
            !cli.global.builds_image() || matches!(cli.verb, Verb::Provision(_) | Verb::Image(_));
        // A writer without root fails at the lock with a clearer error than the kernel's.
        if has_sysroot && rustix::process::geteuid().is_root() {
            mounts::enter_private()?;
        } else if cli.global.sysroot.is_none() && Path::new("/run/ostree-booted").exists() {
            environment::require_root(verb)?;
        }
    }
    let mut context = Context {
        global: &cli.global,
        report,
        out,
    };
    match &cli.verb {
        Verb::Status(arguments) => status::run(arguments, &mut context),
        Verb::Upgrade(arguments) => upgrade::run(arguments, &mut context),
        Verb::Rebase(arguments) => rebase::run(arguments, &mut context),
        Verb::Deploy(arguments) => deploy::run(arguments, &mut context),
        Verb::Install(arguments) => install::run(arguments, &mut context),
        Verb::Uninstall(arguments) => uninstall::run(arguments, &mut context),
        Verb::Override(command) => override_::run(command, &mut context),
        Verb::Reset(arguments) => reset::run(arguments, &mut context),
        Verb::Initramfs(arguments) => initramfs::run(arguments, &mut context),
        Verb::Rollback(arguments) => rollback::run(arguments, &mut context),
        Verb::Cleanup(arguments) => cleanup::run(arguments, &mut context),
        Verb::Kargs(arguments) => kargs::run(arguments, &mut context),
        Verb::InitramfsEtc(arguments) => initramfs_etc::run(arguments, &mut context),
        Verb::Pin(arguments) => pin::run(arguments, true, &mut context),
        Verb::Unpin(arguments) => pin::run(arguments, false, &mut context),
        Verb::FinalizeDeployment(arguments) => finalize::run(arguments, &mut context),
        Verb::Usroverlay(arguments) => usroverlay::run(arguments, &mut context),
        Verb::ApplyLive(arguments) => apply_live::run(arguments, &mut context),
        Verb::Image(command) => image::run(command, &mut context),
        Verb::Search(arguments) => search::run(arguments, &mut context),
        Verb::Info(arguments) => info::run(arguments, &mut context),
        Verb::RefreshMd(arguments) => refresh_md::run(arguments, &mut context),
        Verb::Db(command) => db::run(command, &mut context),
        Verb::Provision(command) => provision::run(command, context.out, context.report),
        Verb::Container(command) => container::run(command, context.out, context.report),
        Verb::Completion(arguments) => completion::run(arguments, Cli::command(), &mut context),
        Verb::Generate(command) => generate::run(command, Cli::command(), &mut context),
    }
}

/// A reader that closes its end early, such as `head`, has what it wanted.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Returns the exit status; a verb that a signal stopped ends as a shell tells of one that a signal ended.
fn status_of(error: &anyhow::Error) -> u8 {
    match (Fault::find(error).map(|fault| fault.kind), interrupt::received()) {
        (Some(Kind::Usage), _) => 2,
        (Some(Kind::Cancelled), Some(signal)) => 128 + signal,
        _ => 1,
    }
}

#[expect(clippy::print_stderr, reason = "this is where errors are printed")]
fn print_error(error: &anyhow::Error, form: progress::Form) {
    let hint = Fault::find(error).and_then(|fault| fault.hint.as_deref());
    if form == progress::Form::Json {
        eprintln!(
            "{}",
            serde_json::json!({ "type": "error", "text": format!("{error:#}"), "hint": hint })
        );
        return;
    }
    let coloured = std::io::stderr().is_terminal() && environment::variable("NO_COLOR").is_none();
    let (red, plain) = if coloured {
        ("\x1b[31m", "\x1b[0m")
    } else {
        ("", "")
    };
    eprintln!("{red}error:{plain} {error:#}");
    if let Some(hint) = hint {
        eprintln!("hint: {hint}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
