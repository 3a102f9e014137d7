//! Which figures the tests have moved: each that was not 0 leaves an empty file. After all tests
//! tests/tidy looks for figures that none has moved.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::balancer::Balancer;
use crate::watchdog::patience;

/// Notes the numbers of a worker that are not 0.
pub(crate) fn note_numbers<'a>(numbers: impl Iterator<Item = (&'a String, &'a u64)>) {
    let moved = numbers.filter(|(_, number)| **number > 0);
    moved.for_each(|(name, _)| note(name));
}

/// Notes the figures of `/metrics` that are not 0; a histogram's name is without its part.
pub(crate) fn note_figures(text: &str) {
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let value = line.rsplit(' ').next().and_then(|value| value.parse().ok());
        if value.is_some_and(|value: f64| value != 0.0) {
            let parts = ["_bucket", "_sum", "_count"];
            let whole = parts.iter().find_map(|part| name.strip_suffix(part));
            note(whole.unwrap_or(name));
        }
    }
}

/// Notes the figures that a balancer has now. One that does not answer, or has no admin socket,
/// shows none.
pub(crate) fn note_figures_at(socket: &Path) {
    let asked = || -> io::Result<String> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(patience()))?;
        stream.write_all(REQUEST)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    if let Some((_, text)) = asked().ok().as_deref().and_then(split) {
        note_figures(text);
    }
}

impl Balancer {
    /// Notes the figures as they are now.
    pub(crate) fn note_figures(&self) {
        note_figures_at(&self.dir().join("mahoraga.sock"));
    }
}

fn split(answer: &str) -> Option<(&str, &str)> {
    let whole = answer.split_once("\r\n\r\n");
    whole.filter(|(head, _)| head.starts_with("HTTP/1.1 200"))
}

fn note(name: &str) {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("moved");
    let file = directory.join(name);
    if !file.exists() {
        fs::create_dir_all(&directory).unwrap();
        fs::write(file, "").unwrap();
    }
}

const REQUEST: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
