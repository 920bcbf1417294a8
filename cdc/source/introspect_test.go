package source

import (
	"testing"

	"walhook/internal/pgtest"
)

func TestVisibility_ShowsWhatHasEnded(t *testing.T) {
	const wrapped = 1 << 32
	for name, test := range map[string]struct {
		text string
		xid  uint32
		want bool
	}{
		"ended":                    {"10:20:10,14", 13, true},
		"before all that run":      {"10:20:10,14", 3, true},
		"running":                  {"10:20:10,14", 14, false},
		"the next":                 {"10:20:", 20, false},
		"after the next":           {"10:20:", 24, false},
		"ended before ids wrapped": {"4294967290:4294967300:4294967290", wrapped - 2, true},
		"running since they did":   {"4294967290:4294967300:4294967298", 2, false},
	} {
		seen, err := parseSnapshot(test.text)
		if err != nil || seen.Shows(test.xid) != test.want {
			t.Errorf("%s: %t, %v", name, seen.Shows(test.xid), err)
		}
	}
	for _, text := range []string{"", "1:2", "1:x:", "1:2:3,"} {
		if _, err := parseSnapshot(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// PostgreSQL 15.0 to 15.5, and 16.0 and 16.1, send nulls in the place of values
// that a row is too old to hold.
func TestDropsDefaults_KnowsTheVersionsThatDo(t *testing.T) {
	for version, want := range map[string]bool{
		"14.10": false, "15.0": true, "15.5 (Debian 15.5-1.pgdg120+1)": true, "15.6": false, "16.1": true, "16.2": false, "17.0": false, "18beta1": false,
	} {
		if got := dropsDefaults(version); got != want {
			t.Errorf("%s: %t", version, got)
		}
	}
}

// Our queries are many joins over few rows: compiling one takes longer than running it.
func TestIntrospector_CompilesNoQuery(t *testing.T) {
	t.Parallel()
	r, err := NewIntrospector(t.Context(), Config{URL: pgtest.Database(t).URL})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	var jit string
	if err := r.conn.QueryRow(t.Context(), "SHOW jit").Scan(&jit); err != nil || jit != "off" {
		t.Errorf("jit is %q, err %v", jit, err)
	}
}
