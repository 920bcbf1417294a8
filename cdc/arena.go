package cdc

import "walhook/schemas"

// arena holds what a batch's changes point into, so that a change costs no
// allocation of its own. Chunks are given up to the garbage collector with the
// batch: an arena is never reset, only replaced.
type arena struct {
	data   []byte
	values []schemas.Value
	size   int // bytes handed out
}

const (
	arenaBytes  = 64 << 10
	arenaValues = 2048
)

// bytes copies b, whose own memory is the receive buffer.
func (a *arena) bytes(b []byte) []byte {
	a.size += len(b)
	if len(b) > arenaBytes/4 {
		return append([]byte(nil), b...)
	}
	if len(a.data)+len(b) > cap(a.data) {
		a.data = make([]byte, 0, arenaBytes)
	}
	start := len(a.data)
	a.data = append(a.data, b...)
	return a.data[start:len(a.data):len(a.data)]
}

// tuple returns n zero values.
func (a *arena) tuple(n int) schemas.Tuple {
	const valueSize = 32
	a.size += n * valueSize
	if n > arenaValues/4 {
		return make(schemas.Tuple, n)
	}
	if len(a.values)+n > cap(a.values) {
		a.values = make([]schemas.Value, 0, arenaValues)
	}
	start := len(a.values)
	a.values = a.values[:start+n]
	return a.values[start : start+n : start+n]
}
