package hpfeedstest

import (
	"bufio"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"spamtraps.internal/libs/hpfeeds"
)

// peer is a connection. One goroutine reads it, and another writes what is queued for it.
type peer struct {
	broker    *Broker
	raw       net.Conn // the socket
	conn      net.Conn // what is spoken through: patience over it, and maybe TLS over that
	ident     string
	user      User
	condemned bool            // Tentacool: closed at the next frame
	channels  map[string]bool // subscribed to
	before    []mark          // Exact: what has to be written before this peer's next message is taken

	mu      sync.Mutex
	changed sync.Cond // the queue, or the end
	queue   []message
	queued  int64 // bytes
	put     int64 // messages queued since the start
	written int64 // of these with the kernel
	closing bool  // once the queue is empty
	gone    chan struct{}
	ended   bool
}

// message is a frame for a subscriber; many share it.
type message struct {
	head, payload []byte
	frame         bool // not a message, but ERROR or INFO
}

func (m message) size() int64 { return int64(len(m.head) + len(m.payload)) }

// mark is a place in the queue of a subscriber.
type mark struct {
	subscriber *peer
	put        int64
}

// serve speaks with the client until one of the two has enough.
func (p *peer) serve() {
	written := make(chan struct{})
	go func() {
		defer close(written)
		p.write()
	}()
	err := p.speak()
	cause := ""
	if err != nil && !errors.Is(err, io.EOF) {
		cause = hpfeeds.Sanitize(err.Error())
	}
	p.broker.cfg.Log.Info().Str("ident", hpfeeds.Sanitize(p.ident)).Stringer("remote", p.raw.RemoteAddr()).Str("cause", cause).Msg("disconnected")
	for channel := range p.channels {
		p.broker.unsubscribe(p, channel)
	}
	p.finish()
	<-written
	p.broker.forget(p)
}

// errRefused is why speak ends after an ERROR, or instead of one.
var errRefused = errors.New("refused")

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errRefused}, args...)...)
}

func (p *peer) speak() error {
	in, err := p.login()
	if err != nil {
		return err
	}
	for {
		f, err := in.Next()
		if err != nil {
			return p.unreadable(err)
		}
		if p.condemned {
			return refused("told before")
		}
		if err := p.handle(in, f); err != nil {
			return err
		}
	}
}

// unreadable counts what is no frame, or one too large: none of the brokers says anything to that.
func (p *peer) unreadable(err error) error {
	if errors.As(err, new(*hpfeeds.ProtocolError)) {
		p.broker.count(func(s *Stats) { s.Refused++ })
	}
	return err
}

// login greets the client and takes its AUTH.
func (p *peer) login() (*hpfeeds.Reader, error) {
	late := time.AfterFunc(loginTime, p.cut)
	defer late.Stop()
	if secured, ok := p.conn.(*tls.Conn); ok {
		if err := secured.HandshakeContext(context.Background()); err != nil {
			return nil, fmt.Errorf("TLS: %w", err)
		}
	}
	nonce := p.broker.cfg.nonce()
	p.put1(message{head: hpfeeds.AppendInfo(nil, p.broker.name, nonce), frame: true})
	in := hpfeeds.NewReader(p.conn, p.broker.limit)
	f, err := in.Next()
	if err != nil {
		return nil, p.unreadable(err)
	}
	if f.Op != hpfeeds.OpAuth {
		return nil, p.refuse("First message was not AUTH")
	}
	digest, err := in.Body()
	if err != nil {
		return nil, err
	}
	secret, err := p.broker.secret(f.Name)
	if err != nil {
		p.broker.cfg.Log.Warn().Str("ident", hpfeeds.Sanitize(f.Name)).Err(err).Msg("login refused")
		return nil, p.refuse("Authentication failed for " + f.Name)
	}
	if want := hpfeeds.Digest(nonce, secret); subtle.ConstantTimeCompare(want[:], digest) != 1 {
		p.broker.cfg.Log.Warn().Str("ident", hpfeeds.Sanitize(f.Name)).Msg("login refused: wrong secret")
		return nil, p.refuse("Authentication failed for " + f.Name)
	}
	p.ident, p.user = f.Name, p.broker.cfg.Users[f.Name]
	p.broker.count(func(s *Stats) { s.Connections++ })
	p.broker.cfg.Log.Info().Str("ident", hpfeeds.Sanitize(p.ident)).Stringer("remote", p.raw.RemoteAddr()).Msg("connected")
	return in, nil
}

// refuse tells the client no, and returns the error that ends the connection.
func (p *peer) refuse(text string) error {
	p.broker.count(func(s *Stats) { s.Refused++ })
	p.put1(message{head: hpfeeds.AppendError(nil, text), frame: true})
	return refused("%s", text)
}

// deny tells the client no as the manners have it: nil means that the connection stays.
func (p *peer) deny(text string) error {
	p.broker.cfg.Log.Warn().Str("ident", hpfeeds.Sanitize(p.ident)).Str("answer", hpfeeds.Sanitize(text)).Msg("denied")
	switch p.broker.cfg.Manners {
	case Tentacool:
		_ = p.refuse("accessfail")
		p.condemned = true
		return nil
	case HPFBroker:
		_ = p.refuse(text)
		return nil
	}
	return p.refuse(text)
}

func (p *peer) handle(in *hpfeeds.Reader, f hpfeeds.Frame) error {
	manners := p.broker.cfg.Manners
	switch f.Op {
	case hpfeeds.OpPublish:
		return p.publish(in, f)
	case hpfeeds.OpSubscribe:
		if !may(p.user.Subscribe, f.Channel) {
			return p.deny(fmt.Sprintf("Authkey not allowed to sub here. ident=%s, chan=%s", p.ident, f.Channel))
		}
		p.channels[f.Channel] = true
		p.broker.subscribe(p, f.Channel)
		return nil
	case hpfeeds.OpUnsubscribe:
		if manners == Tentacool {
			return refused("%s", f.Op)
		}
		delete(p.channels, f.Channel)
		p.broker.unsubscribe(p, f.Channel)
		return nil
	}
	p.broker.count(func(s *Stats) { s.Refused++ })
	return refused("%s from a client", f.Op)
}

func (p *peer) publish(in *hpfeeds.Reader, f hpfeeds.Frame) error {
	switch manners := p.broker.cfg.Manners; {
	case f.Name != p.ident:
		return p.deny(fmt.Sprintf("Invalid authkey in message, ident=%s", f.Name))
	case !may(p.user.Publish, f.Channel):
		return p.deny(fmt.Sprintf("Authkey not allowed to pub here. ident=%s, chan=%s", p.ident, f.Channel))
	case f.Size == 0 && manners == Tentacool:
		p.broker.count(func(s *Stats) { s.Refused++ })
		return refused("empty payload")
	case f.Size == 0 && manners == HPFBroker:
		return p.deny("Empty payload")
	}
	head := hpfeeds.AppendPublish(nil, f.Name, f.Channel, f.Size)
	payload, err := in.Body()
	if err != nil {
		return err
	}
	audience, ok := p.listen(f.Channel)
	if !ok {
		return errors.New("gone while its message waited for subscribers")
	}
	for _, m := range p.before {
		m.subscriber.waitWritten(m.put)
	}
	p.before = p.before[:0]
	for _, subscriber := range audience {
		put, ok := subscriber.enqueue(message{head: head, payload: payload})
		if ok && p.broker.cfg.Exact {
			p.before = append(p.before, mark{subscriber, put})
		}
	}
	return nil
}

// listen returns the subscribers of a channel once there are enough, while the publisher is there.
func (p *peer) listen(channel string) ([]*peer, bool) {
	if p.broker.cfg.Hold[channel] > 0 {
		stop := make(chan struct{})
		defer close(stop)
		go p.watch(stop)
	}
	return p.broker.audience(p, channel)
}

// watch cuts a connection that its client has ended, while nobody reads it.
func (p *peer) watch(stop <-chan struct{}) {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
			if closedByPeer(p.raw) {
				p.cut()
				return
			}
		}
	}
}

// closedByPeer tells whether a FIN or RST has come, even if data before it have not been read (tcp(7), TCP_INFO).
func closedByPeer(conn net.Conn) bool {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return true
	}
	const established = 1
	state := uint8(established)
	err = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			state = info.State
		}
	})
	return err != nil || state != established
}

// put1 queues a frame of the broker's own; there are only ever a few.
func (p *peer) put1(m message) { _, _ = p.enqueue(m) }

// enqueue queues a message and returns its place. It waits while too much is queued, and cuts the subscriber when that lasts; false means
// that it is gone.
func (p *peer) enqueue(m message) (int64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queued > 0 && p.queued+m.size() > p.broker.cfg.QueueBytes && !p.ended {
		late := time.AfterFunc(p.broker.cfg.SlowLimit, p.tooSlow)
		for p.queued > 0 && p.queued+m.size() > p.broker.cfg.QueueBytes && !p.ended {
			p.changed.Wait()
		}
		late.Stop()
	}
	if p.ended || p.closing {
		return 0, false
	}
	p.queue = append(p.queue, m)
	p.queued += m.size()
	p.put++
	p.changed.Broadcast()
	return p.put, true
}

func (p *peer) tooSlow() {
	p.broker.count(func(s *Stats) { s.Cut++ })
	p.broker.cfg.Log.Warn().Str("ident", hpfeeds.Sanitize(p.ident)).Stringer("remote", p.raw.RemoteAddr()).Msg("cut: it reads too slowly")
	p.cut()
}

// waitWritten waits until all up to a place of the queue is with the kernel, or the peer has ended.
func (p *peer) waitWritten(put int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.written < put && !p.ended {
		p.changed.Wait()
	}
}

// write sends what is queued until the connection ends.
func (p *peer) write() {
	defer p.cut()
	out := bufio.NewWriterSize(p.conn, 64<<10)
	for {
		batch := p.next()
		if batch == nil {
			return
		}
		messages, bytes, err := send(out, batch)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.tooSlow()
		}
		if err != nil {
			return
		}
		p.broker.count(func(s *Stats) { s.Delivered += messages })
		p.mu.Lock()
		p.queued -= bytes
		p.written += int64(len(batch))
		p.changed.Broadcast()
		p.mu.Unlock()
	}
}

func send(out *bufio.Writer, batch []message) (messages, bytes int64, err error) {
	for _, m := range batch {
		if _, err := out.Write(m.head); err != nil {
			return 0, 0, err
		}
		if _, err := out.Write(m.payload); err != nil {
			return 0, 0, err
		}
		bytes += m.size()
		if !m.frame {
			messages++
		}
	}
	return messages, bytes, out.Flush()
}

// next waits for something to send; nil means that nothing will be sent any more.
func (p *peer) next() []message {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.queue) == 0 && !p.closing && !p.ended {
		p.changed.Wait()
	}
	if p.ended || len(p.queue) == 0 {
		return nil
	}
	batch := p.queue
	p.queue = nil
	return batch
}

// finish ends the connection once what is queued is sent.
func (p *peer) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closing = true
	p.changed.Broadcast()
}

// cut ends the connection at once.
func (p *peer) cut() {
	p.mu.Lock()
	if !p.ended {
		p.ended = true
		close(p.gone)
	}
	p.queue = nil
	p.changed.Broadcast()
	p.mu.Unlock()
	_ = p.raw.Close() // not TLS's own, which would first try to write
	p.broker.mu.Lock()
	p.broker.changed.Broadcast() // it may wait for an audience
	p.broker.mu.Unlock()
}

func (p *peer) isGone() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

// patient is a socket that writes as long as there is any progress within the limit. It heeds no deadline but its own.
type patient struct {
	net.Conn
	limit time.Duration
}

func (c *patient) SetDeadline(time.Time) error      { return nil }
func (c *patient) SetWriteDeadline(time.Time) error { return nil }

func (c *patient) Write(b []byte) (int, error) {
	sent := 0
	for {
		if err := c.Conn.SetWriteDeadline(time.Now().Add(c.limit)); err != nil {
			return sent, err
		}
		n, err := c.Conn.Write(b[sent:])
		sent += n
		if err == nil || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return sent, err
		}
	}
}
