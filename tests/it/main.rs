//! Integration tests; one binary, one file a subject.

mod layering;
mod registry;
mod support;
