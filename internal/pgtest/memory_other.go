//go:build !linux

package pgtest

// memoryDir is "": only Linux has a file system in memory at a known place.
func memoryDir() string { return "" }
