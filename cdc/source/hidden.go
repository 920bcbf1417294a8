package source

import (
	"context"

	"walhook/schemas/catalog"
)

// hiddenSink is a sink that notes which records the publication's row filter hides. Nobody
// gets them, but records that belong through them have their account.
type hiddenSink interface {
	Hidden(ctx context.Context, schema string, keys []string) error
}

const hiddenChunk = 5000

// readHidden reads the keys of the records that a row filter hides, once the owners of all
// are read.
func (l *snapshotLoad) readHidden(ctx context.Context, source *gapSource) error {
	sink, ok := l.sink.(hiddenSink)
	if !ok {
		return nil
	}
	for _, schema := range l.cfg.Catalog.Schemas {
		if !l.wanted(schema) || source.Plan(schema.Name) == nil || source.rows.tables[schema.Name].published() == "" {
			continue
		}
		var keys []string
		flush := func() error {
			err := sink.Hidden(ctx, schema.Name, keys)
			keys = keys[:0]
			return err
		}
		err := source.records(ctx, schema.Name, func(one catalog.Record) error {
			if one.Hidden {
				keys = append(keys, one.Key)
			}
			if len(keys) < hiddenChunk {
				return nil
			}
			return flush()
		})
		if err == nil && len(keys) > 0 {
			err = flush()
		}
		if err != nil {
			return err
		}
	}
	return nil
}
