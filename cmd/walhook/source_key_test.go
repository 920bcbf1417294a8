package main

import (
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"walhook/cdc/source"
	"walhook/internal/pgtest"
	"walhook/outbox"
)

// Who forgot the key hears that others have one, and not that secrets are stored in clear.
func TestSetup_WithoutTheKeyOfTheOutbox(t *testing.T) {
	t.Parallel()
	w := unpreparedGapWorld(t, pgtest.Database(t), "INSERT INTO users (id, name, web_hook_url) VALUES (7, 'seven', 'https://seven.example/hook')")
	setup := func(key []byte) (warnings []string) {
		kept, all := observer.New(zapcore.WarnLevel)
		store, err := outbox.Open(t.Context(), outbox.Config{URL: w.outbox.URL, SecretKey: key}, w.log, prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		if _, err := prepare(t.Context(), w.cfg, store, w.outbox.URL, source.Refuse, zap.New(kept)); err != nil {
			t.Fatal(err)
		}
		for _, entry := range all.All() {
			warnings = append(warnings, entry.Message)
		}
		return warnings
	}
	key := make([]byte, 32)
	for _, step := range []struct {
		key       []byte
		says, not string
	}{
		{key, "", noSecretKey},
		{nil, lacksSecretKey, noSecretKey},
		{key, "", lacksSecretKey},
	} {
		warnings := setup(step.key)
		if step.says != "" && !slices.Contains(warnings, step.says) || slices.Contains(warnings, step.not) {
			t.Errorf("with a key of %d bytes: %q", len(step.key), warnings)
		}
	}
}
