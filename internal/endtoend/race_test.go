//go:build race

package endtoend

// raceDetector says whether walhook is built under the race detector: where the
// tests are.
const raceDetector = true
