package api

import (
	"strings"
	"testing"
)

// What is made for an account that is not there is made, and says so.
func TestUnknownAccount_IsAWarningWhereSomethingIsMade(t *testing.T) {
	w := newWorld(t)
	for _, known := range []bool{false, true} {
		if known {
			w.exec(t, `INSERT INTO walhook.source (state, system_id, timeline, database, slot, publication, publication_oid, catalog, consistent_point, accounts_known)
				VALUES ('ready', '1', 1, 'd', 's', 'p', 1, 'c', '0/1', true)`)
			w.exec(t, "INSERT INTO walhook.known_account VALUES ('7')")
		}
		for _, account := range []string{"7", "77"} {
			for path, body := range map[string]string{"webhooks": `{"data":{"name":"n","uri":"https://example.com/"}}`, "tokens": "", "holds": `{"data":{"host":"h.example"}}`} {
				r := w.want(t, 201, adminToken, "PUT", "/v2/accounts/"+account+"/"+path, body)
				if said := strings.Contains(r.text, "is not in the source"); said != (known && account == "77") {
					t.Errorf("%s of account %s: %s", path, account, r.text)
				}
			}
		}
	}
}
