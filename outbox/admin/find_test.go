package admin

import (
	"slices"
	"strings"
	"testing"
)

// A search finds everything that has the text, page by page and once each, those of the
// account itself first, however few endpoints a page looks at.
func TestFindEndpoints_FindsAllPageByPage(t *testing.T) {
	w := newWorld(t)
	w.Exec(t, `INSERT INTO walhook.endpoint (account, webhook, name, url, state, secret)
		SELECT CASE WHEN n % 5 = 0 THEN 'mer' ELSE 'a' || n END, 'w' || n, CASE WHEN n % 2 = 0 THEN 'Meridian ' || n ELSE 'other' END, 'https://example.com/', 'active', 'whsec_c2VjcmV0'
		FROM generate_series(1, 60) n`)
	for _, looks := range []int{7, 60, 1000} {
		var found []string
		var after *FoundKey
		pages := 0
		for ; pages < 100; pages++ {
			list, next, err := w.admin.findEndpoints(t.Context(), "mer", after, 4, looks)
			if err != nil {
				t.Fatal(err)
			}
			if len(list) > 4 {
				t.Fatalf("%d on a page", len(list))
			}
			for _, f := range list {
				found = append(found, f.Webhook)
			}
			if next == nil {
				break
			}
			after = next
		}
		// 12 of the account, then 24 with an even number that are not the account's.
		if len(found) != 36 || found[0] != "w60" || found[11] != "w5" || found[12] != "w58" || found[35] != "w2" {
			t.Errorf("looking at %d: found %d: %s", looks, len(found), strings.Join(found, " "))
		}
		slices.Sort(found)
		if len(slices.Compact(found)) != len(found) {
			t.Errorf("looking at %d: some are found twice", looks)
		}
		if looks == 1000 && pages != 8 {
			t.Errorf("%d pages before the last, want 8", pages)
		}
	}
}
