//! The balancer is stopped for a while, as a machine may be: no backend and no client is blamed for
//! it.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers::{Backend, echo, ping};
use crate::stage::Guest;
use crate::watchdog::{eventually, patient, time, watched};

fn stop_for(balancer: &Balancer, ms: u64, meanwhile: impl FnOnce()) {
    balancer.process.freeze();
    meanwhile();
    thread::sleep(patient(Duration::from_millis(ms)));
    balancer.process.signal(libc::SIGCONT);
}

#[test]
fn a_stop_takes_no_probed_backend_down() {
    watched(|| {
        // A probe is under way most of the time.
        let is_slow = Arc::new(AtomicBool::new(true));
        let slow = || {
            let is_slow = Arc::clone(&is_slow);
            Backend::tcp("127.0.0.1:0", move |mut stream| {
                if is_slow.load(Ordering::SeqCst) {
                    thread::sleep(Duration::from_millis(80));
                }
                echo(&mut stream);
            })
        };
        let backends: Vec<_> = (0..8).map(|_| slow()).collect();
        let names = backends.iter().map(|its| format!("\"{}\", ", its.address));
        let pool = format!(
            "check: (type: \"send_expect\", send: \"hi\", expect: \"hi\", interval: \"{}\", \
             timeout: \"{}\", fall: 1, initial: \"probe\"), backends: [{}]",
            time(200),
            time(200),
            names.collect::<String>()
        );
        let balancer = Launch::with_pool(&pool).start();
        for backend in &backends {
            balancer.until(&backend.address, "health", "up");
        }
        for _ in 0..8 {
            stop_for(&balancer, 700, || {});
            thread::sleep(Duration::from_millis(300));
        }
        assert_eq!(balancer.log().count_unaudited("is down"), 0);
        // Leaves moments without a probe.
        is_slow.store(false, Ordering::SeqCst);
        balancer.finish();
    });
}

/// The stops fall into answers of 300 ms.
#[test]
fn a_stop_makes_no_backend_slow() {
    watched(|| {
        let fleet = Fleet::with_delays(&[300; 4]);
        let balancer = Launch::to(&fleet.addresses()).start();
        for _ in 0..4 {
            let guests: Vec<_> = (0..8).map(|_| balancer.connect()).collect();
            eventually("they wait", || balancer.number("sessions") == 8);
            stop_for(&balancer, 3_000, || {});
            for guest in guests {
                Guest::welcome(guest).leave();
            }
            balancer.assert_rest();
        }
        for address in fleet.addresses() {
            let time = balancer.backend(&address)["answer_ms"]
                .as_f64()
                .unwrap_or(0.0);
            let most = patient(Duration::from_secs(2)).as_secs_f64() * 1_000.0;
            assert!(time < most, "{address} is said to answer in {time} ms");
        }
        balancer.finish();
    });
}

#[test]
fn what_came_during_a_stop_counts_before_the_deadlines() {
    watched(|| {
        let backend = Backend::echo();
        let launch = Launch::to(std::slice::from_ref(&backend.address));
        let balancer = launch.flag("--idle-timeout", &time(1_500)).start();
        // Far more than the kernel reports in one wait.
        let mut clients: Vec<_> = (0..200).map(|_| balancer.connect()).collect();
        for client in &mut clients {
            ping(client, b"before");
        }
        stop_for(&balancer, 1_900, || {
            for client in &mut clients {
                client.write_all(b"meanwhile").unwrap();
            }
        });
        for client in &mut clients {
            let mut answer = [0; 9];
            std::io::Read::read_exact(client, &mut answer).unwrap();
        }
        drop(clients);
        balancer.finish();
    });
}
