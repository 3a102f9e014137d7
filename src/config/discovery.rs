//! Discovery: the source of further backends of a pool.

use std::path::{Path, PathBuf};

use super::codec::{Leaf, group_if_given, number, path, spelled};
use super::consul::Consul;
use super::etcd::Etcd;
use super::kubernetes::Kubernetes;
use super::reader::{At, Reader};
use super::table::{Settings, Shape, settings};
use super::values;

/// The source of a pool's backends, beside those that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovery {
    /// Every address of a name (A and AAAA), with this port.
    Dns {
        /// The name.
        name: String,
        /// The port.
        port: u16,
    },
    /// The service records of a name (SRV, RFC 2782): those of the best priority become
    /// backends, the others backups.
    Srv(String),
    /// The lines of a file, which is read again when it changes. Each line is an address with the
    /// options of `--to` after commas. `#` begins a comment.
    File(PathBuf),
    /// The keys under a prefix of an etcd cluster. The rest of a key is the name of a backend, and
    /// its value the backend as a JSON object with the settings of a file. A change counts at once.
    Etcd(Etcd),
    /// The instances of a service of Consul. A change counts at once.
    Consul(Consul),
    /// The endpoints of a Service of Kubernetes. A change counts at once.
    Kubernetes(Kubernetes),
}

impl Discovery {
    /// The files that it names.
    #[must_use]
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Self::Dns { .. } | Self::Srv(_) => Vec::new(),
            Self::File(path) => vec![path],
            Self::Etcd(etcd) => etcd.files().map(|(_, path)| &**path).collect(),
            Self::Consul(consul) => consul.files().collect(),
            Self::Kubernetes(kubernetes) => kubernetes.files().collect(),
        }
    }
}

settings! {
    /// The settings of discovery in a file.
    #[derive(Clone, PartialEq)]
    pub(super) struct DiscoveryFile: Shape {
        /// A name of the DNS, every address of which is a backend.
        dns: Option<String> = None => dns_name().given();
        /// The port of the addresses of `dns`.
        port: Option<u16> = None => number(values::PORT).given();
        /// A name of the DNS, whose service records are the backends.
        srv: Option<String> = None => dns_name().given();
        /// A file with a line for each backend.
        file: Option<PathBuf> = None => path().given();
        /// Keys of an etcd cluster, each with a backend as its value.
        etcd: Option<Etcd> = None => group_if_given();
        /// A service of Consul, each instance of which is a backend.
        consul: Option<Consul> = None => group_if_given();
        /// A Service of Kubernetes, each endpoint of which is a backend.
        kubernetes: Option<Kubernetes> = None => group_if_given();
    }
}

fn dns_name() -> Leaf<String> {
    spelled(
        "a name such as \"web.example.org\"",
        values::discovered_name,
        String::clone,
    )
}

impl Shape for DiscoveryFile {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        let is_given = |name: &&str| at.value.field(name).is_some();
        let sources = ["dns", "srv", "file", "etcd", "consul", "kubernetes"];
        if sources.iter().filter(|name| is_given(name)).count() != 1 {
            let sentence = "discover: expected one of `dns`, `srv`, `file`, `etcd`, `consul` and \
                            `kubernetes`";
            reader.mistake(&at.value.start(), sentence.to_owned());
        }
        if !is_given(&"dns") {
            let sentence = "only `dns` has such a setting: the others name their ports";
            reader.wrong(at, "port", sentence);
        } else if !is_given(&"port") {
            let sentence = "missing field `port`";
            reader.mistake(&at.value.start(), sentence.to_owned());
        }
    }
}

impl From<DiscoveryFile> for Discovery {
    fn from(file: DiscoveryFile) -> Self {
        if let Some((name, port)) = file.dns.zip(file.port) {
            Self::Dns { name, port }
        } else if let Some(file) = file.file {
            Self::File(file)
        } else if let Some(etcd) = file.etcd {
            Self::Etcd(etcd)
        } else if let Some(consul) = file.consul {
            Self::Consul(consul)
        } else if let Some(kubernetes) = file.kubernetes {
            Self::Kubernetes(kubernetes)
        } else {
            // A refused source stays in place, so that the pool does not seem to lack backends.
            Self::Srv(file.srv.unwrap_or_default())
        }
    }
}

impl From<Discovery> for DiscoveryFile {
    fn from(discovery: Discovery) -> Self {
        let base = Self::base();
        match discovery {
            Discovery::Dns { name, port } => Self {
                dns: Some(name),
                port: Some(port),
                ..base
            },
            Discovery::Srv(name) => Self {
                srv: Some(name),
                ..base
            },
            Discovery::File(path) => Self {
                file: Some(path),
                ..base
            },
            Discovery::Etcd(etcd) => Self {
                etcd: Some(etcd),
                ..base
            },
            Discovery::Consul(consul) => Self {
                consul: Some(consul),
                ..base
            },
            Discovery::Kubernetes(kubernetes) => Self {
                kubernetes: Some(kubernetes),
                ..base
            },
        }
    }
}
