// Package wire is the connection under go-imap, which alone hangs for ever on a silent server, takes any amount of memory, and forgets why a
// connection ended. It knows lines, literals and time, and no command of IMAP but STARTTLS.
package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Limits bound what a server may do to us.
type Limits struct {
	Line    int           // bytes of a line
	Text    int64         // bytes of a literal that is no message's body
	Literal int64         // bytes of a message's body
	Silence time.Duration // how long a server may be silent while it owes an answer
	Rate    int64         // bytes a second that it must send within a response, after it had Silence in all
	Answer  time.Duration // how long an answer may take in all, for what it says beside bodies
}

// Defaults returns limits that no honest server reaches, with the size of the largest body.
func Defaults(literal int64) Limits {
	return Limits{
		Line: 1 << 20, Text: 64 << 10, Literal: literal, Silence: time.Minute, Rate: 1 << 10, Answer: 10 * time.Minute,
	}
}

const (
	// writeLimit is how long a server may take nothing of what we send.
	writeLimit = 30 * time.Second
	// baseText is what a server may say without being asked between two commands: flags that others have changed, and the like.
	baseText = 256 << 10
	// bulkBytes is how much is read at once while much is expected. Mailboxes that idle have no such buffer.
	bulkBytes = 64 << 10
)

var bulkBuffers = sync.Pool{New: func() any { return new([bulkBytes]byte) }}

// Conn is a connection to an IMAP server as go-imap sees it. It has a deadline for each read, which begins anew with each byte and stands still
// while nobody reads, and which go-imap cannot clear; it bounds lines, literals, and how much comes without being asked for; its first error
// stays. Closing it ends everything that waits on it, at once.
//
// Read is for one goroutine, Write for one, and all other methods for any.
type Conn struct {
	net.Conn // of TLS, if there is any
	raw      net.Conn
	limits   Limits

	mu       sync.Mutex
	err      *Error
	scan     scanner
	patience time.Duration // for the next byte; 0: for ever
	since    time.Time     // when the server began to owe an answer
	awaiting bool          // it owes one
	reading  bool          // somebody waits for it
	lastRead time.Time     // when somebody last did
	watching *time.Timer   // while an answer is owed
	ended    chan struct{} // closed when err is set
	told     bool          // go-imap's reader has got err, or has ended
	bulk     bool          // and much of it

	// The reader's own.
	buffer        *[bulkBytes]byte
	ready         []byte        // read, judged to be good, and not handed on yet
	pending       *Error        // what comes behind ready
	inResponse    time.Duration // waited within the response,
	responseBytes int64         // for so many bytes
	inAnswer      time.Duration // waited since the last tagged response,
	answerBytes   int64         // for so many bytes
	tagged        int           // how many there were
}

// New returns a guard over conn. raw is the connection of the network under it, which is closed without a goodbye. status is told each
// status response before go-imap gets it, cut to 512 bytes; it must not keep the slice or block. The server owes a greeting, unless greeting is
// what go-imap is to read first.
func New(conn, raw net.Conn, limits Limits, greeting string, status func(line []byte)) *Conn {
	c := &Conn{Conn: conn, raw: raw, limits: limits, ended: make(chan struct{})}
	c.scan = scanner{limits: &c.limits, status: status, text: baseText}
	c.ready = []byte(greeting)
	if greeting == "" {
		c.Await(0, 0)
	}
	return c
}

// Await tells that the server owes one more answer, of so many bytes of bodies and of other text beside what it may say unasked.
func (c *Conn) Await(text, body int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scan.text += text
	c.scan.body += body
	c.bulk = c.bulk || text+body > bulkBytes
	c.expect(c.limits.Silence)
	c.awaiting = true
	if c.watching == nil {
		c.watching = time.AfterFunc(c.longestPause(), c.watch)
	}
}

// longestPause is how long our own side may not read while an answer is owed: it never has a reason to.
func (c *Conn) longestPause() time.Duration { return 2 * c.limits.Silence }

// watch ends the connection when nobody reads what is owed, for then no deadline runs.
func (c *Conn) watch() {
	c.mu.Lock()
	c.watching = nil
	if c.err != nil || !c.awaiting {
		c.mu.Unlock()
		return
	}
	from := c.since
	if c.lastRead.After(from) {
		from = c.lastRead
	}
	left := c.longestPause() - time.Since(from)
	if c.reading {
		left = c.longestPause()
	}
	if left > 0 {
		c.watching = time.AfterFunc(left, c.watch)
		c.mu.Unlock()
		return
	}
	c.mu.Unlock()
	_ = c.fail(failed(Stuck, "nothing was read for %s although an answer is owed: a fault of this program", c.longestPause()))
}

// Rest tells that the server owes nothing, and may be silent for ever.
func (c *Conn) Rest() { c.relax(0) }

// Idle tells that the server owes nothing, and may be silent for so long.
func (c *Conn) Idle(patience time.Duration) { c.relax(patience) }

func (c *Conn) relax(patience time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.scan.text, c.scan.body = baseText, 0
	c.awaiting, c.bulk = false, false
	c.expect(patience)
}

// expect sets the patience, also for the read that is under way. The caller has the lock.
func (c *Conn) expect(patience time.Duration) {
	c.patience, c.since = patience, time.Now()
	_ = c.Conn.SetReadDeadline(c.deadline()) // fails only when the connection is closed, which the read finds out
}

func (c *Conn) deadline() time.Time {
	if c.patience == 0 {
		return time.Time{}
	}
	return time.Now().Add(c.patience)
}

// Err returns why the connection ended; nil while it has not.
func (c *Conn) Err() *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Ended is closed when the connection has ended.
func (c *Conn) Ended() <-chan struct{} { return c.ended }

// fail ends the connection, and returns the error that did.
func (c *Conn) fail(err *Error) *Error {
	c.mu.Lock()
	if c.err == nil {
		c.err = err
		close(c.ended)
	}
	if c.watching != nil {
		c.watching.Stop()
	}
	err = c.err
	c.mu.Unlock()
	_ = c.raw.Close() // there is nobody to say goodbye to
	return err
}

// Abort ends the connection at once: who reads or writes returns.
func (c *Conn) Abort() { _ = c.fail(failed(Closed, "the connection was closed")) }

// Close does the same for go-imap, whose reader calls it when it is done.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.told = true
	c.mu.Unlock()
	_ = c.fail(failed(Closed, "the connection was closed"))
	return nil
}

// SetDeadline does nothing, like the other two: the deadlines are the connection's own.
func (c *Conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (c *Conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// Write sends p. When the server takes nothing for half a minute, or is gone, the connection ends; but Write says so only after Read has: go-imap ends all
// commands from where it hears of it, and does so under the hands of its own reader when that is still at work on their answers.
func (c *Conn) Write(p []byte) (int, error) {
	if c.Err() == nil {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(writeLimit)) // fails only when the connection is closed, as the write will
		_, err := c.Conn.Write(p)
		switch {
		case err == nil:
			return len(p), nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			_ = c.fail(failed(Silent, "the server took nothing for %s", writeLimit))
		default:
			_ = c.fail(&Error{Kind: Gone, Text: "the connection broke", Cause: err})
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.told {
		return 0, c.err
	}
	return len(p), nil
}

// Read returns what the server sent, as far as it is within the limits. Every error is an *Error, and stays.
func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(c.ready) == 0 {
		if c.pending != nil {
			return 0, c.tell(c.fail(c.pending))
		}
		n, err := c.fill(p)
		if err != nil {
			return 0, c.tell(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// tell notes that go-imap gets an error.
func (c *Conn) tell(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = true
	return err
}

// fill reads from the network, into the buffer while much is expected, else into p; it returns how many good bytes it left in p.
func (c *Conn) fill(p []byte) (int, error) {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return 0, c.err
	}
	into, within := p, c.scan.within()
	switch {
	case c.bulk && len(p) < bulkBytes:
		if c.buffer == nil {
			c.buffer = bulkBuffers.Get().(*[bulkBytes]byte)
		}
		into = c.buffer[:]
	case c.buffer != nil:
		bulkBuffers.Put(c.buffer)
		c.buffer = nil
	}
	_ = c.Conn.SetReadDeadline(c.deadline()) // fails only when the connection is closed, as the read will
	c.reading = true
	c.mu.Unlock()

	from := time.Now()
	n, err := c.Conn.Read(into)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading, c.lastRead = false, time.Now()
	waited := c.lastRead.Sub(from)
	if owed := time.Since(c.since); c.awaiting && owed < waited {
		waited = owed // before that nothing was owed
	}
	good, problem := c.scan.feed(into[:n])
	if problem == nil {
		problem = c.tooSlow(within, waited, int64(n))
	}
	if problem == nil && err != nil {
		problem = c.broken(err)
	}
	c.pending = problem
	if c.buffer != nil {
		c.ready = into[:good]
		return 0, nil
	}
	if good == 0 && problem != nil {
		return 0, nil // Read fails
	}
	return good, nil
}

// broken says what an error of the network means; nil when it means nothing, because the patience was changed in the meantime.
func (c *Conn) broken(err error) *Error {
	switch {
	case c.err != nil:
		return c.err
	case errors.Is(err, os.ErrDeadlineExceeded):
		if c.patience == 0 || time.Since(c.since) < c.patience {
			return nil
		}
		return failed(Silent, "the server was silent for %s", c.patience)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return failed(Gone, "the server closed the connection")
	}
	return &Error{Kind: Gone, Text: "the connection broke", Cause: err}
}

// tooSlow bounds the time that a server may take for one response, which the patience for each byte does not, and for an answer in all.
func (c *Conn) tooSlow(within bool, waited time.Duration, n int64) *Error {
	if !c.awaiting && !within {
		c.inResponse, c.responseBytes, c.inAnswer, c.answerBytes = 0, 0, 0, 0
		return nil
	}
	if within {
		c.inResponse += waited
		c.responseBytes += n
	}
	if !within || !c.scan.within() {
		c.inResponse, c.responseBytes = 0, 0
	}
	c.inAnswer += waited
	c.answerBytes += n
	if c.scan.tagged != c.tagged {
		c.tagged, c.inAnswer, c.answerBytes = c.scan.tagged, 0, 0
	}
	if c.inResponse > c.limits.Silence+c.atLeast(c.responseBytes) {
		return failed(Slow, "the server sent %d bytes of a response in %s", c.responseBytes, c.inResponse.Round(time.Second))
	}
	if c.inAnswer > c.limits.Answer+c.atLeast(c.answerBytes) {
		return failed(Slow, "the server did not finish its answer in %s", c.inAnswer.Round(time.Second))
	}
	return nil
}

// atLeast is how long so many bytes may take.
func (c *Conn) atLeast(n int64) time.Duration {
	return time.Duration(n/c.limits.Rate) * time.Second
}
