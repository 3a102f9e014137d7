//! Gives a release build the commit that it is of, so that two builds of one version can be told
//! apart.
//!
//! Debug builds have none: each commit would compile the library again. The commit and its date are
//! the same for every build of it, so that builds stay reproducible. `MAHORAGA_BUILD` in the
//! environment stands in place of it, where there is no repository: `deadbeef 2026-11-27`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MAHORAGA_BUILD");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let given = env::var("MAHORAGA_BUILD").ok();
    let build = given.or_else(|| is_release.then(commit).flatten());
    // It becomes a part of a line.
    let is_line = |build: &String| !build.is_empty() && !build.contains(char::is_control);
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    match build.filter(is_line) {
        Some(build) => {
            println!("cargo:rustc-env=MAHORAGA_BUILD={build}");
            println!("cargo:rustc-env=MAHORAGA_VERSION={version} ({build})");
        }
        None => println!("cargo:rustc-env=MAHORAGA_VERSION={version}"),
    }
}

/// The commit of this repository, and its date. `None`: there is no git, or another program's
/// repository holds these files.
fn commit() -> Option<String> {
    let root = env::var("CARGO_MANIFEST_DIR").ok()?;
    let top = git(&["rev-parse", "--show-toplevel"])?;
    let real = |path: &str| Path::new(path).canonicalize().ok();
    if real(&root)? != real(&top)? {
        return None;
    }
    // It gets a line with each commit and each checkout; a file that is not there would make cargo
    // run this each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    if Path::new(&log).exists() {
        println!("cargo:rerun-if-changed={log}");
    }
    git(&["log", "-1", "--format=%h %cs", "--abbrev=12"])
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
