package schemas

import (
	"testing"
)

func TestPosition_WebhookIDDependsOnTheChangeAlone(t *testing.T) {
	p := Position{Commit: 0x16B3748, Ordinal: 3}
	for part, want := range map[int]string{
		0:  "evt_00000000016B3748_3",
		1:  "evt_00000000016B3748_3b",
		2:  "evt_00000000016B3748_3c",
		25: "evt_00000000016B3748_3z",
		26: "evt_00000000016B3748_3ba",
	} {
		if got := p.WebhookID(part); got != want {
			t.Errorf("part %d: %s, want %s", part, got, want)
		}
	}
	seen := map[string]int{}
	for part := range 2000 {
		id := p.WebhookID(part)
		if other, twice := seen[id]; twice {
			t.Fatalf("parts %d and %d are both %s", other, part, id)
		}
		seen[id] = part
	}
}

func TestPosition_OrdersAsTheStreamDoes(t *testing.T) {
	rising := []Position{{}, {1, 1}, {1, 2}, {2, 1}, {1 << 40, 1}}
	for i, p := range rising {
		for j, q := range rising {
			got, want := p.Compare(q), 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got != want {
				t.Errorf("%s against %s: %d, want %d", p, q, got, want)
			}
		}
	}
}

func TestParseLSN_TakesTheWholeTextOrNothing(t *testing.T) {
	for text, want := range map[string]LSN{"0/0": 0, "0/16B3748": 0x16B3748, "A/ff": 0xA000000FF, "FFFFFFFF/FFFFFFFF": 1<<64 - 1} {
		if got, err := ParseLSN(text); err != nil || got != want {
			t.Errorf("%q: %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "/", "0/", "/1", "0/1 junk", "0x1/2", "+1/2", "1/-2", "1/2/3", "1FFFFFFFF/0", "G/1", "1_0/1"} {
		if got, err := ParseLSN(text); err == nil {
			t.Errorf("%q is %s, want an error", text, got)
		}
	}
}

func FuzzParseLSN(f *testing.F) {
	f.Add("0/16B3748")
	f.Fuzz(func(t *testing.T, text string) {
		lsn, err := ParseLSN(text)
		if err != nil {
			return
		}
		if again, err := ParseLSN(lsn.String()); err != nil || again != lsn {
			t.Errorf("%q is %s, which is %s, %v", text, lsn, again, err)
		}
	})
}
