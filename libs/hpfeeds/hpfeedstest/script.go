package hpfeedstest

import (
	"errors"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"spamtraps.internal/libs/hpfeeds"
)

// scripts are the brokers that nobody wants, by the names that the tests call them by. Each handles one connection to its end.
var scripts = map[string]func(*visit){
	// The greeting.
	"nonce-0":           func(v *visit) { v.send(hpfeeds.AppendInfo(nil, "odd", nil)); v.sink() },
	"nonce-1":           func(v *visit) { v.greet(1); v.sink() },
	"nonce-3":           func(v *visit) { v.greet(3); v.sink() },
	"nonce-5":           func(v *visit) { v.greet(5); v.sink() },
	"nonce-20":          func(v *visit) { v.greet(20); v.sink() },
	"info-neg":          func(v *visit) { v.send([]byte{0xff, 0xff, 0xff, 0xff, 1, 1, 'x', 1, 2, 3, 4}); v.sink() },
	"info-ml0":          func(v *visit) { v.send([]byte{0, 0, 0, 0, 1, 1, 'x', 1, 2, 3, 4}); v.sink() },
	"info-ml4":          func(v *visit) { v.send([]byte{0, 0, 0, 4, 1, 1, 'x', 1, 2, 3, 4}); v.sink() },
	"info-huge":         func(v *visit) { v.send([]byte{0x40, 0, 0, 0, 1, 1, 'x', 1, 2, 3, 4}); v.pour() },
	"info-name-overrun": func(v *visit) { v.send([]byte{0, 0, 0, 11, 1, 255, 'x', 1, 2, 3, 4}); v.sink() },
	"unknown-op":        func(v *visit) { v.send([]byte{0, 0, 0, 7, 99, 1, 'x'}); v.sink() },
	"http":              func(v *visit) { v.send([]byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")) },
	"silent":            func(v *visit) { v.sink() },
	"garbage":           func(v *visit) { v.pour() },

	// The login.
	"auth-error":          func(v *visit) { v.greet(4); v.frames(1); v.error("Authentication failed for x"); v.drain() },
	"auth-error-keepopen": func(v *visit) { v.greet(4); v.frames(1); v.error("authfail"); v.sink() },
	"auth-silent-close":   func(v *visit) { v.greet(4); v.frames(1) },
	"error-non-utf8": func(v *visit) {
		v.greet(4)
		v.frames(1)
		v.error("\xff\xfe\x1b[31m\u202eno\r\n\u0085" + strings.Repeat("\u00e9", 5000))
		v.drain()
	},

	// Later. The first frame is AUTH, so the counts are one more than those of the messages.
	"chan-error":          func(v *visit) { v.greet(4); v.frames(2); v.error("accessfail"); v.drain() },
	"chan-error-keepopen": func(v *visit) { v.greet(4); v.frames(2); v.error("accessfail"); v.sink() },
	"oversize-error":      func(v *visit) { v.greet(4); v.frames(2); v.error("Message too big; op 3 ml: 2 max_ml: 1"); v.drain() },
	"close-after-1":       func(v *visit) { v.greet(4); v.frames(2) },
	"rst-after-3":         func(v *visit) { v.greet(4); v.frames(4); v.reset() },
	"close-mid-frame":     func(v *visit) { v.greet(4); v.frames(2); v.send([]byte{0, 0, 0, 40, 0, 'h', 'a'}) },
	"never-reads":         func(v *visit) { v.greet(4); <-v.server.ended },
	"slow-read":           func(v *visit) { v.greet(4); v.slow() },
	"frame-4gib":          func(v *visit) { v.greet(4); v.frames(1); v.send([]byte{0xff, 0xff, 0xff, 0xff, 3}); v.pour() },
	"publish-1gib":        func(v *visit) { v.greet(4); v.frames(1); v.send([]byte{0x40, 0, 0, 0, 3}); v.pour() },
	"unsolicited-publish": func(v *visit) { v.greet(4); v.frames(1); v.repeat(publishFrame) },
	"error-flood": func(v *visit) {
		v.greet(4)
		v.frames(1)
		v.repeat(hpfeeds.AppendError(nil, strings.Repeat("no ", 300)))
	},
	"info-flood": func(v *visit) { v.greet(4); v.repeat(hpfeeds.AppendInfo(nil, "again", []byte{1, 2, 3, 4})) },
}

var publishFrame = append(hpfeeds.AppendPublish(nil, "nobody", "nothing", 100<<10), make([]byte, 100<<10)...)

// Scripts returns the names of the scripted brokers, sorted.
func Scripts() []string { return slices.Sorted(maps.Keys(scripts)) }

// Script is a broker that misbehaves.
type Script struct {
	do       func(*visit)
	messages atomic.Int64
	visits   atomic.Int64
	ended    chan struct{}

	mu    sync.Mutex
	conns map[net.Conn]bool
	wait  sync.WaitGroup
}

// NewScript returns the scripted broker of a name; there are those of Scripts.
func NewScript(name string) (*Script, error) {
	do, ok := scripts[name]
	if !ok {
		return nil, errors.New("there is no such script: take one of " + strings.Join(Scripts(), ", "))
	}
	return &Script{do: do, ended: make(chan struct{}), conns: make(map[net.Conn]bool)}, nil
}

// StartScript starts a scripted broker that ends with the test.
func StartScript(t TB, name string) (*Script, *Running) {
	t.Helper()
	script, err := NewScript(name)
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = script.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		<-ended
		script.Close()
	})
	return script, &Running{Host: "127.0.0.1", Port: port(listener)}
}

// Messages returns how many messages it has read.
func (s *Script) Messages() int64 { return s.messages.Load() }

// Visits returns how many connections there were.
func (s *Script) Visits() int64 { return s.visits.Load() }

// Serve accepts connections until the listener is closed.
func (s *Script) Serve(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		s.visits.Add(1)
		s.mu.Lock()
		s.conns[conn] = true
		s.mu.Unlock()
		s.wait.Go(func() {
			v := &visit{server: s, conn: conn, in: hpfeeds.NewReader(conn, 64<<20)}
			s.do(v)
			_ = conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}

// Close ends all connections. The listener must be closed before.
func (s *Script) Close() {
	close(s.ended)
	s.mu.Lock()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.wait.Wait()
}

// visit is one connection to a scripted broker. After an error nothing happens any more, and the script runs to its end.
type visit struct {
	server *Script
	conn   net.Conn
	in     *hpfeeds.Reader
	failed bool
}

func (v *visit) send(b []byte) {
	if !v.failed {
		_, err := v.conn.Write(b)
		v.failed = err != nil
	}
}

// greet sends INFO with a nonce of so many bytes.
func (v *visit) greet(nonce int) {
	v.send(hpfeeds.AppendInfo(nil, "scripted", []byte(strings.Repeat("n", nonce))))
}

func (v *visit) error(text string) { v.send(hpfeeds.AppendError(nil, text)) }

// frames reads so many frames.
func (v *visit) frames(n int) {
	for i := 0; i < n && !v.failed; i++ {
		v.failed = !v.frame()
	}
}

func (v *visit) frame() bool {
	f, err := v.in.Next()
	if err == nil {
		err = v.in.Skip()
	}
	if err == nil && f.Op == hpfeeds.OpPublish {
		v.server.messages.Add(1)
	}
	return err == nil
}

// sink reads all that comes.
func (v *visit) sink() {
	for !v.failed {
		v.failed = !v.frame()
	}
}

// drain ends our direction and reads what is left, so that the last frame arrives.
func (v *visit) drain() {
	if tcp, ok := v.conn.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
	v.sink()
}

// slow reads a little now and then.
func (v *visit) slow() {
	little := make([]byte, 1<<10)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if _, err := io.ReadFull(v.conn, little); err != nil {
				return
			}
		case <-v.server.ended:
			return
		}
	}
}

// reset ends the connection with an RST.
func (v *visit) reset() {
	if tcp, ok := v.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// pour sends bytes that mean nothing, for as long as they are taken.
func (v *visit) pour() { v.repeat([]byte(strings.Repeat("\xab\xcd\xef\x01", 4<<10))) }

// flood is how much is sent as fast as it is taken. After that there are pauses, so that who floods for ever leaves the cores to others.
const flood = 64 << 20

// repeat sends the same again and again, and reads nothing.
func (v *visit) repeat(frame []byte) {
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for sent := 0; !v.failed; sent += len(frame) {
		if sent > flood {
			select {
			case <-pause.C:
			case <-v.server.ended:
				return
			}
		}
		v.send(frame)
	}
}
