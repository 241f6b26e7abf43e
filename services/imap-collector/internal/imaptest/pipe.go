package imaptest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// Net is a network within the process, for tests of time: it works in a synctest bubble. Like a kernel, it keeps what is written until it is
// read.
type Net struct {
	accepted chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

// NewNet returns a listener that Dial reaches.
func NewNet() *Net {
	return &Net{accepted: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial connects to whoever accepts.
func (n *Net) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := pair()
	select {
	case n.accepted <- theirs:
		return ours, nil
	case <-n.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept waits for a Dial.
func (n *Net) Accept() (net.Conn, error) {
	select {
	case c := <-n.accepted:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (n *Net) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr is that of no network.
func (n *Net) Addr() net.Addr { return &net.UnixAddr{Name: "in-process", Net: "test"} }

// stream is one direction of a connection.
type stream struct {
	mu       sync.Mutex
	changed  *sync.Cond
	data     []byte
	closed   bool
	deadline time.Time
	alarm    *time.Timer
}

func newStream() *stream {
	s := &stream{}
	s.changed = sync.NewCond(&s.mu)
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.data) == 0 {
		switch {
		case s.closed:
			return 0, io.EOF
		case !s.deadline.IsZero() && !time.Now().Before(s.deadline):
			return 0, os.ErrDeadlineExceeded
		}
		s.changed.Wait()
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	s.data = append(s.data, p...)
	s.changed.Broadcast()
	return len(p), nil
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.alarm != nil {
		s.alarm.Stop()
	}
	s.changed.Broadcast()
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	if s.alarm != nil {
		s.alarm.Stop()
	}
	if !t.IsZero() {
		s.alarm = time.AfterFunc(time.Until(t), s.changed.Broadcast)
	}
	s.changed.Broadcast()
}

type pipeConn struct{ in, out *stream }

func pair() (a, b net.Conn) {
	x, y := newStream(), newStream()
	return &pipeConn{in: x, out: y}, &pipeConn{in: y, out: x}
}

func (c *pipeConn) Read(p []byte) (int, error)  { return c.in.read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.out.write(p) }
func (c *pipeConn) Close() error {
	c.in.close()
	c.out.close()
	return nil
}

func (c *pipeConn) LocalAddr() net.Addr { return &net.UnixAddr{Name: "in-process", Net: "test"} }

func (c *pipeConn) RemoteAddr() net.Addr              { return &net.UnixAddr{Name: "in-process", Net: "test"} }
func (c *pipeConn) SetDeadline(t time.Time) error     { c.in.setDeadline(t); return nil }
func (c *pipeConn) SetReadDeadline(t time.Time) error { c.in.setDeadline(t); return nil }
func (c *pipeConn) SetWriteDeadline(time.Time) error  { return nil }
