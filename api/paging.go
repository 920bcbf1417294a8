package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"walhook/outbox/admin"
)

// A page begins after the last item of the previous page, by the sort key of the list.
// So items that come or go in between neither repeat nor hide others.

// paged makes a page of a list that holds one item more than the page if there is a
// next page.
func paged[T, S any](list []T, size int, shown func(*T) S, key func(*T) any) *pageAnswer[S] {
	p := &pageAnswer[S]{}
	if len(list) > size {
		list = list[:size]
		p.Body.NextStartKey = keyText(key(&list[size-1]))
	}
	for i := range list {
		p.Body.Data = append(p.Body.Data, shown(&list[i]))
	}
	return p
}

// keyText writes a sort key as the start of a page.
func keyText(key any) string {
	text, err := json.Marshal(key)
	if err != nil { // keys consist of numbers, texts and times
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(text)
}

// startKey returns the key after which a page begins; the zero value stands for the
// start of the list.
func startKey[K any](text string) (key K, err error) {
	if text == "" {
		return key, nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &key)
	}
	var again []byte
	if err == nil {
		again, err = json.Marshal(key)
	}
	// Only the encoding that paged writes is a key.
	if err != nil || !bytes.Equal(raw, again) || !isKey(key) {
		return key, badStartKey()
	}
	return key, nil
}

// isKey reports whether a page can end with a key: ids are positive.
func isKey(key any) bool {
	switch key := key.(type) {
	case int64:
		return key > 0
	case *admin.AttemptKey:
		return key != nil && key.Endpoint > 0 && key.EventID >= 0
	case *admin.Token:
		return key != nil
	case *admin.ActKey:
		return key != nil && key.ID > 0
	case *string:
		return key != nil
	}
	return false
}

func badStartKey() *failure {
	return badRequest("start_key", "invalid: want the next_start_key of a previous page")
}

// badRequest is a 400 that names one field.
func badRequest(field, message string) *failure {
	return &failure{status: http.StatusBadRequest, message: field + ": " + message, fields: faults{field: {kindInvalid: {message}}}}
}
