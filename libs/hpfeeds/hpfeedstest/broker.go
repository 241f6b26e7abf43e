// Package hpfeedstest is a small real hpfeeds broker, for tests, for the demo and for trying things out. It authenticates, has rights per
// channel and hands every message to every subscriber; it behaves like the broker in Python, or like others where they differ. It keeps no
// message for anybody who is not there, as none of them does. Script is its evil twin.
//
// It imports nothing of testing, because it also runs as a program.
package hpfeedstest

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"spamtraps.internal/libs/hpfeeds"
)

// User is somebody who may log in.
type User struct {
	Secret string
	// Publish and Subscribe are the channels that he may do that on; "*" is any.
	Publish, Subscribe []string
}

// Manners are where the brokers of this world differ.
type Manners int

// The manners that there are.
const (
	// Python closes the connection after each ERROR, and without one when a frame is too large. A publisher gets what it has subscribed to.
	Python Manners = iota
	// Tentacool answers "accessfail" and closes at the next frame; it closes without a word at empty payloads, at UNSUBSCRIBE and when a
	// frame has over 10 MiB and 5 bytes, and never sends a message back to the connection that it came from.
	Tentacool
	// HPFBroker drops what it does not like, says so, and goes on. It refuses empty payloads. Frames may be of any size; here 64 MiB.
	HPFBroker
)

// Config is what a Broker is told. The zero value lets nobody in.
type Config struct {
	// Name is what the broker calls itself in INFO; "" is "hpfeeds".
	Name string
	// Users are those who may log in, by ident. Secrets tells the secret of one whose Secret is empty; it is asked at each login.
	Users   map[string]User
	Secrets func(ident string) (string, error)
	Manners Manners
	// MaxFrame is the length of the largest frame; 0 is what the Manners say.
	MaxFrame int
	// QueueBytes is how much may wait for a subscriber, beside the one message that fits always; 0 is 50 MiB. Publishers wait while a
	// subscriber has as much.
	QueueBytes int64
	// SlowLimit is how long a subscriber may have its queue full before it is cut; 0 is a minute.
	SlowLimit time.Duration
	// Hold says for channels how many subscribers there must be before a message is taken: until then who publishes there waits. So that
	// tests can count after a restart, when publishers may be back before the subscribers are.
	Hold map[string]int
	// Exact makes each message wait until those that came before it over the same connection are with the kernels of all their subscribers,
	// so that a broker that is killed has lost nothing of what a later message of that connection proves.
	Exact bool
	// TLS, when set, is spoken by all connections.
	TLS *tls.Config
	// Log tells who comes and goes and what was refused.
	Log zerolog.Logger

	nonce func() []byte // nil: four random bytes
}

// Broker is a running broker. All methods are safe for concurrent use.
type Broker struct {
	cfg   Config
	name  string
	limit int

	mu        sync.Mutex
	changed   sync.Cond // subscribers came or went, or the end
	channels  map[string][]*peer
	peers     map[*peer]bool
	listeners map[net.Listener]bool
	closed    bool
	stats     Stats
	wait      sync.WaitGroup
}

// Stats are counts since the start.
type Stats struct {
	Connections int64 // that were logged in
	Refused     int64 // frames and logins that were answered with an ERROR, or with a close
	Published   int64 // messages that were taken
	Delivered   int64 // messages that were given to a subscriber's kernel
	Unheard     int64 // messages that nobody had subscribed to
	Cut         int64 // subscribers that were too slow
	Open        int   // connections right now
	Subscribers int   // subscriptions right now
}

// New returns a broker that serves nobody yet.
func New(cfg Config) *Broker {
	b := &Broker{cfg: cfg, name: cfg.Name, limit: cfg.MaxFrame, channels: make(map[string][]*peer), peers: make(map[*peer]bool), listeners: make(map[net.Listener]bool)}
	b.changed.L = &b.mu
	if b.name == "" {
		b.name = "hpfeeds"
	}
	if b.limit == 0 {
		b.limit = map[Manners]int{Python: hpfeeds.MaxFrame, Tentacool: hpfeeds.HeaderSize + 10<<20, HPFBroker: 64 << 20}[cfg.Manners]
	}
	if b.cfg.QueueBytes == 0 {
		b.cfg.QueueBytes = 50 << 20
	}
	if b.cfg.nonce == nil {
		b.cfg.nonce = newNonce
	}
	if b.cfg.SlowLimit == 0 {
		b.cfg.SlowLimit = time.Minute
	}
	return b
}

const (
	// loginTime is how long a client may take for the login.
	loginTime = 30 * time.Second
	// maxConnections bounds what strangers can take.
	maxConnections = 1000
)

// Serve accepts connections until Close is called or the listener is closed by somebody else, which is an error. It owns the listener.
func (b *Broker) Serve(listener net.Listener) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		_ = listener.Close()
		return nil
	}
	b.listeners[listener] = true
	b.mu.Unlock()
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			b.welcome(conn)
		case b.isClosed():
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		default: // for one, too many open files: it passes
			b.cfg.Log.Warn().Err(err).Msg("cannot accept a connection")
			time.Sleep(50 * time.Millisecond)
		}
	}
}

func (b *Broker) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// welcome starts to serve a connection.
func (b *Broker) welcome(raw net.Conn) {
	conn := net.Conn(&patient{raw, b.cfg.SlowLimit})
	if b.cfg.TLS != nil {
		conn = tls.Server(conn, b.cfg.TLS)
	}
	p := &peer{broker: b, raw: raw, conn: conn, channels: make(map[string]bool), gone: make(chan struct{})}
	p.changed.L = &p.mu
	b.mu.Lock()
	full := len(b.peers) >= maxConnections
	refuse := b.closed || full
	if !refuse {
		b.peers[p] = true
		b.wait.Add(1)
	}
	b.mu.Unlock()
	if refuse {
		_ = raw.Close()
		if full {
			b.cfg.Log.Warn().Int("limit", maxConnections).Msg("too many connections")
		}
		return
	}
	go func() {
		defer b.wait.Done()
		p.serve()
	}()
}

// Close ends the broker and all its connections, and waits until they are gone. What waits for subscribers is lost.
func (b *Broker) Close() error {
	b.mu.Lock()
	b.closed = true
	b.changed.Broadcast()
	for listener := range b.listeners {
		_ = listener.Close()
	}
	peers := make([]*peer, 0, len(b.peers))
	for p := range b.peers {
		peers = append(peers, p)
	}
	b.mu.Unlock()
	for _, p := range peers {
		p.cut()
	}
	b.wait.Wait()
	return nil
}

// Stats returns the counts.
func (b *Broker) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Open = len(b.peers)
	for _, subscribers := range b.channels {
		s.Subscribers += len(subscribers)
	}
	return s
}

// Subscribers returns how many connections are subscribed to a channel.
func (b *Broker) Subscribers(channel string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.channels[channel])
}

func (b *Broker) count(what func(*Stats)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	what(&b.stats)
}

// secret returns what an ident has to prove that it knows.
func (b *Broker) secret(ident string) (string, error) {
	user, ok := b.cfg.Users[ident]
	switch {
	case !ok:
		return "", errors.New("no such ident")
	case user.Secret == "" && b.cfg.Secrets != nil:
		return b.cfg.Secrets(ident)
	case user.Secret == "":
		return "", errors.New("the ident has no secret")
	}
	return user.Secret, nil
}

// may tells whether a list of channels has one of them.
func may(channels []string, channel string) bool {
	return slices.Contains(channels, channel) || slices.Contains(channels, "*")
}

// subscribe adds a subscriber, once.
func (b *Broker) subscribe(p *peer, channel string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Contains(b.channels[channel], p) {
		b.channels[channel] = append(b.channels[channel], p)
		b.changed.Broadcast()
	}
}

func (b *Broker) unsubscribe(p *peer, channel string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	rest := slices.DeleteFunc(slices.Clone(b.channels[channel]), func(q *peer) bool { return q == p }) // cloned: audience gives it out
	if b.channels[channel] = rest; len(rest) == 0 {
		delete(b.channels, channel)
	}
	b.changed.Broadcast()
}

// forget drops a connection that has ended.
func (b *Broker) forget(p *peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.peers, p)
	b.changed.Broadcast()
}

// audience waits until a channel has as many subscribers as it must have, and returns those that a message of p goes to. It returns false
// when p or the broker has ended.
func (b *Broker) audience(p *peer, channel string) ([]*peer, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.channels[channel]) < b.cfg.Hold[channel] && !b.closed && !p.isGone() {
		b.changed.Wait()
	}
	if b.closed || p.isGone() {
		return nil, false
	}
	b.stats.Published++
	heard := b.channels[channel]
	if b.cfg.Manners == Tentacool {
		heard = slices.DeleteFunc(slices.Clone(heard), func(q *peer) bool { return q == p })
	}
	if len(heard) == 0 {
		b.stats.Unheard++
	}
	return heard, true
}

func newNonce() []byte {
	nonce := make([]byte, 4)
	_, _ = rand.Read(nonce) // it never fails
	return nonce
}
