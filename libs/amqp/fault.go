package amqp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/rabbitmq/amqp091-go"
)

// fault is why a broker cannot be used, in words that stay the same while the fault does: without ports of ours or the
// time, so that the log can tell a change from a repetition.
type fault struct {
	what  string // "cannot reach rabbitmq:5672"
	why   string // "connection refused"
	slow  bool   // someone has to change something: there is no point in asking every second
	cause error
}

func (f *fault) Error() string { return f.what + ": " + f.why }
func (f *fault) Unwrap() error { return f.cause }

// newFault describes what err kept us from.
func newFault(what string, err error) *fault {
	why, slow := describe(err)
	return &fault{what: what, why: why, slow: slow, cause: err}
}

// describe puts an error into the words of an operator, and tells whether it will last until someone changes something.
func describe(err error) (why string, slow bool) {
	var (
		told      *fault
		resolve   *net.DNSError
		expired   x509.CertificateInvalidError
		name      x509.HostnameError
		authority x509.UnknownAuthorityError
		noTLS     tls.RecordHeaderError
		silent    *silentError
		timeout   net.Error
		network   *net.OpError
		closed    *amqp091.Error
		file      *os.PathError
		call      syscall.Errno
	)
	switch {
	case errors.As(err, &told):
		return told.why, told.slow
	case errors.As(err, &resolve):
		return "the name does not resolve", false
	case errors.As(err, &expired) && expired.Reason == x509.Expired:
		return fmt.Sprintf("the broker's certificate has expired or is not valid yet: it is from %s to %s",
			expired.Cert.NotBefore.UTC().Format("2006-01-02 15:04"), expired.Cert.NotAfter.UTC().Format("2006-01-02 15:04 UTC")), true
	case errors.As(err, &name):
		return fmt.Sprintf("the broker's certificate is not for %s", name.Host), true
	case errors.As(err, &authority):
		return "the broker's certificate is from an authority that we do not know (AMQP_CA_FILE)", true
	case errors.As(err, &noTLS):
		return "it does not speak TLS on this port (AMQP_TLS, AMQP_PORT)", true
	case errors.As(err, &network) && network.Op == "remote error": // how crypto/tls hands on the peer's alert
		return "the broker refuses our side of TLS: " + network.Err.Error(), true
	case errors.As(err, &file):
		return err.Error(), false
	case errors.As(err, &silent):
		return silent.Error(), false
	case errors.As(err, &closed):
		return closed.Reason, closed.Server && refuses(closed)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "the broker closed the connection", false
	case errors.As(err, &call):
		return call.Error(), false
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer", false
	}
	return err.Error(), false
}

// refuses tells whether the broker said no to who we are or what we asked, rather than that it cannot just now.
func refuses(e *amqp091.Error) bool {
	switch e.Code {
	case amqp091.AccessRefused, amqp091.ResourceLocked, amqp091.PreconditionFailed:
		return true
	case amqp091.NotAllowed:
		return !strings.Contains(e.Reason, "is down") // a vhost that is still starting
	}
	return false
}
