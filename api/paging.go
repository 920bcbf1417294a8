package api

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"

	"walhook/outbox"
)

// A list goes on after the last thing of the page before, by what it is ordered
// by. So what comes or goes meanwhile neither repeats nor hides anything.

// paged is the page of a list that was read one longer than the page, to see
// whether it goes on.
func paged[T, S any](list []T, size int, shown func(*T) S, key func(*T) any) *pageAnswer[S] {
	p := &pageAnswer[S]{}
	if len(list) > size {
		list = list[:size]
		text, err := json.Marshal(key(&list[size-1]))
		if err == nil { // keys are made of numbers, texts and times
			p.Body.NextStartKey = base64.RawURLEncoding.EncodeToString(text)
		}
	}
	for i := range list {
		p.Body.Data = append(p.Body.Data, shown(&list[i]))
	}
	return p
}

// startKey is the key that a page goes on after; the zero value begins at the
// start.
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
	// A page names a key in one way.
	if err != nil || !bytes.Equal(raw, again) || !isKey(key) {
		return key, badStartKey()
	}
	return key, nil
}

// isKey says whether a page can end with a key: ids are positive.
func isKey(key any) bool {
	switch key := key.(type) {
	case int64:
		return key > 0
	case *outbox.AttemptKey:
		return key != nil && key.Endpoint > 0 && key.EventID >= 0
	case *outbox.Token:
		return key != nil
	case *string:
		return key != nil
	}
	return false
}

func badStartKey() *failure {
	return badRequest("start_key", "invalid: want the next_start_key of a previous page")
}

// badRequest names one field that is wrong.
func badRequest(field, message string) *failure {
	return &failure{status: http.StatusBadRequest, message: field + ": " + message, fields: faults{field: {kindInvalid: {message}}}}
}
