//! Where the log goes: to standard error what `APT_OSTREE_LOG` asks for, and to the journal what maintainer scripts
//! write, with the fields `APT_OSTREE_PACKAGE` and `APT_OSTREE_SCRIPT`.

use std::path::Path;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

/// The socket of journald; without it, as in a container build, nothing goes to the journal.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The target under which the output of maintainer scripts is logged.
const SCRIPTS: &str = "script";

pub(super) fn start() {
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_filter(EnvFilter::from_env("APT_OSTREE_LOG"));
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
    if let Some(error) = error {
        tracing::warn!("the journal does not answer: {error}");
    }
}
