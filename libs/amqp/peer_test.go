package amqp

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
)

// peer is a scripted broker, for what a real one cannot be told to do: to leave out a confirm, to stop within a frame. It
// agrees to every request, and tells the script of each message that it has got whole.
type peer struct {
	t        testing.TB
	listener net.Listener
	// published is called for each message, by one goroutine per connection.
	published func(c *peerConn, channel uint16, tag uint64)
	// header, if set, is called with the payload of each message's content header.
	header   func(payload []byte)
	frameMax uint32

	mu         sync.Mutex
	conns      []*peerConn
	mechanisms []string // SASL, as the clients chose
	wg         sync.WaitGroup
}

type peerConn struct {
	net.Conn
	number int // counted from 0
	mu     sync.Mutex
	tags   map[uint16]uint64
	left   map[uint16]uint64 // bytes of a body that are still to come
}

func newPeer(t testing.TB, published func(c *peerConn, channel uint16, tag uint64)) *peer {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, listener: l, published: published, frameMax: 128 << 10}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// settings returns the defaults, for this peer.
func (p *peer) settings() Config {
	cfg := Defaults()
	cfg.TLS = false
	cfg.Host = []string{p.listener.Addr().String()}
	return cfg
}

// connections returns how many there have been.
func (p *peer) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func (p *peer) accept() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		c := &peerConn{Conn: conn, number: len(p.conns), tags: map[uint16]uint64{}, left: map[uint16]uint64{}}
		p.conns = append(p.conns, c)
		p.mu.Unlock()
		p.wg.Go(func() {
			defer func() { _ = conn.Close() }()
			p.serve(c)
		})
	}
}

func (p *peer) serve(c *peerConn) {
	in := bufio.NewReader(c)
	if _, err := io.ReadFull(in, make([]byte, 8)); err != nil { // "AMQP" and the version
		return
	}
	c.method(0, 10, 10, []byte{0, 9}, table(), long("PLAIN EXTERNAL"), long("en_US"))
	for {
		head := make([]byte, 7)
		if _, err := io.ReadFull(in, head); err != nil {
			return
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[3:])+1)
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		if !p.handle(c, head[0], binary.BigEndian.Uint16(head[1:]), payload) {
			return
		}
	}
}

func (p *peer) handle(c *peerConn, kind byte, channel uint16, payload []byte) bool {
	switch kind {
	case 1:
		return p.request(c, channel, binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]), payload[4:])
	case 2:
		if p.header != nil {
			p.header(payload)
		}
		c.left[channel] = binary.BigEndian.Uint64(payload[4:])
		p.complete(c, channel, 0)
	case 3:
		p.complete(c, channel, uint64(len(payload)-1))
	}
	return true
}

func (p *peer) complete(c *peerConn, channel uint16, got uint64) {
	c.left[channel] -= got
	if c.left[channel] == 0 {
		c.tags[channel]++
		p.published(c, channel, c.tags[channel])
	}
}

func (p *peer) request(c *peerConn, channel, class, method uint16, args []byte) bool {
	switch [2]uint16{class, method} {
	case [2]uint16{10, 11}: // connection.start-ok
		rest := args[4+binary.BigEndian.Uint32(args):]
		p.mu.Lock()
		p.mechanisms = append(p.mechanisms, string(rest[1:1+rest[0]]))
		p.mu.Unlock()
		c.method(0, 10, 30, []byte{0, 0}, binary.BigEndian.AppendUint32(nil, p.frameMax), []byte{0, 0})
	case [2]uint16{10, 40}: // connection.open
		c.method(0, 10, 41, short(""))
	case [2]uint16{10, 50}: // connection.close
		c.method(0, 10, 51)
		return false
	case [2]uint16{20, 10}: // channel.open
		c.method(channel, 20, 11, long(""))
	case [2]uint16{20, 40}: // channel.close
		c.method(channel, 20, 41)
	case [2]uint16{85, 10}, [2]uint16{40, 10}, [2]uint16{50, 20}: // confirm.select, exchange.declare, queue.bind
		c.method(channel, class, method+1)
	case [2]uint16{50, 10}: // queue.declare
		c.method(channel, 50, 11, short("spam.mails"), make([]byte, 8))
	}
	return true
}

func (c *peerConn) ack(channel uint16, tag uint64) {
	c.method(channel, 60, 80, binary.BigEndian.AppendUint64(nil, tag), []byte{0})
}

func (c *peerConn) blocked(why string) { c.method(0, 10, 60, short(why)) }

func (c *peerConn) unblocked() { c.method(0, 10, 61) }

// method sends a method frame. Errors show on the other side.
func (c *peerConn) method(channel, class, method uint16, args ...[]byte) {
	payload := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, class), method)
	for _, arg := range args {
		payload = append(payload, arg...)
	}
	frame := binary.BigEndian.AppendUint16([]byte{1}, channel)
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(payload)))
	frame = append(append(frame, payload...), 0xce)
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = c.Write(frame)
}

func short(s string) []byte { return append([]byte{byte(len(s))}, s...) }
func long(s string) []byte  { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
func table() []byte         { return make([]byte, 4) }
