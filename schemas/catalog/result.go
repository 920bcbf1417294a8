package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"walhook/schemas"
	"walhook/schemas/pgjson"
)

// Result is an async result: the outcome of work that finishes later, such as
// enabling SMS on a number. Its body is a flat envelope without data.
type Result struct {
	Account string
	Schema  string
	Type    string
	Status  string
	Verbose string // may be ""
}

// maxResultBytes bounds each text of a result.
const maxResultBytes = 64 << 10

func (r *Result) validate() error {
	switch {
	case r.Account == "":
		return errors.New("user_id is missing")
	case len(r.Account) > schemas.MaxAccountBytes:
		return fmt.Errorf("user_id has %d bytes, want at most %d", len(r.Account), schemas.MaxAccountBytes)
	case !isSchemaName(r.Schema):
		return errors.New("schema is missing or is not a name of letters, digits, _ . and -")
	case r.Type == "":
		return errors.New("type is missing")
	case strings.ContainsRune(r.Type, 0):
		return errors.New("type holds a NUL character, which PostgreSQL cannot store")
	case r.Status == "":
		return errors.New("status is missing")
	}
	for _, text := range []string{r.Account, r.Type, r.Status, r.Verbose} {
		if len(text) > maxResultBytes {
			return fmt.Errorf("a text of %d bytes, want at most %d", len(text), maxResultBytes)
		}
		if !utf8.ValidString(text) {
			return errors.New("a text is not valid UTF-8")
		}
	}
	return nil
}

// AppendEnvelope appends the body: type, schema, status and verbose, in this
// order.
func (r *Result) AppendEnvelope(dst []byte) []byte {
	dst = append(dst, `{"type":`...)
	dst = pgjson.AppendString(dst, []byte(r.Type))
	dst = append(dst, `,"schema":`...)
	dst = pgjson.AppendString(dst, []byte(r.Schema))
	dst = append(dst, `,"status":`...)
	dst = pgjson.AppendString(dst, []byte(r.Status))
	dst = append(dst, `,"verbose":`...)
	dst = pgjson.AppendString(dst, []byte(r.Verbose))
	return append(dst, '}')
}

// ParseResultMessage reads the content of a logical message: a JSON object
// with user_id (text or number), schema, type, status and, optional, verbose.
// An error says what is wrong without quoting the content.
func ParseResultMessage(content []byte) (Result, error) {
	if len(content) > 4*maxResultBytes {
		return Result{}, fmt.Errorf("%d bytes, want at most %d", len(content), 4*maxResultBytes)
	}
	var message struct {
		Account json.RawMessage `json:"user_id"`
		Schema  *string         `json:"schema"`
		Type    *string         `json:"type"`
		Status  *string         `json:"status"`
		Verbose *string         `json:"verbose"`
	}
	if err := json.Unmarshal(content, &message); err != nil {
		if wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return Result{}, fmt.Errorf("%s is a JSON %s, want text", wrongType.Field, wrongType.Value)
		}
		return Result{}, errors.New("not a JSON object")
	}
	r := Result{
		Schema:  deref(message.Schema),
		Type:    deref(message.Type),
		Status:  deref(message.Status),
		Verbose: deref(message.Verbose),
	}
	account, err := accountID(message.Account)
	if err != nil {
		return Result{}, fmt.Errorf("user_id %w", err)
	}
	r.Account = account
	return r, r.validate()
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// ResultPlan holds the columns of the table of results; -1 for a missing one.
type ResultPlan struct {
	account, schema, typ, status, verbose int
}

func bindResults(p *Plan) *ResultPlan {
	return &ResultPlan{
		account: p.column("user_id"),
		schema:  p.column("schema"),
		typ:     p.column("type"),
		status:  p.column("status"),
		verbose: p.column("verbose"),
	}
}

// ResultOf reads a row of the table of results.
func (p *Plan) ResultOf(row schemas.Tuple) (Result, error) {
	var r Result
	c := p.Results
	r.Account, _ = p.accountText(row, c.account)
	r.Schema, _ = textOfColumn(row, c.schema)
	r.Type, _ = textOfColumn(row, c.typ)
	r.Status, _ = textOfColumn(row, c.status)
	r.Verbose, _ = textOfColumn(row, c.verbose)
	return r, r.validate()
}
