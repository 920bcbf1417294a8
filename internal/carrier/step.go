package carrier

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// errNothing ends a step without work, such as a release by an account without numbers.
// The transaction is rolled back.
var errNothing = errors.New("nothing to do")

// step is one transaction of the carrier on behalf of an account.
type step struct {
	fakes
	ctx     context.Context
	tx      pgx.Tx
	account int64
	other   int64 // the second account of a move
}

// exec runs a statement that must touch a row.
func (s *step) exec(sql string, args ...any) error {
	tag, err := s.tx.Exec(s.ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	if tag.RowsAffected() == 0 {
		return errNothing
	}
	return nil
}

// id runs a query for one id; without a row it returns errNothing.
func (s *step) id(sql string, args ...any) (int64, error) {
	var id *int64
	err := s.tx.QueryRow(s.ctx, sql, args...).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) || (err == nil && id == nil) {
		return 0, errNothing
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", sql, err)
	}
	return *id, nil
}

// oneOf picks one of the account's records of a schema.
func (s *step) oneOf(schema string) (int64, error) {
	where := records[schema].mine(schema)
	return s.id(fmt.Sprintf(
		`SELECT (array_agg(id ORDER BY id))[1 + $2::bigint %% nullif(count(*), 0)] FROM %s WHERE %s`, schema, where),
		s.account, s.Int64N(1<<30))
}

// parentOf returns the parent of a new record of a schema: the account, or one of its
// records, which it creates if there is none.
func (s *step) parentOf(schema string) (int64, error) {
	parent := records[schema].parent
	if parent == "" {
		return s.account, nil
	}
	id, err := s.oneOf(parent)
	if errors.Is(err, errNothing) {
		if parent == "dids" {
			return s.buy()
		}
		return s.insert(parent)
	}
	return id, err
}

// insert makes a record of a schema.
func (s *step) insert(schema string) (int64, error) {
	parent, err := s.parentOf(schema)
	if err != nil {
		return 0, err
	}
	return s.insertUnder(schema, parent)
}

func (s *step) insertUnder(schema string, parent int64) (int64, error) {
	record := records[schema]
	columns, values := record.columns(), append([]any{parent}, record.values(s)...)
	return s.id(fmt.Sprintf(`INSERT INTO %s (%s) VALUES (%s) RETURNING id`, schema, columns, parameters(len(values))), values...)
}

// update changes the columns that usually change of one of the account's records.
func (s *step) update(schema string) error {
	id, err := s.oneOf(schema)
	if err != nil {
		return err
	}
	set, values := records[schema].change(s)
	return s.exec(fmt.Sprintf(`UPDATE %s SET %s WHERE id = $1`, schema, set), append([]any{id}, values...)...)
}

// delete deletes one of the account's records; the server cascades.
func (s *step) delete(schema string) error {
	id, err := s.oneOf(schema)
	if err != nil {
		return err
	}
	return s.exec(fmt.Sprintf(`DELETE FROM %s WHERE id = $1`, schema), id)
}

func parameters(n int) string {
	list := make([]byte, 0, 4*n)
	for i := range n {
		if i > 0 {
			list = append(list, ", "...)
		}
		list = fmt.Appendf(list, "$%d", i+1)
	}
	return string(list)
}
