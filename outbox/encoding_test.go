package outbox

import (
	"fmt"
	"strings"
	"testing"

	"walhook/internal/pgtest"
	"walhook/schemas"
	"walhook/schemas/catalog"
)

// An outbox whose database cannot hold every text delivers everybody's events all
// the same: a record has one name, its owner is found again, and what a receiver
// answers stops no settlement.
func TestEncoding_AnOutboxThatIsNotUTF8ServesEverybody(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"EUC_KR", "EUC_JP", "LATIN1", "SQL_ASCII", "UTF8"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			cluster := pgtest.Cluster(t)
			admin := pgtest.Database(t)
			name := "encoding_" + strings.ToLower(encoding) + "_" + admin.Name
			admin.Exec(t, fmt.Sprintf("CREATE DATABASE %q ENCODING '%s' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'", name, encoding))
			w := worldIn(t, &pgtest.DB{Cluster: cluster, Name: name, URL: strings.Replace(admin.URL, admin.Name, name, 1)})
			if err := Migrate(t.Context(), w.db.URL); err != nil {
				t.Fatal(err)
			}
			w.open(t)
			f := newFeedOf(t, w, smallCatalog)
			dids, faxes := dids.OfText(), faxes.OfText()
			f.commit(t, users.Insert(7, "n", "https://example.com/café?q=한Ж", nil), account(8))
			keys := []string{"café", "한글", "ЖЖ", "😀", `\\u{416}`, "plain"}
			for _, key := range keys {
				f.commit(t, dids.Insert(key, 7, "n"), dids.Update(row(key, 7, "n"), row(key, 7, "m")), dids.Insert(key+"8", 8, "n"))
			}
			f.restart(t)
			for _, key := range keys {
				f.commit(t, faxes.Insert(key, key, "1")) // through the did, whose owner is remembered
			}
			if u := f.count(t, "unrouted"); u != 0 {
				t.Errorf("%d changes are unrouted", u)
			}
			if n := one[int](t, w, "SELECT count(DISTINCT record) FROM walhook.event WHERE schema = 'dids' AND endpoint = 1"); n != len(keys) {
				t.Errorf("%d records of %d keys", n, len(keys))
			}
			if n := one[int](t, w, "SELECT count(*) FROM walhook.event WHERE schema IN ('dids', 'faxes') AND endpoint = 1"); n != 3*len(keys) {
				t.Errorf("%d events, want %d", n, 3*len(keys))
			}
			s, _ := f.join(t)
			endpoints, err := s.Endpoints(t.Context(), []int64{1})
			if err != nil || endpoints[0].State != EndpointActive {
				t.Errorf("endpoint %+v, %v", endpoints, err)
			}
			var fates []Settlement
			for _, e := range f.tail(t, s, TailQuery{}) {
				fate := dead(e)
				fate.Attempt.Detail = "500: \u041E\u0448\u0438\u0431\u043A\u0430 \uD55C \xff\x00"
				fates = append(fates, fate)
			}
			f.settle(t, s, fates...)
			if n := f.count(t, "attempt"); n != len(fates) || f.count(t, "set_aside") != 0 {
				t.Errorf("%d attempts of %d, %d set aside", n, len(fates), f.count(t, "set_aside"))
			}
		})
	}
}

func TestSnapshot_KeysThatAreOneOnceTheirBytesAreReplaced(t *testing.T) {
	f := newFeed(t)
	f.snapshot(t, firstLSN, func(w catalog.SnapshotSink) error {
		for _, id := range []string{"a\xe9", "a\xe8", "7"} {
			if err := w.Account(t.Context(), schemas.Account{ID: id, URL: "https://example.com/\xe9"}); err != nil {
				return err
			}
			if err := w.Owner(t.Context(), schemas.OwnerEdge{Schema: "dids", Key: id, Account: "7"}); err != nil {
				return err
			}
		}
		return nil
	})
	if p, o := f.count(t, "endpoint"), f.count(t, "owner"); p != 2 || o != 2 {
		t.Errorf("%d endpoints, %d owners", p, o)
	}
	wantLines(t, all[string](t, f.world, "SELECT DISTINCT state || ': ' || reason FROM walhook.endpoint"), "unusable: the URL contains bytes that are not UTF-8")
}
