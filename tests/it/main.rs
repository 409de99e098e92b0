//! Integration tests; one binary, one file a subject.

mod archive_support;
mod cli_source;
mod credentials;
mod db;
mod docs;
mod faults_source;
mod gc;
mod import_encapsulated;
mod import_faults;
mod import_peers;
mod import_podman;
mod import_resume;
mod import_tree;
mod layering;
mod lint;
mod policy;
mod prepare;
mod provision;
mod references;
mod registry;
mod sandbox_stage;
mod signed_example;
mod support;
mod verbs;
mod verbs_faults;
mod verbs_tell;
