package lmtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/rs/zerolog"

	"spamtraps.internal/lmtp-collector/internal/wire"
)

// unixPrefix marks an address that is the path of a unix socket.
const unixPrefix = "unix:"

// Listen listens on HOST:PORT, or on the unix socket unix:/path. A socket file that a killed process left behind is replaced,
// after a connection to it was refused: one that somebody listens on, or a file of another kind, is an error. Any local user
// may write to the socket, as to a TCP port; the folder that it lies in can say otherwise. Whoever closes the listener removes the file.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	var config net.ListenConfig
	path, isUnix := strings.CutPrefix(address, unixPrefix)
	if !isUnix {
		return config.Listen(ctx, "tcp", address)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	listener, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", address, err), listener.Close())
	}
	return listener, nil
}

func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("the file exists and is no socket")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	switch {
	case err == nil:
		_ = conn.Close() // it was only a question
		return errors.New("another process listens there")
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("whether another process listens there cannot be found out: %w", err)
	}
	return os.Remove(path)
}

// door lets connections in to go-smtp, each with the wire under it: no more than limit at once, and none after close.
type door struct {
	net.Listener
	limit   int            // connections
	perPeer int            // connections of one address; 0 is any
	believe []Peers        // whose XFORWARD
	limits  wire.Limits    // of each
	tls     *tls.Config    // nil: no STARTTLS
	tlsOnly bool           // no mail without STARTTLS, but for the unix socket
	log     zerolog.Logger // of single connections
	full    zerolog.Logger // says at most once a minute that a limit was hit
	metrics doorMetrics

	mu     sync.Mutex
	open   map[*wire.Conn]string // by whom; "" is the unix socket
	peers  map[string]int        // how many each has
	closed bool
}

type doorMetrics struct {
	connections, refused, displaced prometheus.Counter
	open                            prometheus.Gauge
}

func newDoorMetrics(reg prometheus.Registerer) doorMetrics {
	auto := promauto.With(reg)
	return doorMetrics{
		connections: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_connections_total", Help: "Connections that were let in.",
		}),
		refused: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_connections_refused_total", Help: "Connections that were told to try again later, because LMTP_MAX_CONNECTIONS or LMTP_MAX_CONNECTIONS_PER_PEER were open.",
		}),
		displaced: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_connections_displaced_total", Help: "Idle connections that were closed because LMTP_MAX_CONNECTIONS were open and a new one came.",
		}),
		open: auto.NewGauge(prometheus.GaugeOpts{
			Name: "spamtraps_lmtp_open_connections", Help: "Connections that are open now.",
		}),
	}
}

func newDoor(listener net.Listener, cfg Config, log zerolog.Logger, metrics doorMetrics) *door {
	return &door{
		Listener: listener,
		limit:    cfg.MaxConnections,
		perPeer:  cfg.MaxPerPeer,
		believe:  cfg.XForwardFrom,
		limits: wire.Limits{
			Idle: cfg.IdleTimeout, Transaction: cfg.TransactionTimeout, Rate: cfg.MinRate, Write: replyTimeout,
			MessageBytes: cfg.MaxMessageBytes, Errors: cfg.MaxErrors,
		},
		tls:     cfg.tlsConfig(),
		tlsOnly: cfg.TLSClientCAFile != "",
		log:     log,
		full:    log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Minute}),
		metrics: metrics,
		open:    make(map[*wire.Conn]string),
		peers:   make(map[string]int),
	}
}

const (
	// replyTimeout is how long a reply may take to leave. A peer that does not read is given up.
	replyTimeout = time.Minute
	// longIdle is how long a connection must have had nothing to do before a new one may take its place: an MTA keeps
	// connections for its next mail.
	longIdle = 5 * time.Second
	// busyReply greets a connection that is not let in.
	busyReply = "421 4.3.2 Too many connections, please try again later\r\n"
)

// Accept returns the next connection that is let in. Errors are those of the listener, as they are: go-smtp asks them
// whether to go on.
func (d *door) Accept() (net.Conn, error) {
	for {
		network, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		conn, setting := d.admit(network)
		if conn != nil {
			return conn, nil
		}
		d.metrics.refused.Inc()
		d.full.Warn().Stringer("remote", network.RemoteAddr()).Msg("too many connections: raise " + setting + " if these are your own MTAs'")
		turnAway(network)
	}
}

// admit returns nil when there is no room, and the setting that says so.
func (d *door) admit(network net.Conn) (conn *wire.Conn, setting string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	peer := ""
	if addr, ok := network.RemoteAddr().(*net.TCPAddr); ok {
		peer = addr.AddrPort().Addr().Unmap().String()
	}
	switch {
	case d.perPeer > 0 && peer != "" && d.peers[peer] >= d.perPeer:
		return nil, "LMTP_MAX_CONNECTIONS_PER_PEER"
	case d.closed, len(d.open) >= d.limit && !d.displace():
		return nil, "LMTP_MAX_CONNECTIONS"
	}
	offer := wire.Offer{
		XForward: slices.ContainsFunc(d.believe, func(p Peers) bool { return p.has(network.RemoteAddr()) }),
		TLS:      d.tls,
		TLSOnly:  d.tlsOnly && peer != "",
	}
	conn = wire.New(network, d.limits, offer, func() { d.left(conn, peer) })
	d.open[conn] = peer
	d.peers[peer]++
	d.metrics.connections.Inc()
	d.metrics.open.Inc()
	return conn, ""
}

// displace ends the connection that has had nothing to do for longest, if it is long enough. It gives its room back at once.
func (d *door) displace() bool {
	var idlest *wire.Conn
	longest := longIdle
	for conn := range d.open {
		if idle := conn.Idle(); idle >= longest {
			idlest, longest = conn, idle
		}
	}
	if idlest == nil {
		return false
	}
	idlest.Stop(time.Now())
	d.forget(idlest)
	d.metrics.displaced.Inc()
	return true
}

// left notes that a connection is closed.
func (d *door) left(conn *wire.Conn, peer string) {
	if cause := conn.Cause(); errors.Is(cause, wire.ErrTLS) {
		d.log.Warn().Err(cause).Str("remote", peer).Msg("a peer could not secure its connection")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.forget(conn)
	d.metrics.open.Dec()
}

// forget gives the room of a connection back, once. The caller holds mu.
func (d *door) forget(conn *wire.Conn) {
	peer, ok := d.open[conn]
	if !ok {
		return
	}
	delete(d.open, conn)
	if d.peers[peer]--; d.peers[peer] == 0 {
		delete(d.peers, peer)
	}
}

// turnAway says in the greeting that there is no room. A few bytes fit into any fresh connection's buffer, so this does not block;
// the deadline is for the one in which they don't.
func turnAway(network net.Conn) {
	_ = network.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(network, busyReply) // the peer may be gone already
	_ = network.Close()
}

// count returns how many connections are open.
func (d *door) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.open)
}

// close lets nobody in any more and stops the connections that are open: see wire.Conn.Stop.
func (d *door) close(by time.Time) {
	_ = d.Close() // it fails only when it is closed already
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for conn := range d.open {
		conn.Stop(by)
	}
}
