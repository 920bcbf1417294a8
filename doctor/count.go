package doctor

import "strconv"

// Count is a number of things in words: "1 change", "2 changes".
func Count(n int, thing string) string { return strconv.Itoa(n) + " " + Choose(n, thing, thing+"s") }

// Are is the verb to a number of things.
func Are(n int) string { return Choose(n, "is", "are") }

// Choose is the form of a word for one thing or for several.
func Choose(n int, one, several string) string {
	if n == 1 {
		return one
	}
	return several
}
