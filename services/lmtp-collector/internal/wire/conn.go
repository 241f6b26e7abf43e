// Package wire owns the connection between an LMTP client and go-smtp, because go-smtp alone acts on bytes that it must not
// act on. A Conn hands it one line at a time, so nothing that was pipelined behind a line is in anybody's hands before that
// line is done with, and so the Conn always knows whether the next line is a command or part of a mail. With that it
//
//   - makes every read error final: what comes after half a mail is never taken as a command;
//   - bounds what a peer can make us wait for or hold: the silence, the whole transaction, the length of a command line;
//   - keeps BDAT away, with which go-smtp takes a truncated mail as a whole one, and does not offer CHUNKING;
//   - ends a connection itself, with one reply that says why, and lets nothing in or out afterwards.
//
// What a mail is, where it ends and what becomes of it is not known here.
package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

const (
	// bufferSize is how much is read from the network at once. It is also the longest line that is read over to
	// reach the command behind it.
	bufferSize = 16 << 10
	// maxCommand is the longest command line that go-smtp sees, line end included: eight times what RFC 5321 §4.5.3.1.4
	// asks for. A mail's lines have no limit.
	maxCommand = 4 << 10
	// farewellTimeout is how long the reply that ends a connection may take to leave.
	farewellTimeout = time.Second
)

// emptyCommand stands for a command line that is too long: go-smtp answers it with 500 and goes on.
var emptyCommand = []byte("\r\n")

// Limits bound one connection.
type Limits struct {
	Idle         time.Duration // longest wait for the peer: for a whole command line, and between any two reads of a mail
	Transaction  time.Duration // longest time from MAIL to the end of the mail
	Write        time.Duration // longest time that a reply may take to leave
	MessageBytes int64         // what the reply to LHLO says after SIZE. It is not enforced here
}

// Conn is a connection from an LMTP client. Read, Write and Close are for one go-smtp server; Stop is safe to call at any
// time. The deadlines of the connection are its own: go-smtp must be told of none.
type Conn struct {
	net.Conn
	limits  Limits
	onClose func()
	in      *bufio.Reader
	rest    []byte // of the current line: what go-smtp has not read yet

	mu            sync.Mutex
	verb          string    // of the command that go-smtp is busy with
	body          bool      // between 354 and the reply to the mail
	lineBy        time.Time // when the command line must be whole
	transactionBy time.Time // when the mail must be whole; zero outside a transaction
	stopBy        time.Time // when a mail that is under way must be whole because of Stop; zero before it
	ended         *Error    // why nothing goes in or out any more
}

// New returns a Conn over network. It calls onClose once, when it is closed for the first time.
func New(network net.Conn, limits Limits, onClose func()) *Conn {
	c := &Conn{Conn: network, limits: limits, onClose: sync.OnceFunc(onClose)}
	c.in = bufio.NewReaderSize(patient{c}, bufferSize)
	return c
}

// Stop ends the connection: at once with 421 when it waits for a command, and else after the mail that is under way has been
// answered. The peer has until by to send the rest of that mail. Stop does not wait.
func (c *Conn) Stop(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopBy = by
	// A read that waits already must learn of it. One that fails to, fails at its own deadline.
	_ = c.SetReadDeadline(c.deadline())
}

// Close closes the connection. Bytes that had been read ahead are never handed out.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.ended == nil {
		c.ended = errClosed
	}
	c.mu.Unlock()
	c.onClose()
	return c.Conn.Close()
}

// Read returns bytes of one line at most. Its errors are *Error, and the first one stays for ever.
func (c *Conn) Read(p []byte) (int, error) {
	inBody, err := c.begin()
	if err != nil {
		return 0, err
	}
	if len(c.rest) == 0 {
		if inBody {
			c.rest, err = c.bodyLine()
		} else {
			c.rest, err = c.commandLine()
		}
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, err
}

// begin tells whether the next line belongs to a mail, or why there is none. For a command it starts the clock.
func (c *Conn) begin() (inBody bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return false, c.ended
	}
	if !c.body {
		c.lineBy = time.Now().Add(c.limits.Idle)
	}
	return c.body, nil
}

// bodyLine returns the next line of a mail, or as much of a long one as the buffer holds.
func (c *Conn) bodyLine() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, c.end(c.cause(err))
	}
	return line, nil
}

// commandLine returns the next command. Half a command, before the peer was gone, is none.
func (c *Conn) commandLine() ([]byte, error) {
	if c.stopping() { // what the peer has pipelined counts as not sent
		return nil, c.end(errStopped)
	}
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return nil, c.end(c.cause(err))
	}
	if len(line) > maxCommand {
		line = emptyCommand
	}
	verb := string(bytes.ToUpper(line[:min(4, len(line))]))
	if verb == "BDAT" { // its chunk follows whatever we answer, and would be read as commands
		return nil, c.end(errChunking)
	}
	c.began(verb)
	return line, nil
}

// began notes which command go-smtp gets to see. The clock of a transaction runs from MAIL until it is over in any way.
func (c *Conn) began(verb string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verb = verb
	switch verb {
	case "MAIL":
		c.transactionBy = time.Now().Add(c.limits.Transaction)
	case "RSET", "LHLO":
		c.transactionBy = time.Time{}
	}
}

// Write sends a reply. go-smtp writes each line of a reply at once, and waits for the next line from Read after it.
func (c *Conn) Write(p []byte) (int, error) {
	reply, err := c.edit(p)
	if err != nil {
		return 0, err
	}
	if len(reply) > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(c.limits.Write))
		if _, err := c.Conn.Write(reply); err != nil {
			return 0, c.end(&Error{why: "reply could not be sent", cause: err})
		}
	}
	return len(p), nil
}

// edit notes what a reply says of the state of the session, and returns it as the peer shall see it. Replies quote the peer, so
// their text counts only after the command whose reply quotes nothing.
func (c *Conn) edit(reply []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended != nil:
		return nil, c.ended
	case c.body:
		c.body, c.transactionBy = false, time.Time{}
	case c.verb == "DATA" && bytes.HasPrefix(reply, []byte("354")):
		c.body, c.verb = true, ""
	case c.verb == "LHLO":
		return c.capability(reply), nil
	}
	return reply, nil
}

// capability edits one line of the reply to LHLO: no CHUNKING, and SIZE with our number, since go-smtp's own limit is one
// byte off and therefore not used.
func (c *Conn) capability(line []byte) []byte {
	switch string(line) {
	case "250-CHUNKING\r\n":
		return nil
	case "250-SIZE\r\n", "250 SIZE\r\n":
		return append(strconv.AppendInt(append(line[:8:8], ' '), c.limits.MessageBytes, 10), "\r\n"...)
	}
	return line
}

func (c *Conn) stopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.stopBy.IsZero()
}

// end makes e the end of the connection, tells the peer, and returns what ended it, which is an earlier error if there was one.
func (c *Conn) end(e *Error) error {
	c.mu.Lock()
	first := c.ended == nil
	if first {
		c.ended = e
	}
	ended := c.ended
	c.mu.Unlock()
	if first && e.reply != "" {
		_ = c.SetWriteDeadline(time.Now().Add(farewellTimeout))
		_, _ = io.WriteString(c.Conn, e.reply+"\r\n") // the peer may be gone, and it makes no difference
	}
	return ended
}

// cause tells why reading failed.
func (c *Conn) cause(err error) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	switch {
	case errors.Is(err, io.EOF):
		return errGone
	case errors.Is(err, bufio.ErrBufferFull):
		return errLineTooLong
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return &Error{why: "connection lost", cause: err}
	case passed(c.stopBy), !c.stopBy.IsZero() && !c.body:
		return errStopped
	case passed(c.transactionBy):
		return errSlow
	}
	return errIdle
}

// deadline is when the read that waits, or the next one, has waited long enough. The caller holds mu.
func (c *Conn) deadline() time.Time {
	if !c.body && !c.stopBy.IsZero() {
		return time.Unix(1, 0) // long ago
	}
	by := c.lineBy
	if c.body {
		by = time.Now().Add(c.limits.Idle)
	}
	for _, t := range []time.Time{c.transactionBy, c.stopBy} {
		if !t.IsZero() && t.Before(by) {
			by = t
		}
	}
	return by
}

// patient is the network as the buffer of a Conn reads it: each read waits as long as the state of the session allows.
type patient struct{ c *Conn }

func (p patient) Read(b []byte) (int, error) {
	if err := p.arm(); err != nil {
		return 0, err
	}
	return p.c.Conn.Read(b)
}

// arm holds mu while it sets the deadline, or it could undo the one that Stop sets.
func (p patient) arm() error {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	return p.c.SetReadDeadline(p.c.deadline())
}
