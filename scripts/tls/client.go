// A client by Go's crypto/tls, which does what client.py does.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
)

func ask(config *tls.Config, port string) error {
	connection, err := tls.Dial("tcp", "127.0.0.1:"+port, config)
	if err != nil {
		return err
	}
	defer connection.Close()
	fmt.Fprint(connection, "GET / HTTP/1.0\r\n\r\n")
	answer, err := io.ReadAll(connection)
	if err != nil {
		return err
	}
	_, page, _ := strings.Cut(string(answer), "\r\n\r\n")
	agreed := connection.ConnectionState()
	version := map[uint16]string{tls.VersionTLS12: "TLSv1.2", tls.VersionTLS13: "TLSv1.3"}
	fmt.Println(version[agreed.Version], agreed.NegotiatedProtocol, strings.TrimSpace(page))
	return nil
}

func configOf(authority string) *tls.Config {
	pem, err := os.ReadFile(authority)
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{
		RootCAs:            roots,
		ServerName:         "web.test",
		NextProtos:         []string{"h2", "http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	authority, other, identity := os.Args[1], os.Args[2], os.Args[3]
	port, required := os.Args[4], os.Args[5]
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := configOf(authority)
		config.MinVersion, config.MaxVersion = version, version
		must(ask(config, port))
		must(ask(config, port))
	}
	config := configOf(authority)
	pair, err := tls.LoadX509KeyPair(identity, identity)
	must(err)
	config.Certificates = []tls.Certificate{pair}
	must(ask(config, required))
	if ask(configOf(other), port) != nil {
		fmt.Println("refused")
	}
}
