package hpfeeds

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is one connection to a broker, logged in. It publishes, and receives what it has subscribed to; a goroutine of its own reads, so
// that an ERROR frame, an end or a reset ends it (Done) even while nobody calls it. The first failure is final: every later call returns
// it. There is no reconnect: who needs one makes another Conn, after a pause (Backoff).
//
// Nothing that was published is known to have arrived: not when Publish or Flush returns, not when Unsent is 0, and after a failure
// everything that was published over the Conn may or may not have. All methods are safe for concurrent use, but Publish and Flush wait
// for each other.
type Conn struct {
	ident    string
	broker   string
	limit    func(channel string) int64
	link     *link
	in       *Reader
	loggedIn time.Time
	messages chan Message
	done     chan struct{}

	wmu     sync.Mutex // of all that follows up to the next mutex; held while writing
	out     *bufio.Writer
	frame   []byte // the head of the frame that is being written
	checked string // a channel that is fit

	gathered atomic.Int64 // bytes that are not with the kernel yet

	mu         sync.Mutex
	err        *Error
	subscribed map[string]bool
	skipped    int64
}

// Message is what came over a channel.
type Message struct {
	// Ident is that of the publisher, as the broker tells it. A name of a stranger's: Sanitize it before it is shown.
	Ident string
	// Channel is one that was subscribed to.
	Channel string
	// Payload belongs to the receiver.
	Payload []byte
}

func newConn(cfg *Config, o Options, conn net.Conn, link *link) *Conn {
	return &Conn{
		ident: cfg.Ident, limit: cfg.PayloadLimit, link: link,
		in: NewReader(conn, o.MaxFrame), out: bufio.NewWriterSize(conn, writeBuffer),
		messages: make(chan Message), done: make(chan struct{}), subscribed: make(map[string]bool),
	}
}

// Broker returns the name that the broker gave itself, printable and of at most 255 characters. It may be empty.
func (c *Conn) Broker() string { return c.broker }

// Publish gathers a message to be sent; Flush sends it. When more than 128 KiB have gathered it sends them itself, and then blocks while
// the broker's side does not read, for at most 30 s without any progress. The payload may be reused when it returns. A payload or a channel
// that no frame can carry is a permanent *Error with ReasonName and leaves the Conn as it is; any other error has ended it.
func (c *Conn) Publish(channel string, payload []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if channel != c.checked {
		if problem := CheckName(channel); problem != "" {
			return unfit("the channel %s", problem)
		}
		c.checked = channel
	}
	if most := c.limit(channel); int64(len(payload)) > most {
		return unfit("the payload has %d bytes, and %d fit for channel %q", len(payload), most, channel)
	}
	if err := c.Err(); err != nil {
		return err
	}
	c.frame = AppendPublish(c.frame[:0], c.ident, channel, len(payload))
	c.gathered.Store(int64(c.out.Buffered() + len(c.frame) + len(payload)))
	defer func() { c.gathered.Store(int64(c.out.Buffered())) }()
	if _, err := c.out.Write(c.frame); err != nil {
		return c.failWrite(err)
	}
	if _, err := c.out.Write(payload); err != nil {
		return c.failWrite(err)
	}
	return nil
}

func unfit(format string, args ...any) *Error {
	return &Error{Permanent: true, Reason: ReasonName, Err: fmt.Errorf("hpfeeds: cannot publish: "+format, args...)}
}

// Flush sends what has gathered. It returns when the kernel has it, and blocks as Publish does. An error has ended the Conn.
func (c *Conn) Flush() error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.Err(); err != nil {
		return err
	}
	defer func() { c.gathered.Store(int64(c.out.Buffered())) }()
	if err := c.out.Flush(); err != nil {
		return c.failWrite(err)
	}
	return nil
}

// Unsent returns how many bytes have been published, but not acknowledged by the kernel at the broker's side; 0 means that all of them have
// reached its machine, or that of a proxy before it, which is not to say that the broker has read them. It needs a real socket. It
// never blocks, also not while Publish does. After a failure it returns that.
func (c *Conn) Unsent() (int, error) {
	gathered := c.gathered.Load() // before the kernel is asked, or bytes on their way into it would be seen by neither
	n, err := unacknowledged(c.link.Conn)
	if err != nil {
		return 0, c.fail(err)
	}
	if err := c.Err(); err != nil {
		return 0, err
	}
	return int(gathered) + n, nil
}

// Subscribe asks for the messages of channels; Receive returns them. It does not know whether the broker allows it: one that does not ends
// the Conn. It sends all that has gathered. Its errors are Publish's.
func (c *Conn) Subscribe(channels ...string) error {
	return c.subscribe(channels, AppendSubscribe, true)
}

// Unsubscribe asks for no more messages of channels. Those that come all the same are skipped. Its errors are Publish's.
func (c *Conn) Unsubscribe(channels ...string) error {
	return c.subscribe(channels, AppendUnsubscribe, false)
}

func (c *Conn) subscribe(channels []string, frame func(b []byte, ident, channel string) []byte, on bool) error {
	for _, channel := range channels {
		if problem := CheckName(channel); problem != "" {
			return unfit("the channel %s", problem)
		}
	}
	c.mu.Lock()
	for _, channel := range channels {
		if on {
			c.subscribed[channel] = true
		} else {
			delete(c.subscribed, channel)
		}
	}
	c.mu.Unlock()
	var frames []byte
	for _, channel := range channels {
		frames = frame(frames, c.ident, channel)
	}
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.Err(); err != nil {
		return err
	}
	defer func() { c.gathered.Store(int64(c.out.Buffered())) }()
	if err := c.send(frames); err != nil {
		return c.failWrite(err)
	}
	return nil
}

// send writes frames at once. The caller holds wmu, or is the only one who knows the Conn.
func (c *Conn) send(frames []byte) error {
	if _, err := c.out.Write(frames); err != nil {
		return err
	}
	return c.out.Flush()
}

// Receive returns the next message of a channel that was subscribed to. It blocks until one comes, the Conn has failed, or ctx ends, which
// does not end the Conn. Who does not receive makes the broker wait, and in the end cut the connection; a failure of the Conn is only
// noticed once what came before it has been received.
func (c *Conn) Receive(ctx context.Context) (Message, error) {
	select {
	case m := <-c.messages:
		return m, nil
	case <-c.done:
		return Message{}, c.Err()
	case <-ctx.Done():
		return Message{}, &Error{Reason: ReasonEnded, Err: fmt.Errorf("hpfeeds: gave up waiting for a message: %w", context.Cause(ctx))}
	}
}

// Skipped returns how many messages came that nobody had asked for. They cost no memory.
func (c *Conn) Skipped() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.skipped
}

// Done is closed when the Conn has failed or was closed; Err tells why.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the Conn has ended, an *Error, or nil while it has not.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return nil
	}
	return c.err
}

// Idle returns for how long nothing has been sent or received.
func (c *Conn) Idle() time.Duration {
	return max(0, time.Since(time.Unix(0, c.link.active.Load())))
}

// Close ends the Conn at once, and whatever waits in it. What has gathered is not sent: Flush does that. It never blocks, and returns nil.
func (c *Conn) Close() error {
	_ = c.end(&Error{Reason: ReasonEnded, Err: errClosed})
	return nil
}

var errClosed = errors.New("hpfeeds: the connection was closed by us")

// fail ends the Conn, if nothing has before, and returns why it ended.
func (c *Conn) fail(err error) error {
	return c.end(c.describe(err))
}

// failWrite ends the Conn over a write that failed. A broker that says no closes at once, while we still write: so what it has said before
// that, which lies in the kernel, is read first, because it is why.
func (c *Conn) failWrite(err error) error {
	if !errors.As(err, new(*silentError)) {
		patience := time.NewTimer(lastWords)
		defer patience.Stop()
		select {
		case <-c.done:
		case <-patience.C:
		}
	}
	return c.fail(err)
}

func (c *Conn) describe(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	e := fault("lost "+c.link.RemoteAddr().String(), err)
	if e.Reason == ReasonClosed && time.Since(c.loggedIn) < hangUpTime {
		e.Reason = ReasonHungUp
		e.Err = &explained{e.Err.Error() + " soon after the login, without a word: is ident or secret wrong, a channel not allowed, or a message too large for it?", err}
	}
	return e
}

func (c *Conn) end(e *Error) error {
	c.mu.Lock()
	if c.err == nil {
		c.err = e
		close(c.done)
	}
	e = c.err
	c.mu.Unlock()
	_ = c.link.Close() // not TLS's Close, which would first try to write
	return e
}

// read handles all that the broker sends, until the Conn ends.
func (c *Conn) read() {
	for {
		if err := c.readFrame(); err != nil {
			_ = c.fail(err)
			return
		}
	}
}

// readFrame waits for a frame as long as it takes, but not within one.
func (c *Conn) readFrame() error {
	c.link.silence.Store(0)
	if err := c.in.Wait(); err != nil {
		return err
	}
	c.link.silence.Store(int64(frameSilence))
	f, err := c.in.Next()
	if err != nil {
		return err
	}
	switch f.Op {
	case OpError:
		text, err := c.in.Body()
		if err != nil {
			return err
		}
		return fault("lost "+c.link.RemoteAddr().String(), refusal(text))
	case OpPublish:
		return c.deliver(f)
	}
	return broken("%s after the login", article(f.Op))
}

// deliver hands a message to who receives, and waits until it is taken.
func (c *Conn) deliver(f Frame) error {
	c.mu.Lock()
	wanted := c.subscribed[f.Channel]
	if !wanted {
		c.skipped++
	}
	c.mu.Unlock()
	if !wanted {
		return c.in.Skip()
	}
	payload, err := c.in.Body()
	if err != nil {
		return err
	}
	select {
	case c.messages <- Message{Ident: f.Name, Channel: f.Channel, Payload: payload}:
		return nil
	case <-c.done:
		return c.Err()
	}
}
