//! Balancers that share bans and sticky clients with each other, by certificates on both sides.

use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::balancer::{Balancer, Launch};
use crate::fleet::Fleet;
use crate::peers;
use crate::stage::{Guest, source};
use crate::watchdog::{eventually, watched};

/// The certificates of some balancers, and where they listen for each other.
struct Site {
    directory: PathBuf,
    listen: Vec<SocketAddr>,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Site {
    fn new(members: usize) -> Self {
        let name = format!("mahoraga-sharing-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
        for number in 0..members {
            let params = CertificateParams::new(vec![format!("lb-{number}.test")]).unwrap();
            let key = KeyPair::generate().unwrap();
            let certificate = params.signed_by(&key, &ca).unwrap();
            let file = |ending: &str| directory.join(format!("lb-{number}.{ending}"));
            fs::write(file("pem"), certificate.pem()).unwrap();
            fs::write(file("key"), key.serialize_pem()).unwrap();
        }
        let held: Vec<_> = (0..members)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
            .collect();
        let listen = held.iter().map(|its| its.local_addr().unwrap());
        let listen = listen.collect();
        Self { directory, listen }
    }

    /// A balancer of the fleet: all have the same pool.
    fn start(&self, number: usize, backends: &str) -> Balancer {
        let members = self.listen.iter().enumerate();
        let members = members
            .map(|(number, at)| format!("(name: \"lb-{number}.test\", address: \"{at}\"), "));
        let members: String = members.collect();
        let directory = self.directory.display();
        let settings = format!(
            "trusted: [\"198.51.100.0/24\"], fleet: (peers: (listen: \"{}\", members: [{members}], \
             certificate: \"{directory}/lb-{number}.pem\", key: \"{directory}/lb-{number}.key\", \
             ca: \"{directory}/ca.pem\"))",
            self.listen[number]
        );
        Launch::with_pool(backends).settings(&settings).start()
    }
}

fn visit(balancer: &Balancer, source: Ipv4Addr) -> usize {
    Guest::welcome(peers::connect_from(source, balancer.address())).leave()
}

fn is_connected(balancer: &Balancer) -> bool {
    let status = &balancer.ask(&["status"])["peers"]["members"];
    let mut members = status.as_array().unwrap().iter();
    members.all(|peer| peer["sending"] == true && peer["receiving"] == true)
}

fn bans(balancer: &Balancer, network: &str) -> bool {
    let bans = balancer.ask(&["bans"]);
    let mut bans = bans.as_array().unwrap().iter();
    bans.any(|ban| ban["prefix"] == network)
}

#[test]
fn balancers_share_bans_and_sticky_clients_without_etcd() {
    watched(|| {
        let (site, fleet) = (Site::new(2), Fleet::of(4));
        let pool = format!(
            "strategy: \"random\", persist: \"source_ip\", backends: [{}]",
            fleet.ron(&[])
        );
        let [first, second] = [0, 1].map(|number| site.start(number, &pool));
        eventually("they are connected", || {
            is_connected(&first) && is_connected(&second)
        });
        // A client of the first one has the same backend on the second one, once that one is gone.
        let clients = || (0..20).map(source);
        let before: Vec<_> = clients().map(|client| visit(&first, client)).collect();
        eventually("the second one knows them", || {
            second.ask(&["status"])["peers"]["members"][0]["received"] == 20
        });
        // A ban of one holds on the other, with its reason, and is lifted from there.
        first.ask(&["ban", "192.0.2.9", "--for", "1h", "--reason", "floods"]);
        eventually("it is banned there too", || bans(&second, "192.0.2.9"));
        let ban = &second.ask(&["bans"])[0];
        assert_eq!([&ban["by"], &ban["reason"]], ["peer", "floods"]);
        second.ask(&["unban", "192.0.2.9"]);
        eventually("it is lifted", || !bans(&first, "192.0.2.9"));
        assert!(!bans(&second, "192.0.2.9"));
        first.until_logged("192.0.2.9 unbanned by a peer");
        first.ask(&["ban", "192.0.2.10"]);
        eventually("it is banned there too", || bans(&second, "192.0.2.10"));
        // One that is no member.
        let mut stranger = TcpStream::connect(site.listen[1]).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        eventually("it is counted", || {
            second.ask(&["status"])["peers"]["strangers"] == 1
        });
        second.note_figures();
        first.process.signal(libc::SIGKILL);
        drop(first);
        let after: Vec<_> = clients().map(|client| visit(&second, client)).collect();
        assert_eq!(after, before);
        second.until_logged("peer lb-0.test: ");
        assert!(bans(&second, "192.0.2.10"), "it stays");
        second.finish();
    });
}
