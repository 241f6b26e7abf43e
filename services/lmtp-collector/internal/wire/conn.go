// Package wire owns the connection between an LMTP client and go-smtp, because go-smtp alone acts on bytes that it must not act
// on, reads a mail byte by byte, and does not see the end of every mail. go-smtp gets to see commands only, one line at a time,
// so nothing that was pipelined behind a line is in anybody's hands before that line is done with. From 354 on a mail goes past
// it: the session takes it from the Conn, in bulk and exact, and go-smtp reads an empty one in its place and answers that. So
//
//   - a mail may hold any byte and lines of any length, and ends at CR LF . CR LF and nowhere else;
//   - a read error is final: half a mail is no mail, and what comes after it is never taken as a command;
//   - what a peer can make us wait for or hold is bounded: its silence, a transaction's time and rate, a command's length;
//   - the exact text of every address is kept, also of those that go-smtp would refuse or change;
//   - XFORWARD is answered, for peers that are believed; BDAT, with which go-smtp takes a truncated mail as whole, is kept away;
//   - STARTTLS is done under go-smtp, which would lay TLS over the wire and forget it, and who cannot be answered is not asked;
//   - a connection ends with one reply that says why, and lets nothing in or out afterwards.
//
// What becomes of a mail is not known here.
package wire

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// bufferSize is how much is read from the network at once. It is also the longest line that is read over to
	// reach the command behind it.
	bufferSize = 16 << 10
	// maxCommand is the longest command line that is looked at, line end included: eight times what RFC 5321 §4.5.3.1.4
	// asks for.
	maxCommand = 4 << 10
	// farewellTimeout is how long the reply that ends a connection may take to leave.
	farewellTimeout = time.Second
	// handshakeTimeout is how long a TLS handshake may take.
	handshakeTimeout = time.Minute
)

// Limits bound one connection.
type Limits struct {
	Idle         time.Duration // longest wait for the peer: for a whole command line, and between any two reads of a mail
	Transaction  time.Duration // longest time from the reply to MAIL to the end of the mail
	Rate         int64         // least bytes a second in that time, while the peer is waited for, after Idle is used up; 0 is any
	Write        time.Duration // longest time that a reply may take to leave
	MessageBytes int64         // what the reply to LHLO says after SIZE. It is not enforced here
	Errors       int           // most bad commands since the last whole mail; 0 is any
}

// Offer is what one peer may use beyond plain LMTP.
type Offer struct {
	XForward bool        // its XFORWARD is believed
	TLS      *tls.Config // for STARTTLS, which is not offered when it is nil
	TLSOnly  bool        // there is no mail before STARTTLS
}

// phase tells what the peer's next bytes are. Only the goroutine that reads changes it.
type phase int

const (
	commands phase = iota
	mail           // the reply to DATA was 354
	answer         // the mail is here, but go-smtp has yet to read the empty one
)

// Conn is a connection from an LMTP client. Read, Write and Close are for one go-smtp server, ReadMail, Address and Origin
// for its session, one call at a time; Stop is safe to call at any time. The deadlines of the connection are its own: go-smtp
// must be told of none.
type Conn struct {
	net.Conn
	limits     Limits
	offer      Offer
	onClose    func()
	beforeData func() string // see BeforeData
	in         *bufio.Reader
	rest       []byte // of the current line: what go-smtp has not read yet
	address    string // see Address
	origin     Origin // see Origin
	secured    bool   // by STARTTLS, so Conn is a *tls.Conn
	ungreeted  bool   // there was no LHLO since STARTTLS

	mu            sync.Mutex
	verb          string // of the command that go-smtp has not answered yet; of LHLO as long as it answers
	phase         phase
	lineBy        time.Time     // when the command line must be whole
	idleSince     time.Time     // when the wait for a command outside a transaction began; zero while there is none
	errors        int           // bad commands since the last whole mail
	transactionBy time.Time     // when the mail must be whole; zero outside a transaction
	silence       time.Duration // of the peer, before the last read returned
	waited        time.Duration // for the peer, in this transaction
	received      int64         // bytes in this transaction
	stopBy        time.Time     // when a mail that is under way must be whole because of Stop; zero before it
	ended         *Error        // why nothing goes in or out any more
}

// New returns a Conn over network. onClose is called once, when the Conn is closed for the first time.
func New(network net.Conn, limits Limits, offer Offer, onClose func()) *Conn {
	c := &Conn{Conn: network, limits: limits, offer: offer, onClose: sync.OnceFunc(onClose), beforeData: func() string { return "" }}
	c.in = bufio.NewReaderSize(patient{c}, bufferSize)
	return c
}

// BeforeData has ask called before each DATA of a transaction; what it returns, unless it is "", is the reply in place of the
// mail. It is for the session only, outside of other calls.
func (c *Conn) BeforeData(ask func() (reply string)) { c.beforeData = ask }

// Idle returns for how long the peer has had nothing to do here: it was asked for a command, and has no transaction. It is
// safe to call at any time.
func (c *Conn) Idle() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idleSince.IsZero() {
		return 0
	}
	return time.Since(c.idleSince)
}

// Cause returns why the connection ended, an *Error, or nil before that. It is safe to call at any time.
func (c *Conn) Cause() error { return c.why() }

// Stop ends the connection: at once with 421 when it waits for a command, and else after the mail that is under way has been
// answered. The peer has until by to send the rest of that mail. Stop does not wait.
func (c *Conn) Stop(by time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopBy = by
	// A read that waits already must learn of it. One that fails to, fails at its own deadline.
	_ = c.SetReadDeadline(c.deadline(time.Now()))
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

// Read returns bytes of one command at most, or the empty mail after 354. Its errors are *Error, and the first one stays for
// ever.
func (c *Conn) Read(p []byte) (int, error) {
	err := c.why()
	if err == nil && len(c.rest) == 0 {
		c.rest, err = c.next()
	}
	if err != nil {
		return 0, err
	}
	n := copy(p, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// why returns the reason of the end, nil before it.
func (c *Conn) why() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	return nil
}

// next returns what go-smtp reads next. A mail that the session has not taken is read over.
func (c *Conn) next() ([]byte, error) {
	switch c.phase {
	case mail:
		if err := c.ReadMail(func([]byte) {}); err != nil {
			return nil, err
		}
	case commands:
		return c.command()
	}
	c.enter(commands)
	return emptyMail, nil
}

// enter changes the phase. The transaction is over as soon as go-smtp has the empty mail.
func (c *Conn) enter(next phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = next
	switch next {
	case answer:
		c.errors = 0
	case commands:
		c.over()
	}
}

// over ends the transaction. The caller holds mu.
func (c *Conn) over() {
	c.transactionBy = time.Time{}
	c.origin = Origin{}
}

func (c *Conn) inTransaction() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.transactionBy.IsZero()
}

// command returns the next command, as go-smtp shall see it. What go-smtp does not know is answered here: it would close the
// connection after a few.
func (c *Conn) command() ([]byte, error) {
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		text := strings.TrimRight(string(line), " \t\r\n")
		verb, reply := verbOf(text), ""
		if len(line) > maxCommand {
			verb, reply = "", replyLineTooLong
		}
		switch verb {
		case "":
			reply = cmp.Or(reply, replyUnknown)
		case "BDAT": // its chunk follows whatever we answer, and would be read as commands
			return nil, c.end(errChunking)
		case "XFORWARD":
			reply = c.forwarded(text)
		case "STARTTLS":
			if reply, err = c.startTLS(text); reply == "" && err == nil {
				continue
			}
		case "MAIL":
			reply = c.mayBegin()
			text = c.addressed(text, verb, "FROM:")
		case "RCPT":
			text = c.addressed(text, verb, "TO:")
		case "DATA":
			if c.inTransaction() {
				reply = c.beforeData()
			}
		}
		switch {
		case err != nil:
			return nil, err
		case reply == "":
			c.began(verb)
			return []byte(text + "\r\n"), nil
		}
		c.count(reply)
		if err := c.send([]byte(reply + "\r\n")); err != nil {
			return nil, err
		}
	}
}

// known are the commands that go-smtp knows, or we do.
var known = []string{
	"LHLO", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "VRFY", "EXPN", "HELP", "HELO", "EHLO", "AUTH", "BDAT", "XFORWARD", "STARTTLS",
}

// What is answered here. None of it says more than the protocol does.
const (
	replyUnknown     = "500 5.5.2 Command unrecognized"
	replyLineTooLong = "500 5.5.2 Command line too long"
	replyNotGreeted  = "503 5.5.1 Send LHLO first"
	replyNeedsTLS    = "451 4.7.0 Must issue a STARTTLS command first" // RFC 3207 §4 has 530, on which an MTA gives the mail up
	replyNoTLS       = "502 5.5.1 TLS not supported"
	replyTLS         = "503 5.5.1 Already running in TLS"
	replyTLSArgument = "501 5.5.4 STARTTLS takes no argument"
	replyStartTLS    = "220 2.0.0 Ready to start TLS\r\n"
)

// verbOf returns the command of a line in capitals, "" if it is none that is known. go-smtp wants one blank behind it, if
// anything.
func verbOf(text string) string {
	verb, _, _ := strings.Cut(text, " ")
	verb = strings.ToUpper(verb)
	if !slices.Contains(known, verb) {
		return ""
	}
	return verb
}

// mayBegin returns the reply to a MAIL that comes too early, "" to any other.
func (c *Conn) mayBegin() string {
	switch {
	case c.ungreeted:
		return replyNotGreeted
	case c.offer.TLSOnly && !c.secured:
		return replyNeedsTLS
	}
	return ""
}

// startTLS answers STARTTLS (RFC 3207): from then on everything is encrypted, and what was said before is forgotten. What was
// pipelined behind the command came unencrypted, from anybody, so it ends the connection.
func (c *Conn) startTLS(text string) (reply string, err error) {
	switch {
	case c.offer.TLS == nil:
		return replyNoTLS, nil
	case c.secured:
		return replyTLS, nil
	case c.inTransaction():
		return replyNested, nil
	case len(text) > len("STARTTLS"):
		return replyTLSArgument, nil
	case c.in.Buffered() > 0:
		return "", c.end(errBeforeTLS)
	}
	if err := c.send([]byte(replyStartTLS)); err != nil {
		return "", err
	}
	secure := tls.Server(c.Conn, c.offer.TLS)
	c.mu.Lock()
	if c.stopBy.IsZero() {
		_ = c.SetDeadline(time.Now().Add(handshakeTimeout))
	}
	c.mu.Unlock()
	if err := secure.Handshake(); err != nil { //nolint:noctx // it has a deadline, and Stop ends it
		return "", c.end(&Error{why: ErrTLS.Error(), cause: fmt.Errorf("%w: %w", ErrTLS, err)})
	}
	c.mu.Lock()
	c.Conn = secure
	c.mu.Unlock()
	c.in.Reset(patient{c})
	c.secured, c.ungreeted, c.origin = true, true, Origin{}
	return "", nil
}

// line returns the next command line. Half a line, before the peer was gone, is none.
func (c *Conn) line() ([]byte, error) {
	if err := c.listen(); err != nil { // what the peer has pipelined counts as not sent
		return nil, c.end(err)
	}
	line, err := c.in.ReadSlice('\n')
	c.mu.Lock()
	c.idleSince = time.Time{}
	c.mu.Unlock()
	if err != nil {
		return nil, c.end(c.cause(err))
	}
	return line, nil
}

// listen starts the clock of a command line, unless there are to be no more.
func (c *Conn) listen() *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.stopBy.IsZero():
		return errStopped
	case c.limits.Errors > 0 && c.errors > c.limits.Errors:
		return errErrors
	}
	now := time.Now()
	c.lineBy = now.Add(c.limits.Idle)
	if c.transactionBy.IsZero() {
		c.idleSince = now
	}
	return nil
}

// count notes a reply that says that a command was bad.
func (c *Conn) count(reply string) {
	if len(reply) > 2 && reply[:2] == "50" && reply[2] <= '4' {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.errors++
	}
}

// began notes which command go-smtp gets to see.
func (c *Conn) began(verb string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verb = verb
}

// Write sends a reply. go-smtp writes each line of a reply at once, and waits for the next line from Read after it.
func (c *Conn) Write(p []byte) (int, error) {
	reply, err := c.edit(p)
	if err != nil {
		return 0, err
	}
	if err := c.send(reply); err != nil {
		return 0, err
	}
	return len(p), nil
}

// send writes to the peer.
func (c *Conn) send(reply []byte) error {
	if len(reply) == 0 {
		return nil
	}
	_ = c.SetWriteDeadline(time.Now().Add(c.limits.Write))
	if _, err := c.Conn.Write(reply); err != nil {
		return c.end(&Error{why: "reply could not be sent", cause: err})
	}
	return nil
}

// edit notes what a reply says of the state of the session, and returns it as the peer shall see it. Replies quote the peer, so
// only how one begins counts; what go-smtp writes in two parts, because it is long, counts once.
func (c *Conn) edit(reply []byte) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return nil, c.ended
	}
	verb := c.verb
	if verb != "LHLO" {
		c.verb = ""
	}
	agreed := bytes.HasPrefix(reply, []byte("250"))
	if verb != "" && bytes.HasPrefix(reply, []byte("50")) {
		c.errors++
	}
	switch {
	case verb == "DATA" && bytes.HasPrefix(reply, []byte("354")):
		c.phase = mail
	case verb == "MAIL" && agreed:
		c.transactionBy = time.Now().Add(c.limits.Transaction)
		c.waited, c.received = 0, 0
	case verb == "RSET" && agreed:
		c.over()
	case verb == "LHLO" && agreed:
		c.over()
		c.ungreeted = false
		return c.capability(reply), nil
	}
	return reply, nil
}

// startTLSOffer is a line of the reply to LHLO.
const startTLSOffer = "250-STARTTLS\r\n"

// capability edits one line of the reply to LHLO: no CHUNKING, STARTTLS, XFORWARD for those who are believed, and SIZE with our number,
// since go-smtp's own limit is one byte off and therefore not used.
func (c *Conn) capability(line []byte) []byte {
	switch string(line) {
	case "250-PIPELINING\r\n":
		line = slices.Clip(line)
		if c.offer.TLS != nil && !c.secured {
			line = append(line, startTLSOffer...)
		}
		if c.offer.XForward {
			line = append(line, xforwardOffer...)
		}
	case "250-CHUNKING\r\n":
		return nil
	case "250-SIZE\r\n", "250 SIZE\r\n":
		return append(strconv.AppendInt(append(line[:8:8], ' '), c.limits.MessageBytes, 10), "\r\n"...)
	}
	return line
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
	case passed(c.stopBy), !c.stopBy.IsZero() && c.phase != mail:
		return errStopped
	case passed(c.transactionBy):
		return errSlow
	case !c.transactionBy.IsZero() && c.limits.Rate > 0 && c.patience() <= 0 && c.silence < c.limits.Idle:
		return errRate
	}
	return errIdle
}

// deadline is when the read that waits, or the next one, has waited long enough. The caller holds mu.
func (c *Conn) deadline(now time.Time) time.Time {
	if c.phase != mail && !c.stopBy.IsZero() {
		return time.Unix(1, 0) // long ago
	}
	by := c.lineBy
	if c.phase == mail {
		by = now.Add(c.limits.Idle)
	}
	if !c.transactionBy.IsZero() {
		by = earlier(by, c.transactionBy)
		if c.limits.Rate > 0 {
			by = earlier(by, now.Add(c.patience()))
		}
	}
	if !c.stopBy.IsZero() {
		by = earlier(by, c.stopBy)
	}
	return by
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// patience is how much longer the peer may be waited for in this transaction: Idle in all, and what it has sent buys more at
// the least rate. So a small mail is never too slow, and a peer that sends a byte now and then is. The caller holds mu.
func (c *Conn) patience() time.Duration {
	bought := float64(c.received) / float64(c.limits.Rate) * float64(time.Second)
	return c.limits.Idle + time.Duration(bought) - c.waited
}

// patient is the network as the buffer of a Conn reads it: each read waits as long as the state of the session allows.
type patient struct{ c *Conn }

func (p patient) Read(b []byte) (int, error) {
	start, err := p.arm()
	if err != nil {
		return 0, err
	}
	n, err := p.c.Conn.Read(b)
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.c.silence = time.Since(start)
	p.c.waited += p.c.silence
	p.c.received += int64(n)
	return n, err
}

// arm holds mu while it sets the deadline, or it could undo the one that Stop sets.
func (p patient) arm() (start time.Time, err error) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	start = time.Now()
	return start, p.c.SetReadDeadline(p.c.deadline(start))
}
