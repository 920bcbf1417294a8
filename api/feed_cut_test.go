package api

import (
	"strings"
	"testing"
)

// Once the URL of an endpoint was cleared, its earlier events are not handed out any more: a
// cursor from before says so, and is not led past them. One behind which nothing was left
// out stays good.
func TestFeed_ACursorFromBeforeAClearedURL(t *testing.T) {
	w := newWorld(t)
	token := w.token(t, "7", "")
	id := w.webhook(t, token, "7", "")
	path := "/v2/accounts/7/webhooks/" + id + "/feed"
	w.append(t, id, 1, 2)
	_, before := feedIDs(t, w.want(t, 200, token, "GET", path+"?limit=1", ""))
	w.append(t, id, 3)
	_, last := feedIDs(t, w.want(t, 200, token, "GET", path, ""))
	for _, from := range []string{"9223372036854775807", "10"} { // while it is cleared, and after
		w.exec(t, "UPDATE walhook.endpoint SET feed_from = "+from+"::bigint, revision = revision + 1 WHERE webhook = $1", id)
		if from == "10" {
			w.append(t, id, 12)
		}
		r := w.want(t, 410, token, "GET", path+"?after="+before, "")
		if !strings.Contains(r.text, "URL was cleared") {
			t.Errorf("from %s: %s", from, r.text)
		}
		w.want(t, 410, token, "GET", path+"?after="+before, "", "Accept", "text/event-stream")
		oldest := r.body["oldest"].(string)
		for _, cursor := range []string{last, oldest} {
			ids, _ := feedIDs(t, w.want(t, 200, token, "GET", path+"?after="+cursor, ""))
			if from == "10" && (len(ids) != 1 || ids[0] != "12") || from != "10" && len(ids) > 0 {
				t.Errorf("from %s, after %s: %v", from, cursor, ids)
			}
		}
	}
}
