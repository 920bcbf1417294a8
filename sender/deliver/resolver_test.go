package deliver

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"walhook/internal/loopback"
)

// dnsAnswer is a scripted name server's answer to a question for addresses: addresses, a
// response code, or none.
type dnsAnswer struct {
	addresses []string
	code      byte // RFC 1035, 4.1.1
	silent    bool
}

// resolveBy makes a destination use a name server on this machine that works: it knows
// the root. question counts the questions for IPv4 addresses.
func resolveBy(t *testing.T, c *HTTP, answer func(question int) dnsAnswer) *HTTP {
	t.Helper()
	var questions atomic.Int32
	return resolveByName(t, c, func(name string, of uint16) dnsAnswer {
		switch {
		case name == ".":
			return dnsAnswer{}
		case of == 1:
			questions.Add(1)
		}
		return answer(max(int(questions.Load()), 1))
	})
}

// resolveByName makes a destination use a name server that may not work.
func resolveByName(t *testing.T, c *HTTP, answer func(name string, of uint16) dnsAnswer) *HTTP {
	t.Helper()
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	go func() {
		for packet := make([]byte, 1500); ; {
			n, from, err := server.ReadFrom(packet)
			if err != nil {
				return
			}
			of := questionType(packet[12:n])
			a := answer(questionName(packet[12:n]), of)
			a.addresses = slices.DeleteFunc(slices.Clone(a.addresses), func(address string) bool { return netip.MustParseAddr(address).Is4() != (of == 1) })
			if !a.silent {
				server.WriteTo(reply(packet[:n], a), from)
			}
		}
	}()
	c.dialer.servers.connect = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}
	return c
}

// questionEnd is the end of a question: a name, a type and a class.
func questionEnd(q []byte) int {
	i := 0
	for q[i] != 0 {
		i += int(q[i]) + 1
	}
	return i + 5
}

func questionName(q []byte) string {
	var name strings.Builder
	for i := 0; q[i] != 0; i += int(q[i]) + 1 {
		name.Write(q[i+1 : i+1+int(q[i])])
		name.WriteByte('.')
	}
	return cmp.Or(name.String(), ".")
}

func questionType(q []byte) uint16 {
	end := questionEnd(q)
	return binary.BigEndian.Uint16(q[end-4:])
}

func reply(query []byte, a dnsAnswer) []byte {
	question := query[12 : 12+questionEnd(query[12:])]
	b := append([]byte{query[0], query[1], 0x81, 0x80 | a.code, 0, 1, 0, byte(len(a.addresses)), 0, 0, 0, 0}, question...)
	for _, address := range a.addresses {
		value := netip.MustParseAddr(address).AsSlice()
		b = append(b, 0xc0, 12, 0, byte(questionType(query[12:])), 0, 1, 0, 0, 0, 0, 0, byte(len(value))) // the name asked for, A or AAAA, IN, for no time
		b = append(b, value...)
	}
	return b
}

func TestAttempt_NamesThatDoNotResolveAreToldApart(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		for _, c := range []struct {
			name   string
			answer dnsAnswer
			want   failure
		}{
			{"no such name", dnsAnswer{code: 3}, failDNSNotFound},
			{"no address", dnsAnswer{}, failDNSNotFound},
			{"servers in trouble", dnsAnswer{code: 2}, failDNS},
			{"refused", dnsAnswer{code: 5}, failDNS},
			{"silence", dnsAnswer{silent: true}, failDNSTimeout},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				var about []limits
				if c.answer.silent {
					about = []limits{shortConnect}
				}
				h := resolveBy(t, client.http(t, about...), func(int) dnsAnswer { return c.answer })
				atMost(t, tooLong, func() {
					if a := h.deliver(t.Context(), testEndpoint("http://receiver.example./"), testEvent, time.Now()); a.failure != c.want {
						t.Errorf("failure %q (%s), want %q", a.failure, a.detail, c.want)
					}
				})
			})
		}
	})
}

// TestAttempt_NameServersThatDoNotWorkAreOurFault has a failing name, and every other name
// fails too: then this machine's name servers fail.
func TestAttempt_NameServersThatDoNotWorkAreOurFault(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		answer dnsAnswer
	}{
		{"silent", dnsAnswer{silent: true}},
		{"in trouble", dnsAnswer{code: 2}},
		{"refusing", dnsAnswer{code: 5}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, port, _ := net.SplitHostPort(loopback.Address(t))
			var works atomic.Bool
			h := resolveByName(t, testHTTP(t, shortConnect), func(name string, _ uint16) dnsAnswer {
				switch {
				case works.Load() && name == "receiver.example.":
					return dnsAnswer{addresses: []string{"127.0.0.1"}}
				case works.Load():
					return dnsAnswer{}
				}
				return c.answer
			})
			for _, want := range []failure{failDNSHere, failRefused, failDNSHere} { // also of a name that was resolved before
				a := h.deliver(t.Context(), testEndpoint("http://receiver.example.:"+port+"/"), testEvent, time.Now())
				if a.failure != want {
					t.Errorf("failure %q (%s), want %q", a.failure, a.detail, want)
				}
				works.Store(!works.Load())
			}
		})
	}
}

// TestAttempt_NameServersThatCannotBeReachedAreOurFault has the system return errors.
func TestAttempt_NameServersThatCannotBeReachedAreOurFault(t *testing.T) {
	t.Parallel()
	gone, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := gone.LocalAddr().String()
	gone.Close()
	for name, connect := range map[string]func(ctx context.Context, network, _ string) (net.Conn, error){
		"refused": func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
		"no route": func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := testHTTP(t)
			c.dialer.servers.connect = connect
			if a := c.deliver(t.Context(), testEndpoint("http://receiver.example./"), testEvent, time.Now()); a.failure != failDNSHere {
				t.Errorf("failure %q (%s), want %q", a.failure, a.detail, failDNSHere)
			}
		})
	}
}

// TestAttempt_OneNameInTroubleIsItsEndpoints has a name server that knows some names only,
// as a company's may, and refuses the root.
func TestAttempt_OneNameInTroubleIsItsEndpoints(t *testing.T) {
	t.Parallel()
	for want, answer := range map[failure]dnsAnswer{failDNSTimeout: {silent: true}, failDNS: {code: 2}} {
		t.Run(string(want), func(t *testing.T) {
			t.Parallel()
			_, port, _ := net.SplitHostPort(loopback.Address(t))
			h := resolveByName(t, testHTTP(t, shortConnect), func(name string, _ uint16) dnsAnswer {
				switch name {
				case "known.example.":
					return dnsAnswer{addresses: []string{"127.0.0.1"}}
				case ".":
					return dnsAnswer{code: 5}
				}
				return answer
			})
			for _, one := range []struct {
				host string
				want failure
			}{{"trouble", failDNSHere}, {"known", failRefused}, {"trouble", want}} { // nothing else was resolved before
				a := h.deliver(t.Context(), testEndpoint("http://"+one.host+".example.:"+port+"/"), testEvent, time.Now())
				if a.failure != one.want {
					t.Errorf("%s: failure %q (%s), want %q", one.host, a.failure, a.detail, one.want)
				}
			}
		})
	}
}

func TestAnswerIn_ReadsWhatNameServersSay(t *testing.T) {
	t.Parallel()
	question := append([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x08receiver\x07example\x00\x00\x01\x00\x01"...)
	whole := reply(question, dnsAnswer{addresses: []string{"192.0.2.1"}})
	referral := reply(question, dnsAnswer{})
	referral[3] &^= 0x80 // no recursion
	for _, c := range []struct {
		name    string
		message []byte
		want    nameAnswer
	}{
		{"an address", whole, nameAnswer{true, "receiver.example."}},
		{"none", reply(question, dnsAnswer{}), nameAnswer{works: true}},
		{"no such name", reply(question, dnsAnswer{code: 3}), nameAnswer{works: true}},
		{"trouble", reply(question, dnsAnswer{code: 2}), nameAnswer{}},
		{"refused", reply(question, dnsAnswer{code: 5}), nameAnswer{}},
		{"another one knows", referral, nameAnswer{}},
		{"a question", question, nameAnswer{}},
		{"cut", whole[:20], nameAnswer{}},
		{"nothing", nil, nameAnswer{}},
	} {
		if got := answerIn(c.message); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	var seen []nameAnswer
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		for _, part := range [][]byte{{0}, {byte(len(whole)), whole[0]}, whole[1:]} {
			server.Write(part)
		}
		server.Close()
	}()
	if _, err := io.ReadAll(&observedTCP{Conn: client, onAnswer: func(a nameAnswer) { seen = append(seen, a) }}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1 || seen[0] != (nameAnswer{true, "receiver.example."}) {
		t.Errorf("over TCP: %+v", seen)
	}
}

// watched counts the requests to a server on loopback.
func watched(t *testing.T, secure bool) (server *httptest.Server, seen *atomic.Int32) {
	seen = &atomic.Int32{}
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			seen.Add(1)
		}
	}
	if secure {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	return server, seen
}

func TestEgress_AnAnswerThatChangesBetweenCheckAndDialIsRefused(t *testing.T) {
	t.Parallel()
	server, seen := watched(t, false)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	for name, answer := range map[string]func(question int) dnsAnswer{
		"public at first, then loopback": func(question int) dnsAnswer {
			if question == 1 {
				return dnsAnswer{addresses: []string{"192.0.2.1"}}
			}
			return dnsAnswer{addresses: []string{"127.0.0.1"}}
		},
		"both at once":  func(int) dnsAnswer { return dnsAnswer{addresses: []string{"192.0.2.1", "127.0.0.1"}} },
		"private alone": func(int) dnsAnswer { return dnsAnswer{addresses: []string{"127.0.0.1"}} },
	} {
		t.Run(name, func(t *testing.T) {
			c := newHTTP(Config{
				ConnectTimeout: 300 * time.Millisecond, AttemptTimeout: 500 * time.Millisecond,
				AllowCIDR: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, // stands for a public one, and leads nowhere
			}.WithDefaults())
			defer c.Close()
			resolveBy(t, c, answer)
			for range 3 {
				a := c.deliver(t.Context(), testEndpoint("http://rebind.example.:"+port+"/"), testEvent, time.Now())
				if a.status != 0 {
					t.Errorf("%+v", a)
				}
			}
		})
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("the listener saw %d connections", n)
	}
}

func TestEgress_ARedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	onEachClient(t, func(t *testing.T, client clientKind) {
		t.Parallel()
		server, seen := watched(t, false)
		host := server.Listener.Addr().String()
		for location, want := range map[string]string{
			"http://ann:hunter2@" + host + "/in?token=1#x": "HTTP 302, not followed: http://" + host + "/in",
			"//" + host + "/in?token=1":                    "HTTP 302, not followed: http://" + host + "/in",
			"/elsewhere?token=1":                           "/elsewhere",
			"file:///etc/passwd":                           "not followed: file:///etc/passwd",
			"http://[::1":                                  "HTTP 302",
			"":                                             "HTTP 302",
		} {
			url := rawReceiver(t, answers("HTTP/1.1 302 Found\r\nLocation: "+location+"\r\nContent-Length: 0\r\n\r\n"))
			a := client.http(t).deliver(t.Context(), testEndpoint(url), testEvent, time.Now())
			if a.status != 302 || !strings.Contains(a.detail, want) {
				t.Errorf("Location %s: %+v, want %q in the detail", location, a, want)
			}
			for _, secret := range []string{"hunter2", "ann", "token"} {
				if strings.Contains(a.detail, secret) {
					t.Errorf("Location %s: the detail shows %s: %s", location, secret, a.detail)
				}
			}
		}
		if n := seen.Load(); n != 0 {
			t.Errorf("the listener saw %d connections", n)
		}
	})
}

func TestEgress_AProxyOfTheEnvironmentSeesNoConnection(t *testing.T) {
	onEachClient(t, func(t *testing.T, client clientKind) {
		proxy, seen := watched(t, false)
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
			t.Setenv(name, proxy.URL)
		}
		for _, secure := range []bool{false, true} {
			server, got := watched(t, secure)
			_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
			c := resolveBy(t, client.http(t), func(int) dnsAnswer { return dnsAnswer{addresses: []string{"127.0.0.1"}} })
			scheme := map[bool]string{false: "http", true: "https"}[secure]
			// A name: the environment's proxies are not meant for loopback addresses.
			c.deliver(t.Context(), testEndpoint(scheme+"://receiver.example.:"+port+"/"), testEvent, time.Now())
			if got.Load() == 0 {
				t.Errorf("%s: the receiver saw no connection", scheme)
			}
		}
		if n := seen.Load(); n != 0 {
			t.Errorf("the proxy saw %d connections", n)
		}
	})
}

func TestAttempt_WhatAReceiverEchoesOfASecretIsNotKept(t *testing.T) {
	t.Parallel()
	said := "no: /hook?token=t0ken is not signed with " + secretA + ", or " + strings.TrimPrefix(secretA, "whsec_")
	url := rawReceiver(t, answers(fmt.Sprintf("HTTP/1.1 401 No\r\nContent-Length: %d\r\n\r\n%s", len(said), said)))
	a := testHTTP(t).deliver(t.Context(), testEndpoint(url+"?token=t0ken"), testEvent, time.Now())
	if a.status != 401 || strings.Contains(a.detail, strings.TrimPrefix(secretA, "whsec_")) || strings.Contains(a.detail, "t0ken") {
		t.Errorf("%+v", a)
	}
}

func TestAttempt_WhatAReceiverEchoesOfACredentialIsNotKept(t *testing.T) {
	t.Parallel()
	url := rawReceiver(t, answers("HTTP/1.1 500 No\r\nContent-Length: 64\r\n\r\nAuthorization: Basic YW5uOmh1bnRlcjI= hunter2 and ann:hunter2 here"))
	a := testHTTP(t).deliver(t.Context(), testEndpoint(strings.Replace(url, "http://", "http://ann:hunter2@", 1)), testEvent, time.Now())
	if a.status != 500 || strings.Contains(a.detail, "hunter2") || strings.Contains(a.detail, "YW5u") {
		t.Errorf("%+v", a)
	}
}
