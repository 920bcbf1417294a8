package api

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
)

func apiInfo(version string) *huma.Info {
	return &huma.Info{
		Title:   "walhook subscriptions",
		Version: version,
		Description: "Webhooks of an account: which events go where, their outcome, and replays. " +
			"Every path exists under /v2 and under /api/v1.",
	}
}

func securitySchemes() map[string]*huma.SecurityScheme {
	return map[string]*huma.SecurityScheme{
		"token":  {Type: "apiKey", In: "header", Name: "X-Auth-Token"},
		"bearer": {Type: "http", Scheme: "bearer"},
	}
}

// operation describes a call whose success is 200.
func operation(id, method, path, summary, description string) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Description: description,
		MaxBodyBytes: maxBody + 1, // huma rejects a body of exactly the bound
	}
}

// withBody describes a call with a body whose data has a schema. document reads the
// body, because huma handles neither unknown fields nor null as we do.
func withBody(op huma.Operation, data *huma.Schema, status int) huma.Operation {
	op.DefaultStatus = status
	op.SkipValidateBody = true
	op.RequestBody = &huma.RequestBody{
		Required: true,
		Content:  map[string]*huma.MediaType{jsonType: {Schema: bodyOf(data)}},
	}
	return op
}

// registerOptional registers a call whose body is optional; huma treats a raw body as
// required.
func registerOptional[I, O any](routes huma.API, op huma.Operation, f func(context.Context, *I) (*O, error)) {
	huma.Register(routes, op, f)
	op.RequestBody.Required = false
}

// forOperator marks a call that needs the operator's token.
func forOperator(op huma.Operation) huma.Operation { return marked(op, operatorOnly, true) }

// callKind marks an operation that is not an [ordinaryCall].
const callKind = "kind"

// slow marks a call that waits for a receiver.
func slow(op huma.Operation) huma.Operation { return marked(op, callKind, receiverCall) }

// expensive marks a call that reads many rows.
func expensive(op huma.Operation) huma.Operation { return marked(op, callKind, expensiveCall) }

// expensiveParameter names the query parameter with which a call is an [expensiveCall].
const expensiveParameter = "expensive with"

// expensiveWith marks a call that reads many rows where it has a parameter.
func expensiveWith(parameter string, op huma.Operation) huma.Operation {
	return marked(op, expensiveParameter, parameter)
}

func marked(op huma.Operation, name string, value any) huma.Operation {
	if op.Metadata == nil {
		op.Metadata = map[string]any{}
	}
	op.Metadata[name] = value
	return op
}

func kindOf(op *huma.Operation) *kind {
	if k, marked := op.Metadata[callKind].(*kind); marked {
		return k
	}
	return ordinaryCall
}

// kindOfCall is the kind of a call with its query.
func kindOfCall(ctx huma.Context) *kind {
	if name, marked := ctx.Operation().Metadata[expensiveParameter].(string); marked && ctx.Query(name) != "" {
		return expensiveCall
	}
	return kindOf(ctx.Operation())
}

// errorsOf are the error statuses that every call may have.
var errorsOf = []int{
	http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusRequestTimeout, http.StatusConflict,
	http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusTooManyRequests,
	http.StatusInternalServerError, http.StatusServiceUnavailable,
}

// completeOpenAPI adds to the document what huma does not know. Every call must be
// registered before.
func completeOpenAPI(doc *huma.OpenAPI) {
	schema := doc.Components.Schemas.Schema(reflect.TypeFor[errorBody](), true, "")
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Put, item.Post, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			delete(op.Responses, "default") // huma's own error shape
			if op.RequestBody != nil {
				delete(op.RequestBody.Content, "application/octet-stream") // huma's type for a raw body
			}
			may := errorsOf
			if op.Metadata[idempotencyHeader] != nil {
				may = append(slices.Clone(may), http.StatusUnprocessableEntity)
			}
			if op.Metadata[matchHeader] != nil {
				may = append(slices.Clone(may), http.StatusPreconditionFailed)
			}
			if op.Metadata[etagHeader] != nil {
				op.Responses[strconv.Itoa(op.DefaultStatus)].Headers = map[string]*huma.Param{etagHeader: {
					Description: "names the state of the webhook, for If-Match; every change of the webhook gives another",
					Schema:      &huma.Schema{Type: huma.TypeString},
				}}
			}
			if op.Metadata[mayBeGone] != nil {
				may = append(slices.Clone(may), http.StatusGone)
			}
			for _, status := range may {
				op.Responses[strconv.Itoa(status)] = &huma.Response{
					Description: http.StatusText(status),
					Content:     map[string]*huma.MediaType{jsonType: {Schema: schema}},
				}
			}
		}
	}
	for _, unused := range []string{"ErrorModel", "ErrorDetail"} {
		delete(doc.Components.Schemas.Map(), unused)
	}
}

// welcome answers a request for / with the addresses of the API and its document.
func (s *subscriptions) welcome(w http.ResponseWriter, r *http.Request) {
	type link struct {
		Path string `json:"path"`
		Is   string `json:"is"`
	}
	answer := answerOf(struct {
		Service string `json:"service"`
		Links   []link `json:"links"`
	}{"walhook " + s.cfg.Version, []link{
		{"/openapi.json", "every call of the subscription API, as OpenAPI 3.1; also /openapi.yaml"},
		{"/v2/accounts/{account_id}/webhooks", "the webhooks of an account, with a token in X-Auth-Token; also under /api/v1"},
		{"/healthz", "liveness of the process"},
		{"/readyz", "readiness of the process"},
	}}).Body.withRequestID(callOf(r.Context()).id)
	w.Header().Set("Content-Type", jsonType)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(answer) // an error means that the client is gone
}
