package hpfeeds

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// link is the TCP connection under everything else. Its deadlines are its own and count silence, not the length of a call: a slow peer is
// waited for, a silent one is given up. TLS sets none that are heeded.
type link struct {
	net.Conn
	silence atomic.Int64 // how long the peer may send nothing (time.Duration); 0: for ever
	active  atomic.Int64 // when the peer last sent something, or took something of what we send (Unix nanoseconds)
}

func newLink(conn net.Conn, silence time.Duration) *link {
	l := &link{Conn: conn}
	l.silence.Store(int64(silence))
	l.active.Store(time.Now().UnixNano())
	return l
}

func (l *link) SetDeadline(time.Time) error      { return nil }
func (l *link) SetReadDeadline(time.Time) error  { return nil }
func (l *link) SetWriteDeadline(time.Time) error { return nil }

// silentError says that the peer kept silent for longer than is allowed.
type silentError struct {
	doing string
	limit time.Duration
}

func (e *silentError) Error() string { return fmt.Sprintf("nothing %s for %s", e.doing, e.limit) }
func (e *silentError) Timeout() bool { return true }

// Read waits until something arrives, at most for the silence that is allowed when it is called.
func (l *link) Read(b []byte) (int, error) {
	limit := time.Duration(l.silence.Load())
	deadline := time.Time{}
	if limit > 0 {
		deadline = time.Now().Add(limit)
	}
	if err := l.Conn.SetReadDeadline(deadline); err != nil {
		return 0, err
	}
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.active.Store(time.Now().UnixNano())
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &silentError{doing: "heard", limit: limit}
	}
	return n, err
}

// Write sends all of b. It fails when the kernel can pass on nothing for writeSilence.
func (l *link) Write(b []byte) (int, error) {
	sent := 0
	for {
		if err := l.Conn.SetWriteDeadline(time.Now().Add(writeSilence)); err != nil {
			return sent, err
		}
		n, err := l.Conn.Write(b[sent:])
		sent += n
		if n > 0 {
			l.active.Store(time.Now().UnixNano())
		}
		switch {
		case err == nil:
			return sent, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return sent, err
		case n == 0:
			return sent, &silentError{doing: "taken", limit: writeSilence}
		}
	}
}
