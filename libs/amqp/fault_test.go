package amqp

import (
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/rabbitmq/amqp091-go"
)

// Words stay the same while a fault does: no port of ours, no time. And only what someone has to change is slow.
func TestDescribe(t *testing.T) {
	answer := func(code int, reason string) error { return &amqp091.Error{Code: code, Reason: reason, Server: true} }
	reading := func(err error) error {
		return &net.OpError{
			Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 49152},
			Err: os.NewSyscallError("read", err),
		}
	}
	for _, row := range []struct {
		err  error
		why  string
		slow bool
	}{
		{reading(syscall.ECONNREFUSED), "connection refused", false},
		{reading(syscall.ECONNRESET), "the broker closed the connection", false},
		{io.EOF, "the broker closed the connection", false},
		{&net.OpError{Op: "dial", Err: os.ErrDeadlineExceeded}, "no answer", false},
		{&net.DNSError{Err: "no such host", Name: "rabbitmq", Server: "10.0.0.1:53"}, "the name does not resolve", false},
		{answer(320, "CONNECTION_FORCED"), "CONNECTION_FORCED", false},
		{answer(403, "ACCESS_REFUSED"), "ACCESS_REFUSED", true},
		{answer(404, "NOT_FOUND"), "NOT_FOUND", false},
		{answer(405, "RESOURCE_LOCKED"), "RESOURCE_LOCKED", true},
		{answer(406, "PRECONDITION_FAILED"), "PRECONDITION_FAILED", true},
		{answer(530, "NOT_ALLOWED - vhost x not found"), "NOT_ALLOWED - vhost x not found", true},
		{answer(530, "vhost 'x' is down"), "vhost 'x' is down", false},
		{&amqp091.Error{Code: 403, Reason: "username or password not allowed"}, "username or password not allowed", false},
		{&fault{why: "told", slow: true}, "told", true},
	} {
		if why, slow := describe(row.err); why != row.why || slow != row.slow {
			t.Errorf("%v: got %q, slow %v; want %q, slow %v", row.err, why, slow, row.why, row.slow)
		}
	}
}

func TestSizeLimit(t *testing.T) {
	for _, row := range []struct {
		err   error
		limit int64
		found bool
	}{
		{&amqp091.Error{Code: 406, Server: true, Reason: "PRECONDITION_FAILED - message size 1000001 is larger than configured max size 1000000"}, 1000000, true},
		{&amqp091.Error{Code: 406, Server: true, Reason: "PRECONDITION_FAILED - inequivalent arg 'durable'"}, 0, false},
		{&amqp091.Error{Code: 406, Reason: "message size 2 is larger than configured max size 1"}, 0, false},
		{io.EOF, 0, false},
	} {
		if limit, found := sizeLimit(row.err); limit != row.limit || found != row.found {
			t.Errorf("%v: %d, %v", row.err, limit, found)
		}
	}
}
