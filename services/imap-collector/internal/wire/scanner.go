package wire

import (
	"bytes"
	"math"
	"strconv"
)

const (
	headBytes = 512 // of a response's first line that are looked at
	tailBytes = 64  // of a line's end that are looked at, for the announcement of a literal
)

// scanner follows what a server sends, in pieces of any size: where lines and literals begin and end (RFC 9051 §2.2, §4.3), and
// whether they stay within the limits. Its verdict depends on the bytes alone, never on how they were cut into pieces.
type scanner struct {
	limits *Limits
	// status is told each status response (OK, NO, BAD, BYE, PREAUTH), cut to headBytes. nil: nobody is.
	status func(line []byte)

	text, body int64 // how much may still come: of message bodies, and of everything else

	literal  int64  // bytes left of the literal that is being read
	inBody   bool   // it is a message's body
	line     int    // length of the line so far
	head     []byte // the response's first line, cut
	complete bool   // head is all of that line: the response has gone on behind a literal
	tail     []byte // the line's end so far
	quoted   bool   // within a quoted string (RFC 9051 §4.3), if the line is one that has any
	escaped  bool   // behind a backslash in it

	tagged int // tagged responses so far
}

// within tells whether a response has begun and not ended.
func (s *scanner) within() bool { return s.literal > 0 || s.line > 0 || s.complete }

// feed takes the next piece. It returns how many of its bytes may be passed on; less than all of them with an error, after
// which it must not be called again.
func (s *scanner) feed(p []byte) (good int, err *Error) {
	for good < len(p) {
		var n int
		if s.literal > 0 {
			n, err = s.feedLiteral(p[good:])
		} else {
			n, err = s.feedLine(p[good:])
		}
		good += n
		if err != nil {
			return good, err
		}
	}
	return good, nil
}

func (s *scanner) feedLiteral(p []byte) (int, *Error) {
	n := min(s.literal, int64(len(p)))
	left := &s.text
	if s.inBody {
		left = &s.body
	}
	if n > *left {
		n = *left
		s.literal -= n
		*left = 0
		return int(n), failed(Flood, "the server sends more than was asked for")
	}
	*left -= n
	s.literal -= n
	return int(n), nil
}

// feedLine takes the rest of a line, or as much of it as there is.
func (s *scanner) feedLine(p []byte) (int, *Error) {
	end := bytes.IndexByte(p, '\n') + 1
	part, whole := p, false
	if end > 0 {
		part, whole = p[:end], true
	}
	if s.line == 0 && !s.complete && !opens(part[0]) {
		return 0, failed(Garbage, "the server does not speak IMAP, but says %s", clip(part))
	}
	if room := int64(s.limits.Line - s.line); int64(len(part)) > min(room, s.text) {
		n := int(min(room, s.text))
		if int64(n) == s.text {
			return n, failed(Flood, "the server sends more than was asked for")
		}
		return n, failed(TooLong, "the server sends a line of more than %d bytes", s.limits.Line)
	}
	s.keep(part)
	if !whole {
		return len(part), nil
	}
	return len(part), s.endLine()
}

// opens tells whether a response may begin with c: "*", "+", or a tag of ours.
func opens(c byte) bool {
	return c == '*' || c == '+' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}

// keep notes what will be needed of a line at its end.
func (s *scanner) keep(part []byte) {
	s.line += len(part)
	s.text -= int64(len(part))
	if !s.complete && len(s.head) < headBytes {
		s.head = append(s.head, part[:min(len(part), headBytes-len(s.head))]...)
	}
	if len(part) >= tailBytes {
		s.tail = append(s.tail[:0], part[len(part)-tailBytes:]...)
	} else {
		if over := len(s.tail) + len(part) - tailBytes; over > 0 {
			s.tail = append(s.tail[:0], s.tail[over:]...)
		}
		s.tail = append(s.tail, part...)
	}
	for _, c := range part {
		switch {
		case s.escaped:
			s.escaped = false
		case s.quoted && c == '\\':
			s.escaped = true
		case c == '"':
			s.quoted = !s.quoted
		case c == '\n' && s.quoted:
			return // endLine sees it
		}
	}
}

// endLine decides what the end of a line means: a literal follows, or the response is over.
func (s *scanner) endLine() *Error {
	kind, problem := s.kind()
	if problem != nil {
		return problem
	}
	if kind == statusResponse || kind == taggedResponse || kind == continuation {
		s.report(kind)
		s.endResponse()
		return nil
	}
	if s.quoted {
		return failed(Garbage, "the server breaks a line within a quoted string: %s", clip(s.head))
	}
	size, inBody, found := s.announced(kind)
	if !found {
		s.endResponse()
		return nil
	}
	limit := s.limits.Text
	if inBody {
		limit = s.limits.Literal
	}
	if size > limit {
		return failed(TooLong, "the server announces a literal of %d bytes, and %d is the most that is taken", size, limit)
	}
	s.literal, s.inBody, s.line, s.complete, s.tail = size, inBody, 0, true, s.tail[:0]
	return nil
}

func (s *scanner) report(kind responseKind) {
	if kind == taggedResponse {
		s.tagged++
	}
	if s.status != nil && kind != continuation {
		s.status(bytes.TrimRight(s.head, "\r\n"))
	}
}

func (s *scanner) endResponse() {
	s.line, s.complete, s.quoted, s.escaped = 0, false, false, false
	s.head, s.tail = s.head[:0], s.tail[:0]
}

type responseKind int

const (
	otherResponse responseKind = iota
	statusResponse
	taggedResponse
	continuation
	fetchResponse
)

// kind tells what the response is, by its first line.
func (s *scanner) kind() (responseKind, *Error) {
	head := bytes.TrimRight(s.head, "\r\n")
	if len(head) > 0 && head[0] == '+' {
		return continuation, nil
	}
	first, rest, _ := bytes.Cut(head, []byte{' '})
	second, rest, _ := bytes.Cut(rest, []byte{' '})
	isStatus := isOneOf(second, "OK", "NO", "BAD")
	switch {
	case len(first) == 1 && first[0] == '*':
		if isStatus || isOneOf(second, "BYE", "PREAUTH") {
			return statusResponse, nil
		}
		third, _, _ := bytes.Cut(rest, []byte{' '})
		if isNumber(second) && isOneOf(third, "FETCH") {
			return fetchResponse, nil
		}
		return otherResponse, nil
	case isStatus:
		return taggedResponse, nil
	}
	return 0, failed(Garbage, "the server does not speak IMAP, but says %s", clip(head))
}

func isOneOf(word []byte, words ...string) bool {
	for _, w := range words {
		if len(w) == len(word) && bytes.EqualFold(word, []byte(w)) {
			return true
		}
	}
	return false
}

func isNumber(word []byte) bool {
	for _, c := range word {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(word) > 0
}

// announced reads the size of the literal that a line's end announces: {123}, or {123+}.
func (s *scanner) announced(kind responseKind) (size int64, inBody, found bool) {
	line := bytes.TrimSuffix(bytes.TrimSuffix(s.tail, []byte{'\n'}), []byte{'\r'})
	open := bytes.LastIndexByte(line, '{')
	if open < 0 || line[len(line)-1] != '}' {
		return 0, false, false
	}
	digits := bytes.TrimSuffix(line[open+1:len(line)-1], []byte{'+'})
	if !isNumber(digits) {
		return 0, false, false
	}
	size, err := strconv.ParseInt(string(digits), 10, 64)
	if err != nil { // more than 19 digits
		size = math.MaxInt64
	}
	before := line[:open]
	const section = "BODY[] "
	inBody = kind == fetchResponse && len(before) >= len(section) && bytes.EqualFold(before[len(before)-len(section):], []byte(section))
	return size, inBody, true
}
