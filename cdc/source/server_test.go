package source

import (
	"testing"
)

func TestTakesForStandby_KnowsEveryFormThatNamesUs(t *testing.T) {
	for names, want := range map[string]bool{
		"":                             false,
		"*":                            true,
		`"*"`:                          true,
		"ANY 1 (*)":                    true,
		"FIRST 2 (replica1, *)":        true,
		"2 (replica1, WALHOOK)":        true,
		`ANY 1 ("walhook", replica1)`:  true,
		"replica1,walhook":             true,
		"FIRST 1 (replica1, replica2)": false,
		"walhook_standby":              false,
		`"walhook ""b""", replica1`:    false,
	} {
		if got := takesForStandby(names); got != want {
			t.Errorf("%s: %t, want %t", names, got, want)
		}
	}
}
