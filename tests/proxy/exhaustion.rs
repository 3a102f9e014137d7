//! Descriptors run out: sessions go on, new clients wait, nothing spins and no client is forgotten.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::balancer::{Balancer, Launch};
use crate::peers::{self, Backend, ping};
use crate::watchdog::{eventually, watched};

fn launch(backend: &Backend) -> Launch {
    let launch = Launch::to(std::slice::from_ref(&backend.address));
    // A backend's descriptor may take long to get.
    launch.flag("--connect-timeout", "60s")
}

fn crowd(to: SocketAddr, count: u8) -> Vec<thread::JoinHandle<()>> {
    let visit = move |number| {
        let mut client = peers::connect(to);
        ping(&mut client, &[number; 16]);
    };
    (0..count)
        .map(|number| thread::spawn(move || visit(number)))
        .collect()
}

/// Meanwhile sessions are served and new clients wait, without a spin.
fn hold(balancer: &Balancer, early: &mut [TcpStream], late: &[thread::JoinHandle<()>]) {
    thread::sleep(Duration::from_millis(300));
    balancer.process.expect_cpu_below(0.10);
    for client in early {
        ping(client, b"meanwhile");
    }
    let waiting = late.iter().filter(|client| !client.is_finished()).count();
    assert!(waiting > 0, "descriptors were to run out");
}

fn release(balancer: &Balancer, limit: u64, late: Vec<thread::JoinHandle<()>>) {
    balancer.process.limit_descriptors(limit);
    for client in late {
        client.join().unwrap();
    }
}

/// The pending accept began before the limit was lowered, so it accepts all clients (accept reads
/// the limit when it is submitted): what fails is the socket for their backends.
#[test]
fn clients_wait_for_their_backends_descriptors() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = launch(&backend).start();
        let mut early: Vec<_> = (0..5).map(|_| balancer.connect()).collect();
        for client in &mut early {
            ping(client, b"before");
        }
        let limit = balancer.process.leave_room(0, 0);
        // Some are served with the descriptors that were held in reserve, the others wait.
        let held: Vec<_> = (0..20).map(|_| balancer.connect()).collect();
        let late = crowd(balancer.address(), 40);
        hold(&balancer, &mut early, &late);
        release(&balancer, limit, late);
        drop((early, held));
        balancer.finish();
    });
}

/// The next accept begins under the limit, and fails.
#[test]
fn clients_wait_in_the_kernel_for_their_own_descriptors() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = launch(&backend).flag("--max-connections", "30").start();
        let mut early: Vec<_> = (0..30).map(|_| balancer.connect()).collect();
        for client in &mut early {
            ping(client, b"before");
        }
        // These keep a place each.
        let held: Vec<_> = (0..9).map(|_| balancer.connect()).collect();
        let began = Instant::now();
        let limit = balancer.process.overdraw(0, 18);
        drop(early.split_off(20));
        let late = crowd(balancer.address(), 40);
        hold(&balancer, &mut early, &late);
        let complaints = || balancer.log().count("out of descriptors");
        eventually("a complaint", || complaints() > 0);
        // One log line per second at most, the first one at once.
        let (lines, seconds) = (complaints() as u64, began.elapsed().as_secs());
        assert!(lines <= 1 + seconds, "{lines} lines in {seconds} s");
        drop(held);
        release(&balancer, limit, late);
        assert!(balancer.number("accept_exhausted") > 0);
        drop(early);
        balancer.finish();
    });
}

/// The limit stays; descriptors become free one by one as sessions end.
#[test]
fn a_crowd_is_served_with_few_descriptors() {
    watched(|| {
        let backend = Backend::echo();
        let balancer = launch(&backend).start();
        let limit = balancer.process.leave_room(0, 9);
        for client in crowd(balancer.address(), 100) {
            client.join().unwrap();
        }
        balancer.process.limit_descriptors(limit);
        balancer.finish();
    });
}
