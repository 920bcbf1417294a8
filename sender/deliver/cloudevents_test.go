package deliver

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"

	"walhook/outbox"
)

// A CloudEvents SDK reads what walhook sends.
func TestRender_ACloudEventIsReadByItsSDK(t *testing.T) {
	t.Parallel()
	committed := time.Date(2026, time.March, 9, 14, 30, 0, 123456000, time.FixedZone("", 3600))
	for _, test := range []struct {
		name                string
		event               outbox.Event
		custom              string
		kind, subject, data string
	}{
		{"a record", outbox.Event{Schema: "dids", Type: "update", Record: "dids:42", Body: []byte(recordBody)}, "", "walhook.dids.update", "42", `{"id":42,"price":1.50}`},
		{"a key of several columns", outbox.Event{Schema: "dids", Type: "delete", Record: "dids:a:b,c", Body: []byte(recordBody)}, "", "walhook.dids.delete", "a:b,c", `{"id":42,"price":1.50}`},
		{"a key that no attribute may hold", outbox.Event{Schema: "dids", Type: "insert", Record: "dids:a\nb\u0085\ufffe", Body: []byte(recordBody)}, "",
			"walhook.dids.insert", "a%0Ab%C2%85%EF%BF%BE", `{"id":42,"price":1.50}`},
		{"data that are no object", outbox.Event{Schema: "dids", Type: "update", Body: []byte(`{"type":"update","schema":"dids","data":"x"}`)}, "", "walhook.dids.update", "", `"x"`},
		{"a result", outbox.Event{Schema: "sms_enablement", Type: "update", Record: "result", Body: []byte(`{"type":"update","schema":"sms_enablement","status":"error"}`)}, "",
			"walhook.sms_enablement.update", "result", `{"type":"update","schema":"sms_enablement","status":"error"}`},
		{"a call", outbox.Event{Schema: "channel_create", Type: "event", Format: "form", Body: []byte(callBody)}, "", "walhook.channel_create.event", "", callBody},
		{"a call with custom data", outbox.Event{Schema: "channel_create", Type: "event", Format: "json", Body: []byte(callBody)}, `{"tenant":7,"Name":{"x":[1]}}`,
			"walhook.channel_create.event", "", callBody},
		{"a test of a webhook", outbox.Event{Schema: "test", Type: "test", Record: "test/7", Body: []byte(`{"type":"test","schema":"test","data":"{}"}`)}, "", "walhook.test.test", "test/7", `{}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.event.WebhookID, test.event.CommittedAt = "evt_0000000001A2B3C8_12", committed
			settings := &outbox.EndpointSettings{HTTPVerb: "post", Format: "cloudevents"}
			if test.custom != "" {
				settings.CustomData = []byte(test.custom)
			}
			made, err := render(settings, &test.event)
			if err != nil {
				t.Fatal(err)
			}
			r := httptest.NewRequest(made.method, "/", strings.NewReader(string(made.body)))
			r.Header.Set("Content-Type", made.contentType)
			got, err := binding.ToEvent(t.Context(), cehttp.NewMessageFromHttpRequest(r))
			if err != nil {
				t.Fatalf("%v: %s", err, made.body)
			}
			if err := got.Validate(); err != nil {
				t.Error(err)
			}
			if got.ID() != "evt_0000000001A2B3C8_12" || got.Source() != "urn:walhook" || got.SpecVersion() != "1.0" || got.DataContentType() != "application/json" ||
				got.Type() != test.kind || got.Subject() != test.subject || !got.Time().Equal(committed) || string(got.Data()) != test.data {
				t.Errorf("got %s with the data %s", got, got.Data())
			}
			if custom, _ := got.Extensions()["customdata"].(string); custom != test.custom {
				t.Errorf("customdata is %q, want %q", custom, test.custom)
			}
		})
	}
}
