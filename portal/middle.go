package portal

import "slices"

// middle returns the median and the largest of some numbers; 0 of none.
func middle(numbers []float64) (median, largest float64) {
	if len(numbers) == 0 {
		return 0, 0
	}
	slices.Sort(numbers)
	return numbers[len(numbers)/2], numbers[len(numbers)-1]
}
