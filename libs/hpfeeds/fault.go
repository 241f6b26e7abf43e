package hpfeeds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// dialError says what kept us from a connection.
func dialError(ctx context.Context, cfg *Config, err error) *Error {
	if ctx.Err() != nil {
		cause := context.Cause(ctx)
		if !errors.Is(cause, errSlowLogin) {
			return &Error{Reason: ReasonEnded, Err: fmt.Errorf("hpfeeds: gave up connecting to %s: %w", cfg.Address(), cause)}
		}
		err = &silentError{doing: "of a login", limit: loginLimit}
	}
	e := fault("cannot connect to "+cfg.Address(), err)
	switch e.Reason {
	case ReasonClosed:
		e.Reason = ReasonUnreachable
	case ReasonProtocol:
		e.Permanent = true // something else listens there
	}
	return e
}

// fault describes what went wrong while we were doing something.
func fault(doing string, err error) *Error {
	if told, ok := errors.AsType[*Error](err); ok {
		return &Error{Permanent: told.Permanent, Reason: told.Reason, Err: fmt.Errorf("hpfeeds: %s: %w", doing, told.Err)}
	}
	why, reason, permanent := describe(err)
	return &Error{Permanent: permanent, Reason: reason, Err: &explained{"hpfeeds: " + doing + ": " + why, err}}
}

// explained is an error in other words than its own.
type explained struct {
	text  string
	cause error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.cause }

// describe puts an error into the words of an operator, and tells whether it will last until someone changes something.
func describe(err error) (why string, reason Reason, permanent bool) {
	var (
		protocol  *ProtocolError
		resolve   *net.DNSError
		invalid   x509.CertificateInvalidError
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
		noTLS     tls.RecordHeaderError
		alert     tls.AlertError
		network   *net.OpError
		silent    *silentError
		timeout   net.Error
		file      *os.PathError
		call      syscall.Errno
	)
	switch {
	case errors.As(err, &protocol):
		return "the broker does not speak hpfeeds: " + protocol.Problem, ReasonProtocol, false
	case errors.As(err, &resolve):
		return "the name does not resolve", ReasonUnreachable, false
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the broker's certificate has expired or is not valid yet: it is from %s to %s",
			invalid.Cert.NotBefore.UTC().Format("2006-01-02 15:04"), invalid.Cert.NotAfter.UTC().Format("2006-01-02 15:04 UTC")), ReasonTLS, true
	case errors.As(err, &name):
		return "the broker's certificate is not for " + name.Host, ReasonTLS, true
	case errors.As(err, &authority):
		return "the broker's certificate is from an authority that we do not know (HPFEEDS_CA_FILE)", ReasonTLS, true
	case errors.As(err, &noTLS):
		return "it does not speak TLS on this port (HPFEEDS_TLS, HPFEEDS_PORT)", ReasonTLS, true
	case errors.As(err, &alert), errors.As(err, &network) && network.Op == "remote error": // how crypto/tls hands on the peer's alert
		return "the broker refuses our side of TLS: " + Sanitize(err.Error()), ReasonTLS, true
	case errors.As(err, &file):
		return err.Error(), ReasonUnreachable, false
	case errors.As(err, &silent):
		return silent.Error(), ReasonSilent, false
	case errors.Is(err, syscall.ETIMEDOUT): // TCP_USER_TIMEOUT, or keepalive
		return "its machine does not answer any more", ReasonSilent, false
	case errors.Is(err, io.EOF):
		return "the broker closed the connection", ReasonClosed, false
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the broker closed the connection within a frame", ReasonClosed, false
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the broker reset the connection", ReasonClosed, false
	case errors.As(err, &call):
		return call.Error(), ReasonUnreachable, false
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer", ReasonUnreachable, false
	}
	return Sanitize(err.Error()), ReasonUnreachable, false
}

// refusal is what an ERROR frame says. The texts are those of the Python broker, tentacool, HPFBroker and the first brokers.
func refusal(text []byte) *Error {
	quoted := told(text)
	e := &Error{Reason: ReasonRefused, Err: fmt.Errorf("the broker says %q", quoted)}
	for _, known := range []struct {
		begins string
		reason Reason
		means  string
	}{
		{"authentication failed", ReasonAuth, "ident or secret is wrong"},
		{"authfail", ReasonAuth, "ident or secret is wrong"},
		{"identfail", ReasonAuth, "ident or secret is wrong"},
		{"accessfail", ReasonRights, "the ident has no right to the channel"},
		{"authkey not allowed to", ReasonRights, "the ident has no right to the channel"},
	} {
		if strings.HasPrefix(strings.ToLower(strings.TrimSpace(quoted)), known.begins) {
			return &Error{Permanent: true, Reason: known.reason, Err: fmt.Errorf("%s: the broker says %q", known.means, quoted)}
		}
	}
	return e
}
