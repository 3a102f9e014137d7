//! A Service of Kubernetes that is asked for its endpoints.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::codec::{Leaf, LeafError, named, number, path, required, spelled};
use super::reader::{At, Reader};
use super::server::{self, Server};
use super::table::{Shape, defaults, settings};
use super::text::Text;
use super::values;

settings! {
    /// A Service of Kubernetes, whose EndpointSlices are read, and how the API server is reached.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Kubernetes: Shape {
        /// The name of the Service.
        pub service: String = String::new() => {
            required(dns_label("the name of a Service such as \"web\""))
        };
        /// Its namespace.
        pub namespace: String = String::new() => {
            required(dns_label("the name of a namespace such as \"default\""))
        };
        /// The port of its pods, by the name that the Service gives it or by its number. It may be
        /// left out where there is only one.
        pub port: Option<ServicePort> = None => service_port().given();
        /// Which addresses count: "IPv4" or "IPv6". Not given: both, so a pod with one of each is
        /// two backends.
        pub address_type: Option<AddressType> = None => {
            named("address_type", &AddressType::ALL).given()
        };
        /// The API servers, up to 16: `https://HOST:PORT`. Not given: that of the cluster in which
        /// this balancer runs, with its token and its authority.
        pub endpoints: Vec<String> = Vec::new() => server::endpoints();
        /// The file with the token of the service account. It is read again for each request.
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

defaults!(Kubernetes);

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServicePort {
    /// By the name that the Service gives it.
    Name(String),
    /// By the number that its pods have.
    Number(u16),
}

/// The addresses that a slice has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressType {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

impl AddressType {
    /// Each with its name.
    pub const ALL: [(&'static str, Self); 2] = [("IPv4", Self::IPv4), ("IPv6", Self::IPv6)];
}

impl Shape for Kubernetes {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        self.server().check(at, reader);
    }
}

impl Kubernetes {
    /// How it is reached. Without endpoints: in the cluster, by its authority.
    #[must_use]
    pub fn server(&self) -> Server {
        let default = self.is_in_cluster().then(|| PathBuf::from(CLUSTER_CA));
        Server {
            endpoints: self.endpoints.clone(),
            ca: self.ca.clone().or(default),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        }
    }

    /// Whether the API server is that of the cluster in which this balancer runs.
    #[must_use]
    pub fn is_in_cluster(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// The file with the token, if there is one.
    #[must_use]
    pub fn token_path(&self) -> Option<&Path> {
        let default = || self.is_in_cluster().then_some(Path::new(CLUSTER_TOKEN));
        self.token_file.as_deref().or_else(default)
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let all = [&self.ca, &self.certificate, &self.key, &self.token_file];
        all.into_iter().filter_map(|path| path.as_deref())
    }
}

fn dns_label(expected: &'static str) -> Leaf<String> {
    spelled(expected, values::dns_label, String::clone)
}

fn service_port() -> Leaf<ServicePort> {
    let by_number = number::<u16>(values::PORT);
    Leaf::new(
        "the name of a port such as \"http\", or its number",
        json!({ "anyOf": [
            { "type": "string" },
            { "type": "integer", "minimum": 1, "maximum": 65_535 },
        ] }),
        move |at| match at.text() {
            None => {
                let read = by_number.read(at).map_err(|_| LeafError::Unexpected)?;
                Ok(ServicePort::Number(read))
            }
            Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                let number = text.parse().ok().filter(|port| *port > 0);
                Ok(ServicePort::Number(number.ok_or(LeafError::Unexpected)?))
            }
            Some(text) => {
                let name = values::dns_label(text).ok_or(LeafError::Unexpected)?;
                Ok(ServicePort::Name(name))
            }
        },
        |port| match port {
            ServicePort::Name(name) => Text::quoted(name),
            ServicePort::Number(number) => Text::Leaf(number.to_string()),
        },
    )
}

/// Where a pod has the authority of its cluster.
const CLUSTER_CA: &str = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt";
/// Where a pod has its token, which is replaced before it expires.
const CLUSTER_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
