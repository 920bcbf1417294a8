package outbox

import (
	"fmt"
	"testing"

	"walhook/outbox/route"
	"walhook/schemas"
)

// Any role that can connect to the source can emit a logical message. What it
// says is signed with an account's secret, so it must not pass for a record of
// that account or for a notice of walhook's own, whichever way it comes.
func TestForged_NobodyOutsideUsesTheNamesOfRecordsAndOfWalhook(t *testing.T) {
	f := newFeed(t)
	f.webhook(t, "7", "everything", "hook = 'all'")
	f.webhook(t, "7", "feed", "hook = 'records'")
	f.commit(t, account(7))
	f.forget(t)
	names := []string{"dids", "DIDS", "Users", "users", "webhook.disabled", "Webhook.Disabled", "webhook.anything", "resync", "test", "object", "records", "all",
		"webhook", "notice", "Day", "gap", "sync"}
	for _, s := range f.publisher.catalog.Schemas {
		names = append(names, s.Name)
	}
	var changes []schemas.Change
	for i, name := range names {
		changes = append(changes,
			message(fmt.Sprintf(`{"user_id":7,"schema":%q,"type":"delete","status":"x"}`, name)),
			results.Insert(i, 7, name, "update", "x", nil),
			eventMessage(fmt.Sprintf(`{"account_id":7,"hook":%q,"payload":{"id":"1","type":"dids","action":"doc_deleted"}}`, name)),
			emit(i, 7, name, `{"id":"1","type":"dids","action":"doc_deleted"}`))
	}
	changes = append(changes, message(`{"user_id":7,"schema":"sms_enablement","type":"update","status":"ok"}`))
	f.commit(t, changes...)
	if events := f.events(t); len(events) != 2 {
		t.Errorf("sent: %q", events)
	}
	f.wantSkipped(t, map[string]int{route.SkipReserved: 4 * len(names)})
	listed := all[string](t, f.world, "SELECT DISTINCT key FROM walhook.unrouted WHERE reason = 'reserved_name' AND schema = '' AND type = 'message'")
	for _, name := range names {
		found := false
		for _, key := range listed {
			found = found || key == name
		}
		if !found {
			t.Errorf("%s is not named among %q", name, listed)
		}
	}
}

// An event comes under the name of a group by its type, a result never.
func TestForged_NoResultIsNamedLikeAGroup(t *testing.T) {
	f := newFeed(t)
	f.commit(t, account(7))
	f.forget(t)
	f.commit(t, message(`{"user_id":7,"schema":"Notifications","type":"update","status":"x"}`), results.Insert(1, 7, "notifications", "update", "x", nil))
	if events := f.events(t); len(events) > 0 {
		t.Errorf("sent: %q", events)
	}
	f.wantSkipped(t, map[string]int{route.SkipReserved: 2})
}
