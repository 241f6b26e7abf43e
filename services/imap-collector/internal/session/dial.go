package session

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/proxy"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/wire"
)

const (
	// beginLimit is the longest that it may take to reach a server; and the longest that a TLS handshake may take, with greeting and STARTTLS before it.
	beginLimit = 30 * time.Second
	// sessionCache is how many servers' TLS sessions are kept for the next handshake.
	sessionCache = 256
)

// keepAlive finds out within two minutes that a server is gone which owes no answer.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 4}

// Dialer opens sessions, and keeps what they share. It is safe for concurrent use.
type Dialer struct {
	// Program and Version are what we say of ourselves where a server asks for it (ID, RFC 2971).
	Program, Version string
	// Dial reaches a server, or the proxy before it; nil: over the network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Timeout is how long a server may be silent while it owes an answer, and the longest that each step up to the greeting may take; 0: a minute.
	Timeout time.Duration

	once     sync.Once
	sessions tls.ClientSessionCache
	mu       sync.Mutex
	pools    map[string]pool // by file
}

// pool is a file of authorities as it was last read.
type pool struct {
	modified time.Time
	size     int64
	roots    *x509.CertPool
}

func (d *Dialer) limits(largest int64) wire.Limits {
	limits := wire.Defaults(largest)
	if d.Timeout > 0 {
		limits.Silence = d.Timeout
	}
	return limits
}

// beginning is how long each step up to the greeting may take.
func (d *Dialer) beginning() time.Duration { return min(beginLimit, cmp.Or(d.Timeout, beginLimit)) }

// reach connects to the account's server, through its proxy if it has one.
func (d *Dialer) reach(ctx context.Context, a *account.Account) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.beginning())
	defer cancel()
	dial := d.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: keepAlive}).DialContext
	}
	address := net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
	doing := "connect to " + address
	if a.Proxy.IsSet() {
		through, where, err := behind(a, dial)
		if err != nil {
			return nil, &Error{Kind: Network, Doing: "use the proxy", Err: err}
		}
		doing += " through the proxy " + where
		dial = through
	}
	conn, err := dial(ctx, "tcp", address)
	if err != nil {
		return nil, &Error{Kind: Network, Doing: doing, Err: err}
	}
	return conn, nil
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialFunc) Dial(network, address string) (net.Conn, error) {
	return f(context.Background(), network, address)
}

func (f dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// behind returns how to dial through the account's proxy, and where that is. Its errors hold nothing of the URL, which may have a password.
func behind(a *account.Account, dial dialFunc) (through dialFunc, where string, err error) {
	text, err := a.Proxy.Reveal()
	if err != nil {
		return nil, "", err
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, "", errors.New("its URL cannot be read")
	}
	var login *proxy.Auth
	if u.User != nil {
		password, _ := u.User.Password()
		login = &proxy.Auth{User: u.User.Username(), Password: password}
	}
	dialer, err := proxy.SOCKS5("tcp", u.Host, login, dial)
	if err != nil {
		return nil, "", err
	}
	contextual, ok := dialer.(proxy.ContextDialer)
	if !ok {
		return nil, "", fmt.Errorf("%T cannot be cancelled", dialer) // the library has changed
	}
	return contextual.DialContext, u.Host, nil
}

// private makes a connection private as the account wants it. It returns the greeting that go-imap is to see instead of the server's, which was
// read already, or "".
func (d *Dialer) private(ctx context.Context, a *account.Account, conn net.Conn) (private net.Conn, greeting string, err error) {
	if a.TLS == account.TLSNone {
		return conn, "", nil
	}
	cfg, err := d.config(a)
	if err != nil {
		return nil, "", &Error{Kind: TLS, Doing: "read ca_file", Err: err}
	}
	if a.TLS == account.TLSStartTLS {
		c, err := wire.StartTLS(ctx, conn, cfg, d.beginning())
		if refusal, ok := errors.AsType[*wire.RefusalError](err); ok {
			return nil, "", refused(refusal)
		}
		if err != nil {
			return nil, "", unprivate("make the connection private", err)
		}
		return c, "* OK\r\n", nil
	}
	ctx, cancel := context.WithTimeout(ctx, d.beginning())
	defer cancel()
	c := tls.Client(conn, cfg)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, "", unprivate("TLS handshake", err)
	}
	return c, "", nil
}

// refused says what it means that a server sent us away before TLS.
func refused(refusal *wire.RefusalError) error {
	if refusal.Doing == "greeting" {
		return &Error{Kind: Network, Doing: "make the connection private", Err: refusal}
	}
	return &Error{Kind: TLS, Doing: "make the connection private", Err: refusal}
}

func (d *Dialer) config(a *account.Account) (*tls.Config, error) {
	d.once.Do(func() { d.sessions = tls.NewLRUClientSessionCache(sessionCache) })
	cfg := &tls.Config{
		ServerName:         a.Host,
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: !a.CheckCert, //nolint:gosec // only where the operator says so, which check and the log point out
	}
	if a.CheckCert {
		cfg.ClientSessionCache = d.sessions
	}
	if a.CAFile == "" || !a.CheckCert {
		return cfg, nil
	}
	roots, err := d.roots(a.CAFile)
	cfg.RootCAs = roots
	return cfg, err
}

// roots reads a file of authorities, unless it is as it was.
func (d *Dialer) roots(path string) (*x509.CertPool, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if p, ok := d.pools[path]; ok && p.modified.Equal(info.ModTime()) && p.size == info.Size() {
		return p.roots, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", path)
	}
	if d.pools == nil {
		d.pools = make(map[string]pool)
	}
	d.pools[path] = pool{modified: info.ModTime(), size: info.Size(), roots: roots}
	return roots, nil
}

// isNetwork tells whether an error is of the network, and not of TLS.
func isNetwork(err error) bool {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return true
	case errors.As(err, &op):
		// A TLS alert of the peer comes as an OpError too; it says "remote error".
		return op.Op != "remote error"
	}
	return errors.As(err, &timeout) && timeout.Timeout()
}
