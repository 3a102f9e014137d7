//! One backend of several is the primary, and the check finds it.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::access_log::key_values;
use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, echo};
use crate::watchdog::{eventually, time, watched};

/// Three databases, of which this number is the primary. A request for `/primary` gets whether it
/// is; another client gets the database's number.
fn databases(primary: &Arc<AtomicU8>) -> Vec<Backend> {
    let database = |number: u8| {
        let primary = Arc::clone(primary);
        Backend::tcp("127.0.0.1:0", move |mut stream: TcpStream| {
            let mut start = [0; 1];
            if stream.read(&mut start).unwrap_or(0) == 0 {
                return;
            }
            if start == *b"G" {
                let is_primary = primary.load(Ordering::SeqCst) == number;
                let status = if is_primary { 200 } else { 500 };
                let _ = write!(stream, "HTTP/1.1 {status} -\r\n\r\n");
                // Else a check for another answer waits for it, and its socket counts as a leak.
                let _ = stream.shutdown(Shutdown::Write);
                drop(stream.read_to_end(&mut Vec::new()));
            } else if stream.write_all(&[number]).is_ok() {
                echo(stream);
            }
        })
    };
    (0..3).map(database).collect()
}

/// The database that answers a client; `None` when the client is refused.
fn visit(balancer: &Balancer) -> Option<u8> {
    let mut stream = peers::try_connect(balancer.address()).ok()?;
    let mut number = [0];
    stream.write_all(b"x").ok()?;
    (stream.read(&mut number).ok()? == 1).then_some(number[0])
}

fn until_up(balancer: &Balancer, wanted: &[&str]) {
    eventually("the probes have found the primary", || {
        let backends = balancer.ask(&["backends"]);
        let backends = backends.as_array().unwrap().iter();
        let up = backends.filter(|its| its["health"] == "up");
        up.map(|its| its["name"].as_str().unwrap())
            .eq(wanted.iter().copied())
    });
}

/// However few pass the check, no client comes to one that does not.
fn only_the_primary_is_reached(check: &str) {
    let primary = Arc::new(AtomicU8::new(0));
    let all = databases(&primary);
    let names: Vec<_> = all
        .iter()
        .map(|one| format!("\"{}\"", one.address))
        .collect();
    let pool = format!(
        "check: ({check}, interval: \"{}\", initial: \"probe\"), backends: [{}]",
        time(100),
        names.join(", ")
    );
    let balancer = Launch::with_pool(&pool).workers(2).start();
    for number in [0, 1] {
        primary.store(number, Ordering::SeqCst);
        until_up(&balancer, &[&all[usize::from(number)].address]);
        let met: Vec<_> = (0..20).map(|_| visit(&balancer)).collect();
        assert_eq!(met, [Some(number); 20]);
        assert_eq!(balancer.ask(&["pools"])[0]["panic"], false);
    }
    primary.store(u8::MAX, Ordering::SeqCst);
    until_up(&balancer, &[]);
    let before = balancer.output().count("\n");
    assert_eq!([(); 10].map(|()| visit(&balancer)), [None; 10]);
    for line in &balancer.output().lines(before + 10)[before..] {
        assert_eq!(key_values(line)["reason"], "no_backend");
    }
    primary.store(2, Ordering::SeqCst);
    until_up(&balancer, &[&all[2].address]);
    assert_eq!([(); 20].map(|()| visit(&balancer)), [Some(2); 20]);
    assert_eq!(balancer.log().count("panics"), 0);
    balancer.finish();
}

#[test]
fn an_http_check_finds_the_primary() {
    watched(|| only_the_primary_is_reached("type: \"http\", path: \"/primary\""));
}

#[test]
fn an_expected_answer_finds_the_primary() {
    let check = "type: \"send_expect\", send: \"GET /primary\\r\\n\", expect: \" 200 \"";
    watched(|| only_the_primary_is_reached(check));
}
