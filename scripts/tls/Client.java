import java.io.FileInputStream;
import java.net.Socket;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLException;
import javax.net.ssl.SSLSocket;
import javax.net.ssl.TrustManagerFactory;

/**
 * A client by Java's JSSE, which does what client.py does. IDENTITY is a PKCS #12 file with the
 * password `secret`.
 */
public class Client {
    static final char[] PASSWORD = "secret".toCharArray();

    static void ask(SSLContext context, String port, String... versions) throws Exception {
        int number = Integer.parseInt(port);
        try (Socket plain = new Socket("127.0.0.1", number);
                SSLSocket tls = (SSLSocket)
                        context.getSocketFactory().createSocket(plain, "web.test", number, true)) {
            tls.setSoTimeout(10_000);
            var parameters = tls.getSSLParameters();
            parameters.setApplicationProtocols(new String[] {"h2", "http/1.1"});
            parameters.setEndpointIdentificationAlgorithm("HTTPS");
            parameters.setProtocols(versions);
            tls.setSSLParameters(parameters);
            tls.getOutputStream().write("GET / HTTP/1.0\r\n\r\n".getBytes());
            String answer = new String(tls.getInputStream().readAllBytes());
            String page = answer.substring(answer.indexOf("\r\n\r\n") + 4).strip();
            String version = tls.getSession().getProtocol();
            System.out.println(version + " " + tls.getApplicationProtocol() + " " + page);
        }
    }

    static SSLContext contextOf(String authority, String identity) throws Exception {
        KeyStore trusted = KeyStore.getInstance("PKCS12");
        trusted.load(null, null);
        try (var file = new FileInputStream(authority)) {
            var factory = CertificateFactory.getInstance("X.509");
            trusted.setCertificateEntry("authority", factory.generateCertificate(file));
        }
        var trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(identity == null ? null : KeyStore.getInstance(new java.io.File(identity),
                PASSWORD), PASSWORD);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        return context;
    }

    public static void main(String[] args) throws Exception {
        String authority = args[0], other = args[1], identity = args[2];
        String port = args[3], required = args[4];
        for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
            SSLContext context = contextOf(authority, null);
            ask(context, port, version);
            ask(context, port, version);
        }
        ask(contextOf(authority, identity), required, "TLSv1.3");
        try {
            ask(contextOf(other, null), port, "TLSv1.3");
        } catch (SSLException refused) {
            System.out.println("refused");
        }
    }
}
