//! A service of Consul that is asked for its instances.

use std::path::{Path, PathBuf};

use super::codec::{Leaf, list, named, path, required, spelled};
use super::reader::{At, Reader};
use super::server::{self, Server};
use super::table::{Shape, defaults, settings};
use super::values;

settings! {
    /// A service of Consul, and how an agent or a server of it is reached.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Consul: Shape {
        /// The name of the service, up to 256 characters.
        pub service: String = String::new() => {
            required(word("the name of a service such as \"web\""))
        };
        /// The agents or servers, up to 16: `http://HOST:PORT` or `https://HOST:PORT`. One of them
        /// is asked; another one, when it fails. The resolver of this machine looks names up.
        pub endpoints: Vec<String> = vec![LOCAL_AGENT.to_owned()] => server::endpoints();
        /// Which instances are backends: those whose checks are all "passing", those with none
        /// that is worse than "warning", or "any".
        pub health: ConsulHealth = ConsulHealth::Passing => named("health", &ConsulHealth::ALL);
        /// Tags that an instance must have, all of them.
        pub tags: Vec<String> = Vec::new() => list(spelled(
            "a tag of 1 to 256 characters, without a backtick",
            values::consul_tag,
            String::clone,
        ));
        /// An expression of Consul's filters that an instance must fit, up to 256 characters, such
        /// as `Service.Meta.version == "2"`.
        pub filter: Option<String> = None => word("an expression of a filter").given();
        /// The datacenter. Not given: that of the agent.
        pub datacenter: Option<String> = None => word("the name of a datacenter").given();
        /// The namespace (Consul Enterprise). Not given: that of the token.
        pub namespace: Option<String> = None => word("the name of a namespace").given();
        /// The admin partition (Consul Enterprise). Not given: that of the agent.
        pub partition: Option<String> = None => word("the name of a partition").given();
        /// The file with the token of Consul's ACLs. It is read again for each request.
        pub token_file: Option<PathBuf> = None => path().given();
        /// The PEM file of the authorities that the certificates of the endpoints are verified by.
        /// Not given: those that the machine trusts.
        pub ca: Option<PathBuf> = None => path().given();
        /// The PEM file of the certificate that this balancer shows to the endpoints, with those
        /// between it and its authority.
        pub certificate: Option<PathBuf> = None => path().given();
        /// The PEM file of the private key of `certificate`.
        pub key: Option<PathBuf> = None => path().given();
    }
}

defaults!(Consul);

/// Which instances of a service are backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConsulHealth {
    /// Those whose checks all pass.
    Passing,
    /// Those with a check that warns too.
    Warning,
    /// All.
    Any,
}

impl ConsulHealth {
    /// Each with its name.
    pub const ALL: [(&'static str, Self); 3] = [
        ("passing", Self::Passing),
        ("warning", Self::Warning),
        ("any", Self::Any),
    ];
}

impl Shape for Consul {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        self.server().check(at, reader);
    }
}

impl Consul {
    /// How it is reached.
    #[must_use]
    pub fn server(&self) -> Server {
        Server {
            endpoints: self.endpoints.clone(),
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.ca, &self.certificate, &self.key, &self.token_file];
        all.into_iter().filter_map(|path| path.as_deref())
    }
}

fn word(expected: &'static str) -> Leaf<String> {
    spelled(expected, values::consul_word, String::clone)
}

/// Where an agent of this machine listens.
const LOCAL_AGENT: &str = "http://127.0.0.1:8500";
