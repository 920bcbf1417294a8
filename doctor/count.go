package doctor

import "strconv"

// Count writes a number with its noun: "1 change", "2 changes".
func Count(n int, thing string) string { return strconv.Itoa(n) + " " + Choose(n, thing, thing+"s") }

// Are returns the verb for a number of things: "is" or "are".
func Are(n int) string { return Choose(n, "is", "are") }

// Choose returns the form of a word for one thing or for several.
func Choose(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}
