package rig

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// dialTimeout bounds the proxy's own way to a server that is paused or cut off.
const dialTimeout = time.Minute

// Proxy is a TCP proxy on loopback that stands between the program under test and a server, to break the network between
// them. All methods may be called from any goroutine. It ends with the test.
type Proxy struct {
	target string
	addr   string
	t      testing.TB

	mu       sync.Mutex
	changed  *sync.Cond // frozen or ended has changed
	listener net.Listener
	conns    map[net.Conn]struct{}
	frozen   bool
	ended    bool
	delay    time.Duration
	accepted int
	pumps    sync.WaitGroup
}

// NewProxy listens on a free port of loopback and forwards each connection to target (host:port).
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{target: target, t: t, conns: map[net.Conn]struct{}{}}
	p.changed = sync.NewCond(&p.mu)
	l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	p.serve(l)
	t.Cleanup(p.end)
	return p
}

// Addr is the proxy's own address, host:port. It stays the same over Refuse and Accept.
func (p *Proxy) Addr() string { return p.addr }

// Accepted counts the connections that the proxy has accepted.
func (p *Proxy) Accepted() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.accepted
}

// Freeze makes the network half-open: nothing is forwarded or closed any more, and new connections are accepted and left
// silent. What the kernels' buffers take can still be written.
func (p *Proxy) Freeze() { p.setFrozen(true) }

// Thaw forwards again, first what has piled up.
func (p *Proxy) Thaw() { p.setFrozen(false) }

func (p *Proxy) setFrozen(frozen bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = frozen
	p.changed.Broadcast()
}

// Delay makes each read of the proxy wait for d before it is forwarded: a slow network.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Reset cuts all connections with a TCP reset.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}

// Refuse stops listening, so that new connections are refused; those that exist go on.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.listener.Close()
}

// Accept listens again after Refuse.
func (p *Proxy) Accept() {
	p.t.Helper()
	l, err := listen(p.addr)
	if err != nil {
		p.t.Fatalf("proxy listens again: %v", err)
	}
	p.serve(l)
}

func (p *Proxy) serve(l net.Listener) {
	p.mu.Lock()
	p.listener = l
	p.mu.Unlock()
	p.pumps.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.accepted++
			p.mu.Unlock()
			p.pumps.Go(func() { p.forward(c) })
		}
	})
}

func (p *Proxy) forward(client net.Conn) {
	if !p.track(client) {
		return
	}
	defer p.drop(client)
	server, err := dial(p.target, dialTimeout)
	if err != nil {
		return
	}
	if !p.track(server) {
		return
	}
	defer p.drop(server)
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		p.pumps.Go(func() {
			p.pump(way[0], way[1])
			done <- struct{}{}
		})
	}
	<-done
}

func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		_ = c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(c net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	_ = c.Close()
}

func (p *Proxy) pump(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && !p.passable() {
			return
		}
		if n > 0 {
			if _, werr := to.Write(buf[:n]); werr != nil {
				return
			}
		}
		if errors.Is(err, io.EOF) && p.passable() {
			// A half-close is passed on as one.
			if tcp, ok := to.(*net.TCPConn); ok {
				_ = tcp.CloseWrite()
			}
		}
		if err != nil {
			return
		}
	}
}

// passable waits while the proxy is frozen, and for the delay; false means that the proxy has ended.
func (p *Proxy) passable() bool {
	p.mu.Lock()
	for p.frozen && !p.ended {
		p.changed.Wait()
	}
	delay, ended := p.delay, p.ended
	p.mu.Unlock()
	if delay > 0 && !ended {
		time.Sleep(delay)
	}
	return !ended
}

func (p *Proxy) end() {
	p.mu.Lock()
	p.ended = true
	p.changed.Broadcast()
	_ = p.listener.Close()
	for c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.pumps.Wait()
}
