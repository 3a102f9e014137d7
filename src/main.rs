//! The `mahoraga` program.

fn main() {}
