package cdc

import (
	"encoding/binary"
	"slices"

	"walhook/schemas"
)

// The messages of pgoutput, built by hand (PostgreSQL manual, Logical
// Replication Message Formats).

type tupleColumn struct {
	kind byte // n, u or t
	text string
}

func text(s string) tupleColumn { return tupleColumn{'t', s} }

var (
	null      = tupleColumn{kind: 'n'}
	unchanged = tupleColumn{kind: 'u'}
)

func u16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
func u32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
func u64(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
func cstring(s string) []byte {
	return append([]byte(s), 0)
}

func beginMessage(commit schemas.LSN, xid uint32) []byte {
	return slices.Concat([]byte{'B'}, u64(uint64(commit)), u64(1_000_000), u32(xid))
}

func commitMessage(commit, end schemas.LSN) []byte {
	return slices.Concat([]byte{'C', 0}, u64(uint64(commit)), u64(uint64(end)), u64(1_000_000))
}

func originMessage() []byte { return slices.Concat([]byte{'O'}, u64(7), cstring("elsewhere")) }

func typeMessage() []byte {
	return slices.Concat([]byte{'Y'}, u32(70000), cstring("public"), cstring("mood"))
}

// relationMessage describes public.t (id int4, name text) with key flags.
func relationMessage(oid uint32, identity byte) []byte {
	flag := byte(0)
	if identity == 'f' {
		flag = 1
	}
	return slices.Concat([]byte{'R'}, u32(oid), cstring("public"), cstring("t"), []byte{identity}, u16(2),
		[]byte{1}, cstring("id"), u32(23), u32(0xffffffff),
		[]byte{flag}, cstring("name"), u32(25), u32(0xffffffff))
}

func tuple(mark byte, columns ...tupleColumn) []byte {
	b := append([]byte{mark}, u16(uint16(len(columns)))...)
	for _, column := range columns {
		b = append(b, column.kind)
		if column.kind == 't' {
			b = slices.Concat(b, u32(uint32(len(column.text))), []byte(column.text))
		}
	}
	return b
}

func rowMessage(kind byte, oid uint32, tuples ...[]byte) []byte {
	return slices.Concat([]byte{kind}, u32(oid), slices.Concat(tuples...))
}

func truncateMessage(oids ...uint32) []byte {
	b := slices.Concat([]byte{'T'}, u32(uint32(len(oids))), []byte{1})
	for _, oid := range oids {
		b = append(b, u32(oid)...)
	}
	return b
}

func logicalMessage(transactional bool, prefix, content string) []byte {
	flag := byte(0)
	if transactional {
		flag = 1
	}
	return slices.Concat([]byte{'M', flag}, u64(99), cstring(prefix), u32(uint32(len(content))), []byte(content))
}

func walData(start schemas.LSN, message []byte) []byte {
	return slices.Concat([]byte{'w'}, u64(uint64(start)), u64(uint64(start)), u64(0), message)
}

func keepaliveData(end schemas.LSN, asked byte) []byte {
	return slices.Concat([]byte{'k'}, u64(uint64(end)), u64(0), []byte{asked})
}
