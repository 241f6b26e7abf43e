package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/rabbitmq/amqp091-go"
)

const (
	// dialLimit is how long one address may take to accept a connection.
	dialLimit = 3 * time.Second
	// handshakeSilence is how long a broker may keep silent before the connection is open. RabbitMQ answers a wrong password
	// only after three seconds.
	handshakeSilence = 5 * time.Second
	// setupLimit is how long everything from TLS to the first publish may take.
	setupLimit = 15 * time.Second
	// frameSize is RabbitMQ's own default; amqp091.Open has none.
	frameSize = 128 << 10
	// leastFrame is what the properties of a message can need: the header table, and nine strings.
	leastFrame = maxTable + 4<<10
)

// silenceLimit is how long an open connection may stay silent. The broker sends a heartbeat each half interval, so a dead
// one is noticed after three missing ones; the library itself would wait for twice as long.
func silenceLimit(heartbeat time.Duration) time.Duration { return heartbeat * 3 / 2 }

// dial opens an AMQP connection to b. When ctx ends it returns at once. The wire is what to cut when the connection has to go,
// whatever state the library is in.
func dial(ctx context.Context, cfg *Config, b broker, gate *gate) (*amqp091.Connection, *wire, error) {
	tcp, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", b.address())
	if err != nil {
		return nil, nil, newFault("cannot reach "+b.address(), err)
	}
	link := newLink(tcp, handshakeSilence)
	release := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	defer release()

	conn := net.Conn(link)
	if b.tls {
		conn, err = handshake(ctx, cfg, b, link)
		if err != nil {
			_ = tcp.Close()
			return nil, nil, newFault("cannot reach "+b.address(), err)
		}
	}
	wire := newWire(conn, link, gate)
	// Open and not DialConfig: there is no URL whose password an error could quote, and the wire lies above TLS, so that
	// what is gathered is also encrypted in one piece.
	connection, err := amqp091.Open(wire, amqp091.Config{
		SASL:       []amqp091.Authentication{b.login()},
		Vhost:      b.vhost,
		Heartbeat:  cfg.Heartbeat,
		FrameSize:  frameSize,
		Locale:     "en_US",
		Properties: amqp091.Table{"product": "spamtraps"},
	})
	if err != nil {
		wire.cut(net.ErrClosed) // if nothing has before
		return nil, nil, openFault(b, wire.cause(), err)
	}
	if frame := connection.Config.FrameSize; frame > 0 && frame < leastFrame {
		wire.cut(net.ErrClosed)
		return nil, nil, &fault{
			what: "cannot publish at " + b.address(), slow: true,
			why: fmt.Sprintf("the broker's frame_max is %d, and the headers of a message may need %d", frame, leastFrame),
		}
	}
	link.silence.Store(int64(silenceLimit(cfg.Heartbeat)))
	return connection, wire, nil
}

// openFault tells a broker that said no from a connection that broke while we waited for its answer; for the library both
// are wrong credentials.
func openFault(b broker, broken, err error) *fault {
	var answer *amqp091.Error
	refused := newFault(fmt.Sprintf("%s refuses user %q on vhost %q", b.address(), b.user, b.vhost), err)
	switch {
	case errors.As(err, &answer) && answer.Server, errors.Is(err, amqp091.ErrSASL):
		return refused
	case errors.Is(err, amqp091.ErrCredentials) && errors.Is(broken, io.EOF):
		// RabbitMQ says why only to clients that announce authentication_failure_close, and the library does not let us.
		refused.why, refused.slow = "it hung up at the login: a wrong name or password", true
		return refused
	case broken != nil && !errors.Is(broken, net.ErrClosed):
		err = broken
	}
	return newFault("cannot open a connection to "+b.address(), err)
}

// login returns how the broker learns who we are: by the certificate when there is no password.
func (b broker) login() amqp091.Authentication {
	if b.password == "" {
		return &amqp091.ExternalAuth{}
	}
	return &amqp091.PlainAuth{Username: b.user, Password: b.password}
}

// handshake puts TLS over the link. It reads the certificates anew, so that renewed ones count.
func handshake(ctx context.Context, cfg *Config, b broker, link *link) (net.Conn, error) {
	settings := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         b.host,
		InsecureSkipVerify: !cfg.CheckCert, //nolint:gosec // the operator's explicit choice, and warned of
	}
	if cfg.CAFile != "" {
		authorities, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read authorities: %w", err)
		}
		settings.RootCAs = x509.NewCertPool()
		if !settings.RootCAs.AppendCertsFromPEM(authorities) {
			return nil, fmt.Errorf("read authorities: no certificate in %s", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" {
		own, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate: %w", err)
		}
		settings.Certificates = []tls.Certificate{own}
	}
	conn := tls.Client(link, settings)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}
