// Package shape holds the test that keeps imports pointing the way that
// docs/ARCHITECTURE.md draws them. It has no code of its own.
package shape
