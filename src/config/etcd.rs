//! An etcd cluster that is asked for shared state, and the prefix of the keys that it is asked for.

use std::path::PathBuf;

use super::codec::{name, path, required, spelled};
use super::reader::{At, Reader};
use super::server::{self, Server};
use super::table::{Shape, defaults, settings};
use super::values;

settings! {
    /// Keys of an etcd cluster, and how it is reached.
    #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
    pub struct Etcd: Shape {
        /// The members of the cluster, up to 16: `http://HOST:PORT` or `https://HOST:PORT`. One of
        /// them is asked; another one, when it fails. The resolver of this machine looks names up.
        pub endpoints: Vec<String> = Vec::new() => required(server::endpoints());
        /// What the keys begin with, up to 512 bytes that end with a slash.
        pub prefix: String = String::new() => required(spelled(
            "a prefix of keys that ends with \"/\", such as \"/mahoraga/pools/web/\"",
            values::etcd_prefix,
            String::clone,
        ));
        /// The PEM file of the authorities that the certificates of the endpoints are verified by.
        /// Not given: those that the machine trusts.
        pub ca: Option<PathBuf> = None => path().given();
        /// The PEM file of the certificate that this balancer shows to the endpoints, with those
        /// between it and its authority.
        pub certificate: Option<PathBuf> = None => path().given();
        /// The PEM file of the private key of `certificate`.
        pub key: Option<PathBuf> = None => path().given();
        /// The user of etcd's authentication.
        pub user: Option<String> = None => name().given();
        /// The file with the password of `user`.
        pub password_file: Option<PathBuf> = None => path().given();
    }
}

defaults!(Etcd);

impl Shape for Etcd {
    fn check(&self, at: At<'_>, reader: &mut Reader<'_>) {
        self.server().check(at, reader);
        server::both_or_none(("user", "password_file"), at, reader);
    }
}

impl Etcd {
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

    /// The files that it names, each with the name of its setting.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let all = [
            ("ca", &self.ca),
            ("certificate", &self.certificate),
            ("key", &self.key),
            ("password_file", &self.password_file),
        ];
        all.into_iter()
            .filter_map(|(name, path)| Some((name, path.as_ref()?)))
    }
}
