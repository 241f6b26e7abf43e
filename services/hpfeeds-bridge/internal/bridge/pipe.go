package bridge

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"spamtraps.internal/libs/hpfeeds"
)

const (
	// quiet is how long a new connection has to stay without an ERROR frame before mail is written to it. A good login has no answer.
	quiet = 250 * time.Millisecond
	// trial and linger are how long the broker may take to answer with an ERROR frame after its machine has all bytes, where nothing else tells. A no
	// comes to the first mails of a connection, when ident or channel are not allowed; they are only confirmed when it has had much time for that. All that
	// follow wait less, because what waits keeps others from coming.
	trial, linger = time.Second, 5 * time.Millisecond
	// fenceLimit is how long the first token may take, which also waits for the subscription.
	fenceLimit = 10 * time.Second
	// tokenEvery is how often the first token is sent until it comes back: the subscription goes over another connection, and may be processed later.
	tokenEvery = 100 * time.Millisecond
	// stalledLimit is how long nothing may move while mail is on its way.
	stalledLimit = time.Minute
	// idleLimit is how long a connection may be idle before it is not trusted with mail any more: proxies cut idle ones, some at 180 s, and the first
	// write after that is lost. A fence sends a token then; drained makes a new connection before the next mail.
	idleLimit = time.Minute
	// refusedFor is how long auto does without a fence after the broker has refused it.
	refusedFor = 10 * time.Minute
	// doubtful is how many fences in a row may fail without a clear word, before auto does without.
	doubtful = 3
)

// connection is what the bridge needs of an hpfeeds.Conn.
type connection interface {
	Publish(channel string, payload []byte) error
	Flush() error
	Unsent() (int, error)
	Subscribe(channels ...string) error
	Receive(ctx context.Context) (hpfeeds.Message, error)
	Idle() time.Duration
	Done() <-chan struct{}
	Err() error
	Close() error
}

// pipe is a way to the hpfeeds broker, proven as far as the protocol lets it be: one connection to publish on and, with a fence, another one
// that sees come back what was published.
type pipe struct {
	connection
	echo    connection // nil: drained
	channel string     // the fence's
	name    []byte     // of this pipe, in its tokens
	tokens  chan uint64
	last    uint64 // token

	proven  bool  // drained: the trial is over
	written int64 // bytes of payloads that have been published; what the frames add is not counted, so that a claim is never too early
	stop    context.CancelFunc
	ended   chan struct{} // the echo's listener
}

// mode is the way of confirming, in the word of BRIDGE_CONFIRM.
func (p *pipe) mode() string {
	if p.echo != nil {
		return confirmFence
	}
	return confirmDrained
}

// patience is how long the broker may take to say no, where there is no fence.
func (p *pipe) patience() time.Duration {
	if p.proven {
		return linger
	}
	return trial
}

// open returns a new pipe. Its error is why there is none, and the broker's fault or the settings'.
func (b *Bridge) open(ctx context.Context) (*pipe, error) {
	if !b.wantsFence() {
		return b.openDrained(ctx)
	}
	p, err := b.openFence(ctx)
	if err == nil {
		b.fenceFailures = 0
		return p, nil
	}
	if b.cfg.Confirm == confirmFence || ctx.Err() != nil || !b.givesUpFence(err) {
		return nil, err
	}
	b.log.Warn().Err(err).Str("channel", b.cfg.FenceChannel).Msg("the fence cannot be used, so mails count as published when the broker's machine has all of their bytes (drained)")
	return b.openDrained(ctx)
}

func (b *Bridge) wantsFence() bool {
	return b.cfg.FenceChannel != "" && (b.cfg.Confirm != confirmAuto || !time.Now().Before(b.fenceAgain))
}

// givesUpFence tells whether auto goes on without a fence after this failure: at once when the broker says that it is not allowed, and when
// it fails again and again without a word while the broker can be reached.
func (b *Bridge) givesUpFence(err error) bool {
	failure := fenceError{}
	if !errors.As(err, &failure) {
		return false
	}
	b.fenceFailures++
	var e *hpfeeds.Error
	refused := errors.As(err, &e) && e.Reason == hpfeeds.ReasonRights
	if !refused && b.fenceFailures < doubtful {
		return false
	}
	b.fenceAgain = time.Now().Add(refusedFor)
	return true
}

// fenceError is a failure of the fence, on connections that could be made.
type fenceError struct {
	channel string
	cause   error
}

func (e fenceError) Error() string { return fmt.Sprintf("fence on channel %q: %s", e.channel, e.cause) }
func (e fenceError) Unwrap() error { return e.cause }

func (b *Bridge) openDrained(ctx context.Context) (*pipe, error) {
	conn, err := b.dial(ctx)
	if err != nil {
		return nil, err
	}
	calm := time.NewTimer(quiet)
	defer calm.Stop()
	select {
	case <-calm.C:
		return &pipe{connection: conn}, nil
	case <-conn.Done():
		err = conn.Err()
	case <-ctx.Done():
		err = ctx.Err()
	}
	_ = conn.Close()
	return nil, err
}

func (b *Bridge) openFence(ctx context.Context) (*pipe, error) {
	conn, err := b.dial(ctx)
	if err != nil {
		return nil, err
	}
	echo, err := b.dial(ctx)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	p := &pipe{connection: conn, echo: echo, channel: b.cfg.FenceChannel, name: newName(), tokens: make(chan uint64, 1), ended: make(chan struct{})}
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	go p.listen(listening)
	if err := p.prove(ctx); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// newName returns what no other bridge has in its tokens, on the same channel.
func newName() []byte {
	random := make([]byte, 12)
	_, _ = rand.Read(random) // never fails (crypto/rand)
	return append([]byte("hpfeeds-bridge "), hex.EncodeToString(random)...)
}

// prove has a token come back before any mail is written.
func (p *pipe) prove(ctx context.Context) error {
	if err := p.echo.Subscribe(p.channel); err != nil {
		return fenceError{p.channel, err}
	}
	limit, again := time.NewTimer(fenceLimit), time.NewTicker(tokenEvery)
	defer limit.Stop()
	defer again.Stop()
	for {
		if _, err := p.token(); err != nil {
			return fenceError{p.channel, err}
		}
		select {
		case <-p.tokens:
			return nil
		case <-again.C:
		case <-p.Done():
			return fenceError{p.channel, p.Err()}
		case <-p.echo.Done():
			return fenceError{p.channel, p.echo.Err()}
		case <-limit.C:
			return fenceError{p.channel, fmt.Errorf("no token came back within %s: may HPFEEDS_IDENT publish to it and subscribe to it?", fenceLimit)}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// token publishes the next token and sends all that has gathered.
func (p *pipe) token() (uint64, error) {
	p.last++
	if err := p.Publish(p.channel, binary.BigEndian.AppendUint64(bytes.Clone(p.name), p.last)); err != nil {
		return 0, err
	}
	return p.last, p.Flush()
}

// listen hands on what comes back. It forgets older tokens for a newer one, which says as much.
func (p *pipe) listen(ctx context.Context) {
	defer close(p.ended)
	for {
		m, err := p.echo.Receive(ctx)
		if err != nil {
			return
		}
		number, ours := bytes.CutPrefix(m.Payload, p.name)
		if !ours || len(number) != 8 {
			continue // another bridge's
		}
		select {
		case <-p.tokens:
		default:
		}
		select {
		case p.tokens <- binary.BigEndian.Uint64(number):
		case <-ctx.Done():
			return
		}
	}
}

// fate is the channel that is closed when the second connection has failed; it never is without one.
func (p *pipe) fate() <-chan struct{} {
	if p.echo == nil {
		return nil
	}
	return p.echo.Done()
}

// close ends both connections.
func (p *pipe) close() {
	_ = p.Close()
	if p.echo != nil {
		_ = p.echo.Close()
		p.stop()
		<-p.ended
	}
}
