package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"

	"github.com/emersion/go-imap/v2"

	"spamtraps.internal/imap-collector/internal/wire"
)

// Kind is what sort of thing went wrong, and with it when to try again.
type Kind string

// The kinds there are. They are values of the label kind in spamtraps_imap_failures_total.
const (
	Network     Kind = "network"     // the server could not be reached, went away or was silent
	TLS         Kind = "tls"         // the connection is not private, or the certificate is not good
	Credentials Kind = "credentials" // the server does not take who we are: somebody must change something
	Throttled   Kind = "throttled"   // we ask too much of the server: not again within a minute
	Refused     Kind = "refused"     // the server said no to one thing
	Protocol    Kind = "protocol"    // what the server sends makes no sense
	Stopped     Kind = "stopped"     // we were told to stop
)

// Error is why something did not work. Its text is for an operator; it holds no password or token, not even one that the server repeats.
type Error struct {
	Kind  Kind
	Doing string // "log in", `SELECT "INBOX"`
	Err   error
	// Code is the response code of a server that said no (RFC 9051 §7.1), "" when there was none.
	Code imap.ResponseCode
	// Answered tells that the server itself said no, in an answer that was whole: the session goes on.
	Answered bool
}

func (e *Error) Error() string { return e.Doing + ": " + e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// KindOf returns the kind of an error; Network of one that is no *Error.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Network
}

// problem says what the outcome of a command means; nil when there was no error.
func (s *Session) problem(doing string, err error) error {
	if err == nil {
		return nil
	}
	if known, ok := errors.AsType[*Error](err); ok {
		return known
	}
	if s.ctx.Err() != nil {
		return &Error{Kind: Stopped, Doing: doing, Err: context.Cause(s.ctx)}
	}
	if answer, ok := errors.AsType[*imap.Error](err); ok {
		return &Error{
			Kind: answeredKind(answer.Code), Doing: doing, Code: answer.Code, Answered: true,
			Err: errors.New("the server says " + s.words(string(answer.Type), string(answer.Code), answer.Text)),
		}
	}
	if broken := s.conn.Err(); broken != nil && broken.Kind != wire.Closed {
		return s.broken(doing, broken)
	}
	if errors.Is(err, errStuck) {
		return &Error{Kind: Network, Doing: doing, Err: err}
	}
	return &Error{Kind: Protocol, Doing: doing, Err: errors.New("what the server sends makes no sense: " + s.clean(cut(err.Error())))}
}

// broken says what the end of the connection means, with the server's last words if it had any.
func (s *Session) broken(doing string, err *wire.Error) error {
	e := &Error{Kind: Network, Doing: doing, Err: err}
	switch err.Kind {
	case wire.Flood, wire.TooLong, wire.Garbage:
		e.Kind = Protocol
		e.Err = errors.New(s.clean(err.Error()))
	default:
		if code, bye := s.heard.farewell(); bye != "" {
			e.Err = fmt.Errorf("%w, and said %s", err, s.clean(bye))
			if isThrottle(code) {
				e.Kind = Throttled
			}
		}
	}
	return e
}

func answeredKind(code imap.ResponseCode) Kind {
	if isThrottle(code) {
		return Throttled
	}
	return Refused
}

// isThrottle tells whether a response code asks us to come less often. THROTTLED is Yahoo's and Microsoft's, OVERQUOTA Gmail's.
func isThrottle(code imap.ResponseCode) bool {
	switch imap.ResponseCode(strings.ToUpper(string(code))) {
	case imap.ResponseCodeLimit, "THROTTLED", imap.ResponseCodeOverQuota:
		return true
	}
	return false
}

// isPassing tells whether a refused login has to do with the server and not with who we are.
func isPassing(code imap.ResponseCode) bool {
	switch imap.ResponseCode(strings.ToUpper(string(code))) {
	case imap.ResponseCodeUnavailable, imap.ResponseCodeInUse, imap.ResponseCodeServerBug:
		return true
	}
	return isThrottle(code)
}

// words puts an answer of the server as it would read on the wire, quoted.
func (s *Session) words(status, code, text string) string {
	if code != "" {
		status += " [" + code + "]"
	}
	return s.clean(fmt.Sprintf("%q", cut(status+" "+text)))
}

// clean withholds a text in which the server repeats what it was told in confidence.
func (s *Session) clean(text string) string {
	for _, secret := range s.secrets {
		if strings.Contains(text, secret) {
			return "(its words are withheld, for they repeat a secret)"
		}
	}
	return text
}

func cut(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

// unprivate says why a connection is not private.
func unprivate(doing string, err error) error {
	var record tls.RecordHeaderError
	switch {
	case errors.As(err, &record):
		return &Error{Kind: TLS, Doing: doing, Err: errors.New("the server does not speak TLS here: is the port right, or `tls: starttls` meant?")}
	case isNetwork(err):
		return &Error{Kind: Network, Doing: doing, Err: err}
	}
	return &Error{Kind: TLS, Doing: doing, Err: err}
}
