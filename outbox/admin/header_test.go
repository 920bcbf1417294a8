package admin

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"walhook/doctor"
	"walhook/outbox"
)

// sentHeaders are the headers that a sender has of a webhook, as text; held says why it has
// none.
func (f *feed) sentHeaders(t *testing.T, endpoint int64) (text, held string) {
	t.Helper()
	s, _ := f.join(t)
	defer func() { _ = s.Leave(t.Context()) }()
	list, err := s.Endpoints(t.Context(), []int64{endpoint})
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	if list[0].State != outbox.EndpointActive {
		return "", list[0].Reason
	}
	var lines []string
	for _, h := range list[0].Headers {
		lines = append(lines, h.Name+"="+h.Value)
	}
	return strings.Join(lines, " "), ""
}

func (f *feed) wantHeaders(t *testing.T, when string, endpoint int64, want string) {
	t.Helper()
	if got, held := f.sentHeaders(t, endpoint); got != want || held != "" {
		t.Errorf("%s: headers %q, held for %q; want %q", when, got, held, want)
	}
}

func withHeaders(w Webhook, headers ...Header) Webhook {
	w.Headers = headers
	return w
}

func TestHeaders_AreEncryptedAtRestForTheirNameAndHostAndResealed(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	w := f.create(t, withHeaders(hook("7", "https://example.com/a"), Header{Name: "X-Key", Value: "MARKone"}, Header{Name: "Authorization", Value: "Bearer MARKtwo"}))
	const both = "Authorization=Bearer MARKtwo X-Key=MARKone"
	f.wantHeaders(t, "without a key", w.Endpoint, both)
	f.open(t, withKey(1))
	f.wantHeaders(t, "stored before there was a key", w.Endpoint, both)
	edit := func(change func(*Webhook)) error {
		t.Helper()
		_, err := f.admin.EditWebhook(t.Context(), Caller{}, "7", w.ID, func(w *Webhook) error { change(w); return nil })
		return err
	}
	says := func(when, want string) {
		t.Helper()
		for _, finding := range outbox.Examine(t.Context(), outbox.Config{URL: f.DB.URL, SecretKey: bytes.Repeat([]byte{1}, 32)}, doctor.Options{}) {
			if finding.ID == "outbox.secrets" && !strings.Contains(string(finding.Status)+": "+finding.Evidence, want) {
				t.Errorf("%s doctor says %s: %s; want %q", when, finding.Status, finding.Evidence, want)
			}
		}
	}
	f.Exec(t, "CREATE TEMP TABLE plain AS SELECT id, header_values FROM walhook.endpoint")
	if got, err := f.admin.Reseal(t.Context(), nil); err != nil || got.Sealed != 3 {
		t.Fatalf("resealed %+v, %v", got, err)
	}
	f.wantNoMark(t, "resealed")
	f.wantHeaders(t, "resealed", w.Endpoint, both)
	says("resealed", "ok: 3 signing secrets, all encrypted")
	if got, err := f.admin.Reseal(t.Context(), nil); err != nil || got.Already != 3 {
		t.Errorf("resealed again %+v, %v", got, err)
	}
	before := one[[]string](t, f.world, "SELECT header_values FROM walhook.endpoint WHERE id = $1", w.Endpoint)
	if err := edit(func(w *Webhook) { w.Name = "other" }); err != nil {
		t.Fatal(err)
	}
	if after := one[[]string](t, f.world, "SELECT header_values FROM walhook.endpoint WHERE id = $1", w.Endpoint); !slices.Equal(before, after) {
		t.Error("an edit of the name stores the values another time")
	}
	if err := edit(func(w *Webhook) { w.URL = "https://EXAMPLE.com:443/other?x" }); err != nil {
		t.Fatal(err)
	}
	f.wantHeaders(t, "another path", w.Endpoint, both)
	if err := edit(func(w *Webhook) { w.URL = "https://example.org/" }); err == nil || !strings.Contains(err.Error(), "another host") {
		t.Errorf("values go to another host: %v", err)
	}
	if err := edit(func(w *Webhook) { w.Headers = append(w.Headers, Header{Name: "X-New", Value: "MARKthree"}) }); err != nil {
		t.Fatal(err)
	}
	f.wantNoMark(t, "one more")
	f.wantHeaders(t, "one more", w.Endpoint, both+" X-New=MARKthree")

	f.Exec(t, "CREATE TEMP TABLE kept AS SELECT id, url, header_names, header_values FROM walhook.endpoint")
	other := f.create(t, hook("8", "https://example.com/a"))
	for what, spoil := range map[string]string{
		"another host":    "UPDATE walhook.endpoint SET url = 'https://evil.example/' WHERE account = '7' AND webhook <> 'account'",
		"clear text":      "UPDATE walhook.endpoint SET url = 'http://example.com/' WHERE account = '7' AND webhook <> 'account'",
		"another name":    "UPDATE walhook.endpoint SET header_names[1] = 'X-Echo' WHERE account = '7' AND webhook <> 'account'",
		"values swapped":  "UPDATE walhook.endpoint SET header_values = ARRAY[header_values[2], header_values[1], header_values[3]] WHERE account = '7' AND webhook <> 'account'",
		"a damaged value": "UPDATE walhook.endpoint SET header_values[1] = 'sealed:v2:AAAA' WHERE account = '7' AND webhook <> 'account'",
	} {
		f.Exec(t, spoil)
		if got, held := f.sentHeaders(t, w.Endpoint); got != "" || !strings.Contains(held, "header") {
			t.Errorf("%s: headers %q, held for %q", what, got, held)
		}
		says(what, "1 of 4 endpoints is without usable headers: a value was edited")
		f.Exec(t, "UPDATE walhook.endpoint e SET url = k.url, header_names = k.header_names, header_values = k.header_values FROM kept k WHERE k.id = e.id")
	}
	f.Exec(t, "UPDATE walhook.endpoint e SET header_names = k.header_names, header_values = k.header_values FROM kept k WHERE e.id = $1 AND k.id = $2", other.Endpoint, w.Endpoint)
	if got, held := f.sentHeaders(t, other.Endpoint); got != "" || held == "" {
		t.Errorf("another webhook sends %q", got)
	}
	f.Exec(t, "UPDATE walhook.endpoint SET header_names = '{}', header_values = '{}' WHERE id = $1", other.Endpoint)
	f.Exec(t, "UPDATE walhook.endpoint e SET header_names = header_names[:2], header_values = p.header_values FROM plain p WHERE p.id = e.id")
	if got, held := f.sentHeaders(t, w.Endpoint); got != "" || held == "" {
		t.Errorf("in clear, after reseal: %q", got)
	}
	says("in clear", "a value is not encrypted, although 'endpoints reseal' has run")
	f.Exec(t, "DELETE FROM walhook.sealing")
	says("in clear, before reseal", "warning: 1 of 4 endpoints has values of headers in clear")
	if got, err := f.admin.Reseal(t.Context(), nil); err != nil || got.Sealed != 1 {
		t.Fatalf("resealed %+v, %v", got, err)
	}

	f.open(t, withKey(2))
	if got, held := f.sentHeaders(t, w.Endpoint); got != "" || !strings.Contains(held, "--secret-key") {
		t.Errorf("under another key: %q, held for %q", got, held)
	}
	if got, err := f.admin.Reseal(t.Context(), bytes.Repeat([]byte{1}, 32)); err != nil || got.Sealed != 4 || len(got.Unreadable) > 0 {
		t.Errorf("resealed under the new key %+v, %v", got, err)
	}
	f.wantHeaders(t, "under the new key", w.Endpoint, both)
	f.wantNoMark(t, "under the new key")
	f.Exec(t, "UPDATE walhook.endpoint SET header_values[1] = 'sealed:v2:"+"AAAA' WHERE id = $1", w.Endpoint)
	if got, err := f.admin.Reseal(t.Context(), nil); err != nil || !slices.Equal(got.Unreadable, []string{"7/" + w.ID}) {
		t.Errorf("resealed with a damaged value %+v, %v", got, err)
	}
}

func TestHeaders_WhichCannotBeDecryptedStayAsTheyAreUntilTheyAreSetAgain(t *testing.T) {
	f := newFeed(t, withKey(1))
	f.commit(t, account(7))
	w := f.create(t, withHeaders(hook("7", "http://example.com/a"), Header{Name: "X-Key", Value: "one"}))
	well := f.create(t, withHeaders(hook("7", "http://example.com/b"), Header{Name: "X-Key", Value: "two"}))
	f.Exec(t, "UPDATE walhook.endpoint SET header_values[1] = 'sealed:v2:AAAA' WHERE id = $1", w.Endpoint)
	if _, held := f.sentHeaders(t, w.Endpoint); held == "" {
		t.Error("it is not held")
	}
	f.wantHeaders(t, "beside one that is held", well.Endpoint, "X-Key=two")
	read, err := f.admin.Webhook(t.Context(), "7", w.ID)
	if err != nil || fmt.Sprint(read.HeaderNames()) != "[X-Key]" || read.State != outbox.EndpointUnusable || !strings.Contains(read.DisableReason, "header") {
		t.Errorf("read %+v, %v", read, err)
	}
	edit := func(change func(*Webhook)) error {
		_, err := f.admin.EditWebhook(t.Context(), Caller{}, "7", w.ID, func(w *Webhook) error { change(w); return nil })
		return err
	}
	if err := edit(func(w *Webhook) { w.Name = "other" }); err != nil {
		t.Errorf("another name: %v", err)
	}
	if err := edit(func(w *Webhook) { w.URL = "https://example.com/a" }); !errors.Is(err, ErrUnreadable) {
		t.Errorf("https: %v", err)
	}
	if got := one[string](t, f.world, "SELECT header_values[1] FROM walhook.endpoint WHERE id = $1", w.Endpoint); got != "sealed:v2:AAAA" {
		t.Errorf("stored %s", got)
	}
	if err := edit(func(w *Webhook) { w.Headers = []Header{{Name: "X-Key", Value: "three"}} }); err != nil {
		t.Errorf("set again: %v", err)
	}
	f.wantHeaders(t, "set again", w.Endpoint, "X-Key=three")
}
