package route

// Cache holds values in two generations and evicts the older one, so memory stays
// bounded for any number of keys. A value that is read moves to the young generation.
type Cache[K comparable, V any] struct {
	young, old map[K]V
	size       int // entries after which the next generation begins; a batch may exceed it
}

func newCache[K comparable, V any](size int) *Cache[K, V] {
	return &Cache[K, V]{young: map[K]V{}, size: size}
}

// look reads a value without changing the cache; old says that only the older
// generation has it.
func (c *Cache[K, V]) look(k K) (v V, known, old bool) {
	if v, known = c.young[k]; known {
		return v, true, false
	}
	v, known = c.old[k]
	return v, known, known
}

// keep moves a key into the young generation and reports whether the cache has it.
func (c *Cache[K, V]) keep(k K) bool {
	v, known, old := c.look(k)
	if old {
		c.young[k] = v
	}
	return known
}

// Set stores a value.
func (c *Cache[K, V]) Set(k K, v V) { c.young[k] = v }

func (c *Cache[K, V]) drop(k K) {
	delete(c.young, k)
	delete(c.old, k)
}

// Age evicts the older generation when the young one is full. The publisher calls it
// before a batch, so that what it reads for a batch stays until the batch is routed.
func (c *Cache[K, V]) Age() {
	if len(c.young) >= c.size {
		c.old, c.young = c.young, map[K]V{}
	}
}
