//! The parts of `hack/bench` that measure nothing: statistics, tables, charts, the counting of processes.

use apt_ostree::host::runner::Cmd;

#[test]
fn what_measures_nothing_is_right() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/bench.d/tests");
    Cmd::new("/usr/bin/python3")
        .args(["-B", "-m", "unittest", "discover", "-s", folder])
        .run_text()
        .unwrap_or_else(|error| panic!("{error:#}"));
}
