package wire

import (
	"errors"
	"net"
)

// Error tells why a connection ended. It matches net.ErrClosed, whatever the reason was: go-smtp then adds no reply of its
// own.
type Error struct {
	why   string // for the log
	reply string // for the peer; "" when nobody is there to read it
	cause error
}

var (
	errClosed      = &Error{why: "closed"}
	errGone        = &Error{why: "peer closed the connection"}
	errIdle        = &Error{why: "peer was silent for too long", reply: "421 4.4.2 Idle for too long, closing connection"}
	errSlow        = &Error{why: "transaction took too long", reply: "421 4.4.2 Transaction took too long, closing connection"}
	errRate        = &Error{why: "peer sent less than the least rate", reply: "421 4.4.2 Transfer is too slow, closing connection"}
	errStopped     = &Error{why: "stopped", reply: "421 4.3.2 Closing connection, please try again later"}
	errLineTooLong = &Error{why: "command line too long", reply: "500 5.5.2 Line too long, closing connection"}
	errErrors      = &Error{why: "too many bad commands", reply: "421 4.7.0 Too many errors, closing connection"}
	errBeforeTLS   = &Error{why: "commands were sent behind STARTTLS", reply: "501 5.5.4 Commands behind STARTTLS, closing connection"}
	errChunking    = &Error{why: "BDAT was sent though CHUNKING is not offered", reply: "421 4.5.1 BDAT is not offered, closing connection"}
)

// ErrTLS is among the causes of an Error when the TLS handshake failed.
var ErrTLS = errors.New("TLS handshake failed")

// Error says for a log why the connection ended.
func (e *Error) Error() string {
	if e.cause != nil {
		return e.why + ": " + e.cause.Error()
	}
	return e.why
}

// Unwrap returns the error of the network, nil when the end was decided here.
func (e *Error) Unwrap() error { return e.cause }

// Is makes every Error match net.ErrClosed.
func (e *Error) Is(target error) bool { return target == net.ErrClosed }
