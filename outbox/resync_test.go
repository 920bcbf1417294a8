package outbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// fakeSource is a source whose present rows the test sets. Its position is where the feed's
// is.
type fakeSource struct {
	f       *feed
	rows    map[string][]SourceRow
	refused map[string]string
	opened  int
	opening func()          // runs before a snapshot is taken
	reading func(SourceRow) // runs before a row is handed over
}

func (s *fakeSource) OpenSnapshot(context.Context, *catalog.Catalog) (Snapshot, error) {
	if s.opened++; s.opening != nil {
		s.opening()
	}
	rows := map[string][]SourceRow{}
	for schema, list := range s.rows {
		rows[schema] = slices.Clone(list)
	}
	return &fakeSnapshot{s, rows, s.f.commitLSN + 1}, nil
}

type fakeSnapshot struct {
	source *fakeSource
	rows   map[string][]SourceRow
	point  schemas.LSN
}

func (s *fakeSnapshot) Point() schemas.LSN    { return s.point }
func (s *fakeSnapshot) Close(context.Context) {}

func (s *fakeSnapshot) Relation(schema string) (*schemas.Relation, string) {
	if why := s.source.refused[schema]; why != "" {
		return nil, why
	}
	return map[string]table{"users": users, "dids": dids, "faxes": faxes, "pages": pages, "notes": notes}[schema].Relation, ""
}

func (s *fakeSnapshot) Count(_ context.Context, query SourceQuery) (int64, error) {
	return int64(len(s.rows[query.Schema])), nil
}

func (s *fakeSnapshot) Rows(_ context.Context, query SourceQuery, f func(SourceRow) error) error {
	for _, row := range s.rows[query.Schema] {
		if query.After != nil && string(row.At[0]) <= string(query.After[0]) || !slices.Contains(query.Accounts, row.Account) {
			continue
		}
		if s.source.reading != nil {
			s.source.reading(row)
		}
		if err := f(row); err != nil {
			return err
		}
	}
	return nil
}

// didRow is a row of dids; where it stands sorts.
func didRow(id, account int, number string) SourceRow {
	key := fmt.Sprint(id)
	return SourceRow{Key: key, Account: fmt.Sprint(account), Tuple: row(id, account, number), At: [][]byte{fmt.Appendf(nil, "%06d", id)}}
}

// newResync is a feed of accounts 7 and 8, and a source with n dids of account 7 from 1.
func newResync(t *testing.T, n int) (*feed, *fakeSource) {
	t.Helper()
	f := newFeed(t)
	f.commit(t, account(7), account(8))
	f.forget(t)
	s := &fakeSource{f: f, rows: map[string][]SourceRow{}}
	for id := 1; id <= n; id++ {
		s.rows["dids"] = append(s.rows["dids"], didRow(id, 7, "of the snapshot"))
	}
	return f, s
}

func (f *feed) askResync(t *testing.T, account string) int64 {
	t.Helper()
	return one[int64](t, f.world, "INSERT INTO walhook.resync (endpoint, kind) SELECT id, 'update' FROM walhook.endpoint WHERE account = $1 AND webhook = 'account' RETURNING id", account)
}

// passes makes passes of a resync until it is over, at most most.
func (f *feed) passes(t *testing.T, s *fakeSource, id int64, most int) {
	t.Helper()
	for range most {
		err := f.publisher.resyncPass(t.Context(), s, make(chan struct{}, 1), id)
		if err == nil {
			return
		}
		if !errors.Is(err, errNextPass) && !errors.Is(err, errNotPublishing) && !replaced(err) {
			t.Fatal(err)
		}
	}
	t.Fatalf("the resync is not over after %d passes", most)
}

// toldOf lists what an account was told of its dids, in order.
func (f *feed) toldOf(t *testing.T, account string) (records map[string]string, lines []string) {
	t.Helper()
	records = map[string]string{}
	for _, line := range f.events(t) {
		if !strings.HasPrefix(line, account+" ") || !strings.Contains(line, " dids:") {
			continue
		}
		lines = append(lines, line)
		record := strings.Fields(line)[2]
		if records[record] = line[strings.Index(line, "{"):]; strings.Contains(line, " delete dids ") {
			delete(records, record)
		}
	}
	return records, lines
}

func TestResync_LeavesOutWhatHasANewerEvent(t *testing.T) {
	f, s := newResync(t, 250)
	id := f.askResync(t, "7")
	s.opening = func() { // it tracks already: what commits before the snapshot is in it
		f.commit(t, dids.Update(row(1, 7, "x"), row(1, 7, "of the snapshot")))
	}
	s.reading = func(r SourceRow) {
		if r.Key == "200" { // after a part was appended
			f.commit(t, dids.Update(row(10, 7, "x"), row(10, 7, "later")), dids.Update(row(210, 7, "x"), row(210, 7, "later")), dids.Delete(220, 7, "x"),
				dids.Update(row(230, 7, "x"), row(230, 8, "moved")), dids.Insert(300, 7, "new"))
		}
	}
	f.passes(t, s, id, 1)
	records, lines := f.toldOf(t, "7")
	want := map[string]string{}
	for id := 1; id <= 250; id++ {
		want[fmt.Sprint("dids:", id)] = fmt.Sprintf("{'id':%d,'user_id':7,'number':'of the snapshot'}", id)
	}
	want["dids:10"], want["dids:210"] = "{'id':10,'user_id':7,'number':'later'}", "{'id':210,'user_id':7,'number':'later'}"
	want["dids:300"] = "{'id':300,'user_id':7,'number':'new'}"
	delete(want, "dids:220")
	delete(want, "dids:230")
	for record, data := range want {
		if records[record] != data {
			t.Errorf("%s is told as %s, want %s", record, records[record], data)
		}
	}
	if len(records) != len(want) {
		t.Errorf("%d records, want %d", len(records), len(want))
	}
	synced := 0
	for _, line := range lines {
		if strings.Contains(line, "of the snapshot") {
			synced++
		}
	}
	if synced != 250-3+1 { // the change before the snapshot, too
		t.Errorf("%d rows of the snapshot, want %d", synced, 250-3+1)
	}
	if n := testutil.ToFloat64(f.store.metrics.resynced); n != 247 {
		t.Errorf("walhook_resync_records_total is %g, want 247", n)
	}
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', sent, numbered, done_at IS NOT NULL, reason) FROM walhook.resync"), "247 248 t ")
	last := f.events(t)
	if want := fmt.Sprintf("7 _248 resync/%d update resync\",\"status\":\"done\",\"verbose\":\"247 records\",\"request\":\"%d", id, id); last[len(last)-1] != want {
		t.Errorf("it ends with\n\t%s, want\n\t%s", last[len(last)-1], want)
	}
}

func TestResync_GoesOnBehindItsLastChunk(t *testing.T) {
	for name, interrupt := range map[string]func(t *testing.T, f *feed){
		"another publisher": func(t *testing.T, f *feed) { f.restart(t) },
		"a take-over":       func(t *testing.T, f *feed) { f.takeOver(t) },
		"an edited webhook": func(t *testing.T, f *feed) {
			id := one[int64](t, f.world, "SELECT id FROM walhook.endpoint WHERE account = '7'")
			f.publisher.mu.Lock()
			defer f.publisher.mu.Unlock()
			f.publisher.view.Webhook("7", id).Revision++ // as following the webhooks does
		},
		"too much to remember": func(t *testing.T, f *feed) {
			f.publisher.mu.Lock()
			f.publisher.trackers.most = 5
			f.publisher.mu.Unlock()
			var changes []schemas.Change
			for id := 1; id <= 20; id++ {
				changes = append(changes, dids.Update(row(id, 7, "x"), row(id, 7, "of the snapshot")))
			}
			f.commit(t, changes...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newResync(t, 400)
			id := f.askResync(t, "7")
			s.reading = func(r SourceRow) {
				if r.Key == "250" && s.opened == 1 {
					interrupt(t, f)
				}
			}
			f.passes(t, s, id, 3)
			if s.opened != 2 {
				t.Errorf("%d snapshots, want 2", s.opened)
			}
			records, _ := f.toldOf(t, "7")
			if len(records) != 400 {
				t.Errorf("%d records, want 400", len(records))
			}
			if n := one[int](t, f.world, "SELECT count(*) FROM walhook.event WHERE webhook_id LIKE 'sync%'"); n != 401 {
				t.Errorf("%d events of the resync, want 401: a chunk was sent again", n)
			}
			if n := one[int](t, f.world, "SELECT count(DISTINCT webhook_id) FROM walhook.event WHERE webhook_id LIKE 'sync%'"); n != 401 {
				t.Errorf("%d ids, want 401", n)
			}
		})
	}
}

// Of an append that failed nobody knows what it stored.
func TestResync_DoesNotTrustWhatAFailedAppendLeft(t *testing.T) {
	f, s := newResync(t, 150)
	id := f.askResync(t, "7")
	s.reading = func(r SourceRow) {
		if r.Key != "50" || s.opened > 1 {
			return
		}
		// Another process of this outbox stores it, and this one does not learn of it.
		old := f.publisher
		f.restart(t)
		f.commit(t, dids.Update(row(1, 7, "x"), row(1, 7, "later")))
		f.publisher, s.rows["dids"][0] = old, didRow(1, 7, "later")
		f.takeOver(t)
	}
	f.passes(t, s, id, 3)
	if records, _ := f.toldOf(t, "7"); !strings.Contains(records["dids:1"], "later") {
		t.Errorf("it is told as %s", records["dids:1"])
	}
}

func TestResync_NumbersJumpOnAnotherTimeline(t *testing.T) {
	f, s := newResync(t, 3)
	id := f.askResync(t, "7")
	f.exec(t, "UPDATE walhook.resync SET timeline = 'another', numbered = 17, sent = 17")
	f.passes(t, s, id, 1)
	wantLines(t, all[string](t, f.world, "SELECT webhook_id FROM walhook.event ORDER BY id"),
		fmt.Sprintf("sync_%d_1000001", id), fmt.Sprintf("sync_%d_1000002", id), fmt.Sprintf("sync_%d_1000003", id), fmt.Sprintf("sync_%d_1000004", id))
}

// A child whose parent has moved keeps the account that it was last sent to.
func TestResync_LeavesOutAChildOfAMovedParent(t *testing.T) {
	f, s := newResync(t, 0)
	f.commit(t, dids.Insert(1, 8, "n"), faxes.Insert(5, 1, "2"), faxes.Insert(6, 1, "2"), dids.Update(row(1, 8, "n"), row(1, 7, "n")))
	f.commit(t, faxes.Update(row(6, 1, "2"), row(6, 1, "3"))) // which moves it
	f.forget(t)
	s.rows["dids"] = []SourceRow{didRow(1, 7, "n")}
	for _, key := range []string{"5", "6"} {
		s.rows["faxes"] = append(s.rows["faxes"], SourceRow{Key: key, Account: "7", Tuple: row(key, 1, "3"), At: [][]byte{[]byte(key)}})
	}
	id := f.askResync(t, "7")
	f.passes(t, s, id, 1)
	wantLines(t, all[string](t, f.world, "SELECT record FROM walhook.event ORDER BY id"), "dids:1", "faxes:6", fmt.Sprintf("resync/%d", id))
}

func TestResync_EndsEarly(t *testing.T) {
	for name, test := range map[string]struct {
		during func(t *testing.T, f *feed)
		schema string
		reason string
	}{
		"the URL is cleared":      {func(t *testing.T, f *feed) { f.commit(t, setURL("https://example.com/7", nil)) }, "", reasonGone},
		"the account ends":        {func(t *testing.T, f *feed) { f.commit(t, users.Delete(7, "n", "https://example.com/7", nil)) }, "", reasonGone},
		"the endpoint is removed": {func(t *testing.T, f *feed) { f.exec(t, "DELETE FROM walhook.endpoint"); f.takeOver(t) }, "", ""},
		"no such schema":          {nil, "nothing", endSchemaGone},
		"a table without a key":   {nil, "notes", endSchemaUnread + "its table has no key"},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newResync(t, 250)
			id := f.askResync(t, "7")
			f.exec(t, "UPDATE walhook.resync SET schema = nullif($1, '')", test.schema)
			s.refused = map[string]string{"notes": "its table has no key"}
			s.reading = func(r SourceRow) {
				if r.Key == "150" {
					test.during(t, f)
				}
			}
			f.passes(t, s, id, 3)
			if reason := one[string](t, f.world, "SELECT reason FROM walhook.resync WHERE done_at IS NOT NULL"); test.reason != "" && reason != test.reason || reason == "" {
				t.Errorf("it ends because %q, want %q", reason, test.reason)
			}
			if n := one[int](t, f.world, "SELECT count(*) FROM walhook.event WHERE schema = 'resync'"); n != 0 {
				t.Error("it says that it is done")
			}
		})
	}
}

// The account's own webhook begins with the present state whenever its URL is set.
func TestResync_InitialStateWhenTheURLIsSet(t *testing.T) {
	f, s := newResync(t, 3)
	f.exec(t, "UPDATE walhook.endpoint SET initial_state = true WHERE account = '7'")
	f.commit(t, setURL("https://example.com/7", "https://example.com/7?again"), dids.Insert(9, 7, "n")) // 8 has none
	f.commit(t, users.Update(row(8, "n", "https://example.com/8", nil), row(8, "n", "https://example.com/8b", nil)))
	ids := all[int64](t, f.world, "SELECT id FROM walhook.resync WHERE kind = 'insert' ORDER BY id")
	if len(ids) != 1 {
		t.Fatalf("%d resyncs, want one", len(ids))
	}
	f.commit(t, setURL("https://example.com/7?again", urlB)) // which begins anew
	ids = all[int64](t, f.world, "SELECT id FROM walhook.resync WHERE done_at IS NULL")
	if len(ids) != 1 {
		t.Fatalf("%d resyncs, want one", len(ids))
	}
	f.forget(t)
	f.passes(t, s, ids[0], 1)
	wantLines(t, all[string](t, f.world, "SELECT type || ' ' || record FROM walhook.event WHERE record LIKE 'dids%' ORDER BY id"), "insert dids:1", "insert dids:2", "insert dids:3")
	wantLines(t, all[string](t, f.world, "SELECT reason FROM walhook.resync ORDER BY id"), ReasonURLSet, "")
}

// Whoever has the new URL has got nothing of what went to the former one.
func TestResync_SendsEverythingToAnotherURL(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, f *feed){
		"at the source": func(t *testing.T, f *feed) { f.commit(t, setURL("https://example.com/7", urlB)) },
		"cleared and set": func(t *testing.T, f *feed) {
			f.commit(t, setURL("https://example.com/7", nil), setURL(nil, urlB))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, s := newResync(t, 400)
			id := f.askResync(t, "7")
			s.reading = func(r SourceRow) {
				if r.Key == "250" && s.opened == 1 {
					f.forget(t)
					change(t, f)
				}
			}
			f.passes(t, s, id, 3)
			if records, _ := f.toldOf(t, "7"); len(records) != 400 {
				t.Errorf("the new URL is told of %d records, want 400", len(records))
			}
			wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', sent, done_at IS NOT NULL, reason) FROM walhook.resync"), "400 t ")
			if n := one[int](t, f.world, "SELECT count(*) - count(DISTINCT webhook_id) FROM walhook.event WHERE webhook_id LIKE 'sync%'"); n != 0 {
				t.Errorf("%d ids are given twice", n)
			}
		})
	}
}

// A catalog that takes effect may have another key, or schemas that sort before the cursor.
func TestResync_BeginsAgainWithAnotherCatalog(t *testing.T) {
	f, _ := newResync(t, 0)
	f.askResync(t, "7")
	f.exec(t, "UPDATE walhook.resync SET at_schema = 'dids', at_key = '{x}', sent = 5, numbered = 5")
	next := parsed(t, otherCatalog)
	if err := f.store.AskCatalog(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	if err := f.publisher.Adopt(t.Context(), next, f.commitLSN+0x100, func(catalog.SnapshotSink) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', at_schema, at_key IS NULL, sent, numbered) FROM walhook.resync"), " t 0 6")
}

func poisonResync(t *testing.T) {
	f := newFeedAlone(t)
	f.commit(t, account(7))
	f.forget(t)
	s := &fakeSource{f: f, rows: map[string][]SourceRow{}}
	for id := 10; id <= 20; id++ {
		s.rows["dids"] = append(s.rows["dids"], didRow(id, 7, "n"))
	}
	refuse(t, f.world, "walhook.event", "NEW.record = 'dids:13'", "22021")
	f.passes(t, s, f.askResync(t, "7"), 1)
	if records, _ := f.toldOf(t, "7"); len(records) != 10 || records["dids:13"] != "" {
		t.Errorf("told %v", records)
	}
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', sent, done_at IS NOT NULL, reason) FROM walhook.resync"), "10 t ")
	f.wantAside(t, loopResync, asideUnstorable)
}

// An update of which the source does not send a large value that it left untouched (no
// REPLICA IDENTITY FULL) does not stand for the whole record: whoever starts empty gets the
// value, too.
func TestResync_SendsWhatNewerEventsLack(t *testing.T) {
	partial := func(id, account int) schemas.Tuple {
		tuple := row(id, account, "x")
		tuple[2] = schemas.Value{} // absent
		return tuple
	}
	f, s := newResync(t, 250)
	id := f.askResync(t, "7")
	later := map[string]bool{}
	s.opening = func() { // a later snapshot has what was committed before
		for i, r := range s.rows["dids"] {
			if later[r.Key] {
				s.rows["dids"][i] = didRow(i+1, 7, "of a later snapshot")
			}
		}
	}
	s.reading = func(r SourceRow) {
		if r.Key == "100" && len(later) == 0 {
			later["150"], later["210"], later["230"] = true, true, true
			f.commit(t, dids.Update(nil, partial(150, 7)), dids.Update(nil, partial(210, 7)), dids.Update(nil, partial(230, 7)))
			f.commit(t, dids.Update(nil, row(230, 7, "whole")))
		}
	}
	f.passes(t, s, id, 5)
	records, lines := f.toldOf(t, "7")
	for id := 1; id <= 250; id++ {
		want := "of the snapshot"
		switch {
		case id == 230 && s.opened == 2:
			want = "of a later snapshot"
		case later[fmt.Sprint(id)]:
			want = "of a later snapshot"
		}
		if got := records[fmt.Sprint("dids:", id)]; got != fmt.Sprintf("{'id':%d,'user_id':7,'number':'%s'}", id, want) {
			t.Errorf("record %d is told as %s", id, got)
		}
	}
	if s.opened != 2 || len(lines) != 250+4 {
		t.Errorf("%d snapshots, %d events", s.opened, len(lines))
	}
}

// A record that changes during each pass is left out at last, so that the others arrive.
func TestResync_LeavesOutWhatChangesEachTime(t *testing.T) {
	f, s := newResync(t, 20)
	id := f.askResync(t, "7")
	s.reading = func(r SourceRow) {
		if r.Key == "10" {
			tuple := row(10, 7, "x")
			tuple[2] = schemas.Value{}
			f.commit(t, dids.Update(nil, tuple))
		}
	}
	f.passes(t, s, id, mostAgain+2)
	wantLines(t, all[string](t, f.world, "SELECT concat_ws(' ', sent, done_at IS NOT NULL, reason) FROM walhook.resync"), "19 t ")
	if len(f.publisher.partial) != 0 {
		t.Errorf("%d resyncs are remembered", len(f.publisher.partial))
	}
}
