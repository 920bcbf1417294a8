package api

import (
	"encoding/base64"
	"testing"
)

// What no page named as next_start_key is a 400 in every list, and no fault of ours.
func TestPaging_AKeyThatNoPageNamedIsRefused(t *testing.T) {
	w := newWorld(t)
	id := w.webhook(t, adminToken, "7", "")
	for _, list := range []string{"webhooks", "webhooks/attempts", "webhooks/dead", "webhooks/" + id + "/attempts", "webhooks/" + id + "/events", "webhooks/" + id + "/replay", "webhooks/" + id + "/resync", "tokens", "holds"} {
		for _, key := range []string{
			"null", "-5", "0", "1.0", "1e3", "1e400", "99999999999999999999", " 7", "7 ", "7 7", "[]", "{}", `{"At":null}`, "true", `"\u0000"`, "\"\xff\"", "",
			`{"At":"9999-12-31T23:59:59-23:59","Endpoint":-1,"EventID":-1}`, `{"At":"2026-01-01T00:00:00Z","Endpoint":1e3,"EventID":1}`,
		} {
			text := base64.RawURLEncoding.EncodeToString([]byte(key))
			if key == "" {
				text = "%00%ff"
			}
			if r := w.call(t, adminToken, "GET", "/v2/accounts/7/"+list+"?start_key="+text, ""); r.status != 400 {
				t.Errorf("%s after %q: %d %s", list, key, r.status, r.text)
			}
		}
	}
}
