package route

// Cache remembers values in two generations and evicts the older one, so that
// memory stays bounded however many keys there are. What is asked for stays.
type Cache[K comparable, V any] struct {
	young, old map[K]V
	size       int // of a generation, at which the next begins; a batch may go beyond
}

func newCache[K comparable, V any](size int) *Cache[K, V] {
	return &Cache[K, V]{young: map[K]V{}, size: size}
}

// look reads without changing anything; old says that the value is in the older
// generation alone.
func (c *Cache[K, V]) look(k K) (v V, known, old bool) {
	if v, known = c.young[k]; known {
		return v, true, false
	}
	v, known = c.old[k]
	return v, known, known
}

// keep moves a key that is asked for into the young generation, and says whether
// it is known.
func (c *Cache[K, V]) keep(k K) bool {
	v, known, old := c.look(k)
	if old {
		c.young[k] = v
	}
	return known
}

// Set notes a value.
func (c *Cache[K, V]) Set(k K, v V) { c.young[k] = v }

func (c *Cache[K, V]) drop(k K) {
	delete(c.young, k)
	delete(c.old, k)
}

// Age evicts the older generation when the young one is full. It comes before a
// batch and not within it: what was fetched for a batch stays until it is routed.
func (c *Cache[K, V]) Age() {
	if len(c.young) >= c.size {
		c.old, c.young = c.young, map[K]V{}
	}
}
