package api

import (
	"testing"

	"go.uber.org/zap"
)

// The number that a webhook shows is the one that log lines call endpoint.
func TestWebhook_ShowsTheNumberThatLogLinesName(t *testing.T) {
	w := newWorld(t)
	w.webhook(t, adminToken, "8", "")
	id := w.webhook(t, adminToken, "7", "")
	path := "/v2/accounts/7/webhooks"
	number, _ := w.want(t, 200, adminToken, "GET", path+"/"+id, "").data(t)["endpoint"].(float64)
	listed := w.want(t, 200, adminToken, "GET", path, "").list(t)
	w.want(t, 200, adminToken, "PATCH", path+"/"+id, `{"data":{"name":"x"}}`)
	lines := w.logs.FilterMessage("audit").FilterField(zap.String("action", "webhook edited")).All()
	if number == 0 || len(listed) != 1 || listed[0]["endpoint"] != number || len(lines) != 1 || lines[0].ContextMap()["endpoint"] != int64(number) {
		t.Errorf("shown as %v, listed as %v, logged as %v", number, listed, lines)
	}
	if row := one[int64](t, w, "SELECT id FROM walhook.endpoint WHERE webhook = $1", id); row != int64(number) {
		t.Errorf("shown as %v, want %d", number, row)
	}
}
