package amqp

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// frames returns the bytes of a delivery with a body of size bytes, as RabbitMQ sends them.
func frames(size, frameMax int) []byte {
	frame := func(b []byte, kind byte, payload []byte) []byte {
		b = append(b, kind, 0, 1)
		b = binary.BigEndian.AppendUint32(b, uint32(len(payload))) //nolint:gosec // small
		return append(append(b, payload...), 0xce)
	}
	method := []byte{0, 60, 0, 60, 3, 'a', 'b', 'c'}
	header := []byte{0, 60, 0, 0}
	header = binary.BigEndian.AppendUint64(header, uint64(size)) //nolint:gosec // not negative
	header = append(header, 0x10, 0, 2)
	b := frame(nil, 1, method)
	b = frame(b, frameHeader, header)
	for chunk := range slices.Chunk(make([]byte, size), frameMax-8) {
		b = frame(b, frameBody, chunk)
	}
	return frame(b, 8, nil) // a heartbeat
}

// However the stream is cut into pieces, the gate sees each body, whole.
func TestGateFollowsFramesInAnyPieces(t *testing.T) {
	sizes := []int{0, 1, 10, 4096, 70_000, 0, 3}
	var stream []byte
	total := int64(0)
	for _, size := range sizes {
		stream = append(stream, frames(size, 4096)...)
		total += int64(size)
	}
	for range 200 {
		g := newGate(1 << 40)
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(1+rand.IntN(9000)))
			g.saw(rest[:n])
			rest = rest[n:]
		}
		count, bytes := g.load()
		if count != len(sizes) || bytes != total || g.missing != 0 {
			t.Fatalf("saw %d messages of %d bytes with %d to come, not %d of %d", count, bytes, g.missing, len(sizes), total)
		}
		if n := g.settle(4, false); n != 1 {
			t.Fatalf("settled %d", n)
		}
		if n := g.settle(6, true); n != 5 {
			t.Fatalf("settled %d", n)
		}
		if n := g.settle(6, true) + g.settle(99, true); n != 0 {
			t.Fatalf("settled %d that were not held", n)
		}
		if count, bytes := g.load(); count != 1 || bytes != 3 {
			t.Fatalf("holds %d messages of %d bytes at the end", count, bytes)
		}
	}
}

func TestGateShutsAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1000)
		passes := func() bool {
			passed := make(chan struct{})
			go func() { g.wait(); close(passed) }()
			synctest.Wait()
			select {
			case <-passed:
				return true
			default:
				g.wave() // lets the waiter end
				<-passed
				g.waved = false
				return false
			}
		}
		large := frames(5000, 2000)
		g.saw(large[:100])
		if !passes() {
			t.Error("a large message alone is kept from coming in whole")
		}
		g.saw(large[100:])
		if passes() {
			t.Error("open with 5000 bytes held, of 1000")
		}
		time.Sleep(time.Minute)
		if held := g.oldest(); held != time.Minute {
			t.Errorf("the oldest is held for %s", held)
		}
		g.settle(1, false)
		if !passes() || g.oldest() != 0 {
			t.Error("shut with nothing held")
		}
		g.saw(frames(600, 2000))
		if !passes() {
			t.Error("shut with 600 bytes held, of 1000")
		}
		g.saw(large[:100])
		if passes() {
			t.Error("open with one message held, and another announced that goes over the limit")
		}
	})
}
