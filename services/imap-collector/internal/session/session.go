// Package session is one connection to an IMAP server, from the greeting to the end: it logs in, finds folders, searches, fetches, marks, deletes
// and moves, and waits for news. It does what it is told and checks each answer; when to do what is the collector's business.
package session

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-sasl"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/imap-collector/internal/wire"
)

const (
	// oversizeFactor is how much larger than the largest mail a literal may be that is still read over, because the server's idea of its size was
	// wrong: some are wrong by three times. A larger one ends the connection.
	oversizeFactor = 4
	// logoutLimit is how long the goodbye may take.
	logoutLimit = 5 * time.Second
	// smallAnswer is what the answer to a command may have that is only OK or NO.
	smallAnswer = 64 << 10
)

// Session is a connection to a mailbox, logged in. One goroutine owns it: no method but Abort may be called from another. Commands may be in flight
// side by side (those whose method begins with Start); their outcomes are waited for in the order of their start. An *Error with Answered set leaves
// the session as it was; after any other error it is good for Close only.
type Session struct {
	account *account.Account
	ctx     context.Context //nolint:containedctx // the library knows none; when it ends the connection is cut
	conn    *wire.Conn
	client  *imapclient.Client
	stop    func() bool
	caps    imap.CapSet
	secrets []string // that no error may show
	heard   heard
	news    chan struct{} // something has changed in the folder
	// patience is how much longer than an IDLE the server may be silent.
	patience time.Duration

	mechanism string
	selected  Selected
	calls     []*Call // in flight, in order
}

// Open connects, logs in and introduces us. It blocks until that is done, for three minutes at most, or until ctx ends; ctx cuts the session at any time later. Every error is
// an *Error.
func (d *Dialer) Open(ctx context.Context, a *account.Account, skipID bool) (*Session, error) {
	raw, err := d.reach(ctx, a)
	if err != nil {
		return nil, stopped(ctx, err)
	}
	conn, greeting, err := d.private(ctx, a, raw)
	if err != nil {
		_ = raw.Close() // it is of no use
		return nil, stopped(ctx, err)
	}
	s := d.attach(ctx, a, conn, raw, greeting)
	if err := s.introduce(d, skipID); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// stopped returns err, or that we were told to stop if that is why.
func stopped(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*Error](err); ok && ctx.Err() != nil {
		return &Error{Kind: Stopped, Doing: e.Doing, Err: context.Cause(ctx)}
	}
	return err
}

func (d *Dialer) attach(ctx context.Context, a *account.Account, conn, raw net.Conn, greeting string) *Session {
	limits := d.limits(a.MaxMessageBytes * oversizeFactor)
	s := &Session{account: a, ctx: ctx, patience: limits.Silence, news: make(chan struct{}, 1)}
	s.conn = wire.New(conn, raw, limits, greeting, s.heard.hear)
	s.client = imapclient.New(s.conn, &imapclient.Options{UnilateralDataHandler: &imapclient.UnilateralDataHandler{
		Mailbox: func(data *imapclient.UnilateralDataMailbox) {
			if data.NumMessages != nil {
				s.tell()
			}
		},
		Expunge: func(uint32) { s.heard.expunged.Add(1) },
		Fetch:   s.catch,
	}})
	s.stop = context.AfterFunc(ctx, s.Abort)
	return s
}

// tell leaves word that something has changed. It runs in go-imap's reader and must not block.
func (s *Session) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// introduce goes from the greeting to the point where folders may be selected.
func (s *Session) introduce(d *Dialer, skipID bool) error {
	s.begin(smallAnswer, 0) // the library asks for the capabilities when the greeting has none
	if err := s.do(s.client.WaitGreeting); err != nil {
		return s.problem("greeting", err)
	}
	if err := s.readCaps(); err != nil {
		return err
	}
	if s.client.State() == imap.ConnStateNotAuthenticated {
		if err := s.login(); err != nil {
			return err
		}
		if err := s.readCaps(); err != nil {
			return err
		}
	}
	if s.caps.Has(imap.CapID) && !skipID {
		if err := s.id(d); err != nil {
			return err
		}
	}
	return nil
}

// readCaps asks again each time: what a server offers before the login says nothing of after it.
func (s *Session) readCaps() error {
	s.begin(smallAnswer, 0)
	var caps imap.CapSet
	stuck := s.do(func() error {
		caps = s.client.Caps()
		return nil
	})
	s.end()
	if stuck != nil {
		return s.problem("CAPABILITY", stuck)
	}
	if caps == nil {
		if err := s.conn.Err(); err != nil {
			return s.problem("CAPABILITY", err)
		}
		return &Error{Kind: Protocol, Doing: "CAPABILITY", Err: errors.New("the server does not tell what it offers")}
	}
	s.caps = caps
	return nil
}

// login proves who we are.
func (s *Session) login() error {
	s.conn.Rest() // the server waits while a token is fetched
	m, err := s.account.Login.Mechanism(s.ctx, s.offers)
	if err != nil {
		kind := Network
		if auth.IsCredentials(err) {
			kind = Credentials
		}
		return stopped(s.ctx, &Error{Kind: kind, Doing: "log in", Err: err})
	}
	s.mechanism = m.Name
	s.confide(m.Password)
	s.begin(smallAnswer, 0)
	defer s.end()
	if m.SASL != nil {
		err = s.do(func() error { return s.client.Authenticate(&confidant{Client: m.SASL, session: s}) })
	} else {
		err = s.do(s.client.Login(m.Username, m.Password).Wait)
	}
	if err == nil {
		return nil
	}
	return s.loginFailed(m, err)
}

// offers tells what may be used on this connection. It is private, or the operator wants it as it is.
func (s *Session) offers(mechanism string) bool {
	if mechanism == auth.CommandLogin {
		return !s.caps.Has(imap.CapLoginDisabled) // RFC 9051 §6.2.3
	}
	return s.caps.Has(imap.AuthCap(mechanism))
}

// loginFailed tells a server that does not take our credentials from one that takes nobody's now.
func (s *Session) loginFailed(m auth.Mechanism, err error) error {
	problem := s.problem("log in", err)
	e, _ := errors.AsType[*Error](problem)
	answered := e.Answered && !isPassing(e.Code)
	if !answered && (e.Kind != Protocol || s.conn.Err() != nil) {
		return problem
	}
	if !e.Answered { // the mechanism itself gave up: the server's challenge was a refusal
		e.Err = errors.New(s.clean(cut(err.Error())))
	}
	e.Kind = Credentials
	m.Refused()
	return e
}

// confide notes a secret that errors must not show.
func (s *Session) confide(secret string) {
	const shortest = 4 // fewer characters are in any text
	if len(secret) >= shortest {
		s.secrets = append(s.secrets, secret, base64.StdEncoding.EncodeToString([]byte(secret)))
	}
}

// confidant is a SASL client that notes what it confides to the server.
type confidant struct {
	sasl.Client
	session *Session
}

func (c *confidant) Start() (string, []byte, error) {
	mechanism, initial, err := c.Client.Start()
	c.note(initial)
	return mechanism, initial, err
}

func (c *confidant) Next(challenge []byte) ([]byte, error) {
	response, err := c.Client.Next(challenge)
	c.note(response)
	return response, err
}

func (c *confidant) note(response []byte) {
	c.session.confide(string(response))
	parts := strings.FieldsFunc(string(response), func(r rune) bool { return r == 0 || r == 1 })
	for _, part := range parts {
		if part = strings.TrimPrefix(part, "auth=Bearer "); part != c.session.account.Username && !strings.HasPrefix(part, "user=") {
			c.session.confide(part)
		}
	}
}

// id introduces us. A server that says no to it has lost nothing.
func (s *Session) id(d *Dialer) error {
	s.begin(smallAnswer, 0)
	defer s.end()
	command := s.client.ID(&imap.IDData{Name: d.Program, Version: d.Version})
	err := s.do(func() error {
		_, err := command.Wait()
		return err
	})
	problem := s.problem("ID", err)
	if e, ok := errors.AsType[*Error](problem); ok && e.Answered {
		return nil
	}
	return problem
}

// begin and end tell the connection that an answer is owed, and that none is.
func (s *Session) begin(text, body int64) { s.conn.Await(text, body) }

func (s *Session) end() {
	if len(s.calls) == 0 {
		s.conn.Rest()
	}
}

// Caps returns what the server offers, as it said after the login. The caller must not change it.
func (s *Session) Caps() imap.CapSet { return s.caps }

// Mechanism returns how we logged in, "" when the server let us in without.
func (s *Session) Mechanism() string { return s.mechanism }

// Alert returns what the server wants people to know (RFC 9051 §7.1), cut, or "".
func (s *Session) Alert() string { return s.clean(s.heard.lastAlert()) }

// Abort ends the connection at once. It may be called at any time, from anywhere; what waits on the session returns.
func (s *Session) Abort() { s.conn.Abort() }

// Close ends the session, without a goodbye, and returns when nothing of it is left. What is in flight comes to nothing. It may be called again.
func (s *Session) Close() {
	s.stop()
	s.Abort()
	s.calls = nil                        // each is read to its end by a goroutine of its own
	_ = s.outlast(aside(s.client.Close)) // why it ended is known
}

// Logout says goodbye, for five seconds at most, and closes the session.
func (s *Session) Logout() {
	cut := time.AfterFunc(logoutLimit, s.Abort)
	defer cut.Stop()
	if s.conn.Err() == nil && len(s.calls) == 0 {
		s.begin(smallAnswer, 0)
		_ = s.do(s.client.Logout().Wait) // a server that does not say goodbye is left all the same
	}
	s.Close()
}

// Call is a command in flight.
type Call struct {
	session  *Session
	doing    string
	outcome  <-chan error
	conclude func(error) error // takes over what was read, and decides on the outcome; nil: nothing was
}

// start notes a command that was just sent, and has its answer read.
func (s *Session) start(doing string, read func() error, conclude func(error) error) *Call {
	c := &Call{session: s, doing: doing, outcome: aside(read), conclude: conclude}
	s.calls = append(s.calls, c)
	return c
}

// aside reads an answer in a goroutine of its own, and returns what tells the outcome, once. A server may work on several commands at once and mix
// their answers, as Dovecot does with FETCHes, and go-imap's reader stands still until somebody takes what it has, whichever command it belongs to.
func aside(read func() error) <-chan error {
	outcome := make(chan error, 1)
	go func() { outcome <- read() }()
	return outcome
}

// stuckLimit is how long after the end of the connection go-imap, and whoever reads what it has, may take to notice.
const stuckLimit = 10 * time.Second

// outlast waits for an outcome. When the connection has ended and there still is none, something of ours hangs: it is left behind, and what it
// reads is never looked at.
func (s *Session) outlast(outcome <-chan error) error {
	select {
	case err := <-outcome:
		return err
	case <-s.conn.Ended():
	}
	limit := time.NewTimer(stuckLimit)
	defer limit.Stop()
	select {
	case err := <-outcome:
		return err
	case <-limit.C:
		return errStuck
	}
}

var errStuck = errors.New("the connection has ended, and this program does not notice: a fault of its own")

// do waits for what has no answer to be read beside others.
func (s *Session) do(wait func() error) error { return s.outlast(aside(wait)) }

// Wait blocks until the server has answered. The call must be the oldest in flight.
func (c *Call) Wait() error {
	s := c.session
	if len(s.calls) == 0 || s.calls[0] != c {
		panic("session: waited for out of order: " + c.doing) // a fault of the caller, whatever the server does
	}
	err := s.outlast(c.outcome)
	if c.conclude != nil && !errors.Is(err, errStuck) {
		err = c.conclude(err)
	}
	s.calls = s.calls[1:]
	if len(s.calls) == 0 {
		s.calls = nil
		s.heard.forgetCopies()
		s.conn.Rest()
	}
	return s.problem(c.doing, err)
}

// heard is what the server said in passing. It is written by go-imap's reader.
type heard struct {
	mu       sync.Mutex
	bye      string
	byeCode  imap.ResponseCode
	alert    string
	readOnly bool

	stray    atomic.Pointer[stray] // the mail that is fetched alone
	copies   []*bodyCopy           // under mu: bodies that came once more
	expunged atomic.Uint32         // messages, unasked
}

// hear takes each status response. Only what go-imap forgets is kept.
func (h *heard) hear(line []byte) {
	tag, rest, _ := strings.Cut(string(line), " ")
	status, text, _ := strings.Cut(rest, " ")
	code := ""
	if inner, found := strings.CutPrefix(text, "["); found {
		code, _, _ = strings.Cut(inner, "]")
	}
	name, _, _ := strings.Cut(code, " ")
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case strings.EqualFold(status, "BYE"):
		h.bye, h.byeCode = fmt.Sprintf("%q", cut(text)), imap.ResponseCode(strings.ToUpper(name))
	case strings.EqualFold(name, "ALERT"):
		h.alert = cut(strings.TrimSpace(strings.TrimPrefix(text, "["+code+"]")))
	case tag != "*" && strings.EqualFold(name, "READ-ONLY"):
		h.readOnly = true
	case tag != "*" && strings.EqualFold(name, "READ-WRITE"):
		h.readOnly = false
	}
}

func (h *heard) farewell() (imap.ResponseCode, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byeCode, h.bye
}

func (h *heard) lastAlert() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.alert
}
