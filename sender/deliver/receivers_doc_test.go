package deliver

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"walhook/outbox"
)

// delivered is a real delivery as a receiver's code sees it.
type delivered struct {
	Secret  string            `json:"secret"`
	Headers map[string]string `json:"headers"`
	Signed  string            `json:"signed"`
}

// deliverEach makes one delivery of each kind.
func deliverEach(t *testing.T) map[string]delivered {
	t.Helper()
	got := make(chan delivered, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d := delivered{Secret: secretA, Headers: map[string]string{}, Signed: string(body)}
		if r.Method == http.MethodGet {
			d.Signed = strings.TrimPrefix(r.URL.RawQuery, "zap=1&")
		}
		for name := range r.Header {
			d.Headers[strings.ToLower(name)] = r.Header.Get(name)
		}
		got <- d
	}))
	t.Cleanup(server.Close)
	event := testEvent
	event.Body = []byte(`{"type":"insert","schema":"dids","data":"{\"name\":\"ä&=?#%+ 😀\"}"}`)
	c := testHTTP(t)
	all := map[string]delivered{}
	for kind, settings := range map[string]*outbox.EndpointSettings{
		"json": nil, "form": {HTTPVerb: "post", Format: formatForm}, "put": {HTTPVerb: "put", Format: formatForm}, "get": {HTTPVerb: "get"},
	} {
		e := testEndpoint(server.URL + "/hook?zap=1")
		e.Settings = settings
		if a := c.deliver(t.Context(), e, event, time.Now()); a.status != 200 {
			t.Fatalf("%s: %+v", kind, a)
		}
		all[kind] = <-got
	}
	return all
}

// buildGo makes a program of files, by the modules that this one requires.
func buildGo(t *testing.T, files ...string) (program string) {
	t.Helper()
	dir := t.TempDir()
	program = filepath.Join(dir, "verify")
	arguments := []string{"build", "-o", program}
	for i, text := range files {
		name := filepath.Join(dir, fmt.Sprintf("file%d.go", i))
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments = append(arguments, name)
	}
	if out, err := exec.CommandContext(t.Context(), "go", arguments...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program
}

// The test runs the code of RECEIVERS.md unchanged.
func TestReceiversDocument_ItsCodeVerifiesRealDeliveries(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/RECEIVERS.md")
	if err != nil {
		t.Fatal(err)
	}
	deliveries := deliverEach(t)
	official, err := standardwebhooks.NewWebhook(secretA)
	if err != nil {
		t.Fatal(err)
	}
	for kind, d := range deliveries {
		header := http.Header{}
		for name, value := range d.Headers {
			header.Set(name, value)
		}
		if err := official.Verify([]byte(d.Signed), header); err != nil {
			t.Errorf("the Go library, %s: %v", kind, err)
		}
	}
	for _, c := range []struct{ language, interpreter, option, after string }{
		{"go", "go", "", `package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	var d struct {
		Secret, Signed string
		Headers        map[string]string
	}
	if err := json.NewDecoder(os.Stdin).Decode(&d); err != nil {
		panic(err)
	}
	header := http.Header{}
	for name, value := range d.Headers {
		header.Set(name, value)
	}
	if verify(d.Secret, header, []byte(d.Signed)) == nil {
		fmt.Println("good")
	} else {
		fmt.Println("bad")
	}
}`},
		{"python", "python3", "-c", `
import sys, json
d = json.load(sys.stdin)
print("good" if verify(d["secret"], d["headers"], d["signed"].encode()) else "bad")`},
		{"js", "node", "-e", `
const d = JSON.parse(require("node:fs").readFileSync(0));
console.log(verify(d.secret, d.headers, Buffer.from(d.signed)) ? "good" : "bad");`},
		{"sh", "openssl", "-c", "\nverify \"$@\""},
		{"php", "php", "-r", `
$d = json_decode(file_get_contents('php://stdin'), true);
echo verify($d['secret'], $d['headers'], $d['signed']) ? "good" : "bad";`},
	} {
		t.Run(c.language, func(t *testing.T) {
			_, code, _ := strings.Cut(string(text), "```"+c.language+"\n")
			code, _, found := strings.Cut(code, "```")
			if !found {
				t.Fatalf("RECEIVERS.md has no code in %s", c.language)
			}
			if _, err := exec.LookPath(c.interpreter); err != nil {
				t.Skipf("SKIP: the %s code of RECEIVERS.md is NOT run: %s is not on this machine", c.language, c.interpreter)
			}
			program := []string{c.interpreter, c.option, code + c.after, "verify"}
			if c.language == "sh" {
				program[0] = "sh" // what may be missing is openssl
			}
			if c.language == "go" {
				program = []string{buildGo(t, "package main\n\n"+code, c.after)}
			}
			run := func(d delivered) string {
				input, err := json.Marshal(d)
				if err != nil {
					t.Fatal(err)
				}
				arguments := program[1:]
				if c.language == "sh" { // it reads no JSON
					arguments = append(slices.Clone(arguments), d.Secret, d.Headers["webhook-id"], d.Headers["webhook-timestamp"], d.Headers["webhook-signature"])
					input = []byte(d.Signed)
				}
				command := exec.CommandContext(t.Context(), program[0], arguments...)
				command.Stdin = bytes.NewReader(input)
				out, err := command.CombinedOutput()
				if err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				return strings.TrimSpace(string(out))
			}
			for kind, d := range deliveries {
				if got := run(d); got != "good" {
					t.Errorf("%s is %s", kind, got)
				}
				d.Signed += "x"
				if got := run(d); got != "bad" {
					t.Errorf("%s, altered, is %s", kind, got)
				}
			}
		})
	}
}
