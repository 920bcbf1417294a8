import com.sun.net.httpserver.*;
import java.io.*;
import java.net.*;
import java.nio.file.*;
import java.security.*;
import java.security.cert.*;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.*;
import java.util.concurrent.Executors;
import javax.net.ssl.*;

/** Answers 200 on three ports, and prints each request that came as a line of JSON. */
public class Receiver {
	static void receive(HttpExchange x) throws IOException {
		try {
			byte[] body = x.getRequestBody().readAllBytes();
			String hash = HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(body));
			say("method", x.getRequestMethod(), "target", x.getRequestURI().toString(), "host", x.getRequestHeaders().getFirst("Host"),
				"protocol", x.getProtocol(), "encoding", Objects.requireNonNullElse(x.getRequestHeaders().getFirst("Transfer-Encoding"), ""),
				"length", body.length, "sha256", hash);
			x.sendResponseHeaders(200, -1);
		} catch (GeneralSecurityException e) {
			throw new IOException(e);
		} finally {
			x.close();
		}
	}

	static synchronized void say(Object... members) {
		StringBuilder line = new StringBuilder();
		for (int i = 0; i < members.length; i += 2) {
			Object value = members[i + 1];
			String text = value instanceof String s ? '"' + s.replace("\\", "\\\\").replace("\"", "\\\"") + '"' : value.toString();
			line.append(i == 0 ? '{' : ',').append('"').append(members[i]).append("\":").append(text);
		}
		System.out.println(line.append('}'));
		System.out.flush();
	}

	static byte[] pem(String text, String kind) {
		String begin = "-----BEGIN " + kind + "-----", end = "-----END " + kind + "-----";
		return Base64.getMimeDecoder().decode(text.substring(text.indexOf(begin) + begin.length(), text.indexOf(end)));
	}

	static SSLContext context(Path dir) throws Exception {
		CertificateFactory x509 = CertificateFactory.getInstance("X.509");
		String own = Files.readString(dir.resolve("server.pem")), authority = Files.readString(dir.resolve("authority.pem"));
		KeyStore keys = KeyStore.getInstance("PKCS12"), trusted = KeyStore.getInstance("PKCS12");
		keys.load(null, null);
		trusted.load(null, null);
		keys.setKeyEntry("server", KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(pem(own, "PRIVATE KEY"))), new char[0],
			new java.security.cert.Certificate[] {x509.generateCertificate(new ByteArrayInputStream(pem(own, "CERTIFICATE")))});
		trusted.setCertificateEntry("authority", x509.generateCertificate(new ByteArrayInputStream(pem(authority, "CERTIFICATE"))));
		KeyManagerFactory ours = KeyManagerFactory.getInstance("PKIX");
		ours.init(keys, new char[0]);
		TrustManagerFactory theirs = TrustManagerFactory.getInstance("PKIX");
		theirs.init(trusted);
		SSLContext context = SSLContext.getInstance("TLS");
		context.init(ours.getKeyManagers(), theirs.getTrustManagers(), null);
		return context;
	}

	static String start(HttpServer server) {
		server.createContext("/", Receiver::receive);
		server.setExecutor(Executors.newCachedThreadPool());
		server.start();
		return "127.0.0.1:" + server.getAddress().getPort();
	}

	static String startTLS(SSLContext context, boolean clientCert) throws IOException {
		HttpsServer server = HttpsServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
		server.setHttpsConfigurator(new HttpsConfigurator(context) {
			@Override public void configure(HttpsParameters parameters) {
				SSLParameters tls = getSSLContext().getDefaultSSLParameters();
				tls.setNeedClientAuth(clientCert);
				parameters.setSSLParameters(tls);
			}
		});
		return start(server);
	}

	public static void main(String[] arguments) throws Exception {
		SSLContext context = context(Path.of(arguments[0]));
		say("plain", start(HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0)),
			"tls", startTLS(context, false), "client_cert", startTLS(context, true));
		System.in.transferTo(OutputStream.nullOutputStream());
		System.exit(0);
	}
}
