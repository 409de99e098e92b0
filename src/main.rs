//! Entry of the command line client.

fn main() {}
