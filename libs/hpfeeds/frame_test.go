package hpfeeds_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"spamtraps.internal/libs/hpfeeds"
)

// referenceLine is what the reference client or broker sends for a call.
type referenceLine struct {
	who, call string
	frame     []byte
}

var (
	referenceNonce   = []byte{0x00, 0xff, 0x7e, 0x81}
	referenceSecrets = map[string]string{"writer": "geheim", "reader": "sécret"}
)

func reference(t *testing.T) (lines []referenceLine) {
	t.Helper()
	raw, err := os.ReadFile("testdata/reference.txt")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		parts := strings.Split(strings.TrimSpace(line), "\t")
		if strings.HasPrefix(line, "#") {
			continue
		}
		frame, err := hex.DecodeString(parts[2])
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, referenceLine{parts[0], parts[1], frame})
	}
	if len(lines) < 12 {
		t.Fatalf("only %d lines", len(lines))
	}
	return lines
}

// TestReference: the codec makes the reference's bytes for the same calls, and reads them.
func TestReference(t *testing.T) {
	for _, line := range reference(t) {
		t.Run(line.who+" "+line.call, func(t *testing.T) {
			words := append(strings.Split(line.call, " "), "")
			var want []byte
			switch words[0] {
			case "login":
				want = hpfeeds.AppendAuth(nil, words[1], referenceNonce, referenceSecrets[words[1]])
			case "publish":
				payload, _ := hex.DecodeString(words[3])
				want = append(hpfeeds.AppendPublish(nil, words[1], words[2], len(payload)), payload...)
			case "subscribe":
				want = hpfeeds.AppendSubscribe(nil, words[1], words[2])
			case "unsubscribe":
				want = hpfeeds.AppendUnsubscribe(nil, words[1], words[2])
			case "info":
				want = hpfeeds.AppendInfo(nil, words[1], referenceNonce)
			case "error":
				want = hpfeeds.AppendError(nil, strings.TrimPrefix(line.call, "error "))
			default:
				t.Fatalf("unknown call %q", line.call)
			}
			if !bytes.Equal(want, line.frame) {
				t.Errorf("we make %x, the reference %x", want, line.frame)
			}
			frames, err := readAll(line.frame, 0)
			if !errors.Is(err, io.EOF) || len(frames) != 1 {
				t.Fatalf("read %d frames: %v", len(frames), err)
			}
			if got := frames[0].encode(); !bytes.Equal(got, line.frame) {
				t.Errorf("read as %+v, which is %x", frames[0], got)
			}
		})
	}
}

// whole is a frame with its body.
type whole struct {
	hpfeeds.Frame
	body []byte
}

// encode makes the bytes of a frame again.
func (w whole) encode() []byte {
	var head []byte
	switch w.Op {
	case hpfeeds.OpError:
		head = hpfeeds.AppendHeader(nil, w.Op, w.Size)
	case hpfeeds.OpInfo, hpfeeds.OpAuth:
		head = hpfeeds.AppendHeader(nil, w.Op, 1+len(w.Name)+w.Size)
		head = append(append(head, byte(len(w.Name))), w.Name...)
	case hpfeeds.OpPublish:
		head = hpfeeds.AppendPublish(nil, w.Name, w.Channel, w.Size)
	case hpfeeds.OpSubscribe:
		head = hpfeeds.AppendSubscribe(nil, w.Name, w.Channel)
	case hpfeeds.OpUnsubscribe:
		head = hpfeeds.AppendUnsubscribe(nil, w.Name, w.Channel)
	}
	return append(head, w.body...)
}

// readAll reads frames to the first error.
func readAll(stream []byte, limit int) (frames []whole, err error) {
	r := hpfeeds.NewReader(bytes.NewReader(stream), limit)
	for {
		f, err := r.Next()
		if err != nil {
			return frames, err
		}
		body, err := r.Body()
		if err != nil {
			return frames, err
		}
		frames = append(frames, whole{f, body})
	}
}

func frame(length uint32, op byte, body string) []byte {
	return append(append(binary.BigEndian.AppendUint32(nil, length), op), body...)
}

func TestRefusedFrames(t *testing.T) {
	for _, test := range []struct {
		name   string
		stream []byte
		want   string
	}{
		{"length 0", frame(0, 1, "\x01x1234"), "claims to have 0 bytes"},
		{"length 4", frame(4, 1, "\x01x1234"), "claims to have 4 bytes"},
		{"negative", frame(0xffffffff, 1, "\x01x1234"), "an INFO of 4294967295 bytes, more than the 65536"},
		{"huge publish", frame(1<<30, 3, "\x01x\x01y"), "a PUBLISH of 1073741824 bytes, more than the 1048581"},
		{"one byte too many", frame(hpfeeds.MaxFrame+1, 3, "\x01x\x01y"), "more than the 1048581"},
		{"huge error", frame(65537, 0, ""), "an ERROR of 65537 bytes"},
		{"huge auth", frame(500, 2, ""), "an AUTH of 500 bytes"},
		{"huge subscribe", frame(600, 4, ""), "a SUBSCRIBE of 600 bytes"},
		{"opcode 6", frame(5, 6, ""), "unknown opcode 6"},
		{"opcode 255", frame(5, 255, ""), "unknown opcode 255"},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), "unknown opcode 47"},
		{"info without anything", frame(5, 1, ""), "ends before the broker's name"},
		{"info without a nonce", frame(7, 1, "\x01x"), "without a nonce"},
		{"info whose name runs over", frame(7, 1, "\x02x"), "the broker's name runs over"},
		{"auth with a short digest", frame(7+19, 2, "\x01x"+strings.Repeat("d", 19)), "a digest of 19 bytes"},
		{"auth with a long digest", frame(7+21, 2, "\x01x"+strings.Repeat("d", 21)), "a digest of 21 bytes"},
		{"publish without anything", frame(5, 3, ""), "ends before the ident"},
		{"publish without a channel", frame(7, 3, "\x01x"), "ends before the channel"},
		{"publish whose ident runs over", frame(8, 3, "\xffxy"), "the ident runs over"},
		{"publish whose channel runs over", frame(9, 3, "\x01x\x02y"), "the channel runs over"},
		{"subscribe with a long channel", frame(5+2+256, 4, "\x01x"+strings.Repeat("c", 256)), "a channel of 256 bytes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := readAll(append(test.stream, make([]byte, 300)...), 0)
			var protocol *hpfeeds.ProtocolError
			if !errors.As(err, &protocol) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want a ProtocolError with %q", err, test.want)
			}
		})
	}
}

// TestErrorSticks: what comes behind a broken frame is never taken for frames.
func TestErrorSticks(t *testing.T) {
	stream := append(frame(5, 99, ""), hpfeeds.AppendError(nil, "a good frame")...)
	r := hpfeeds.NewReader(bytes.NewReader(stream), 0)
	_, first := r.Next()
	if first == nil {
		t.Fatal("opcode 99 is a frame")
	}
	_, next := r.Next()
	_, body := r.Body()
	for what, err := range map[string]error{"Next": next, "Body": body, "Skip": r.Skip(), "Wait": r.Wait()} {
		if !errors.Is(err, first) {
			t.Errorf("%s after the error: %v", what, err)
		}
	}
}

// TestCutFrames: a stream that ends is io.EOF between frames and nowhere else, wherever it ends and however it is cut into reads.
func TestCutFrames(t *testing.T) {
	for _, line := range reference(t) {
		for end := range line.frame {
			_, err := readAll(line.frame[:end], 0)
			if want := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[end == 0]; !errors.Is(err, want) {
				t.Fatalf("%s cut after %d bytes: %v, not %v", line.call, end, err, want)
			}
		}
		r := hpfeeds.NewReader(iotest.OneByteReader(bytes.NewReader(append(line.frame, line.frame...))), 0)
		for range 2 { // Skip and Next must agree on where frames begin
			if _, err := r.Next(); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Wait(); !errors.Is(err, io.EOF) {
			t.Fatalf("%s: after all is read: %v", line.call, err)
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatalf("%s: the error does not stick: %v", line.call, err)
		}
	}
}

// TestLimit: the limit is on the whole frame, to the byte, and a frame over it takes no memory.
func TestLimit(t *testing.T) {
	most := int(hpfeeds.MaxPayload("writer", "spam.mails"))
	if most != 1048558 { // as tried with the Python broker
		t.Fatalf("MaxPayload is %d", most)
	}
	stream := append(hpfeeds.AppendPublish(nil, "writer", "spam.mails", most), make([]byte, most)...)
	if len(stream) != hpfeeds.MaxFrame {
		t.Fatalf("the largest frame has %d bytes", len(stream))
	}
	frames, err := readAll(stream, 0)
	if len(frames) != 1 || len(frames[0].body) != most {
		t.Fatalf("the largest frame: %v", err)
	}
	over := hpfeeds.AppendPublish(nil, "writer", "spam.mails", most+1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 100 {
		if frames, err := readAll(over, 0); len(frames) != 0 || !errors.As(err, new(*hpfeeds.ProtocolError)) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if took := (after.TotalAlloc - before.TotalAlloc) / 100; took > 128<<10 {
		t.Errorf("a frame over the limit takes %d bytes", took)
	}
	if frames, err := readAll(append(over, make([]byte, most+1)...), hpfeeds.MaxFrame+1); len(frames) != 1 {
		t.Errorf("with a larger limit: %v", err)
	}
}

// endless repeats a frame.
type endless struct {
	frame []byte
	at    int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.frame[e.at:])
	e.at = (e.at + n) % len(e.frame)
	return n, nil
}

// TestAllocations: reading a frame takes memory for its payload, and nothing else.
func TestAllocations(t *testing.T) {
	stream := append(hpfeeds.AppendPublish(nil, "writer", "spam.mails", 1000), make([]byte, 1000)...)
	stream = append(append(stream, hpfeeds.AppendPublish(nil, "writer", "spam.other", 1000)...), make([]byte, 1000)...)
	r := hpfeeds.NewReader(&endless{frame: stream}, 0)
	next := func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(1000, next); n != 0 {
		t.Errorf("%v allocations a skipped frame", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		next()
		if body, err := r.Body(); err != nil || len(body) != 1000 {
			t.Fatal(err)
		}
	}); n != 1 {
		t.Errorf("%v allocations a frame, want its payload's", n)
	}
}

// FuzzReader: whatever comes is read as frames that are those bytes, or refused.
func FuzzReader(f *testing.F) {
	f.Add([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
	f.Add(frame(0xffffffff, 3, "\x01x\x01y"))
	f.Add(bytes.Join([][]byte{
		hpfeeds.AppendInfo(nil, "b", []byte{1}), hpfeeds.AppendError(nil, "no"), hpfeeds.AppendSubscribe(nil, "i", "c"),
		append(hpfeeds.AppendPublish(nil, "i", "c", 3), "abc"...),
	}, nil))
	f.Fuzz(func(t *testing.T, stream []byte) {
		frames, err := readAll(stream, 4096)
		var again []byte
		for _, w := range frames {
			again = append(again, w.encode()...)
		}
		if !bytes.HasPrefix(stream, again) {
			t.Fatalf("read as %x", again)
		}
		if errors.Is(err, io.EOF) && len(again) != len(stream) {
			t.Fatalf("%d of %d bytes read, and then io.EOF", len(again), len(stream))
		}
	})
}

// FuzzFields: every field of every frame comes out as it went in.
func FuzzFields(f *testing.F) {
	f.Add(uint8(0), "", "", []byte("no"))
	f.Add(uint8(1), "broker", "", []byte{1, 2, 3, 4})
	f.Add(uint8(2), "ident", "secret", []byte{0})
	f.Add(uint8(3), "writer", "spam.mails", []byte("a mail"))
	f.Add(uint8(4), "reader", "spam.mails", []byte(nil))
	f.Add(uint8(5), strings.Repeat("i", 255), strings.Repeat("\xff", 255), []byte(nil))
	f.Fuzz(func(t *testing.T, op uint8, name, channel string, body []byte) {
		if len(name) > 255 || len(channel) > 255 || len(body) > 4000 {
			return
		}
		want := whole{hpfeeds.Frame{Op: hpfeeds.Opcode(op % 6)}, body}
		switch want.Op {
		case hpfeeds.OpError:
		case hpfeeds.OpInfo:
			if want.Name = name; len(body) == 0 {
				return
			}
		case hpfeeds.OpAuth:
			digest := hpfeeds.Digest(body, channel)
			want.Name, want.body = name, digest[:]
		case hpfeeds.OpPublish:
			want.Name, want.Channel = name, channel
		default:
			want.Name, want.Channel, want.body = name, channel, nil
		}
		want.Size = len(want.body)
		frames, err := readAll(want.encode(), 0)
		if !errors.Is(err, io.EOF) || len(frames) != 1 || fmt.Sprint(frames[0].Frame) != fmt.Sprint(want.Frame) || !bytes.Equal(frames[0].body, want.body) {
			t.Fatalf("%+v came out as %+v: %v", want, frames, err)
		}
	})
}
