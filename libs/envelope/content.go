package envelope

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Fields of a mail's header that tell of its way, its time and its recipient, and not of the campaign. docs/contract.md lists them too; a test compares.
var (
	wayFields = []string{
		"authentication-results", "date", "delivered-to", "dkim-signature", "envelope-to", "message-id", "received", "received-spf",
		"return-path", "x-delivered-to", "x-envelope-to", "x-google-dkim-signature", "x-original-to", "x-received",
	}
	wayPrefixes = []string{"arc-"}
)

// Longest parts of an address that ContentHash looks for (RFC 5321 §4.5.3.1).
const (
	maxLocal  = 64
	maxDomain = 255
)

// ContentHash returns the SHA-256, in lower case hex, of what the mails of one campaign have in common: body with LF line ends, without the
// fields that each copy has its own of (Received, Delivered-To, Message-Id, Date and others), and with each recipient's address replaced by "@", also as
// user%40domain and user=domain. docs/contract.md says it exactly, for others to compute. An address that is encoded otherwise (base64, a hash) is not found, so that mails
// which differ only in that have different hashes. It never changes for the same arguments; their order does not matter.
//
// The time that it takes is linear in body, whatever it holds, times the logarithm of the number of recipients.
func ContentHash(body []byte, recipients ...string) string {
	sum := sha256.New()
	out, _ := contentBuffers.Get().(*bufio.Writer)
	out.Reset(sum)
	defer contentBuffers.Put(out)
	known := newTraces(recipients)
	for len(body) > 0 && !blank(body) {
		end := fieldEnd(body)
		if !isWay(body[:end]) {
			known.write(out, body[:end])
		}
		body = body[end:]
	}
	known.write(out, body)
	_ = out.Flush() // a hash takes everything
	return hex.EncodeToString(sum.Sum(nil))
}

var contentBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(io.Discard, 8<<10) }}

// blank tells whether text begins with the empty line that ends a header.
func blank(text []byte) bool {
	return text[0] == '\n' || (text[0] == '\r' && len(text) > 1 && text[1] == '\n')
}

// fieldEnd returns where the field at the start of text ends: its line, and those that begin with a space or a tab.
func fieldEnd(text []byte) int {
	for at := 0; ; {
		next := bytes.IndexByte(text[at:], '\n')
		if next < 0 {
			return len(text)
		}
		at += next + 1
		if at == len(text) || (text[at] != ' ' && text[at] != '\t') {
			return at
		}
	}
}

func isWay(field []byte) bool {
	const longest = 32
	line, _, _ := bytes.Cut(field[:min(len(field), longest)], []byte("\n"))
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return false
	}
	lower := strings.ToLower(string(bytes.TrimRight(name, " \t")))
	if slices.Contains(wayFields, lower) {
		return true
	}
	return slices.ContainsFunc(wayPrefixes, func(prefix string) bool { return strings.HasPrefix(lower, prefix) })
}

// traces finds the addresses of the recipients.
type traces struct {
	domains []string   // lower case, sorted
	locals  [][]string // of each domain: lower case, from the last byte to the first, sorted
}

func newTraces(recipients []string) *traces {
	byDomain := make(map[string][]string, 1)
	for _, address := range recipients {
		at := strings.LastIndexByte(address, '@')
		if at < 1 || at > maxLocal || at+1 == len(address) || len(address)-at-1 > maxDomain || strings.ContainsAny(address, "\r\n") {
			continue
		}
		local := lowerASCII(address[:at])
		slices.Reverse(local)
		domain := string(lowerASCII(address[at+1:]))
		byDomain[domain] = append(byDomain[domain], string(local))
	}
	t := &traces{}
	for domain := range byDomain {
		t.domains = append(t.domains, domain)
	}
	slices.Sort(t.domains)
	for _, domain := range t.domains {
		slices.Sort(byDomain[domain])
		t.locals = append(t.locals, slices.Compact(byDomain[domain]))
	}
	return t
}

// write writes text to w as it is hashed.
func (t *traces) write(w *bufio.Writer, text []byte) {
	if len(t.domains) == 0 {
		writeLF(w, text)
		return
	}
	next := separators{text: text, at: [...]int{-1, -1, -1}}
	for at, done := 0, 0; ; {
		where, size := next.from(at)
		if size == 0 {
			writeLF(w, text[done:])
			return
		}
		at = where + 1
		if start, end := t.around(text[done:], where-done, size); end > 0 {
			writeLF(w, text[done:done+start])
			_ = w.WriteByte('@')
			done += end
			at = done
		}
	}
}

// around returns where the address lies that has its separator at text[at:at+size]; end is 0 when there is none.
func (t *traces) around(text []byte, at, size int) (start, end int) {
	after := text[at+size:]
	domain := longest(t.domains, func(i int) int { return byteAt(after, i) })
	if domain < 0 {
		return 0, 0
	}
	local := longest(t.locals[domain], func(i int) int { return byteAt(text, at-1-i) })
	if local < 0 {
		return 0, 0
	}
	return at - len(t.locals[domain][local]), at + size + len(t.domains[domain])
}

// longest returns which of the sorted strings is the longest that the sequence begins with, -1 for none. The sequence ends with a negative byte.
func longest(sorted []string, sequence func(i int) int) int {
	found, low, high := -1, 0, len(sorted)
	for i := 0; low < high; i++ {
		if len(sorted[low]) == i {
			found = low
			low++
		}
		c := sequence(i)
		if c < 0 {
			break
		}
		low += sort.Search(high-low, func(k int) bool { return int(sorted[low+k][i]) >= c })
		high = low + sort.Search(high-low, func(k int) bool { return int(sorted[low+k][i]) > c })
	}
	return found
}

func byteAt(text []byte, i int) int {
	if i < 0 || i >= len(text) {
		return -1
	}
	return int(lowerByte(text[i]))
}

// separators finds what stands between the two parts of an address: "@", "%40" of URLs, and "=" of return paths (VERP).
type separators struct {
	text []byte
	at   [3]int // the next of each kind, len(text) when there is none
}

// from returns the first one at or after position, and its size, 0 when there is none.
func (s *separators) from(position int) (at, size int) {
	at = len(s.text)
	for i, kind := range [...]struct {
		text  string
		first byte
	}{{"@", '@'}, {"%40", '%'}, {"=", '='}} {
		for s.at[i] < position || (s.at[i] < len(s.text) && !bytes.HasPrefix(s.text[s.at[i]:], []byte(kind.text))) {
			from := max(position, s.at[i]+1)
			next := bytes.IndexByte(s.text[min(from, len(s.text)):], kind.first)
			if next < 0 {
				s.at[i] = len(s.text)
				break
			}
			s.at[i] = from + next
		}
		if s.at[i] < at {
			at, size = s.at[i], len(kind.text)
		}
	}
	return at, size
}

// writeLF writes text without the CR of its line ends.
func writeLF(w *bufio.Writer, text []byte) {
	for len(text) > 0 {
		end := bytes.IndexByte(text, '\n')
		if end < 1 || text[end-1] != '\r' {
			end = max(end+1, 0)
			if end == 0 {
				end = len(text)
			}
			_, _ = w.Write(text[:end])
		} else {
			_, _ = w.Write(text[:end-1])
			_ = w.WriteByte('\n')
			end++
		}
		text = text[end:]
	}
}

func lowerASCII(text string) []byte {
	lower := []byte(text)
	for i, c := range lower {
		lower[i] = lowerByte(c)
	}
	return lower
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
