package schemas

import "testing"

func TestStorable_KeepsWhatCanBeStoredAndMarksWhatCannot(t *testing.T) {
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
