"""A client by Python's ssl. Prints what each connection agreed on and got, `refused` if nothing.

    client.py CA OTHER_CA IDENTITY PORT REQUIRED

Connects to PORT twice with TLS 1.2 and twice with 1.3, so that the second ones may resume; to
REQUIRED with the certificate and key of the file IDENTITY; and to PORT, trusting OTHER_CA alone.
"""

import socket
import ssl
import sys

NAME = "web.test"


def ask(context, port, session=None):
    """Gets a page, and returns the session."""
    with socket.create_connection(("127.0.0.1", int(port)), 10) as plain:
        with context.wrap_socket(plain, server_hostname=NAME, session=session) as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            page = tls.makefile("rb").read().rpartition(b"\r\n\r\n")[2].decode().strip()
            print(tls.version(), tls.selected_alpn_protocol(), page)
            return tls.session


def context_of(authority, version=None):
    """Speaks one version, and trusts this authority."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if version:
        context.minimum_version = context.maximum_version = version
    return context


def main():
    """Connects as the docstring says."""
    authority, other, identity, port, required = sys.argv[1:]
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        context = context_of(authority, version)
        ask(context, port, ask(context, port))
    context = context_of(authority)
    context.load_cert_chain(identity)
    ask(context, required)
    try:
        ask(context_of(other), port)
    except ssl.SSLError:
        print("refused")


main()
