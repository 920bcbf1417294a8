// Package platform has the tables of a platform for carrier services, for tests of the
// built-in catalog platform: providers, resellers, customers, and what they are billed for.
//
//	tables.sql ──embed──▶ Tables ──▶ a test's database ◀── catalog.Platform
//
// It holds no data and no code.
package platform

import _ "embed"

// Tables is the SQL that creates the tables in schema public.
//
//go:embed tables.sql
var Tables string
