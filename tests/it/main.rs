//! Integration tests; one binary, one file a subject.

mod credentials;
mod layering;
mod policy;
mod references;
mod registry;
mod support;
