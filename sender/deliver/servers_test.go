package deliver

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"text/template"
	"time"

	"walhook/outbox"
)

// arrived is a request as another server received it.
type arrived struct {
	Method, Target, Host, Protocol, Encoding string
	Length                                   int64
	SHA256                                   string
}

// realServer is a server that receives webhooks in practice.
type realServer struct {
	name    string
	needs   []string // programs
	version []string // command that prints it
	start   func(t *testing.T, dir string) (ports map[string]string, requests <-chan arrived)
	// The results of deliveries that the server cannot accept, by the kind of port.
	clientCert, plainToTLS, tlsToPlain []string
}

var realServers = []realServer{
	{
		name: "nginx", needs: []string{"nginx"}, version: []string{"nginx", "-v"}, start: startNginx,
		clientCert: []string{"4xx"}, plainToTLS: []string{"4xx"}, tlsToPlain: []string{string(failTLSPlain)},
	},
	{
		name: "HAProxy", needs: []string{"haproxy"}, version: []string{"haproxy", "-v"}, start: startHAProxy,
		clientCert: []string{string(failTLSClientCert)}, plainToTLS: []string{string(failClosed), string(failReset), string(failPlainTLS)}, tlsToPlain: []string{string(failTLSPlain)},
	},
	{
		name: "Node.js", needs: []string{"node"}, version: []string{"node", "--version"},
		start: func(t *testing.T, dir string) (map[string]string, <-chan arrived) {
			return startProgram(t, "node", "testdata/servers/receiver.js", dir)
		},
		clientCert: []string{string(failTLSClientCert)}, plainToTLS: []string{string(failClosed), string(failReset), string(failPlainTLS)}, tlsToPlain: []string{string(failTLSPlain)},
	},
	{
		name: "Java", needs: []string{"java", "javac"}, version: []string{"java", "-version"}, // the launcher of a source file needs the compiler
		start: func(t *testing.T, dir string) (map[string]string, <-chan arrived) {
			return startProgram(t, "java", "-XX:TieredStopAtLevel=1", "testdata/servers/Receiver.java", dir)
		},
		clientCert: []string{string(failTLSClientCert)}, plainToTLS: []string{string(failClosed), string(failReset), string(failPlainTLS)},
		// https to the plain port: it waits for more of a request until the time is up.
	},
}

// startProgram runs a receiver that prints its ports, and then each request.
func startProgram(t *testing.T, name string, arguments ...string) (map[string]string, <-chan arrived) {
	t.Helper()
	command := exec.CommandContext(t.Context(), name, arguments...)
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, command)
	lines := json.NewDecoder(out)
	var ports map[string]string
	if err := lines.Decode(&ports); err != nil {
		t.Fatalf("%s does not name its ports: %v", name, err)
	}
	requests := make(chan arrived, 16)
	go func() {
		for {
			var a arrived
			if lines.Decode(&a) != nil {
				return
			}
			requests <- a
		}
	}()
	return ports, requests
}

// start runs a server until the test ends, and shows its errors.
func start(t *testing.T, command *exec.Cmd) {
	t.Helper()
	var said bytes.Buffer
	command.Stderr = &said
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) } // nginx ends its workers
	command.WaitDelay = 5 * time.Second
	if _, err := command.StdinPipe(); err != nil { // a program ends when it is closed
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Wait() // the test's context has ended it
		if t.Failed() {
			t.Logf("%s said: %s", command.Path, &said)
		}
	})
}

// behind has the values for a proxy's configuration.
type behind struct{ Dir, Backend, Plain, TLS, HTTP2, ClientCert string }

// startProxy runs a server in front of a receiver in this test. It inherits its
// sockets, in the order of the ports, so that no other program can take one.
func startProxy(t *testing.T, dir, config, backend string, command *exec.Cmd) (map[string]string, <-chan arrived) {
	t.Helper()
	requests := make(chan arrived, 16)
	recorder := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		sum := sha256.Sum256(body)
		a := arrived{Method: r.Method, Target: cmp.Or(r.Header.Get("X-Target"), r.RequestURI), Host: r.Host, Length: int64(len(body)), SHA256: hex.EncodeToString(sum[:])}
		a.Protocol, a.Encoding = r.Header.Get("X-Protocol"), strings.Join(r.TransferEncoding, ",")
		if a.Method == http.MethodGet && r.ContentLength != 0 {
			a.Encoding += fmt.Sprintf(" Content-Length %d", r.ContentLength)
		}
		requests <- a
	}))
	t.Cleanup(recorder.Close)
	fill := behind{Dir: dir, Backend: strings.Replace(backend, "ADDRESS", recorder.Listener.Addr().String(), 1)}
	ports := map[string]string{}
	for kind, field := range map[string]*string{"plain": &fill.Plain, "tls": &fill.TLS, "http2": &fill.HTTP2, "client_cert": &fill.ClientCert} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*field = listener.Addr().String()
		ports[kind] = *field
		file, err := listener.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		listener.Close()
		defer file.Close()
		if command.ExtraFiles == nil {
			command.ExtraFiles = make([]*os.File, 4)
		}
		command.ExtraFiles[map[string]int{"plain": 0, "tls": 1, "http2": 2, "client_cert": 3}[kind]] = file
	}
	var text bytes.Buffer
	if err := template.Must(template.ParseFiles("testdata/servers/"+config)).Execute(&text, fill); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, config), text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, command)
	return ports, requests
}

func startNginx(t *testing.T, dir string) (map[string]string, <-chan arrived) {
	command := exec.CommandContext(t.Context(), "nginx", "-p", dir, "-e", "stderr", "-c", filepath.Join(dir, "nginx.conf"))
	command.Env = append(os.Environ(), "NGINX=3;4;5;6;")
	return startProxy(t, dir, "nginx.conf", "http://ADDRESS", command)
}

func startHAProxy(t *testing.T, dir string) (map[string]string, <-chan arrived) {
	return startProxy(t, dir, "haproxy.cfg", "ADDRESS", exec.CommandContext(t.Context(), "haproxy", "-db", "-f", filepath.Join(dir, "haproxy.cfg")))
}

// writeCertificates writes the certificates for the servers.
func writeCertificates(t *testing.T, dir string, ca *authority) {
	t.Helper()
	issued := ca.issue(&x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{realHost}})
	key, err := x509.MarshalPKCS8PrivateKey(issued.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for name, text := range map[string][]byte{
		"server.pem":    append(block("CERTIFICATE", issued.Certificate[0]), block("PRIVATE KEY", key)...),
		"authority.pem": block("CERTIFICATE", ca.cert.Raw),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// realHost is the name that all notations of the host stand for.
const realHost = "xn--bcher-kva.example"

// TestServers_OthersTakeDeliveriesAsTheyAreMeant sends real deliveries to servers of
// others, which are stricter than Go's. With -v it prints what was seen with which.
func TestServers_OthersTakeDeliveriesAsTheyAreMeant(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var rows []string // guarded by mu
	saw := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		rows = append(rows, fmt.Sprintf(format, args...))
	}
	t.Run("servers", func(t *testing.T) {
		for _, server := range realServers {
			t.Run(server.name, func(t *testing.T) {
				t.Parallel()
				for _, program := range server.needs {
					if _, err := exec.LookPath(program); err != nil {
						saw("%s\t\t\t\tNOT SEEN: %s is not on this machine\n", server.name, program)
						t.Skipf("SKIP: %s is NOT tried: %s is not on this machine", server.name, program)
					}
				}
				said, err := exec.CommandContext(t.Context(), server.version[0], server.version[1:]...).CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, said)
				}
				version := regexp.MustCompile(`\d+\.\d+[^ "\n]*`).FindString(string(said))
				ca, dir := newAuthority(t), t.TempDir()
				writeCertificates(t, dir, ca)
				ports, requests := server.start(t, dir)
				onEachOfHTTP2(t, func(t *testing.T, client clientKind) {
					c := patient(t, ca, client)
					for _, kind := range []string{"plain", "tls", "http2"} {
						if address := ports[kind]; address != "" {
							n := deliverAll(t, c, kind, address, requests)
							saw("%s\t%s\t%s\t%s\t%d deliveries arrived as they are meant\n", server.name, version, client.name, kind, n)
						}
					}
					for _, m := range []struct {
						scheme, port string
						want         []string
					}{
						{"https", "client_cert", server.clientCert},
						{"https", "h2c", []string{string(failPlainHTTP2)}},
						{"http", "h2c", []string{string(failPlainHTTP2)}},
						{"http", "tls", server.plainToTLS},
						{"https", "plain", server.tlsToPlain},
					} {
						address := ports[m.port]
						if address == "" || m.want == nil {
							continue
						}
						a := c.deliver(t.Context(), testEndpoint(m.scheme+"://"+address+"/hook"), testEvent, time.Now())
						r := a.result(time.Now(), time.Now())
						if !strings.Contains(" "+strings.Join(m.want, " ")+" ", " "+r.Reason+" ") {
							t.Errorf("%s to the port %s: %q (%s), want one of %q", m.scheme, m.port, r.Reason, a.detail, m.want)
						}
						saw("%s\t%s\t%s\t%s\tasked by %s: %s\n", server.name, version, client.name, m.port, m.scheme, r.Reason)
					}
				})
			})
		}
	})
	slices.Sort(rows)
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "server\tversion\tclient\tport\tseen\n"+strings.Join(rows, ""))
	w.Flush()
	t.Logf("\n%s", &table)
}

// patient has long time limits: a server may need seconds for its first request. It
// resolves realHost only.
func patient(t *testing.T, ca *authority, client clientKind) *HTTP {
	c := newHTTP(Config{
		AttemptTimeout: time.Minute, HeaderTimeout: time.Minute, ConnectTimeout: time.Minute, TLSTimeout: time.Minute,
		AllowCIDR: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, AllowPorts: testHTTP(t).config.AllowPorts,
	}.WithDefaults())
	t.Cleanup(c.Close)
	client.use(c)
	return ca.trust(resolveByName(t, c, func(name string, _ uint16) dnsAnswer {
		switch name {
		case ".":
			return dnsAnswer{}
		case realHost + ".":
			return dnsAnswer{addresses: []string{"127.0.0.1"}}
		}
		return dnsAnswer{code: 3}
	}))
}

// deliverAll sends each format to each query, with the notations of the host in turn, and
// returns how many arrived correctly.
func deliverAll(t *testing.T, c *HTTP, kind, address string, requests <-chan arrived) (good int) {
	t.Helper()
	event := testEvent
	event.Body = []byte(`{"type":"insert","schema":"dids","data":"{\"name\":\"ä&=?#%+ 😀\"}"}`)
	const pairs = "type=insert&schema=dids&data=%7B%22name%22%3A%22%C3%A4%26%3D%3F%23%25%2B+%F0%9F%98%80%22%7D"
	hosts := []string{"bücher.example", "BÜCHER.Example", "bu\u0308cher.example", "ｂücher．example", "bücher。example", "XN--BCHER-KVA.example", "bücher.example."}
	scheme := map[bool]string{true: "http://", false: "https://"}[kind == "plain"]
	_, port, _ := net.SplitHostPort(address)
	n := 0
	for _, format := range []struct {
		name, method, body string
		settings           *outbox.EndpointSettings
	}{
		{"json", http.MethodPost, string(event.Body), nil},
		{"form", http.MethodPost, pairs, &outbox.EndpointSettings{HTTPVerb: "post", Format: formatForm}},
		{"put", http.MethodPut, pairs, &outbox.EndpointSettings{HTTPVerb: "put", Format: formatForm}},
		{"get", http.MethodGet, "", &outbox.EndpointSettings{HTTPVerb: "get"}},
	} {
		for _, path := range []struct{ written, target string }{
			{"/ä?q=ü&r=a\"<>{}|\\^`b&s=100%&t=%41 x", "/%C3%A4?q=%C3%BC&r=a%22%3C%3E%7B%7D%7C%5C%5E%60b&s=100%25&t=%41%20x"},
			{"/hook?%", "/hook?%25"},
			{"/a[1]/{b}?ids[]=1&x=%zz'(*)", "/a%5B1%5D/%7Bb%7D?ids%5B%5D=1&x=%25zz'(*)"},
			{"/hook", "/hook"},
		} {
			e := testEndpoint(scheme + hosts[n%len(hosts)] + ":" + port + path.written)
			e.ID, e.Settings = int64(1000+n), format.settings
			n++
			sum := sha256.Sum256([]byte(format.body))
			want := arrived{Method: format.method, Target: path.target, Host: realHost + ":" + port, Length: int64(len(format.body)), SHA256: hex.EncodeToString(sum[:])}
			if format.method == http.MethodGet {
				separator := "?"
				if strings.Contains(path.target, "?") {
					separator = "&"
				}
				want.Target += separator + pairs
			}
			a := c.deliver(t.Context(), e, event, time.Now())
			if a.status != 200 {
				t.Errorf("%s, %s to %s: status %d %q (%s)", kind, format.name, e.URL, a.status, a.failure, a.detail)
				continue
			}
			var got arrived
			select {
			case got = <-requests:
			case <-time.After(time.Minute):
				t.Fatalf("%s, %s to %s: the server tells of no request", kind, format.name, e.URL)
			}
			if http2 := strings.Contains(got.Protocol, "2"); http2 != (kind == "http2") {
				t.Errorf("%s, %s to %s: spoke %q", kind, format.name, e.URL, got.Protocol)
			}
			got.Protocol = ""
			if got != want {
				t.Errorf("%s, %s to %s: arrived\n%+v, want\n%+v", kind, format.name, e.URL, got, want)
				continue
			}
			good++
		}
	}
	return good
}
