package wire

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

var testLimits = Limits{Line: 200, Text: 100, Literal: 1000}

// verdict feeds a stream in pieces of the given sizes, in turn, and returns how much of it was good, and what it was ended by.
func verdict(stream []byte, pieces ...int) (good int, kind Kind, failed bool, statuses []string) {
	s := scanner{limits: &testLimits, text: 2000, body: 3000}
	s.status = func(line []byte) { statuses = append(statuses, string(line)) }
	for i := 0; len(stream) > 0; i++ {
		n := len(stream)
		if len(pieces) > 0 {
			n = min(n, max(1, pieces[i%len(pieces)]))
		}
		m, err := s.feed(stream[:n])
		good += m
		if err != nil {
			return good, err.Kind, true, statuses
		}
		stream = stream[n:]
	}
	return good, 0, false, statuses
}

func TestScanner(t *testing.T) {
	long := strings.Repeat("x", 300)
	for _, c := range []struct {
		name, stream string
		good         int // -1: all
		kind         Kind
	}{
		{"a dialogue", "* OK hello\r\n* 1 FETCH (UID 7 BODY[] {5}\r\nab\r\n) FLAGS ())\r\nT1 OK done\r\n+ go on\r\n", -1, 0},
		{"only LF", "* OK hello\n* SEARCH 1 2\nT1 OK\n", -1, 0},
		{"a literal in the text of a status is none", "* OK {5000000}\r\n* SEARCH\r\nT1 NO {9999}\r\n", -1, 0},
		{"garbage", "HTTP/1.1 400 Bad Request\r\n", 26, Garbage},
		{"a TLS record", "\x15\x03\x01\x00\x02\x02\x46", 0, Garbage},
		{"an empty line", "* OK\r\n\r\n* OK\r\n", 6, Garbage},
		{"a long line", "* OK " + long, 200, TooLong},
		{"a long line behind a literal", "* 1 FETCH (BODY[] {2}\r\nab" + long, 225, TooLong},
		{"a large body", "* 1 FETCH (UID 1 BODY[] {1001}\r\n", 32, TooLong},
		{"a body of 20 digits", "* 1 FETCH (UID 1 BODY[] {99999999999999999999}\r\n", 48, TooLong},
		{"a body that is allowed", "* 1 FETCH (UID 1 body[] {1000}\r\n" + strings.Repeat("a", 1000) + ")\r\n", -1, 0},
		{"a large literal that is no body", "* LIST () \"/\" {101}\r\n", 21, TooLong},
		{"a large literal in FETCH that is no body", "* 1 FETCH (ENVELOPE (NIL {101}\r\n", 32, TooLong},
		{"a body that is none", "* SEARCH BODY[] {101}\r\n", 23, TooLong},
		{"a line break in a quoted string", "* LIST () \"/\" \"a\r\n", 18, Garbage},
		{"a literal within quotes", "* 1 FETCH (ENVELOPE (\"BODY[] {900}\r\n", 36, Garbage},
		{"an escaped quote", "* LIST () \"/\" \"a\\\"b\"\r\nT1 OK\r\n", -1, 0},
		{"an empty literal", "* 1 FETCH (UID 1 BODY[] {0}\r\n)\r\nT1 OK\r\n", -1, 0},
		{"a negative literal is for the library to refuse", "* 1 FETCH (UID 1 BODY[] {-5}\r\n", -1, 0},
		{"too many bodies", strings.Repeat("* 1 FETCH (UID 1 BODY[] {900}\r\n"+strings.Repeat("a", 900)+")\r\n", 4), 3*(31+900+3) + 31 + 300, Flood},
		{"too much text", strings.Repeat("* 1 FETCH (FLAGS ())\r\n", 100), 2000, Flood},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := c.good
			if want < 0 {
				want = len(c.stream)
			}
			good, kind, failed, _ := verdict([]byte(c.stream))
			if good != want || failed != (c.good >= 0) || failed && kind != c.kind {
				t.Errorf("%d bytes are good, kind %d, failed %v; want %d, %d", good, kind, failed, want, c.kind)
			}
			split, splitKind, splitFailed, _ := verdict([]byte(c.stream), 1)
			if split != good || splitKind != kind || splitFailed != failed {
				t.Errorf("byte by byte: %d, %d, %v; in one: %d, %d, %v", split, splitKind, splitFailed, good, kind, failed)
			}
		})
	}
}

func TestScannerTellsStatus(t *testing.T) {
	_, _, _, got := verdict([]byte("* OK [ALERT] read this\r\n* 3 EXISTS\r\n+ go\r\n* BYE [UNAVAILABLE] later\r\nT7 NO [LIMIT] slow down\r\n"), 7)
	want := []string{"* OK [ALERT] read this", "* BYE [UNAVAILABLE] later", "T7 NO [LIMIT] slow down"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("got %q", got)
	}
}

// However the network cuts a stream, what is passed on and what is found wrong is the same.
func FuzzScanner(f *testing.F) {
	f.Add([]byte("* OK hello\r\n* 1 FETCH (UID 7 BODY[] {5}\r\nabcde FLAGS ())\r\nT1 OK done\r\n"), uint64(1))
	f.Add([]byte("* LIST () \"/\" {3}\r\nabc\r\n* LIST () \"/\" \"{3}\"\r\n"), uint64(2))
	f.Add([]byte("* OK {3}\r\nHTTP\r\n"), uint64(3))
	f.Add(bytes.Repeat([]byte("* 1 FETCH (BODY[] {900}\r\n"), 50), uint64(4))
	f.Fuzz(func(t *testing.T, stream []byte, seed uint64) {
		good, kind, failed, statuses := verdict(stream)
		pieces := make([]int, 20)
		random := rand.New(rand.NewPCG(seed, 1))
		for i := range pieces {
			pieces[i] = 1 + random.IntN(30)
		}
		for _, cut := range [][]int{{1}, pieces} {
			g, k, fl, st := verdict(stream, cut...)
			if g != good || k != kind || fl != failed || strings.Join(st, "|") != strings.Join(statuses, "|") {
				t.Errorf("cut %v: %d %d %v %q; in one: %d %d %v %q", cut, g, k, fl, st, good, kind, failed, statuses)
			}
		}
	})
}
