//! Backends that are processes of their own: killed, stopped by SIGSTOP and started again. They
//! run this very test program, which serves when its environment says so.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::{env, thread};

use socket2::{Domain, Socket, Type};

use crate::balancer::die_with_parent;
use crate::peers;
use crate::process::Process;
use crate::watchdog::eventually;

/// A server process, which may be stopped. It keeps its port.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    kind: Kind,
    child: Option<Child>,
    _reserved: Socket,
}

/// How a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// First its port in two bytes, and then an echo.
    Greeting,
    /// Its port as text, one answer to each request.
    Http,
}

impl Server {
    pub(crate) fn start(kind: Kind) -> Self {
        let reserved = bound(0);
        let mut server = Self {
            address: reserved.local_addr().unwrap().as_socket().unwrap(),
            kind,
            child: None,
            _reserved: reserved,
        };
        server.restart();
        server
    }

    pub(crate) fn start_all(kind: Kind, count: usize) -> Vec<Self> {
        (0..count).map(|_| Self::start(kind)).collect()
    }

    /// For the `backends` of a file.
    pub(crate) fn ron(servers: &[Self]) -> String {
        let all = servers.iter();
        all.map(|its| format!("\"{}\", ", its.address)).collect()
    }

    pub(crate) fn name(&self) -> String {
        self.address.to_string()
    }

    /// Starts it again.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none());
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["server::serves_when_released", "--exact", "--nocapture"]);
        command.env(ORDER, format!("{:?} {}", self.kind, self.address.port()));
        command.stdin(Stdio::null()).stdout(Stdio::null());
        before_exec(&mut command);
        self.child = Some(command.spawn().unwrap());
        eventually("a server process", || {
            TcpStream::connect(self.address).is_ok()
        });
    }

    /// SIGKILL: the kernel closes what it had.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGSTOP: the kernel still accepts for it, and no thread answers.
    pub(crate) fn freeze(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: i32) {
        Process(self.child.as_ref().unwrap().id()).signal(signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

#[expect(unsafe_code, reason = "between fork and exec little is allowed")]
fn before_exec(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: a plain system call.
    unsafe { command.pre_exec(die_with_parent) };
}

/// Bound beside other sockets of the same port: those of this user that allow it too.
fn bound(port: u16) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_port(true).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.bind(&address.into()).unwrap();
    socket
}

/// Not a test: the main function of a server process.
#[test]
fn serves_when_released() {
    let Ok(order) = env::var(ORDER) else {
        return;
    };
    let (kind, port) = order.split_once(' ').unwrap();
    let port: u16 = port.parse().unwrap();
    let socket = bound(port);
    socket.listen(128).unwrap();
    let http = kind == format!("{:?}", Kind::Http);
    for stream in TcpListener::from(socket).incoming() {
        thread::spawn(move || {
            if http {
                answer(stream.unwrap(), port);
            } else {
                greet(stream.unwrap(), port);
            }
        });
    }
}

fn greet(mut stream: TcpStream, port: u16) {
    stream.set_nodelay(true).unwrap();
    // The client may be gone.
    if stream.write_all(&port.to_be_bytes()).is_ok() {
        peers::echo(stream);
    }
}

fn answer(stream: TcpStream, port: u16) {
    stream.set_nodelay(true).unwrap();
    let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
    let body = port.to_string();
    let length = body.len();
    while lines.by_ref().any(|line| line.is_empty()) {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        if (&stream).write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Reads the greeting of a server: the port of the server.
pub(crate) fn greeted(mut stream: &TcpStream) -> Option<u16> {
    let mut port = [0; 2];
    stream.read_exact(&mut port).ok()?;
    Some(u16::from_be_bytes(port))
}

/// The environment variable that gives a server process its kind and port.
const ORDER: &str = "MAHORAGA_TEST_SERVER";
