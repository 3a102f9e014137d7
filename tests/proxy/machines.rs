//! Other machines of one test: networks with cables between them (veth(4), rtnetlink(7)), so that
//! neighbours, routes and hop limits are real. That needs root, as CI has.

use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::{panic, thread};

use socket2::{Domain, Protocol, Socket, Type};

use crate::network;

/// A machine: a network without processes, which is gone with it.
pub(crate) struct Machine {
    network: File,
    /// What it is connected by.
    router: Option<Box<Self>>,
}

/// Addresses of both families, with the length of their prefixes.
type Addresses<'a> = &'a [(&'a str, u8)];

/// This machine's addresses, once it has [`neighbours`].
pub(crate) const HERE: [&str; 2] = ["10.7.1.1", "fd07:1::1"];
/// Those of the machine behind the router.
pub(crate) const THERE: [[&str; 2]; 2] = [["10.7.2.1", "10.7.2.2"], ["fd07:2::1", "fd07:2::2"]];

/// Moves the calling thread, and all it starts from then on, to a network of its own. Returns a
/// machine that reaches it over a router; `None`: this kernel has no cables.
pub(crate) fn neighbours() -> Option<Machine> {
    network::own("32768 60999");
    let (here, router, mut there) = (Machine::here(), Machine::new(), Machine::new());
    let near: [Addresses<'_>; 2] = [
        &[(HERE[0], 24), (HERE[1], 64)],
        &[("10.7.1.254", 24), ("fd07:1::fe", 64)],
    ];
    if let Err(error) = cable([&here, &router], NEAR, near) {
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP), "{error}");
        eprintln!("skipped, as this kernel has no veth: {error}");
        return None;
    }
    let [v4, v6] = THERE;
    let far: [Addresses<'_>; 2] = [
        &[(v4[0], 24), (v4[1], 24), (v6[0], 64), (v6[1], 64)],
        &[("10.7.2.254", 24), ("fd07:2::fe", 64)],
    ];
    cable([&there, &router], FAR, far).unwrap();
    router.run(|| {
        for kind in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(format!("/proc/sys/net/{kind}"), "1").unwrap();
        }
    });
    for (machine, gateways) in [(&here, near[1]), (&there, far[1])] {
        let all = || gateways.iter().try_for_each(|(ip, _)| default_route(ip));
        machine.run(all).unwrap();
    }
    there.router = Some(Box::new(router));
    Some(there)
}

impl Machine {
    /// The calling thread's.
    fn here() -> Self {
        Self {
            network: File::open("/proc/thread-self/ns/net").unwrap(),
            router: None,
        }
    }

    /// One without a cable.
    fn new() -> Self {
        let made = thread::spawn(|| {
            network::own("32768 60999");
            Self::here()
        });
        made.join().unwrap()
    }

    /// Runs something there. The sockets that it makes stay there.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        let there = || {
            self.enter().unwrap();
            job()
        };
        let outcome = thread::scope(|scope| scope.spawn(there).join());
        outcome.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    #[expect(unsafe_code, reason = "no crate at hand wraps it")]
    fn enter(&self) -> io::Result<()> {
        // SAFETY: no memory is handed over; only the calling thread goes over.
        match unsafe { libc::setns(self.network.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Connects two machines by a cable whose ends have this number there, and these addresses.
fn cable(ends: [&Machine; 2], number: u32, addresses: [Addresses<'_>; 2]) -> io::Result<()> {
    let name = attribute(libc::IFLA_IFNAME, format!("cable{number}\0").as_bytes());
    let network = attribute(
        libc::IFLA_NET_NS_FD,
        &ends[1].network.as_raw_fd().to_ne_bytes(),
    );
    let peer = [&device(number, 0)[..], &name, &network].concat();
    let data = attribute(libc::IFLA_INFO_DATA, &attribute(VETH_INFO_PEER, &peer));
    let kind = attribute(libc::IFLA_INFO_KIND, b"veth");
    let info = attribute(libc::IFLA_LINKINFO, &[kind, data].concat());
    let both = [&device(number, 0)[..], &name, &info].concat();
    ends[0].run(|| ask(libc::RTM_NEWLINK, &both))?;
    for (machine, addresses) in ends.into_iter().zip(addresses) {
        machine.run(|| {
            // An address counts at once: no other machine has it.
            fs::write("/proc/sys/net/ipv6/conf/all/accept_dad", "0")?;
            fs::write(
                format!("/proc/sys/net/ipv6/conf/cable{number}/accept_dad"),
                "0",
            )?;
            let up = u32::try_from(libc::IFF_UP).expect("a low bit");
            ask(libc::RTM_NEWLINK, &device(number, up))?;
            let mut all = addresses.iter();
            all.try_for_each(|(ip, length)| add_address(number, ip, *length))
        })?;
    }
    Ok(())
}

/// A message about a device (`ifinfomsg`), which sets these flags.
fn device(number: u32, flags: u32) -> Vec<u8> {
    [0, number, flags, flags].map(u32::to_ne_bytes).concat()
}

fn add_address(device: u32, ip: &str, length: u8) -> io::Result<()> {
    let (family, octets) = parts(ip);
    let no_check = u8::try_from(libc::IFA_F_NODAD).expect("a low bit");
    // `ifaddrmsg`
    let head = [[family, length, no_check, 0], device.to_ne_bytes()].concat();
    let kinds = [libc::IFA_LOCAL, libc::IFA_ADDRESS];
    let both = kinds.map(|kind| attribute(kind, &octets)).concat();
    ask(libc::RTM_NEWADDR, &[head, both].concat())
}

fn default_route(gateway: &str) -> io::Result<()> {
    let (family, octets) = parts(gateway);
    let (table, by) = (libc::RT_TABLE_MAIN, libc::RTPROT_STATIC);
    let (everywhere, kind) = (libc::RT_SCOPE_UNIVERSE, libc::RTN_UNICAST);
    // `rtmsg`
    let head = [family, 0, 0, 0, table, by, everywhere, kind, 0, 0, 0, 0];
    let gateway = attribute(libc::RTA_GATEWAY, &octets);
    ask(libc::RTM_NEWROUTE, &[&head[..], &gateway].concat())
}

fn parts(ip: &str) -> (u8, Vec<u8>) {
    let family = |family| u8::try_from(family).expect("a small number");
    match ip.parse().unwrap() {
        IpAddr::V4(ip) => (family(libc::AF_INET), ip.octets().to_vec()),
        IpAddr::V6(ip) => (family(libc::AF_INET6), ip.octets().to_vec()),
    }
}

/// `rtattr`, with the bytes that it is filled up with.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).expect("a short value");
    let head = [length, kind].map(u16::to_ne_bytes).concat();
    let mut whole = [&head[..], value].concat();
    whole.resize(whole.len().next_multiple_of(4), 0);
    whole
}

/// Makes something of the calling thread's network.
fn ask(kind: u16, body: &[u8]) -> io::Result<()> {
    let protocol = Protocol::from(libc::NETLINK_ROUTE);
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(protocol))?;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    let flags = u16::try_from(flags).expect("low bits");
    let length = u32::try_from(HEAD + body.len()).expect("a short message");
    // `nlmsghdr`
    let kinds = [kind, flags].map(u16::to_ne_bytes).concat();
    let head = [&length.to_ne_bytes()[..], &kinds, &[0; 8]].concat();
    socket.send(&[&head, body].concat())?;
    let mut answer = [0; 4_096];
    let read = io::Read::read(&mut &socket, &mut answer)?;
    // `nlmsgerr` begins with an error, or 0.
    let error = answer[..read].get(HEAD..HEAD + 4).expect("an answer");
    match i32::from_ne_bytes(error.try_into().expect("four bytes")) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// The numbers of the cables' ends: between this machine and the router, and behind it.
const NEAR: u32 = 7;
const FAR: u32 = 8;
/// The length of a head.
const HEAD: usize = 16;
/// Of linux/veth.h.
const VETH_INFO_PEER: u16 = 1;
