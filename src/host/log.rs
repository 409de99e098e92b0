//! Where the log goes: to standard error what `APT_OSTREE_LOG` asks for, and to the journal what maintainer scripts
//! write, with the fields `APT_OSTREE_PACKAGE` and `APT_OSTREE_SCRIPT`.

use ostree_ext::glib;
use std::path::Path;
pub use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

/// The socket of journald; without it, as in a container build, nothing goes to the journal.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The target under which the output of maintainer scripts is logged.
const SCRIPTS: &str = "script";

/// Begins to log, with what `level` and everything worse than it says where `APT_OSTREE_LOG` asks for nothing else.
///
/// A program calls this once.
pub fn start(level: LevelFilter) {
    let wanted = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var("APT_OSTREE_LOG")
        .from_env_lossy();
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        // What draws colours is not built in, and asking for them without it is a panic.
        .with_ansi(false)
        .with_filter(wanted);
    let journal = Path::new(JOURNAL)
        .exists()
        .then(tracing_journald::Layer::new)
        .transpose();
    let (journal, error) = match journal {
        Ok(journal) => (journal, None),
        Err(error) => (None, Some(error)),
    };
    let journal = journal.map(|journal| {
        journal
            .with_field_prefix(Some("APT_OSTREE".to_owned()))
            .with_syslog_identifier("apt-ostree".to_owned())
            .with_filter(Targets::new().with_target(SCRIPTS, LevelFilter::INFO))
    });
    registry().with(lines).with(journal).init();
    // libostree tells maintainers things on standard error; they belong with the log, not between our lines.
    let log = |text: &str| tracing::info!(target: "libostree", "{}", text.trim_end());
    glib::set_printerr_handler(log);
    glib::set_print_handler(log);
    if let Some(error) = error {
        tracing::warn!("the journal does not answer: {error}");
    }
}
