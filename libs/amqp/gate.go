package amqp

import (
	"encoding/binary"
	"sync"
	"time"
)

// gate bounds the bytes of messages that have come in and are not settled. AMQP lets a consumer say how many messages may come
// before it has settled one, but RabbitMQ refuses to count bytes, so with a prefetch of 256 it would send us 4 GiB of
// large mails. The gate counts the bytes as they come out of the connection, and while there are too many nothing more is
// read: the broker's own send blocks then. That starves no heartbeat that matters. Ours are written by a goroutine of their own and go on; the broker's
// lie behind what is not read, and whether the broker is silent is judged only while we listen.
//
// A message that is larger than the limit passes alone: the gate never shuts before one message has come in whole, since nobody
// could settle anything otherwise.
type gate struct {
	limit int64
	now   func() time.Time

	frames frameReader // of the one who reads the connection

	mu      sync.Mutex
	opened  sync.Cond
	waved   bool     // everything passes: the connection is about to end
	held    []parcel // not settled, oldest first, those settled out of turn among them
	first   uint64   // delivery tag of held[0]
	count   int      // not settled
	bytes   int64    // of them, announced ones included
	missing int64    // bytes of the last one that have not come yet
}

// parcel is a delivery that is in memory.
type parcel struct {
	size    int64
	at      time.Time
	settled bool
}

func newGate(limit int64) *gate {
	g := &gate{limit: limit, now: time.Now, first: 1}
	g.opened.L = &g.mu
	return g
}

// wait returns when more may be read.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for g.full() {
		g.opened.Wait()
	}
}

// full tells whether there is enough: as much as allowed, and at least one message of it whole.
func (g *gate) full() bool {
	whole := g.count
	if g.missing > 0 {
		whole--
	}
	return g.bytes >= g.limit && whole > 0 && !g.waved
}

// saw counts what has been read.
func (g *gate) saw(b []byte) {
	g.frames.read(b, g.announced, g.arrived)
}

// announced notes the header of a message with a body of size bytes.
func (g *gate) announced(size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = append(g.held, parcel{size: size, at: g.now()})
	g.count++
	g.bytes += size
	g.missing = size
}

func (g *gate) arrived(n int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.missing = max(0, g.missing-n)
}

// settle notes that a message has been acknowledged, or it and all before it. It returns how many have been.
func (g *gate) settle(tag uint64, allBefore bool) (count int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if tag < g.first || tag-g.first >= uint64(len(g.held)) {
		return 0
	}
	last := int(tag - g.first) //nolint:gosec // less than a length
	first := last
	if allBefore {
		first = 0
	}
	for i := first; i <= last; i++ {
		if p := &g.held[i]; !p.settled {
			p.settled = true
			g.count--
			g.bytes -= p.size
			count++
		}
	}
	done := 0
	for done < len(g.held) && g.held[done].settled {
		done++
	}
	g.held, g.first = g.held[done:], g.first+uint64(done)
	if !g.full() {
		g.opened.Broadcast()
	}
	return count
}

// wave lets everything pass from now on.
func (g *gate) wave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waved = true
	g.opened.Broadcast()
}

// load returns how much is held.
func (g *gate) load() (count int, bytes int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count, g.bytes
}

// oldest returns for how long the first message has been held; nothing when none is.
func (g *gate) oldest() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.held) == 0 {
		return 0
	}
	return g.now().Sub(g.held[0].at)
}

// The frames of AMQP 0-9-1 (§4.2.3): type, channel, size, payload, end. A message is a method, a header that tells the size of its
// body, and body frames.
const (
	frameHead, frameEnd   = 1 + 2 + 4, 1
	frameHeader           = 2
	frameBody             = 3
	headerFixed           = 2 + 2 + 8 // class, weight, size of the body: what begins the payload of a header frame
	offsetSize, offsetLen = frameHead + 4, 3
)

// frameReader follows the frames in a stream that comes in pieces of any length.
type frameReader struct {
	head [frameHead + headerFixed]byte
	have int   // bytes of head that are there
	skip int64 // bytes to the next frame
	body bool  // those are the payload of a body frame, save the last
}

func (f *frameReader) read(b []byte, header, body func(int64)) {
	for len(b) > 0 {
		if f.skip > 0 {
			n := min(f.skip, int64(len(b)))
			if f.body {
				payload := n
				if n == f.skip {
					payload -= frameEnd
				}
				body(payload)
			}
			f.skip -= n
			b = b[n:]
			continue
		}
		want := frameHead
		if f.have > 0 && f.head[0] == frameHeader {
			want += headerFixed
		}
		n := copy(f.head[f.have:want], b)
		f.have += n
		b = b[n:]
		if f.have < want || (f.have == frameHead && f.head[0] == frameHeader) {
			continue
		}
		f.begin(header)
	}
}

// begin reads the head of a frame that is there as far as it matters.
func (f *frameReader) begin(header func(int64)) {
	payload := int64(binary.BigEndian.Uint32(f.head[offsetLen:]))
	f.skip = payload + frameEnd
	f.body = f.head[0] == frameBody
	if f.head[0] == frameHeader {
		f.skip -= headerFixed
		header(int64(binary.BigEndian.Uint64(f.head[offsetSize:]))) //nolint:gosec // a broker that claims more than 2^63 bytes only opens the gate
	}
	f.have = 0
}
