package cdc

import (
	"strings"
	"testing"

	"walhook/cdc/source"
)

// A server of SQL_ASCII stores any bytes. None of them stops the feed or the initial
// snapshot, and different keys stay different.
func TestReader_BytesThatAreNoTextStopNothing(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, encoded(t, "SQL_ASCII"), `INSERT INTO users VALUES (7, E'http://example.com/caf\xe9');
		ALTER TABLE notes DROP CONSTRAINT notes_pkey; ALTER TABLE notes ADD PRIMARY KEY (note);`)
	if len(w.store.accounts) != 1 || w.store.accounts["7"].URL != "http://example.com/caf\ufffde9" {
		t.Errorf("accounts %+v", w.store.accounts)
	}
	w.start(t)
	w.exec(t, `INSERT INTO items VALUES (1, 7, E'caf\xe9')`, `INSERT INTO notes VALUES (1, 1, E'\xe8'), (2, 1, E'\xe9')`, `INSERT INTO items VALUES (2, 7, 'é')`)
	w.exec(t, "INSERT INTO notes VALUES (3, 1, '\ufffde9'), (4, 1, 'a \ufffd')")
	w.settle(t)
	wantLines(t, w.lines(), []string{
		"insert public.items new(id*=1 user_id=7 name=caf\ufffde9)",
		"insert public.notes new(id=1 item_id=1 note*=\ufffde8)",
		"insert public.notes new(id=2 item_id=1 note*=\ufffde9)",
		"insert public.items new(id*=2 user_id=7 name=é)",
		"insert public.notes new(id=3 item_id=1 note*=\ufffdef\ufffdbf\ufffdbde9)",
		"insert public.notes new(id=4 item_id=1 note*=a \ufffd)",
	})
}

// The content of a logical message comes in the server's encoding, unlike a row.
func TestReader_ConvertsLogicalMessages(t *testing.T) {
	t.Parallel()
	for _, encoding := range []string{"LATIN1", "EUC_JP"} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			text := map[string]string{"LATIN1": "numéro", "EUC_JP": "日本"}[encoding]
			w := newWorldIn(t, encoded(t, encoding), "")
			w.start(t)
			w.exec(t, "SET client_encoding = 'UTF8'", "SELECT pg_logical_emit_message(true, 'walhook', '"+text+"')")
			w.settle(t)
			if lines := strings.Join(w.lines(), " "); !strings.Contains(lines, text) {
				t.Errorf("received %q", lines)
			}
		})
	}
}

// Different texts stay different: an id that looks like another one's replaced bytes is
// not that account.
func TestLegible_KeepsTextsApart(t *testing.T) {
	t.Parallel()
	parts := []string{"\xe9", "\xef", "\xbf", "\xbd", "\ufffd", "e", "9", "bd", "x", "E9"}
	from := map[string]string{}
	var try func(text string, more int)
	try = func(text string, more int) {
		if got := string(source.Legible([]byte(text))); from[got] != "" && from[got] != text {
			t.Fatalf("%q and %q both become %q", from[got], text, got)
		} else {
			from[got] = text
		}
		for i := 0; more > 0 && i < len(parts); i++ {
			try(text+parts[i], more-1)
		}
	}
	try("", 5)
}
