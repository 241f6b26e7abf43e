package lmtp

import (
	"context"
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
	believe []Peers        // whose XFORWARD
	limits  wire.Limits    // of each
	full    zerolog.Logger // says at most once a minute that the limit was hit
	metrics doorMetrics

	mu     sync.Mutex
	open   map[*wire.Conn]struct{}
	closed bool
}

type doorMetrics struct {
	connections, refused prometheus.Counter
	open                 prometheus.Gauge
}

func newDoorMetrics(reg prometheus.Registerer) doorMetrics {
	auto := promauto.With(reg)
	return doorMetrics{
		connections: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_connections_total", Help: "Connections that were let in.",
		}),
		refused: auto.NewCounter(prometheus.CounterOpts{
			Name: "spamtraps_lmtp_connections_refused_total", Help: "Connections that were told to try again later, because LMTP_MAX_CONNECTIONS were open.",
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
		believe:  cfg.XForwardFrom,
		limits: wire.Limits{
			Idle: cfg.IdleTimeout, Transaction: cfg.TransactionTimeout, Rate: cfg.MinRate, Write: replyTimeout,
			MessageBytes: cfg.MaxMessageBytes,
		},
		full:    log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Minute}),
		metrics: metrics,
		open:    make(map[*wire.Conn]struct{}),
	}
}

// replyTimeout is how long a reply may take to leave. A peer that does not read is given up.
const replyTimeout = time.Minute

// busyReply greets a connection that is not let in.
const busyReply = "421 4.3.2 Too many connections, please try again later\r\n"

// Accept returns the next connection that is let in. Errors are those of the listener, as they are: go-smtp asks them
// whether to go on.
func (d *door) Accept() (net.Conn, error) {
	for {
		network, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if conn := d.admit(network); conn != nil {
			return conn, nil
		}
		d.metrics.refused.Inc()
		d.full.Warn().Int("limit", d.limit).Msg("too many connections: raise LMTP_MAX_CONNECTIONS if these are your own MTAs'")
		turnAway(network)
	}
}

// admit returns nil when there is no room.
func (d *door) admit(network net.Conn) net.Conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.open) >= d.limit {
		return nil
	}
	believed := slices.ContainsFunc(d.believe, func(p Peers) bool { return p.has(network.RemoteAddr()) })
	var conn *wire.Conn
	conn = wire.New(network, d.limits, believed, func() { d.left(conn) })
	d.open[conn] = struct{}{}
	d.metrics.connections.Inc()
	d.metrics.open.Inc()
	return conn
}

func (d *door) left(conn *wire.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.open, conn)
	d.metrics.open.Dec()
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
