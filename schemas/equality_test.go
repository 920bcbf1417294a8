package schemas

import "testing"

func TestEquality_NormalFormsAreTheSameForTheSameValue(t *testing.T) {
	for _, test := range []struct {
		equality   Equality
		text, want string // "!" for none
	}{
		{EqualAsText, " A ", " A "},
		{EqualPadded, "ab   ", "ab"}, {EqualPadded, " ab", " ab"}, {EqualPadded, "   ", ""},
		{EqualNumber, "7", "7"}, {EqualNumber, "7.00", "7"}, {EqualNumber, "-7.50", "-7.5"}, {EqualNumber, "007", "7"}, {EqualNumber, "-0", "0"},
		{EqualNumber, "-0.00", "0"}, {EqualNumber, "0.07", "0.07"}, {EqualNumber, "+7", "7"}, {EqualNumber, " 7 ", "7"}, {EqualNumber, ".5", "0.5"},
		{EqualNumber, "1e+06", "1000000"}, {EqualNumber, "7.0e0", "7"}, {EqualNumber, "1.5e-3", "0.0015"}, {EqualNumber, "12345678901234567890123.10", "12345678901234567890123.1"},
		{EqualNumber, "NaN", "NaN"}, {EqualNumber, "acct-7", "!"}, {EqualNumber, "", "!"}, {EqualNumber, ".", "!"}, {EqualNumber, "1e999999999", "!"}, {EqualNumber, "1.2.3", "!"},
		{EqualUUID, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
		{EqualUUID, "{a0eebc999c0b4ef8bb6d6bb9bd380a11}", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}, {EqualUUID, "a0ee", "!"},
		{EqualFolded, "ACME", "acme"}, {EqualFolded, "acme", "acme"}, {EqualFolded, "", ""}, {EqualFolded, "Ünal", "!"},
		{EqualUnknown, "a", "!"},
	} {
		given := []byte(test.text)
		got, ok := test.equality.Normal(given)
		if string(given) != test.text {
			t.Errorf("%s %q: the text itself was changed", test.equality, test.text)
		}
		if ok != (test.want != "!") || ok && string(got) != test.want {
			t.Errorf("%s %q is %q (%v), want %q", test.equality, test.text, got, ok, test.want)
		}
	}
}
