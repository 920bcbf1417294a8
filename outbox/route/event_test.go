package route

import (
	"fmt"
	"slices"
	"testing"
)

func TestSubscription_Filters(t *testing.T) {
	event := occurrence{hook: "missed_call", groups: []string{"notifications"}, objectType: "missed_call", targets: []Target{{"number", "312"}}}
	object := occurrence{hook: "object", objectType: "dids", action: "doc_created"}
	leg := occurrence{hook: "channel_create", internal: true}
	record := occurrence{hook: HookRecords, schema: "dids", typ: "insert"}
	tests := []struct {
		name string
		s    Subscription
		o    occurrence
		want bool
	}{
		{"records take records", Subscription{Hook: HookRecords}, record, true},
		{"records take no events", Subscription{Hook: HookRecords}, event, false},
		{"all takes events", Subscription{Hook: HookAll}, event, true},
		{"all takes no records", Subscription{Hook: HookAll}, record, false},
		{"its own hook", Subscription{Hook: "missed_call"}, event, true},
		{"another hook", Subscription{Hook: "register"}, event, false},
		{"the hook's group", Subscription{Hook: "notifications"}, event, true},
		{"the group, its type", Subscription{Hook: "notifications", ObjectType: "missed_call"}, event, true},
		{"the group, another type", Subscription{Hook: "notifications", ObjectType: "register"}, event, false},
		{"an action that the event has none of", Subscription{Hook: "notifications", ObjectAction: "doc_created"}, event, true},
		{"objects of a type", Subscription{Hook: "object", ObjectType: "dids", ObjectAction: "doc_created"}, object, true},
		{"objects of another type", Subscription{Hook: "object", ObjectType: "faxes"}, object, false},
		{"another action", Subscription{Hook: "object", ObjectAction: "doc_deleted"}, object, false},
		{"type and action all", Subscription{Hook: "object", ObjectType: "all", ObjectAction: "all"}, object, true},
		{"internal legs unasked", Subscription{Hook: "channel_create"}, leg, false},
		{"internal legs asked", Subscription{Hook: "channel_create", InternalLegs: true}, leg, true},
		{"bound to this number", Subscription{Hook: "missed_call", Target: Target{"number", "312"}}, event, true},
		{"bound to another", Subscription{Hook: "missed_call", Target: Target{"number", "313"}}, event, false},
		{"bound to what is no number", Subscription{Hook: "missed_call", Target: Target{"extension", "312"}}, event, false},
		{"bound, and the event is about nothing", Subscription{Hook: "channel_create", Target: Target{"number", "312"}, InternalLegs: true}, leg, false},
		{"schemas", Subscription{Hook: HookRecords, Schemas: []string{"faxes", "dids"}}, record, true},
		{"other schemas", Subscription{Hook: HookRecords, Schemas: []string{"faxes"}}, record, false},
		{"types", Subscription{Hook: HookRecords, Types: []string{"insert"}}, record, true},
		{"other types", Subscription{Hook: HookRecords, Types: []string{"delete"}}, record, false},
		{"ended", Subscription{Hook: HookAll, Ended: true}, event, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := test.s.wants(&test.o); got != test.want {
				t.Errorf("wants is %t", got)
			}
		})
	}
}

// A tree of any height is followed, and its own accounts only.
func TestRecipients_AtAnyHeight(t *testing.T) {
	v := newView(t, smallCatalog)
	for n := range maxTreeHeight {
		v.Parents[fmt.Sprint(n)] = fmt.Sprint(n + 1)
	}
	top := &Endpoint{Account: fmt.Sprint(maxTreeHeight - 1), ID: 1, Subscription: &Subscription{Hook: HookAll, Subaccounts: true}}
	v.SetWebhooks(1, map[string][]*Endpoint{top.Account: {top}})
	r := newRouter(v, nil, nil, nil)
	if got := r.recipientsOf("0", &occurrence{hook: "x"}); !slices.Equal(got, []*Endpoint{top}) {
		t.Errorf("recipients %v", got)
	}
}
