package hpfeeds

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // the protocol's choice
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Opcode tells what a frame is.
type Opcode uint8

// The opcodes that there are.
const (
	OpError Opcode = iota
	OpInfo
	OpAuth
	OpPublish
	OpSubscribe
	OpUnsubscribe
)

var opcodeNames = [...]string{"ERROR", "INFO", "AUTH", "PUBLISH", "SUBSCRIBE", "UNSUBSCRIBE"}

// String returns the opcode's name.
func (op Opcode) String() string {
	if int(op) < len(opcodeNames) {
		return opcodeNames[op]
	}
	return fmt.Sprintf("opcode %d", uint8(op))
}

const (
	// HeaderSize is the size of what every frame begins with: its length and its opcode.
	HeaderSize = 5
	// MaxFrame is the length of the largest frame that the Python broker and its client take.
	MaxFrame = HeaderSize + 1<<20
	// MaxName is the length of the longest ident or channel. The wire could carry 255 bytes; but brokers that count in signed bytes, or
	// both names as one, exist.
	MaxName = 127
	// maxShort is how long an ERROR or an INFO may be. The longest that was seen has less than a hundred bytes.
	maxShort = 64 << 10
	// digestSize is the length of what AUTH proves the secret with.
	digestSize = sha1.Size
)

// MaxPayload returns the size of the largest payload that fits into the largest frame of the Python broker, for a publisher and a channel.
func MaxPayload(ident, channel string) int64 {
	return MaxFrame - HeaderSize - 2 - int64(len(ident)) - int64(len(channel))
}

// Frame is one frame, without what comes after its names.
type Frame struct {
	Op Opcode
	// Name is the broker's name in an INFO, the ident of the client in the others, and empty in an ERROR.
	Name string
	// Channel is that of a PUBLISH, SUBSCRIBE or UNSUBSCRIBE.
	Channel string
	// Size is how many bytes follow: the text of an ERROR, the nonce of an INFO, the digest of an AUTH, the payload of a PUBLISH.
	Size int
}

// ProtocolError is a frame that is none, or not one that may come now.
type ProtocolError struct{ Problem string }

// Error says what is wrong with the frame.
func (e *ProtocolError) Error() string { return e.Problem }

func broken(format string, args ...any) error { return &ProtocolError{fmt.Sprintf(format, args...)} }

// Reader reads frames. The first error is final: every later call returns it. It is not safe for concurrent use.
type Reader struct {
	in    *bufio.Reader
	limit int
	left  int // of the frame at hand
	err   error
	names map[string]string // those seen, so that a frame needs no new strings
	buf   [256]byte
}

// NewReader returns a reader of frames from r that refuses a PUBLISH longer than limit bytes (0: MaxFrame) before it takes memory for it.
// All other frames have limits of their own.
func NewReader(r io.Reader, limit int) *Reader {
	if limit <= 0 {
		limit = MaxFrame
	}
	return &Reader{in: bufio.NewReaderSize(r, 64<<10), limit: limit, names: make(map[string]string)}
}

// Wait waits until a frame begins, without taking anything of it. What is left of the frame before is skipped.
func (r *Reader) Wait() error {
	if err := r.Skip(); err != nil {
		return err
	}
	if _, err := r.in.Peek(1); err != nil {
		return r.fail(err)
	}
	return nil
}

// Next reads the next frame up to the end of its names; what is left of the one before is skipped. Frame.Size more bytes can be had with
// Body. It returns io.EOF only where a frame may end, and a *ProtocolError for what is no frame.
func (r *Reader) Next() (Frame, error) {
	if err := r.Skip(); err != nil {
		return Frame{}, err
	}
	f, err := r.next()
	if err != nil {
		return Frame{}, r.fail(err)
	}
	f.Size = r.left
	return f, nil
}

func (r *Reader) next() (f Frame, err error) {
	if _, err := io.ReadFull(r.in, r.buf[:HeaderSize]); err != nil {
		return f, err
	}
	length := int64(binary.BigEndian.Uint32(r.buf[:4]))
	f.Op = Opcode(r.buf[4])
	if err := r.check(f.Op, length); err != nil {
		return f, err
	}
	r.left = int(length) - HeaderSize
	switch f.Op {
	case OpError:
	case OpInfo:
		if f.Name, err = r.name("the broker's name"); err == nil && r.left == 0 {
			err = broken("an INFO without a nonce")
		}
	case OpAuth:
		if f.Name, err = r.name("the ident"); err == nil && r.left != digestSize {
			err = broken("an AUTH with a digest of %d bytes", r.left)
		}
	case OpPublish:
		if f.Name, err = r.name("the ident"); err == nil {
			f.Channel, err = r.name("the channel")
		}
	case OpSubscribe, OpUnsubscribe:
		if f.Name, err = r.name("the ident"); err == nil {
			f.Channel, err = r.rest()
		}
	}
	return f, unexpected(err)
}

// check refuses what no frame of that kind can have as its length.
func (r *Reader) check(op Opcode, length int64) error {
	if int(op) >= len(opcodeNames) {
		return broken("a frame with the unknown opcode %d", uint8(op))
	}
	limit := int64(maxShort)
	switch op {
	case OpPublish:
		limit = int64(r.limit)
	case OpAuth:
		limit = HeaderSize + 1 + 255 + digestSize
	case OpSubscribe, OpUnsubscribe:
		limit = HeaderSize + 1 + 255 + 255
	}
	switch {
	case length < HeaderSize:
		return broken("%s that claims to have %d bytes, less than its header", article(op), length)
	case length > limit:
		return broken("%s of %d bytes, more than the %d that are allowed", article(op), length, limit)
	}
	return nil
}

func article(op Opcode) string {
	switch op {
	case OpError, OpInfo, OpAuth, OpUnsubscribe:
		return "an " + op.String()
	}
	return "a " + op.String()
}

// name reads a name with its length before it.
func (r *Reader) name(what string) (string, error) {
	if r.left == 0 {
		return "", broken("a frame that ends before %s", what)
	}
	length, err := r.in.ReadByte()
	if err != nil {
		return "", err
	}
	r.left--
	if int(length) > r.left {
		return "", broken("%s runs over the end of its frame", what)
	}
	return r.text(int(length))
}

// rest reads all that is left of the frame as a name.
func (r *Reader) rest() (string, error) {
	if r.left > 255 {
		return "", broken("a channel of %d bytes", r.left)
	}
	return r.text(r.left)
}

func (r *Reader) text(length int) (string, error) {
	if _, err := io.ReadFull(r.in, r.buf[:length]); err != nil {
		return "", err
	}
	r.left -= length
	if known, ok := r.names[string(r.buf[:length])]; ok {
		return known, nil
	}
	if len(r.names) >= 64 {
		clear(r.names)
	}
	name := string(r.buf[:length])
	r.names[name] = name
	return name, nil
}

// Body returns what is left of the frame, in memory of its own.
func (r *Reader) Body() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	body := make([]byte, r.left)
	if _, err := io.ReadFull(r.in, body); err != nil {
		return nil, r.fail(unexpected(err))
	}
	r.left = 0
	return body, nil
}

// Skip drops what is left of the frame; it takes no memory.
func (r *Reader) Skip() error {
	if r.err != nil {
		return r.err
	}
	n, err := r.in.Discard(r.left)
	r.left -= n
	if err != nil {
		return r.fail(unexpected(err))
	}
	return nil
}

func (r *Reader) fail(err error) error {
	r.err = err
	return err
}

// unexpected turns an end within a frame into the error that it is.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// AppendHeader appends the header of a frame whose body has size bytes.
func AppendHeader(b []byte, op Opcode, size int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(HeaderSize+size))
	return append(b, byte(op))
}

func appendName(b []byte, name string) []byte { return append(append(b, byte(len(name))), name...) }

// AppendError appends an ERROR frame.
func AppendError(b []byte, text string) []byte {
	return append(AppendHeader(b, OpError, len(text)), text...)
}

// AppendInfo appends an INFO frame. The name has at most 255 bytes.
func AppendInfo(b []byte, broker string, nonce []byte) []byte {
	b = AppendHeader(b, OpInfo, 1+len(broker)+len(nonce))
	return append(appendName(b, broker), nonce...)
}

// AppendAuth appends the AUTH frame that answers a nonce.
func AppendAuth(b []byte, ident string, nonce []byte, secret string) []byte {
	b = AppendHeader(b, OpAuth, 1+len(ident)+digestSize)
	digest := Digest(nonce, secret)
	return append(appendName(b, ident), digest[:]...)
}

// Digest returns what proves that one knows the secret: SHA1(nonce ‖ secret).
func Digest(nonce []byte, secret string) [digestSize]byte {
	return sha1.Sum(append(append(make([]byte, 0, len(nonce)+len(secret)), nonce...), secret...)) //nolint:gosec // the protocol's choice
}

// AppendPublish appends a PUBLISH frame up to where its payload of size bytes begins.
func AppendPublish(b []byte, ident, channel string, size int) []byte {
	b = AppendHeader(b, OpPublish, 2+len(ident)+len(channel)+size)
	return appendName(appendName(b, ident), channel)
}

// AppendSubscribe appends a SUBSCRIBE frame.
func AppendSubscribe(b []byte, ident, channel string) []byte {
	return appendSubscribe(b, OpSubscribe, ident, channel)
}

// AppendUnsubscribe appends an UNSUBSCRIBE frame.
func AppendUnsubscribe(b []byte, ident, channel string) []byte {
	return appendSubscribe(b, OpUnsubscribe, ident, channel)
}

func appendSubscribe(b []byte, op Opcode, ident, channel string) []byte {
	b = AppendHeader(b, op, 1+len(ident)+len(channel))
	return append(appendName(b, ident), channel...)
}
