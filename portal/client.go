package portal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"walhook/api"
)

// reply is an answer of the API.
type reply struct {
	Status   int
	Message  string // of an error, for people
	Fields   map[string][]string
	Warnings []string
	Next     string // start key of the next page
	ETag     string
	After    string // Retry-After, in seconds
	Repeated bool   // it was answered before, to the same key
}

// OK reports whether the call succeeded.
func (r reply) OK() bool { return r.Status >= 200 && r.Status < 300 }

// call calls the API as the session, for the account of the page. It decodes the
// answer's data into out, unless that is nil. body nil sends none.
func (v *visit) call(method, path string, query url.Values, body, out any, headers ...string) (reply, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(map[string]any{"data": body}); err != nil {
			return reply{}, fmt.Errorf("write a request of the API: %w", err)
		}
	}
	address := "/v2/accounts/" + url.PathEscape(v.account) + path
	if len(query) > 0 {
		address += "?" + query.Encode()
	}
	ctx := api.As(v.r.Context(), api.Principal{
		Session: v.session.ID, Account: v.session.Account, Maker: v.session.Maker, Operator: v.session.Operator, Name: v.name(), Proof: v.derived("proof"),
	})
	request, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(text))
	if err != nil {
		return reply{}, fmt.Errorf("make a request of the API: %w", err)
	}
	request.RemoteAddr = v.r.RemoteAddr
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	answer := &answer{header: http.Header{}}
	v.p.cfg.API.ServeHTTP(answer, request)
	r, err := answer.read(out)
	if r.After != "" && !r.OK() {
		v.after = r.After
		r.Message = strings.TrimSpace(sentence(r.Message) + " " + v.p.pages.text("wait", r.After))
	}
	return r, err
}

// stands reports whether the API refuses events that were named because they do not wait
// for that any more, or still wait: what a button pressed twice asks for.
func (r reply) stands() bool {
	return r.Status == http.StatusConflict && len(r.Fields["event_ids"]) > 0
}

// running reports whether the API still answers the first request with the same key.
func (r reply) running() bool { return r.Status == http.StatusConflict && r.After != "" }

// once is the header by which the API does once what a form asks for, however often it is
// sent. A form with other values is another one, also after the browser's Back.
func (v *visit) once() []string {
	nonce := v.r.PostFormValue("once")
	if nonce == "" {
		return nil
	}
	form := url.Values{}
	for name, values := range v.r.PostForm {
		if name != "form_token" {
			form[name] = values
		}
	}
	sum := sha256.Sum256([]byte(form.Encode()))
	return []string{"Idempotency-Key", "form-" + hex.EncodeToString(sum[:16])}
}

// answer keeps what the API answers.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(text []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(text)
}

func (a *answer) read(out any) (reply, error) {
	var whole struct {
		Data         json.RawMessage `json:"data"`
		Message      string          `json:"message"`
		Warnings     []string        `json:"warnings"`
		NextStartKey string          `json:"next_start_key"`
	}
	r := reply{Status: a.status, ETag: a.header.Get("ETag"), After: a.header.Get("Retry-After"), Repeated: a.header.Get("Idempotent-Replayed") != ""}
	if !strings.HasPrefix(a.header.Get("Content-Type"), "application/json") {
		r.Message = strings.TrimSpace(a.body.String())
		return r, nil
	}
	if err := json.Unmarshal(a.body.Bytes(), &whole); err != nil {
		return r, fmt.Errorf("read an answer of the API: %w", err)
	}
	r.Message, r.Warnings, r.Next = whole.Message, whole.Warnings, whole.NextStartKey
	if !r.OK() {
		var fields map[string]map[string]struct {
			Message string `json:"message"`
		}
		if json.Unmarshal(whole.Data, &fields) == nil { // other errors have no fields
			r.Fields = map[string][]string{}
			for name, kinds := range fields {
				for _, one := range kinds {
					r.Fields[name] = append(r.Fields[name], one.Message)
				}
			}
		}
		return r, nil
	}
	if out == nil {
		return r, nil
	}
	if err := json.Unmarshal(whole.Data, out); err != nil {
		return r, fmt.Errorf("read an answer of the API: %w", err)
	}
	return r, nil
}

// got calls the API for what a page cannot do without. Otherwise it shows the error,
// and returns false.
func (v *visit) got(path string, query url.Values, out any) (reply, bool) {
	r, err := v.call(http.MethodGet, path, query, nil, out)
	return r, v.accept(r, err)
}

// accept reports whether a call succeeded, and otherwise shows why not.
func (v *visit) accept(r reply, err error) bool {
	switch {
	case err != nil:
		v.unreadable(err)
	case r.Status == http.StatusUnauthorized:
		v.fail(http.StatusUnauthorized, "error.no_session")
	case !r.OK():
		v.fail(r.Status, "error.refused", r.Message)
	default:
		return true
	}
	return false
}
