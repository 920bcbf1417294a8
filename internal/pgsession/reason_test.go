package pgsession

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// A name that no resolver knows is one line, and named once.
func TestReason_OfAnUnknownHostIsOneLine(t *testing.T) {
	t.Parallel()
	lookup := errors.Join(errors.New("lookup h: no such host"), errors.New("lookup h: no such host"))
	if got := newAttempt(lookup).reason; got != "lookup h: no such host" {
		t.Errorf("%q", got)
	}
	cfg, err := pgx.ParseConfig("postgres://u@nowhere.invalid/d")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ConnectConfig(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("%q", err)
	}
}
