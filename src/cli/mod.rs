//! The command line: one file per verb with its arguments and `run`.
//!
//! Names, options and exit codes follow rpm-ostree; `docs/commands.md` lists where they differ. Data goes to
//! standard output, everything else to standard error. Exit status: 0 done, 1 error, 2 usage, 77 unchanged where
//! an option asks for it.

mod apply_live;
mod available;
mod build;
mod cancel;
mod cleanup;
mod completion;
mod config;
pub mod container;
mod countme;
mod db;
mod deploy;
mod diff;
mod editor;
mod ex;
mod finalize;
mod fsck;
mod generate;
mod help;
mod history;
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
mod perform;
mod pin;
mod progress;
mod provision;
mod rebase;
mod record_boot;
mod refresh_md;
mod reload;
mod reset;
mod rollback;
mod search;
mod status;
mod status_automatic;
mod status_layers;
mod terminal;
mod transaction;
mod uninstall;
mod upgrade;
mod usroverlay;
mod version;

use crate::deployment::sysroot::{Host, Patience};
use crate::fault::{Fault, Kind};
use crate::host::log::{self as logging, LevelFilter};
use crate::host::{environment, interrupt};
use crate::ops::{Fetch, Target};
use crate::report::Report;
use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use outcome::After;
use progress::Progress;
use std::cell::Cell;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use terminal::Style;

/// Exit status of "nothing changed", and of `status --pending-exit-77`.
pub(crate) const UNCHANGED: u8 = 77;

/// Run Debian as an image: follow an OCI image, boot what was imported, go back at any time
///
/// The system is one image, which is replaced as a whole. A change makes a new deployment beside the one that runs; it boots at
/// the next restart, and the old one stays to go back to. /etc and /var are the host's own and are kept.
#[derive(Debug, Parser)]
#[command(
    name = "apt-ostree",
    version,
    propagate_version = true,
    disable_version_flag = true
)]
#[command(after_help = "\
Getting started:
  apt-ostree status
      See what runs, and what boots next
  apt-ostree upgrade
      Fetch the newest image; it boots at the next restart
  apt-ostree install htop
      Put a package on top of the image
  apt-ostree rollback
      Boot at the next restart what ran before
  apt-ostree VERB --help
      See what a verb does, with examples")]
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
    /// Whether the service makes changes, or this process
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    service: perform::Use,
    /// rpm-ostree's, which does nothing there either
    #[arg(long, global = true, hide = true)]
    peer: bool,
    /// Print the version and exit
    #[arg(long, global = true, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Status(status::Arguments),
    Log(log::Arguments),
    Upgrade(upgrade::Arguments),
    Rebase(rebase::Arguments),
    Deploy(deploy::Arguments),
    Install(install::Arguments),
    Uninstall(uninstall::Arguments),
    /// Replace or remove packages of the image
    ///
    /// Packages that come with the image cannot be changed with `install`. An override is kept and made again
    /// on each new image; where that has no such package, it has no effect.
    #[command(subcommand)]
    Override(override_::Command),
    Reset(reset::Arguments),
    Initramfs(initramfs::Arguments),
    Rollback(rollback::Arguments),
    Cleanup(cleanup::Arguments),
    Kargs(kargs::Arguments),
    InitramfsEtc(initramfs_etc::Arguments),
    /// Keep a deployment until it is unpinned
    ///
    /// Later changes and `cleanup` never remove a pinned deployment, so that it can be booted at any time.
    /// Takes effect at once; `apt-ostree unpin` takes it back.
    #[command(after_help = "\
Examples:
  apt-ostree pin
      Keep the deployment that runs
  apt-ostree pin 1
      Keep the one with the index 1 in `status -v`")]
    Pin(pin::Arguments),
    /// Let a pinned deployment be removed again
    ///
    /// Nothing is removed at once: the next change does that, when the deployment is not needed any more.
    #[command(after_help = "\
Examples:
  apt-ostree unpin
      Unpin the deployment that runs
  apt-ostree unpin 1
      Unpin the one with the index 1 in `status -v`")]
    Unpin(pin::Arguments),
    FinalizeDeployment(finalize::Arguments),
    Cancel(cancel::Arguments),
    Reload(reload::Arguments),
    Search(search::Arguments),
    Info(info::Arguments),
    #[command(alias = "makecache")]
    RefreshMd(refresh_md::Arguments),
    ApplyLive(apply_live::Arguments),
    Usroverlay(usroverlay::Arguments),
    /// Look at stored images, fetch and remove them
    ///
    /// For looking behind `upgrade` and `rebase`, which store and remove images by themselves.
    #[command(subcommand)]
    Image(image::Command),
    /// List and compare packages of deployments and images
    ///
    /// Each deployment carries its own list of packages, so that all of them can be looked at from the system
    /// that runs.
    #[command(subcommand, alias = "rpm")]
    Db(db::Command),
    Diff(diff::Arguments),
    History(history::Arguments),
    /// Install an image on an empty disk
    ///
    /// For the first installation of a host; later changes are made with `upgrade` and `rebase`.
    #[command(subcommand)]
    Provision(provision::Command),
    /// Make and check images, while they are built
    ///
    /// Images are built with an ordinary Containerfile by podman; these verbs are for its last lines.
    #[command(subcommand)]
    Container(container::Command),
    Config(config::Arguments),
    #[command(long_flag = "validate")]
    Fsck(fsck::Arguments),
    Completion(completion::Arguments),
    #[command(hide = true)]
    RecordBoot(record_boot::Arguments),
    #[command(hide = true)]
    Countme(countme::Arguments),
    /// Verbs by rpm-ostree's older names
    #[command(subcommand, hide = true)]
    Ex(ex::Command),
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
            download_only: self.download_only,
            dry_run: false,
            lock_finalization: self.lock_finalization,
        }
    }
}

/// What the verbs that take another image do beside a program that drives updates.
#[derive(Args, Clone, Debug)]
pub(crate) struct DriverArguments {
    /// Do it though a program that drives the updates of this host is registered and active
    #[arg(long)]
    bypass_driver: bool,
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
            dry_run: self.dry_run,
            lock_finalization: self.lock_finalization,
            ..Fetch::default()
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
    /// The words of the command line behind the program's name.
    title: String,
    /// Whether the service did the work, and reboots where that was asked for.
    served: Cell<bool>,
}

impl Context<'_> {
    /// Opens the sysroot for a verb that only reads.
    fn host(&self, verb: &str) -> Result<Host> {
        Host::open(self.global.sysroot.as_deref(), verb, false)
    }

    fn target(&self) -> Target {
        Target {
            stateroot: self.global.stateroot.clone(),
            no_wait: self.global.no_wait,
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

/// Parses the arguments, runs the verb and returns the exit status; the only place that prints an error.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let title = title(&arguments);
    let matches = help::grouped(Cli::command()).try_get_matches_from(arguments);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::DisplayVersion => {
            let printed = std::io::stdout().write_all(version::text().as_bytes());
            return printed.map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        Err(error) => {
            // clap prints help to standard output and mistakes to standard error; a closed pipe is no news.
            let status = u8::try_from(error.exit_code()).unwrap_or(2);
            return if error.print().is_ok() {
                ExitCode::from(status)
            } else {
                ExitCode::FAILURE
            };
        }
    };
    logging::start(LevelFilter::ERROR);
    let progress = Progress::new(cli.global.progress, cli.global.quiet);
    let mut out = progress.beside(std::io::stdout());
    let done = run(&cli, title, &progress, &mut out).and_then(|status| {
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

fn run(cli: &Cli, title: String, report: &dyn Report, out: &mut dyn Write) -> Result<u8> {
    let mut context = Context {
        global: &cli.global,
        report,
        out,
        title,
        served: Cell::new(false),
    };
    match &cli.verb {
        Verb::Status(arguments) => status::run(arguments, &mut context),
        Verb::Log(arguments) => log::run(arguments, &mut context),
        Verb::RecordBoot(arguments) => record_boot::run(arguments, &mut context),
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
        Verb::Cancel(arguments) => cancel::run(arguments, &mut context),
        Verb::Reload(arguments) => reload::run(arguments, &mut context),
        Verb::Usroverlay(arguments) => usroverlay::run(arguments, &mut context),
        Verb::ApplyLive(arguments) => apply_live::run(arguments, &mut context),
        Verb::Image(command) => image::run(command, &mut context),
        Verb::Search(arguments) => search::run(arguments, &mut context),
        Verb::Info(arguments) => info::run(arguments, &mut context),
        Verb::RefreshMd(arguments) => refresh_md::run(arguments, &mut context),
        Verb::Db(command) => db::run(command, &mut context),
        Verb::Diff(arguments) => diff::run(arguments, &mut context),
        Verb::History(arguments) => history::run(arguments, &mut context),
        Verb::Provision(command) => provision::run(command, context.out, context.report),
        Verb::Container(command) => container::run(command, context.out, context.report),
        Verb::Config(arguments) => config::run(arguments, &mut context),
        Verb::Fsck(arguments) => fsck::run(arguments, &mut context),
        Verb::Completion(arguments) => completion::run(arguments, Cli::command(), &mut context),
        Verb::Countme(arguments) => countme::run(arguments, &mut context),
        Verb::Ex(command) => ex::run(command, &mut context),
        Verb::Generate(command) => generate::run(command, Cli::command(), &mut context),
    }
}

/// Returns the words behind the program's name as one text.
fn title(arguments: &[OsString]) -> String {
    let words: Vec<_> = arguments
        .iter()
        .skip(1)
        .map(|word| word.to_string_lossy())
        .collect();
    words.join(" ")
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
    let style = Style::of(&std::io::stderr());
    eprintln!(
        "{} {}",
        style.red("error:"),
        style.printable(&format!("{error:#}"))
    );
    if let Some(hint) = hint {
        eprintln!("hint: {}", style.printable(hint));
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
