package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // daily_zone must mean the same on every machine

	"walhook/outbox"
	"walhook/outbox/address"
	"walhook/outbox/admin"
)

// newWebhook returns a webhook with every field at its default.
func newWebhook(account string) admin.Webhook {
	return admin.Webhook{
		Account: account, Enabled: true, HTTPVerb: "post", Hook: admin.HookRecords,
		Delivery: "realtime", DailyZone: "UTC", State: outbox.EndpointActive,
	}
}

// apply changes a webhook as the client asks. Its error lists every fault, also those
// that read found; the warnings name settings without effect.
func (o *offered) apply(in fields, w *admin.Webhook, wrong faults) (warnings []string, err error) {
	var sent webhookFields
	if err := in.into(&sent); err != nil {
		return nil, err
	}
	before := *w
	toDefaults(w, in.null, wrong)
	set(&w.Name, sent.Name)
	set(&w.HTTPVerb, sent.HTTPVerb)
	set(&w.Hook, sent.Hook)
	set(&w.ObjectType, sent.Type)
	set(&w.ObjectAction, sent.Action)
	set(&w.Schemas, sent.Schemas)
	set(&w.Format, sent.Format)
	set(&w.RateLimit, sent.RateLimit)
	set(&w.Batch, sent.Batch)
	set(&w.Enabled, sent.Enabled)
	switch w.Ask = sent.Enabled; {
	case slices.Contains(in.null, "enabled"):
		w.Ask = new(true)
	case in.echo && w.Enabled == before.Enabled: // as it was shown: nobody asks for it
		w.Ask = nil
	}
	set(&w.IncludeSubaccounts, sent.IncludeSubaccounts)
	set(&w.IncludeInternalLegs, sent.IncludeInternalLegs)
	set(&w.InitialState, sent.InitialState)
	set(&w.Delivery, sent.Delivery)
	set(&w.DailyZone, sent.DailyZone)
	if sent.Retries != nil {
		w.Retries = sent.Retries
	}
	if sent.Types != nil {
		w.Types = nil
		for _, t := range *sent.Types {
			w.Types = append(w.Types, string(t))
		}
	}
	if sent.Target != nil {
		w.Target, w.TargetID = sent.Target.Type, sent.Target.ID
	}
	if sent.DailyAt != nil {
		w.DailyAt = clockTime(*sent.DailyAt)
	}
	if custom, there := in.known["custom_data"]; there {
		w.CustomData = customData(custom, wrong)
	}
	if _, there := in.known["headers"]; there {
		w.Headers = headersOf(sent.Headers, w, wrong)
	}
	if sent.RateLimit != nil && w.RateLimit > 0 && w.RateLimit < minRateLimit {
		wrong.add("rate_limit", kindInvalid, "want 0 (no limit), or %g to 10000 attempts per second", minRateLimit)
	}
	if sent.URI != nil && w.ID != outbox.AccountWebhook { // of that checkURI says so
		if address, fault := w.Unmask(*sent.URI); fault == "" {
			w.URL = address
		} else if len(wrong["uri"]) == 0 {
			wrong.add("uri", kindInvalid, "%s", fault)
		}
	}
	if w.Format == "cloudevents" && w.HTTPVerb == "get" {
		wrong.add("format", kindInvalid, "cloudevents needs a body, and a get has none: use http_verb post or put")
	}
	if fault := batchFault(w); fault != "" {
		wrong.add("batch", kindInvalid, "%s", fault)
	}
	checkTexts(w, in, wrong)
	if fault := w.ResyncFault("", "insert"); w.InitialState && fault != nil {
		wrong.add("initial_state", kindInvalid, "cannot be true: %s", fault)
	}
	checkPull(&before, w, in, wrong)
	checkHeaders(w, wrong)
	if w.ID == outbox.AccountWebhook {
		checkOwn(&before, w, wrong)
	}
	return o.idle(w, in), wrong.err()
}

// checkPull checks that a webhook has a URL, or that its receiver reads its feed.
func checkPull(before, after *admin.Webhook, in fields, wrong faults) {
	pulls, did := after.Delivery == admin.DeliveryPull, before.Delivery == admin.DeliveryPull
	_, sent := in.known["uri"]
	switch {
	case after.ID != "" && pulls != did:
		wrong.add("delivery", kindInvalid, "cannot become pull, nor pull another: create another webhook for that")
	case !pulls && slices.Contains(in.null, "uri"):
		wrong.add("uri", kindRequired, "cannot be removed")
	case !pulls && sent && after.URL == "" && after.ID != outbox.AccountWebhook:
		if len(wrong["uri"]) == 0 {
			wrong.add("uri", kindInvalid, "%s", tooShort)
		}
	case pulls && sent && after.URL != "":
		wrong.add("uri", kindInvalid, "goes without delivery pull: nothing is sent to such a webhook, its events are read by its feed")
	}
}

// tooShort is what the schemas of other fields say of an empty text. name and uri may be
// empty, as they are shown so where there is none.
const tooShort = "expected length >= 1"

// batchFault says why a webhook cannot have batches; "" where it can.
func batchFault(w *admin.Webhook) string {
	switch {
	case w.Batch == 0 || w.ID == outbox.AccountWebhook: // checkOwn says so
		return ""
	case w.Hook != admin.HookRecords:
		return "is for the hook records alone: leave it out, or set it to 0"
	case w.Delivery != admin.DeliveryRealtime:
		return "is for delivery realtime alone: leave it out, or set it to 0"
	case w.HTTPVerb == "get":
		return "needs a body, and a get has none: use http_verb post or put"
	case w.Format == "form":
		return "sends a JSON array, and a form is none: use format envelope, json or cloudevents"
	}
	return ""
}

// minRateLimit is one attempt in 1,000 s. For less, disable the webhook.
const minRateLimit = 0.001

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// toDefaults restores the defaults of the fields that a client sent as null.
func toDefaults(w *admin.Webhook, null []string, wrong faults) {
	standard := newWebhook(w.Account)
	for _, name := range null {
		switch name {
		case "name":
			wrong.add(name, kindRequired, "cannot be removed")
		case "uri": // checkPull says whether it may be missing
		case "http_verb":
			w.HTTPVerb = standard.HTTPVerb
		case "hook":
			w.Hook = standard.Hook
		case "type":
			w.ObjectType = ""
		case "action":
			w.ObjectAction = ""
		case "schemas":
			w.Schemas = nil
		case "types":
			w.Types = nil
		case "target":
			w.Target, w.TargetID = "", ""
		case "format":
			w.Format = ""
		case "retries":
			w.Retries = nil
		case "rate_limit":
			w.RateLimit = 0
		case "batch":
			w.Batch = 0
		case "custom_data":
			w.CustomData = nil
		case "headers":
			w.Headers = nil
		case "enabled":
			w.Enabled = true
		case "include_subaccounts":
			w.IncludeSubaccounts = false
		case "include_internal_legs":
			w.IncludeInternalLegs = false
		case "initial_state":
			w.InitialState = false
		case "delivery":
			w.Delivery = standard.Delivery
		case "daily_at":
			w.DailyAt = 0
		case "daily_zone":
			w.DailyZone = standard.DailyZone
		}
	}
}

// checkURI checks a new URL by its text alone. The sender checks the address of the
// host when it dials. The API does not resolve the name, because its answer would
// reveal which internal names exist.
func (s *subscriptions) checkURI(in fields, w *admin.Webhook, wrong faults) {
	var uri string
	if err := json.Unmarshal(in.known["uri"], &uri); err != nil || w.IsShown(uri) {
		return // not sent, already refused, or sent back as it was shown
	}
	if w.ID == outbox.AccountWebhook {
		wrong.add("uri", kindReadOnly, "is read only: set the account's own webhook URL in the account table")
		return
	}
	if uri == "" {
		return // checkPull says whether it may be
	}
	uri, fault := w.Unmask(uri)
	if fault == "" {
		fault = address.URLFault(uri)
	}
	if fault != "" {
		wrong.add("uri", kindInvalid, "%s", fault)
		return
	}
	if err := s.cfg.Destination.CheckHost(uri); err != nil {
		text := "its host is not allowed"
		if blocked, ok := errors.AsType[BlockedHost](err); ok {
			text = blocked.BlockedHost()
		}
		wrong.add("uri", kindInvalid, "%s", text)
	}
}

// BlockedHost is an error of [Destination.CheckHost] that explains for people why
// walhook sends nothing to a host.
type BlockedHost interface {
	error
	BlockedHost() string
}

// checkTexts checks the texts that reach logs, queries and other people.
func checkTexts(w *admin.Webhook, in fields, wrong faults) {
	for field, text := range map[string]string{
		"name": w.Name, "type": w.ObjectType, "action": w.ObjectAction, "target.id": w.TargetID,
	} {
		if hasControl(text) {
			wrong.add(field, kindInvalid, "contains a control character")
		}
	}
	switch {
	case in.known["name"] == nil || w.ID == outbox.AccountWebhook: // that one may have none
	case w.Name == "":
		wrong.add("name", kindInvalid, "%s", tooShort)
	case strings.TrimSpace(w.Name) == "":
		wrong.add("name", kindInvalid, "is blank")
	}
	for _, name := range w.Schemas {
		if name == "" || len(name) > 64 || hasControl(name) {
			wrong.add("schemas", kindInvalid, "want schema names, such as dids")
		}
	}
	if zone := w.DailyZone; zone == "" || zone == "Local" {
		wrong.add("daily_zone", kindInvalid, "want an IANA time zone, such as Europe/Berlin")
	} else if _, err := time.LoadLocation(zone); err != nil {
		wrong.add("daily_zone", kindInvalid, "unknown time zone: want an IANA time zone, such as Europe/Berlin")
	}
}

// checkOwn rejects a change of an account's own webhook that would change the form of
// its deliveries (docs/CONTRACT.md §1 and §3).
func checkOwn(before, after *admin.Webhook, wrong faults) {
	fixed := func(field string, same bool) {
		if !same {
			wrong.add(field, kindReadOnly, "cannot be set on the account's own webhook: create another webhook for that")
		}
	}
	fixed("http_verb", before.HTTPVerb == after.HTTPVerb)
	fixed("hook", before.Hook == after.Hook)
	fixed("type", before.ObjectType == after.ObjectType)
	fixed("action", before.ObjectAction == after.ObjectAction)
	fixed("schemas", slices.Equal(before.Schemas, after.Schemas))
	fixed("types", slices.Equal(before.Types, after.Types))
	fixed("target", before.Target == after.Target && before.TargetID == after.TargetID)
	fixed("format", before.Format == after.Format)
	fixed("batch", before.Batch == after.Batch)
	fixed("custom_data", bytes.Equal(before.CustomData, after.CustomData))
	fixed("headers", len(after.Headers) == 0)
	fixed("include_subaccounts", before.IncludeSubaccounts == after.IncludeSubaccounts)
	fixed("include_internal_legs", before.IncludeInternalLegs == after.IncludeInternalLegs)
	fixed("delivery", before.Delivery == after.Delivery)
}

// idle warns of settings without effect.
func (o *Offer) idle(w *admin.Webhook, in fields) (warnings []string) {
	sent := func(name string) bool { _, there := in.known[name]; return there }
	warn := func(does bool, names ...string) {
		for _, name := range names {
			if sent(name) && !does {
				warnings = append(warnings, name+" has no effect with the hook "+w.Hook+" and delivery "+w.Delivery)
			}
		}
	}
	object := slices.Contains([]string{"object", "notifications", admin.HookAll}, w.Hook)
	warn(object || w.ObjectType == "", "type")
	warn(object || w.ObjectAction == "", "action")
	warn(w.Hook == admin.HookRecords || len(w.Schemas) == 0, "schemas")
	warn(w.Hook == admin.HookRecords || len(w.Types) == 0, "types")
	warn(w.Hook != admin.HookRecords || w.Target == "", "target")
	warn(w.Delivery == admin.DeliveryDaily, "daily_at", "daily_zone")
	warn(w.Delivery != admin.DeliveryPull, "retries", "rate_limit")
	if sent("schemas") && len(o.Schemas) > 0 {
		for _, name := range w.Schemas {
			if !slices.Contains(o.Schemas, name) {
				warnings = append(warnings, "schemas: unknown record schema "+printable(name)+": it matches only async results of that name")
			}
		}
	}
	return warnings
}

// clockTime reads HH:MM; the schema has checked the form.
func clockTime(text string) time.Duration {
	at, err := time.Parse("15:04", text)
	if err != nil {
		return 0
	}
	return time.Duration(at.Hour())*time.Hour + time.Duration(at.Minute())*time.Minute
}
