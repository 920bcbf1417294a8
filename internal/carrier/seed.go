package carrier

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// firstAccount is the id of account 0.
const firstAccount = 1001

// AccountID returns the users.id of an account, by its index from 0.
func AccountID(index int) int64 { return firstAccount + int64(index) }

func accountIndex(id int64) int { return int(id - firstAccount) }

// Seed fills the tables of Create with accounts, their records, and a pool of numbers.
// urlFor returns the web_hook_url of account i, "" for none. The ledger does not expect
// events for these rows, so Seed must run before walhook's initial snapshot.
func Seed(ctx context.Context, conn *pgx.Conn, accounts int, seed uint64, urlFor func(i int) string) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL ledger.silent = on`); err != nil {
			return err
		}
		s := &step{fakes: newFakes(seed, 1<<63), ctx: ctx, tx: tx}
		if err := s.fillPool(20 + 2*accounts); err != nil {
			return err
		}
		for i := range accounts {
			if err := s.seedAccount(i, urlFor(i)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("seed the carrier: %w", err)
	}
	return nil
}

// seedAccount creates an account with some records of each schema. Every tenth account is
// the reseller of the next nine.
func (s *step) seedAccount(index int, url string) error {
	var reseller *int64
	if index%10 != 0 {
		reseller = new(AccountID(index - index%10))
	}
	if err := s.newAccount(index, reseller, url); err != nil {
		return err
	}
	for range 2 {
		if err := s.order(); err != nil {
			return err
		}
	}
	for _, t := range tables {
		if t.name == "users" || s.chance(40) {
			continue
		}
		if _, err := s.insert(t.name); err != nil {
			return err
		}
	}
	return nil
}
