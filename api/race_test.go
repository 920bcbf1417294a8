//go:build race

package api

// raceDetector says whether the tests are built under the race detector.
const raceDetector = true
