package hpfeeds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

const (
	// dialLimit is how long one address may take to accept a connection.
	dialLimit = 5 * time.Second
	// loginSilence is how long a broker may keep silent before the login.
	loginSilence = 10 * time.Second
	// loginLimit is how long everything from the name's look-up to AUTH may take.
	loginLimit = 20 * time.Second
	// frameSilence is how long a broker may stop within a frame.
	frameSilence = 30 * time.Second
	// writeSilence is how long a broker may take nothing of what we send, and also how long what was sent may stay unacknowledged by its
	// kernel: so a peer that is gone, or whose process has stopped, is noticed in any case.
	writeSilence = 30 * time.Second
	// lastWords is how long after a failed write the broker's reason is waited for.
	lastWords = 250 * time.Millisecond
	// hangUpTime is how soon after the login a connection that is closed without a word counts as refused, maybe.
	hangUpTime = 5 * time.Second
	// writeBuffer is how much is gathered before it is written.
	writeBuffer = 128 << 10
)

// Options are what a Conn can be told beside its Config. The zero value is right for a publisher.
type Options struct {
	// MaxFrame is the length of the largest PUBLISH frame that is received; 0 is the protocol's own MaxFrame. A larger one ends the
	// connection. A Conn holds two of them at most.
	MaxFrame int
	// Dial makes the TCP connection; nil is net.Dialer's. TLS, if the Config wants it, is put over what it returns.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Dial connects to the broker of cfg and logs in. It returns once AUTH is sent, and so does not know whether the broker likes it: a broker
// that does not will say so, or hang up, soon after (Conn.Done). It blocks for 20 s at most, or until ctx ends; ctx has no meaning after that.
// Every error is an *Error.
func Dial(ctx context.Context, cfg Config, o Options) (*Conn, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, loginLimit, errSlowLogin)
	defer cancel()
	raw, err := o.dial(ctx, cfg.Address())
	if err != nil {
		return nil, dialError(ctx, &cfg, err)
	}
	release := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, err := login(ctx, &cfg, o, raw)
	if !release() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		return nil, dialError(ctx, &cfg, err)
	}
	go c.read()
	return c, nil
}

var errSlowLogin = errors.New("the broker takes too long for the login")

func (o *Options) dial(ctx context.Context, address string) (net.Conn, error) {
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: dialLimit}).DialContext
	}
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	tune(conn)
	return conn, nil
}

// login reads INFO and sends AUTH.
func login(ctx context.Context, cfg *Config, o Options, raw net.Conn) (*Conn, error) {
	secret, err := cfg.Secret.Reveal()
	if err != nil {
		return nil, err
	}
	link := newLink(raw, loginSilence)
	conn := net.Conn(link)
	if cfg.TLS {
		if conn, err = handshake(ctx, cfg, link); err != nil {
			return nil, err
		}
	}
	c := newConn(cfg, o, conn, link)
	f, err := c.in.Next()
	if err != nil {
		return nil, err
	}
	body, err := c.in.Body()
	if err != nil {
		return nil, err
	}
	switch f.Op {
	case OpInfo:
	case OpError:
		return nil, refusal(body)
	default:
		return nil, broken("%s where the broker's INFO should be", article(f.Op))
	}
	c.broker = Sanitize(f.Name)
	if err := c.send(AppendAuth(nil, cfg.Ident, body, secret)); err != nil {
		return nil, err
	}
	c.loggedIn = time.Now()
	return c, nil
}

// handshake puts TLS over the link. It reads the authorities anew, so that renewed ones count.
func handshake(ctx context.Context, cfg *Config, link *link) (net.Conn, error) {
	settings := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         cfg.Host,
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
	conn := tls.Client(link, settings)
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}
