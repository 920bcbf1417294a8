// Package platform is the database of a carrier-services platform, as the
// built-in catalog of that name reads it: providers, resellers, customers, and
// what is billed of these.
package platform

import _ "embed"

// Tables is the SQL that makes the tables in schema public.
//
//go:embed tables.sql
var Tables string
