package wire

import "bytes"

// emptyMail is what go-smtp reads in place of each mail.
var emptyMail = []byte(".\r\n")

// ReadMail reads the mail that follows 354 and hands its text to take, piece by piece, each valid only during the call. The
// text is exact: every byte between DATA and the line of one dot, less the dots that the client put before others (RFC 5321
// §4.5.2). It returns nil only when the mail is here whole. Its errors are those of Read, and what take got before one is no
// mail. It is to be called once, by the session's Data; go-smtp's own reader has an empty mail to give.
//
// How fast it reads is up to take: the clocks of Limits.Idle and Limits.Rate run only while the peer is waited for.
func (c *Conn) ReadMail(take func(text []byte)) error {
	if err := c.why(); err != nil {
		return err
	}
	found := scanner{matched: len("\r\n")} // the line end of DATA itself counts
	for !found.end() {
		if _, err := c.in.Peek(1); err != nil {
			return c.end(c.cause(err))
		}
		window, _ := c.in.Peek(c.in.Buffered()) // what is buffered can be had
		text, taken := found.next(window)
		if len(text) > 0 {
			take(text)
		}
		_, _ = c.in.Discard(taken) // so can what was in the window
	}
	c.enter(answer)
	return nil
}

// endOfMail ends a mail. A line ends in CR LF and in nothing else: a bare CR or LF before or behind the dot is text, however
// other servers read it, or one of us would see two mails where the other sees one.
const endOfMail = "\r\n.\r\n"

// scanner looks for the end of a mail in what comes, window by window, and takes out the dots that are not text.
type scanner struct {
	matched int // how much of endOfMail lies right before the window. A dot in it was dropped; a CR behind that dot is still owed
}

func (s *scanner) end() bool { return s.matched == len(endOfMail) }

// next takes bytes from the front of a window that has some, and returns the text that they stand for.
func (s *scanner) next(window []byte) (text []byte, taken int) {
	first := window[0]
	switch {
	case s.matched == len("\r\n.\r") && first == '\n':
		s.matched++
		return nil, 1
	case s.matched == len("\r\n.\r"): // the line had more than a dot, so its CR is text
		s.matched = len("\r")
		return []byte("\r"), 0
	case s.matched == len("\r\n.") && first == '\r', s.matched == len("\r\n") && first == '.':
		s.matched++
		return nil, 1
	case s.matched == len("\r") && first == '\n':
		s.matched++
		return window[:1], 1
	}
	if at := bytes.Index(window, []byte("\r\n.")); at >= 0 {
		s.matched = len("\r\n.")
		return window[:at+len("\r\n")], at + len("\r\n.")
	}
	switch {
	case bytes.HasSuffix(window, []byte("\r\n")):
		s.matched = len("\r\n")
	case window[len(window)-1] == '\r':
		s.matched = len("\r")
	default:
		s.matched = 0
	}
	return window, len(window)
}
