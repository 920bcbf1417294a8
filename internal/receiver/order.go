package receiver

import (
	"crypto/sha256"
	"slices"
)

type sum = [sha256.Size]byte

// maxTable bounds the table of longestCommon.
const maxTable = 16 << 20

// outOfOrder returns the least number of received bodies to remove so that the rest are in
// the wanted order. It ignores bodies that are in only one of the two lists; matched is how
// many are in both.
func outOfOrder(want, got []sum, matched int) int {
	for len(want) > 0 && len(got) > 0 && want[0] == got[0] {
		want, got, matched = want[1:], got[1:], matched-1
	}
	for len(want) > 0 && len(got) > 0 && want[len(want)-1] == got[len(got)-1] {
		want, got, matched = want[:len(want)-1], got[:len(got)-1], matched-1
	}
	if matched == 0 {
		return 0
	}
	if len(want)*len(got) > maxTable {
		return matched - longestRising(places(want, got))
	}
	return matched - longestCommon(want, got)
}

// longestCommon returns the length of the longest common subsequence.
func longestCommon(a, b []sum) int {
	above, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for _, x := range a {
		for j, y := range b {
			if x == y {
				row[j+1] = above[j] + 1
			} else {
				row[j+1] = max(above[j+1], row[j])
			}
		}
		above, row = row, above
	}
	return above[len(b)]
}

// places returns the index in want of each received body: among equal bodies the first
// received is the first wanted. It is exact unless events among equal ones are lost.
func places(want, got []sum) []int {
	indexes := map[sum][]int{}
	for i, w := range want {
		indexes[w] = append(indexes[w], i)
	}
	var places []int
	for _, g := range got {
		if of := indexes[g]; len(of) > 0 {
			places, indexes[g] = append(places, of[0]), of[1:]
		}
	}
	return places
}

// longestRising returns the length of the longest rising subsequence.
func longestRising(numbers []int) int {
	var ends []int // the least end of a rising subsequence, by its length
	for _, n := range numbers {
		if i, _ := slices.BinarySearch(ends, n); i < len(ends) {
			ends[i] = n
		} else {
			ends = append(ends, n)
		}
	}
	return len(ends)
}
