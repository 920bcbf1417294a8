package schemas

import (
	"strings"
	"testing"
)

func TestKeyOf_IsShortAndNoTwoLookAlike(t *testing.T) {
	long := strings.Repeat("x", MaxKeyBytes)
	hashed := KeyOf([][]byte{[]byte(long + "y")})
	keys := map[string][]string{
		"empty":                      {""},
		"number":                     {"42"},
		"as long as allowed":         {long},
		"longer":                     {long + "y"},
		"longer, another":            {long + "z"},
		"looks like the longer one":  {hashed},
		"begins like a hash":         {hashedKey},
		"no text":                    {"\xff"},
		"no text, another":           {"\xfe"},
		"two":                        {"1", "2"},
		"two, another cut":           {"12", ""},
		"two, long":                  {long, "2"},
		"two, long, the other way":   {"2", long},
		"one that looks like length": {"1000:" + long},
	}
	seen := map[string]string{}
	for name, columns := range keys {
		var texts [][]byte
		for _, c := range columns {
			texts = append(texts, []byte(c))
		}
		key := KeyOf(texts)
		if len(key) > MaxKeyBytes {
			t.Errorf("%s: a key of %d bytes", name, len(key))
		}
		if other, there := seen[key]; there {
			t.Errorf("%s and %s are both %q", name, other, key)
		}
		seen[key] = name
		if again := KeyOf(texts); again != key {
			t.Errorf("%s: %q, and then %q", name, key, again)
		}
	}
}

func TestStorable_ReplacesOnlyBytesThatCannotBeStored(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "",
		"Ошибка":            "Ошибка",
		"caf\xe9":           "caf\uFFFD",
		"a\x00b":            "a\uFFFDb",
		"half \xed\xa0\xbd": "half \uFFFD",
	} {
		if got := Storable(text); got != want {
			t.Errorf("Storable(%q) = %q, want %q", text, got, want)
		}
	}
}
