package portal

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"walhook/outbox/admin"
)

// hasNoMarkup fails if a page shows markup of others as markup.
func (p page) hasNoMarkup(t *testing.T) page {
	t.Helper()
	for _, bad := range []string{"<script>", "<img src=x", `"><script`} {
		if strings.Contains(p.text, bad) {
			t.Errorf("the page has %s: %s", bad, p.text)
		}
	}
	return p
}

func TestGaps_AreShownWithCountsAndWords(t *testing.T) {
	w := newWorld(t)
	o := w.operator(t)
	o.get(t, "gaps").want(t, http.StatusOK, "There was no gap.")
	w.exec(t, `INSERT INTO walhook.gap (from_lsn, to_lsn, reason, accepted_at, missed, inserts, updates, deletes, results, events, note, reconciled_at)
		VALUES ('0/A0', '0/B0', 'the slot is lost', clock_timestamp(), 12345, 11, 22, 33, 44, 55, $1, clock_timestamp())`, "messages: "+markup)
	w.exec(t, `INSERT INTO walhook.gap (from_lsn, reason) VALUES ('0/C0', $1)`, markup)
	o.get(t, "gaps").want(t, http.StatusOK, "0/A0 – 0/B0", "the slot is lost", "12,345", "11 inserts, 22 updates, 33 deletes, 44 results, 55 events", "messages: &lt;script&gt;",
		"0/C0 – ?", "not accepted", "walhook setup --accept-gap").hasNoMarkup(t)
	o.get(t, "fleet").want(t, http.StatusOK, "0/C0").hasNoMarkup(t)
	w.exec(t, `INSERT INTO walhook.gap (from_lsn, reason, accepted_at) SELECT '0/1', 'many', clock_timestamp() FROM generate_series(1, 60)`)
	if r := o.get(t, "gaps").want(t, http.StatusOK, "gaps?from="); strings.Contains(r.text, "0/A0") {
		t.Error("the list has no end")
	}
	o.get(t, "gaps?from=9").want(t, http.StatusOK, "0/A0")
	o.get(t, "gaps?from=x").want(t, http.StatusOK)
}

func TestLetters_AreThoseOfAllAccounts(t *testing.T) {
	w := newWorld(t)
	o := w.operator(t)
	o.get(t, "letters").want(t, http.StatusOK, "There are no dead letters.")
	for _, account := range []string{"7", "8", "9"} {
		hook := w.hook(t, account, func(a *admin.Webhook) {
			a.Name, a.URL = "of "+account+markup, "https://user:hunter2@example.com/x?key=t0ken"
		})
		if account == "8" {
			continue // it has none
		}
		w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, webhook_id, schema, type, record, body, size, committed_at, attempts, reason)
			SELECT $1, n, 'evt_' || n, 'dids', 'update', 'dids:1', '{}', 2, clock_timestamp(), 1, '5xx' FROM generate_series(1, 1200) n`, hook.Endpoint)
	}
	r := o.get(t, "letters").want(t, http.StatusOK, "of 7&lt;script&gt;", "of 9", "≥ 1,000", "The receiver has an error.", `href="/portal/a/9/dead"`).hasNoMarkup(t)
	for _, hidden := range []string{"of 8", "hunter2", "t0ken"} {
		if strings.Contains(r.text, hidden) {
			t.Errorf("the page shows %s: %s", hidden, r.text)
		}
	}
	w.exec(t, `INSERT INTO walhook.endpoint (account, url, state, secret) SELECT 'm' || n, 'https://example.com/', 'active', 'whsec_c2VjcmV0' FROM generate_series(100, 160) n`)
	w.exec(t, `INSERT INTO walhook.dead_letter (endpoint, event_id, webhook_id, schema, type, record, body, size, committed_at, attempts, reason)
		SELECT id, 1, 'evt_x', 'dids', 'update', 'dids:1', '{}', 2, clock_timestamp(), 1, '5xx' FROM walhook.endpoint WHERE account LIKE 'm%'`)
	r = o.get(t, "letters").want(t, http.StatusOK, ">m100<")
	_, rest, more := strings.Cut(r.text, `href="/portal/letters?from=`)
	if number, _, _ := strings.Cut(rest, `"`); !more || strings.Contains(r.text, ">m160<") {
		t.Error("the list has no end")
	} else {
		o.get(t, "letters?from="+url.QueryEscape(number)).want(t, http.StatusOK, ">m160<")
	}
}

func TestDoctor_RunsBehindThePageAndOnceAtATime(t *testing.T) {
	runs, proceed := atomic.Int32{}, make(chan error)
	w := newWorld(t, func(c *Config) {
		c.Doctor = func(ctx context.Context) ([]Check, error) {
			if runs.Add(1); ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err := <-proceed; err != nil {
				return nil, err
			}
			return []Check{{ID: "source.fine", Status: "ok", Evidence: "fine"}, {ID: "source.slot", Status: "failed", Evidence: markup, Fix: "run:\nwalhook setup " + markup}}, nil
		}
	})
	o := w.operator(t)
	o.get(t, "doctor").want(t, http.StatusOK, "Examine now")
	o.submit(t, "doctor", nil).want(t, http.StatusSeeOther)
	o.submit(t, "doctor", nil).want(t, http.StatusSeeOther)
	o.get(t, "doctor").want(t, http.StatusOK, "The checks are running")
	proceed <- nil
	r := w.patient(t, o, "doctor", "2 checks").hasNoMarkup(t)
	if failed, fine := strings.Index(r.text, "source.slot"), strings.Index(r.text, "source.fine"); failed < 0 || failed > fine {
		t.Error("what is wrong does not come first")
	}
	r.want(t, http.StatusOK, "Failed 1", "OK 1", "&lt;script&gt;", "walhook setup &lt;script")
	if runs.Load() != 1 {
		t.Errorf("%d examinations ran, want 1", runs.Load())
	}
	o.submit(t, "doctor", nil).want(t, http.StatusSeeOther)
	proceed <- errors.New("no database")
	w.patient(t, o, "doctor", "ended without a result").want(t, http.StatusOK, "source.slot")
	list, err := w.admin.Acts(t.Context(), admin.ActFilter{Action: admin.ActDoctor}, nil, 10)
	if err != nil || len(list) != 2 || !strings.HasPrefix(list[0].Actor, "operator, portal session ") {
		t.Errorf("audit %v: %v", list, err)
	}
}

// patient asks for a page until it has a text.
func (w *world) patient(t *testing.T, b *browser, path, text string) page {
	t.Helper()
	for {
		if r := b.get(t, path); strings.Contains(r.text, text) {
			return r
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("%s never says %q", path, text)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestDoctor_APanicEndsNothingElse(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Doctor = func(context.Context) ([]Check, error) { panic("broken") } })
	o := w.operator(t)
	o.submit(t, "doctor", nil).want(t, http.StatusSeeOther)
	w.patient(t, o, "doctor", "ended without a result")
}

func TestDoctor_WithoutItThePageSaysWhatToRun(t *testing.T) {
	w := newWorld(t)
	o := w.operator(t)
	o.get(t, "doctor").want(t, http.StatusOK, "Run walhook doctor.")
	o.submit(t, "doctor", nil).want(t, http.StatusConflict, "Run walhook doctor.")
}

func TestFleet_SaysHowTheSourceStands(t *testing.T) {
	asked, fault := 0, error(nil)
	w := newWorld(t, func(c *Config) {
		c.Source = func(context.Context, *admin.Status) (Source, error) {
			asked++
			return Source{Slot: "walhook" + markup, State: "reserved", Reader: "pid 7", Standbys: []string{"pid 8, address 192.0.2.8" + markup}, LagKnown: true, LagBytes: 5000, LagSeconds: 3, Retained: 2e6, Limit: 8e6}, fault
		}
	})
	o := w.operator(t)
	for range 3 {
		o.get(t, "fleet").want(t, http.StatusOK, "reserved", "pid 7", "pid 8, address 192.0.2.8&lt;script", `3 s <span class="soft">5.0 kB</span>`, "2.0 MB", "25 % of 8.0 MB").hasNoMarkup(t)
	}
	if asked != 1 {
		t.Errorf("the source was asked %d times, want once", asked)
	}
	fault = errors.New("no database")
	w.portal.source.at = time.Time{}
	o.get(t, "fleet").want(t, http.StatusOK, "The source does not answer")
}
