package amqp

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// link is the TCP connection under everything else. Its deadlines are its own and count silence, not the length of a call:
// a slow peer is waited for, a silent one is given up. Those that TLS or the AMQP library would set are not heeded, because
// the library clears them after its handshake and then waits three heartbeats, or for ever in a write.
type link struct {
	net.Conn
	silence atomic.Int64 // how long a peer may send nothing, or take nothing of what we send (time.Duration)
	patient atomic.Bool  // the broker has said that it will not read for a while: writes wait
}

func newLink(conn net.Conn, silence time.Duration) *link {
	l := &link{Conn: conn}
	l.silence.Store(int64(silence))
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

// Read waits until something arrives, at most for the silence that is allowed.
func (l *link) Read(b []byte) (int, error) {
	limit := time.Duration(l.silence.Load())
	if err := l.Conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return 0, err
	}
	n, err := l.Conn.Read(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = &silentError{doing: "heard", limit: limit}
	}
	return n, err
}

// Write sends all of b. It fails when the peer takes nothing for as long as the silence that is allowed, unless the peer has
// announced it.
func (l *link) Write(b []byte) (int, error) {
	limit, sent := time.Duration(l.silence.Load()), 0
	for {
		if err := l.Conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
			return sent, err
		}
		n, err := l.Conn.Write(b[sent:])
		sent += n
		switch {
		case err == nil:
			return sent, nil
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return sent, err
		case n == 0 && !l.patient.Load():
			return sent, &silentError{doing: "taken", limit: limit}
		}
	}
}

const (
	// gatherLimit is how many bytes may wait to be sent; one frame more, since a write that finds room goes in whole.
	gatherLimit = 1 << 20
	// readAhead is how much a consumer's connection takes from the kernel at a time.
	readAhead = 64 << 10
	// flushLimit is how long Close waits for what has gathered to go out.
	flushLimit = time.Second
)

// wire is what the AMQP library writes to and reads from. The library writes each message in several pieces while it holds
// the lock that its shutdown wants too, so that a peer who stops reading could wedge it for ever; here a write only joins
// what has gathered, and one goroutine sends that in one piece. The first error, of either direction, sticks: it cuts the
// link, and every later call returns it.
type wire struct {
	conn net.Conn // what is sent and received through: the link, or TLS over it
	link *link
	gate *gate         // bounds what is read; nil: nothing does
	read *bufio.Reader // of conn, when there is a gate: the library's own reader asks for 4 KiB at a time

	mu       sync.Mutex
	writable sync.Cond // there is room, or an error
	sendable sync.Cond // there is something to send, or an end to it
	gathered []byte
	spare    []byte // what the sender has sent, to gather in next
	closing  bool
	err      error
	sent     chan struct{} // closed when the sender has ended
}

func newWire(conn net.Conn, link *link, gate *gate) *wire {
	w := &wire{conn: conn, link: link, gate: gate, sent: make(chan struct{})}
	if gate != nil {
		w.read = bufio.NewReaderSize(conn, readAhead)
	}
	w.writable.L, w.sendable.L = &w.mu, &w.mu
	go w.send()
	return w
}

// Read returns what has arrived. An error is final.
func (w *wire) Read(b []byte) (int, error) {
	n, err := w.receive(b)
	if err != nil {
		w.cut(err)
		err = w.cause()
	}
	return n, err
}

func (w *wire) receive(b []byte) (int, error) {
	if w.gate == nil {
		return w.conn.Read(b)
	}
	w.gate.wait()
	n, err := w.read.Read(b)
	w.gate.saw(b[:n])
	return n, err
}

// Write gathers b to be sent. It waits only while as much as allowed has gathered, and then no longer than the link does.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.gathered) >= gatherLimit && w.err == nil && !w.closing {
		w.writable.Wait()
	}
	switch {
	case w.err != nil:
		return 0, w.err
	case w.closing:
		return 0, net.ErrClosed
	}
	if len(w.gathered) == 0 {
		w.sendable.Signal()
	}
	w.gathered = append(w.gathered, b...)
	return len(b), nil
}

func (w *wire) send() {
	defer close(w.sent)
	for {
		batch := w.next()
		if batch == nil {
			return
		}
		if _, err := w.conn.Write(batch); err != nil {
			w.cut(err)
			return
		}
		w.mu.Lock()
		w.spare = batch[:0]
		w.mu.Unlock()
	}
}

// next waits for something to send; nil means that nothing will be sent any more.
func (w *wire) next() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.gathered) == 0 && w.err == nil && !w.closing {
		w.sendable.Wait()
	}
	if len(w.gathered) == 0 || w.err != nil {
		return nil
	}
	batch := w.gathered
	w.gathered, w.spare = w.spare, nil
	w.writable.Broadcast()
	return batch
}

// Close sends what has gathered, for as long as that is worth waiting for, and cuts the link.
func (w *wire) Close() error {
	w.mu.Lock()
	w.closing = true
	w.sendable.Broadcast()
	w.writable.Broadcast()
	w.mu.Unlock()
	patience := time.NewTimer(flushLimit)
	defer patience.Stop()
	select {
	case <-w.sent:
	case <-patience.C:
	}
	w.cut(net.ErrClosed)
	return nil
}

// cut ends both directions at once, whatever waits in them, and notes why if nothing has before.
func (w *wire) cut(why error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = why
	}
	w.sendable.Broadcast()
	w.writable.Broadcast()
	w.mu.Unlock()
	if w.gate != nil {
		w.gate.wave()
	}
	_ = w.link.Close() // not TLS's Close, which would first try to write
}

// cause returns why the wire was cut, or nil.
func (w *wire) cause() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
