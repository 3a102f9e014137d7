//! A fake admin API that gives the answers of a test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Output;
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// Answers each request with the next answer, and then stops listening.
pub(super) struct Fake {
    /// The socket is `mahoraga.sock` in this directory.
    pub(super) directory: PathBuf,
    requests: Receiver<String>,
}

impl Fake {
    /// Answers with 200 and these bodies, one after the other.
    pub(super) fn saying(test: &str, bodies: &[&str]) -> Self {
        let answers = bodies.iter().map(|body| answer("200 OK", body));
        Self::answering(test, answers.collect())
    }

    /// The same with whole answers.
    pub(super) fn answering(test: &str, answers: Vec<String>) -> Self {
        let directory = super::directory(test);
        let listener = UnixListener::bind(directory.join("mahoraga.sock")).unwrap();
        let (send, requests) = mpsc::channel();
        // The thread lives as long as its test at most: the process ends then.
        thread::spawn(move || {
            for answer in answers {
                let (stream, _) = listener.accept().unwrap();
                let (request, _) = request(&stream);
                // Before the answer: the command may end, and its test ask, as soon as it has that.
                send.send(request).unwrap();
                reply(&stream, &answer);
            }
        });
        Self {
            directory,
            requests,
        }
    }

    /// Runs a command in its directory.
    pub(super) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = super::mahoraga();
        let command = command.args(arguments).current_dir(&self.directory);
        command.output().unwrap()
    }

    /// Returns the requests since the last call: method, target and body.
    pub(super) fn asked(&self) -> Vec<String> {
        self.requests.try_iter().collect()
    }
}

/// Answers one request over TCP, and returns its head in lower case.
pub(super) fn over_tcp(answer: String) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let (_, head) = request(&stream);
        reply(&stream, &answer);
        head
    });
    (url, head)
}

/// An answer of HTTP/1.1 with its length.
pub(super) fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}")
}

/// Reads a request. Returns its first line with its body, and its whole head.
fn request(from: impl Read) -> (String, String) {
    let mut reader = BufReader::new(from);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head:?}");
    }
    let lower = head.to_ascii_lowercase();
    let mut lines = lower.lines();
    let length = lines.find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    let line = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1");
    let body = String::from_utf8(body).unwrap();
    (format!("{line} {body}").trim_end().to_owned(), lower)
}

fn reply(mut to: impl Write, answer: &str) {
    // A client that is gone does not need its answer.
    let _ = to.write_all(answer.as_bytes());
}
