package deliver

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"walhook/outbox"
)

var echoBody = []byte(`{"type":"update","schema":"sub_users","data":"{\"id\":42,\"parent_id\":7,\"username\":\"ann.obrien\",\"email\":\"ann@obrien.example\",\"first_name\":\"Анна\",\"phone_number\":\"3125551212\",\"address\":\"1 Main St\",\"city\":\"Springfield\"}"}`)

// echoes are ways in which an answer may repeat the event.
func echoes() map[string]string {
	body := string(echoBody)
	var envelope struct{ Type, Schema, Data string }
	if json.Unmarshal(echoBody, &envelope) != nil {
		panic("the body is no JSON")
	}
	var indented bytes.Buffer
	_ = json.Indent(&indented, []byte(envelope.Data), "", "    ")
	quoted, _ := json.Marshal(body)
	twice, _ := json.Marshal(string(quoted))
	ascii := strings.NewReplacer("А", `\u0410`, "н", `\u043d`, "а", `\u0430`).Replace(body)
	var spaced, padded, hexEscapes, hexDump, quotedPrintable strings.Builder
	for _, c := range echoBody {
		fmt.Fprintf(&hexDump, "0x%02X, ", c)
		fmt.Fprintf(&quotedPrintable, "=%02X", c)
		fmt.Fprintf(&hexEscapes, `\x%02x`, c)
	}
	for _, c := range body {
		fmt.Fprintf(&spaced, "%c ", c)
		fmt.Fprintf(&padded, `\u%04x`, c)
	}
	between := func(s string) string { return strings.Join(strings.Split(body, ""), s) }
	lines := base64.StdEncoding.EncodeToString(echoBody)
	all := map[string]string{
		"whole":             body,
		"upper case":        strings.ToUpper(body),
		"data alone":        envelope.Data,
		"data, indented":    indented.String(),
		"JSON string":       string(quoted),
		"JSON string twice": string(twice),
		"ASCII only":        ascii,
		"all escaped":       padded.String(),
		"spaced":            spaced.String(),
		"query":             url.QueryEscape(body),
		"path":              url.PathEscape(body),
		"query twice":       url.QueryEscape(url.QueryEscape(body)),
		"HTML":              html.EscapeString(body),
		"HTML, decimal":     strings.ReplaceAll(body, `"`, "&#34;"),
		"base64":            lines,
		"base64 for URLs":   base64.RawURLEncoding.EncodeToString(echoBody),
		"base64 within":     "xy" + base64.StdEncoding.EncodeToString(append([]byte("got: "), echoBody...)),
		"base64 in lines":   lines[:76] + "\r\n" + lines[76:152] + "\r\n" + lines[152:],
		"hex":               hex.EncodeToString(echoBody),
		"hex escapes":       hexEscapes.String(),
		"no width between":  between("\u200b"),
		"soft hyphens":      between("\u00ad"),
		"no UTF-8 between":  between("\xff"),
		"controls between":  between("\x01\u202e"),
		"accents between":   between("\u0301"),
		"dots between":      between("·"),
		"hex bytes":         fmt.Sprintf("% x", echoBody),
		"hex dump":          hexDump.String(),
		"quoted-printable":  quotedPrintable.String(),
		"hex, upper case":   strings.ToUpper(hex.EncodeToString(echoBody)),
		"without punctuation": strings.Map(func(r rune) rune {
			if strings.ContainsRune(`{}":,\`, r) {
				return -1
			}
			return r
		}, body),
		"members in another order": `{"city":"Springfield","phone_number":"3125551212","email":"ann@obrien.example","username":"ann.obrien"}`,
		"one value":                `no such number: 3125551212`,
		"two values":               `ann.obrien, 3125551212`,
	}
	for _, skip := range []int{1, 2, 3, 23, 25, 40, 60, 100} {
		all[fmt.Sprintf("from byte %d on", skip)] = body[skip:]
		all[fmt.Sprintf("base64 from byte %d on", skip)] = base64.StdEncoding.EncodeToString(echoBody[skip:])
	}
	return all
}

// checkNothingKept checks that a detail holds nothing of the event.
func checkNothingKept(t *testing.T, detail string) {
	t.Helper()
	squeezed := strings.ToLower(strings.NewReplacer(" ", "", `\`, "").Replace(detail))
	for _, part := range []string{"3125551212", "5551212", "ann.obrien", "obrien.example", "springfield", `"id":42`, "6f627269656e", strings.TrimPrefix(secretA, "whsec_")} {
		if strings.Contains(squeezed, strings.ToLower(part)) {
			t.Errorf("%q holds %s", detail, part)
		}
	}
	for _, r := range readingsOf(detail) {
		if bytes.Contains(r.chars, []byte("obrien")) || bytes.Contains(r.chars, []byte("312555")) {
			t.Errorf("%q holds what was sent, coded", detail)
		}
	}
}

func TestAttempt_NothingOfWhatWasSentIsKeptFromAnAnswer(t *testing.T) {
	t.Parallel()
	event := testEvent
	event.Body = echoBody
	for name, echo := range echoes() {
		for where, text := range map[string]string{
			"body":     "HTTP/1.1 500 No\r\nContent-Length: " + fmt.Sprint(len(echo)) + "\r\n\r\n" + echo,
			"prefixed": "HTTP/1.1 422 No\r\nContent-Length: " + fmt.Sprint(len(echo)+15) + "\r\n\r\nI do not like: " + echo,
			"location": "HTTP/1.1 302 No\r\nContent-Length: 0\r\nLocation: http://x.example/" + url.PathEscape(echo) + "\r\n\r\n",
			"header":   "HTTP/1.1 500 No\r\n" + echo + "\r\n\r\n",
			"nonsense": echo + "\r\n\r\n",
		} {
			t.Run(name+"/"+where, func(t *testing.T) {
				t.Parallel()
				endpoint := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
					if readRequest(r) == nil {
						io.WriteString(conn, text)
					}
				})
				a := testHTTP(t).deliver(t.Context(), testEndpoint(endpoint), event, time.Now())
				checkNothingKept(t, a.detail)
				if where == "prefixed" && !strings.Contains(a.detail, "I do not ") {
					t.Errorf("%q lacks what the receiver says itself", a.detail)
				}
			})
		}
	}
}

func TestAttempt_NothingOfAGetsQueryOrOfASignatureIsKept(t *testing.T) {
	t.Parallel()
	server := rawReceiver(t, func(conn net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		text := req.Header.Get("webhook-signature") + " " + base64.StdEncoding.EncodeToString([]byte(req.Header.Get("webhook-signature"))) + " " + req.RequestURI[3:]
		fmt.Fprintf(conn, "HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	})
	e, event := testEndpoint(server), testEvent
	e.Settings = &outbox.EndpointSettings{HTTPVerb: "get"}
	event.Body = echoBody
	a := testHTTP(t).deliver(t.Context(), e, event, time.Now())
	checkNothingKept(t, a.detail)
	if a.status != 500 || strings.Contains(a.detail, "v1,") && len(a.detail) > 60 {
		t.Errorf("%+v", a)
	}
}

func TestWithout_KeepsWhatAReceiverSaysItself(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                          "",
		"down for maintenance":      "down for maintenance",
		"field phone_number is bad": "field phone_number is bad",
		`{"error":"first_name is required","code":1234}`:                       `{"error":"first_name is required","code":1234}`,
		"no such number 3125551212 here":                                       "no such … here",
		"<html><body><h1>502 Bad Gateway</h1></body></html>":                   "<html><body><h1>502 Bad Gateway</h1></body></html>",
		"request 0a1b2c3d4e5f60718293a4b5c6d7e8f9 failed, see the manual":      "request 0a1b2c3d4e5f60718293a4b5c6d7e8f9 failed, see the manual",
		"eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo": "eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCGfG_HACGpVUMN_a9IV7pAx_Zmeo",
	} {
		if got := without(text, echoBody); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzWithout checks that no result shares a run with the hidden text.
func FuzzWithout(f *testing.F) {
	for _, echo := range echoes() {
		f.Add(echo, echoBody)
	}
	f.Add(`\u\ud83d\ude00%%25%2&#x;&amp;\`, []byte(`\\\u00e`))
	f.Fuzz(func(t *testing.T, text string, sent []byte) {
		text = text[:min(len(text), 4*maxDetail)]
		kept := without(text, sent)
		if len(kept) > 2*len(text)+3 {
			t.Errorf("%q became %q", text, kept)
		}
		grams := map[string]bool{}
		var chars []byte
		undo(sent, func(c byte, _, _ int) { chars = append(chars, c) })
		for i := 0; i+echoRun <= len(chars); i++ {
			grams[string(chars[i:i+echoRun])] = true
		}
		for piece := range strings.SplitSeq(kept, "…") {
			if isMember := strings.ContainsAny(piece, "abcdefghijklmnopqrstuvwxyz") && (bytes.Contains(sent, []byte(`":`)) || bytes.Contains(sent, []byte(`\":`)) || bytes.Contains(sent, []byte("="))); isMember {
				continue // the name of a member may stay
			}
			var left []byte
			undo([]byte(piece), func(c byte, _, _ int) { left = append(left, c) })
			for i := 0; i+echoRun <= len(left); i++ {
				if grams[string(left[i:i+echoRun])] && !strings.Contains(text, "…") {
					t.Errorf("%q of %q is left of what was sent", left[i:i+echoRun], kept)
				}
			}
		}
	})
}

func BenchmarkWithout(b *testing.B) {
	body := bytes.Repeat(echoBody, 1<<20/len(echoBody))
	text := strings.Repeat("no such thing as this. ", 4096/23)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		without(text, body)
	}
}
