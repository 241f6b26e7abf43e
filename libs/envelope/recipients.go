package envelope

import (
	"encoding/base64"
	"unicode/utf8"
)

// Recipients is the recipient list of one transaction, which never outgrows the headers: what it has taken, Publishing
// can write whole beside any other headers. That is how recipients are never dropped: one that does not fit is refused before it
// is accepted (452 4.5.3), and the MTA sends it in its next transaction. The zero value is ready; it is not for concurrent use.
type Recipients struct {
	list     []string
	asText   int  // bytes of the list on the wire when written as it is
	asBase64 int  // the same in base64
	hostile  bool // one of them is not valid UTF-8, so all are written in base64
}

// Add appends addr and returns true, or returns false and leaves the list as it is because MaxRecipientsBytes would be exceeded.
// The first address is always taken, however long: the header holds its first MaxValueBytes, List all of it.
func (r *Recipients) Add(addr string) bool {
	written := cut(addr, MaxValueBytes)
	next := Recipients{
		list:     r.list,
		asText:   r.asText + textSize(len(written)),
		asBase64: r.asBase64 + textSize(base64.StdEncoding.EncodedLen(len(written))),
		hostile:  r.hostile || !utf8.ValidString(written),
	}
	if next.size() > MaxRecipientsBytes {
		return false
	}
	next.list = append(next.list, addr)
	*r = next
	return true
}

func (r *Recipients) size() int {
	if r.hostile {
		return r.asBase64
	}
	return r.asText
}

// List returns the addresses in the order of their coming, nil when there are none. It stays valid and unchanged after Reset.
func (r *Recipients) List() []string { return r.list }

// Reset empties the list for the next transaction.
func (r *Recipients) Reset() { *r = Recipients{} }
