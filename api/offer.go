package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"walhook/outbox/admin"
	"walhook/schemas/catalog"
)

// Offer is what the catalog in force offers to webhooks. It is never changed.
type Offer struct {
	// Hooks are the events to which a webhook may subscribe, besides records and all.
	Hooks []Hook
	// Schemas are the names of the catalog's schemas. Any other name in a filter
	// causes a warning.
	Schemas []string
	// EventTypes describes every event. It returns the same list each time.
	EventTypes func() []catalog.EventType
}

// Hook is an event, or a group of events, to which a webhook may subscribe.
type Hook struct {
	Name   string
	Format string // json or form; "" for a group, whose events have their own
}

// names are the values of a webhook's hook, sorted.
func (o *Offer) names() []string {
	names := []string{admin.HookRecords, admin.HookAll}
	for _, hook := range o.Hooks {
		names = append(names, hook.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// formatOf returns the format of a hook's events unless the webhook sets one.
func (o *Offer) formatOf(hook string) string {
	for _, h := range o.Hooks {
		if h.Name == hook && h.Format != "" {
			return h.Format
		}
	}
	return "json"
}

// offered is an offer with what the API makes of it. It is never changed.
type offered struct {
	*Offer
	edits      *document
	json, yaml []byte // the OpenAPI document
}

// offers makes what the API says and allows of the offer in force.
type offers struct {
	now   func(context.Context) *Offer
	api   *huma.OpenAPI
	edits *document // its schemas are those of api

	mu     sync.Mutex // guards the rest, and api while a document is made
	last   *offered
	lasted time.Time // when last was the offer in force
}

// current returns what is offered now.
func (o *offers) current(ctx context.Context) (*offered, error) {
	offer, now := o.now(ctx), time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lasted = now
	if o.last != nil && o.last.Offer == offer {
		return o.last, nil
	}
	made := &offered{Offer: offer, edits: o.edits.offering(offer.names())}
	o.edits.edit.Properties["hook"].Enum = enumOf(offer.names())
	if offer.EventTypes != nil {
		o.api.Components.Parameters = headerParameters()
		o.api.Extensions = map[string]any{"webhooks": webhooksSection(offer.EventTypes())}
	}
	var err error
	if made.json, err = json.Marshal(o.api); err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	if made.yaml, err = o.api.YAML(); err != nil {
		return nil, fmt.Errorf("write the OpenAPI document as YAML: %w", err)
	}
	o.last = made
	return made, nil
}

func enumOf(names []string) (enum []any) {
	for _, name := range names {
		enum = append(enum, name)
	}
	return enum
}

// offering returns a document that allows these hooks.
func (d *document) offering(hooks []string) *document {
	hook := *d.edit.Properties["hook"]
	hook.Enum = enumOf(hooks)
	hook.PrecomputeMessages()
	edit, create := *d.edit, *d.create
	edit.Properties = maps.Clone(edit.Properties)
	edit.Properties["hook"] = &hook
	create.Properties = edit.Properties
	return &document{registry: d.registry, edit: &edit, create: &create}
}

// documentAge is for how long the OpenAPI document is served without another look: who
// asks for it needs no token.
const documentAge = time.Second

// recent returns what was offered within the last second.
func (o *offers) recent(ctx context.Context) (*offered, error) {
	o.mu.Lock()
	last, fresh := o.last, time.Since(o.lasted) < documentAge
	if last != nil && !fresh {
		o.lasted = time.Now() // others need not ask meanwhile
	}
	o.mu.Unlock()
	if last != nil && fresh {
		return last, nil
	}
	return o.current(ctx)
}

// serveDocument serves the OpenAPI document in one of its forms.
func (o *offers) serveDocument(contentType string, form func(*offered) []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		now, err := o.recent(r.Context())
		if err != nil {
			http.Error(w, "the document cannot be made", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(form(now)) // an error means that the client is gone
	}
}
