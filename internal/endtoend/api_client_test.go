package endtoend

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// apiClient speaks to a walhook that runs.
type apiClient struct{ base, token string }

func (c apiClient) call(t testing.TB, status int, method, path, body string) map[string]any {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, c.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Auth-Token", c.token)
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	var answer map[string]any
	if err == nil {
		err = json.Unmarshal(text, &answer)
	}
	if err != nil || response.StatusCode != status {
		t.Fatalf("%s %s: %d %s, want %d (%v)", method, path, response.StatusCode, text, status, err)
	}
	return answer
}

func data(t testing.TB, answer map[string]any) map[string]any {
	t.Helper()
	object, ok := answer["data"].(map[string]any)
	if !ok {
		t.Fatalf("no object in %v", answer)
	}
	return object
}
