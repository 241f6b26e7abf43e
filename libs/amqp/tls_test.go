package amqp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"spamtraps.internal/libs/rig"
)

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newFront puts TLS in front of a broker's plain port, with any certificate that a test wants to see refused, and returns its
// address. With clientCA it takes only clients that show a certificate of that authority.
func newFront(t testing.TB, target, certFile, keyFile, clientCA string) (address string) {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	settings := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if clientCA != "" {
		raw, err := os.ReadFile(clientCA)
		if err != nil {
			t.Fatal(err)
		}
		settings.ClientAuth, settings.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		settings.ClientCAs.AppendCertsFromPEM(raw)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", settings)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { splice(t.Context(), client, target) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

// splice joins a client to a server until either closes.
func splice(ctx context.Context, client net.Conn, target string) {
	defer func() { _ = client.Close() }()
	server, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
	_, _ = io.Copy(client, server)
	_ = client.Close()
	wg.Wait()
}

func TestTLS(t *testing.T) {
	t.Parallel()
	b := rig.SharedBroker(t)
	target := net.JoinHostPort(b.Host, fmt.Sprint(b.Port))
	ours, theirs := rig.NewCA(t), rig.NewCA(t)
	inAnHour := time.Now().Add(time.Hour)
	clientCert, clientKey := ours.Issue(inAnHour, "collector")
	foreignCert, foreignKey := theirs.Issue(inAnHour, "collector")

	for _, row := range []struct {
		name     string
		server   *rig.CA
		notAfter time.Time
		names    []string
		clientCA string
		change   func(*Config)
		says     string // empty: it works
	}{
		{"good", ours, inAnHour, []string{"127.0.0.1"}, "", nil, ""},
		{"unknown authority", theirs, inAnHour, []string{"127.0.0.1"}, "", nil, "from an authority that we do not know"},
		{"wrong name", ours, inAnHour, []string{"rabbitmq.example"}, "", nil, "not for 127.0.0.1"},
		{"expired", ours, time.Now().Add(-time.Hour), []string{"127.0.0.1"}, "", nil, "has expired"},
		{
			"unverified", theirs, time.Now().Add(-time.Hour),
			[]string{"other"},
			"",
			func(c *Config) { c.CheckCert, c.CAFile = false, "" }, "",
		},
		{
			"client certificate", ours, inAnHour,
			[]string{"127.0.0.1"},
			ours.File,
			func(c *Config) { c.CertFile, c.KeyFile = clientCert, clientKey }, "",
		},
		{"no client certificate", ours, inAnHour, []string{"127.0.0.1"}, ours.File, nil, "refuses our side of TLS"},
		{
			"foreign client certificate", ours, inAnHour,
			[]string{"127.0.0.1"},
			ours.File,
			func(c *Config) { c.CertFile, c.KeyFile = foreignCert, foreignKey }, "refuses our side of TLS",
		},
		{
			"no such file", ours, inAnHour,
			[]string{"127.0.0.1"},
			"",
			func(c *Config) { c.CAFile = "/nonexistent/ca.pem" }, "/nonexistent/ca.pem",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			cert, key := row.server.Issue(row.notAfter, row.names...)
			cfg := Defaults()
			cfg.Host = []string{newFront(t, target, cert, key, row.clientCA)}
			cfg.VHost, cfg.Ident = b.VHost, b.User
			_ = cfg.Secret.UnmarshalText([]byte(b.Password))
			cfg.CAFile = ours.File
			if row.change != nil {
				row.change(&cfg)
			}
			p := run(t, cfg)
			if row.says != "" {
				refused(t, p, row.says)
				return
			}
			p.waitReady(testPatience)
			if err := p.Publish(t.Context(), message("a", 100<<10)); err != nil {
				t.Error(err)
			}
		})
	}

	t.Run("no TLS on the port", func(t *testing.T) {
		cfg := Defaults()
		cfg.Host = []string{target}
		refused(t, run(t, cfg), "it does not speak TLS on this port")
	})
}

// refused waits until the state says why there is no connection, and looks for the same in one warning.
func refused(t *testing.T, p *subject, says string) {
	t.Helper()
	rig.Eventually(t, 10*time.Second, "the state says "+says, func() bool { return strings.Contains(p.State().Text, says) })
	if err := p.Publish(t.Context(), message("a", 10)); reason(err) != ReasonDown || !strings.Contains(err.Error(), says) {
		t.Errorf("Publish: %v", err)
	}
	warnings := p.log.at("warn")
	if len(warnings) != 1 || !strings.Contains(warnings[0].Cause, says) {
		t.Errorf("warnings: %v", warnings)
	}
	t.Log(p.State())
}
