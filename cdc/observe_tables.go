package cdc

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"walhook/schemas"
	"walhook/schemas/catalog"
)

// defaultTablesEvery is how often the catalog's tables are looked at: a
// partition that lives for less is read by what today's catalog says, if that
// still has it.
const (
	defaultTablesEvery = 2 * time.Second
	lastTablesEvery    = 10 * time.Second
)

// stampSQL sums up all that descriptions are made of, and all publications, in
// one number: it moves when any of it is written. Only then is the rest read.
const stampSQL = `
	WITH RECURSIVE tree (oid) AS (
		SELECT c.oid FROM unnest($1::text[], $2::text[]) AS named (namespace, name)
		JOIN pg_namespace n ON n.nspname = named.namespace
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = named.name AND c.relkind IN ('r', 'p')
		UNION
		SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.oid
	), row (what) AS (
		SELECT concat_ws(' ', 'c', c.oid, c.xmin) FROM tree JOIN pg_class c ON c.oid = tree.oid
		UNION ALL SELECT concat_ws(' ', 'a', a.attrelid, a.attnum, a.xmin) FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid
		UNION ALL SELECT concat_ws(' ', 't', f.attrelid, f.attnum, f.xmin) FROM tree JOIN pg_attribute a ON a.attrelid = tree.oid AND a.attnum > 0
			JOIN pg_type t ON t.oid = a.atttypid AND t.typrelid <> 0 JOIN pg_attribute f ON f.attrelid = t.typrelid
		UNION ALL SELECT concat_ws(' ', 'i', i.indexrelid, i.xmin) FROM tree JOIN pg_index i ON i.indrelid = tree.oid AND (i.indisprimary OR i.indisreplident)
		UNION ALL SELECT concat_ws(' ', 'h', i.inhrelid, i.inhparent, i.xmin) FROM tree JOIN pg_inherits i ON i.inhrelid = tree.oid
		UNION ALL SELECT concat_ws(' ', 'p', p.oid, p.xmin) FROM pg_publication p
		UNION ALL SELECT concat_ws(' ', 'r', r.oid, r.xmin) FROM pg_publication_rel r
	)
	SELECT coalesce(sum(hashtextextended(what, 0)), 0)::text FROM row`

// tableObserver looks at the catalog's tables while the reader reads, so that
// they are remembered before they vanish, and sees at once what a change of
// them does to the carrier's writes and to old rows.
type tableObserver struct {
	r       *Reader
	history *history
	source  *catalogReader // nil until it is connected
	stamp   string
	took    time.Duration          // how long the source took for the stamp
	gone    map[uint32]schemas.LSN // where the log ended when a table was found gone
	faults  map[uint32]tableFault
	seen    map[schemas.TableName]bool // tables of the catalog that were there
	said    map[finding]bool           // what is wrong otherwise, and was said
	mending map[uint32]*mending
}

// observeTables looks until ctx ends. What is wrong with the source is told by
// whoever reads; a look that fails is made again.
func (r *Reader) observeTables(ctx context.Context, h *history) {
	o := &tableObserver{r: r, history: h, gone: map[uint32]schemas.LSN{}, seen: map[schemas.TableName]bool{}, mending: map[uint32]*mending{}}
	defer func() { o.disconnect(ctx) }()
	for {
		if err := o.look(ctx); err != nil && ctx.Err() == nil {
			r.log.Debug("tables cannot be looked at", zap.Error(err))
			o.disconnect(ctx)
		}
		// Where there are very many partitions a look takes its time, and is made
		// less often.
		wait := time.NewTimer(max(r.tablesEvery, min(20*o.took, lastTablesEvery)))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-h.changed: // the stream described a table that is new
			wait.Stop()
		case <-wait.C:
		}
	}
}

func (o *tableObserver) disconnect(ctx context.Context) {
	if o.source != nil {
		o.source.close(ctx)
		o.source = nil
	}
}

func (o *tableObserver) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTimeout, errors.New("look at the tables: no answer in time"))
	defer cancel()
	if o.source == nil {
		source, err := newCatalogReader(ctx, o.r.cfg)
		if err != nil {
			return err
		}
		o.source = source
	}
	if err := o.history.prune(ctx, schemas.LSN(o.r.metrics.flushed.Load()), o.gone); err != nil {
		return err
	}
	namespaces, names := tableNames(o.r.cfg.Catalog)
	var stamp string
	began := time.Now()
	if err := o.source.conn.QueryRow(ctx, stampSQL, namespaces, names).Scan(&stamp); err != nil {
		return fmt.Errorf("look whether tables changed: %w", err)
	}
	o.took = time.Since(began)
	if stamp == o.stamp && !o.due() {
		return nil
	}
	list, err := describeAll(ctx, o.source.conn, o.r.cfg)
	if err != nil {
		return err
	}
	// What commits from here on finds the tables so, until they change again.
	end, err := o.source.walEnd(ctx)
	if err != nil {
		return err
	}
	if err := o.history.remember(ctx, end, list...); err != nil {
		return err
	}
	o.noteGone(end, list)
	if err := o.judge(ctx); err != nil {
		return err
	}
	o.stamp = stamp
	return nil
}

// noteGone finds the tables that are remembered and not there any more.
func (o *tableObserver) noteGone(end schemas.LSN, list []*catalog.TableDescription) {
	there := map[uint32]bool{}
	for _, d := range list {
		there[d.OID] = true
		delete(o.gone, d.OID)
	}
	for _, oid := range o.history.oids() {
		if _, noted := o.gone[oid]; !there[oid] && !noted {
			o.gone[oid] = end
		}
	}
	for oid := range o.gone {
		if !o.history.known(oid) {
			delete(o.gone, oid)
		}
	}
}
