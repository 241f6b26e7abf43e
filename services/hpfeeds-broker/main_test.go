package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"spamtraps.internal/hpfeeds-broker/internal/config"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/rig"
	"spamtraps.internal/libs/secret"
)

// output is what a program writes.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// boot runs the program until the test ends, and returns what connects to it.
func boot(t *testing.T, env ...string) (hpfeeds.Config, *output) {
	t.Helper()
	signals, ended, log := make(chan os.Signal, 1), make(chan int, 1), &output{}
	env = append([]string{"ADMIN_ADDR=127.0.0.1:0", "BROKER_LISTEN=127.0.0.1:0"}, env...)
	go func() {
		ended <- daemon.Main(service, daemon.Process{Env: env, Stdout: io.Discard, Stderr: log, Signals: signals})
	}()
	t.Cleanup(func() {
		signals <- syscall.SIGTERM
		if code := <-ended; code != daemon.ExitOK {
			t.Errorf("it ended with %d:\n%s", code, log)
		}
	})
	address := regexp.MustCompile(`"address":"([^"]+)"[^\n]*"listening`)
	rig.Eventually(t, 20*time.Second, "it listens", func() bool { return address.MatchString(log.String()) })
	host, port, err := net.SplitHostPort(address.FindStringSubmatch(log.String())[1])
	if err != nil {
		t.Fatal(err)
	}
	cfg := hpfeeds.Defaults()
	cfg.Host = host
	cfg.Port, _ = strconv.Atoi(port)
	return cfg, log
}

// carries tells whether a message gets from writer to reader.
func carries(t *testing.T, writer, reader hpfeeds.Config) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := hpfeeds.Dial(ctx, writer, hpfeeds.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	in, err := hpfeeds.Dial(ctx, reader, hpfeeds.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	if err := in.Subscribe("spam.mails"); err != nil {
		return err
	}
	for { // until the subscription, which nothing confirms, is there
		if err := errors.Join(out.Publish("spam.mails", []byte("a mail")), out.Flush()); err != nil {
			return err
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		m, err := in.Receive(short)
		cancel()
		if err == nil && string(m.Payload) == "a mail" {
			return nil
		}
		if in.Err() != nil || ctx.Err() != nil {
			return err
		}
	}
}

// TestMadeSecrets: the first start makes the secrets, the next one keeps them.
func TestMadeSecrets(t *testing.T) {
	folder := t.TempDir()
	writerFile, readerFile := filepath.Join(folder, "writer", "password"), filepath.Join(folder, "reader", "password")
	var first []byte
	for range 2 {
		t.Run("start", func(t *testing.T) {
			cfg, log := boot(t, "BROKER_SECRETS="+folder)
			writer, reader := cfg, cfg
			writer.Ident, writer.Secret = "writer", secret.FromFile(writerFile)
			reader.Ident, reader.Secret = "reader", secret.FromFile(readerFile)
			if err := carries(t, writer, reader); err != nil {
				t.Error(err)
			}
			if err := carries(t, reader, writer); err == nil {
				t.Error("reader may publish")
			}
			made, err := os.ReadFile(writerFile)
			if err != nil || len(made) != 43 {
				t.Fatalf("%d bytes: %v", len(made), err)
			}
			if first != nil && !bytes.Equal(first, made) {
				t.Error("the secret has changed")
			}
			first = made
			if info, err := os.Stat(writerFile); err != nil || info.Mode().Perm() != 0o400 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			if strings.Contains(log.String(), string(made)) {
				t.Error("the secret is in the log")
			}
		})
	}
}

// TestUsersFile: the Python broker's file is read as it is.
func TestUsersFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(path, []byte(`{"bob": {"owner": "bob", "secret": "s3cret", "pubchans": ["spam.mails"], "subchans": ["spam.mails"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, _ := boot(t, "BROKER_USERS="+path)
	cfg.Ident, cfg.Secret = "bob", secret.New("s3cret")
	if err := carries(t, cfg, cfg); err != nil {
		t.Error(err)
	}
	cfg.Secret = secret.New("falsch")
	if err := carries(t, cfg, cfg); err == nil {
		t.Error("a wrong secret is taken")
	}
}

// TestTLS: with a certificate all connections speak TLS.
func TestTLS(t *testing.T) {
	ca := rig.NewCA(t)
	cert, key := ca.Issue(time.Now().Add(time.Hour), "127.0.0.1")
	cfg, _ := boot(t, "BROKER_WRITER_SECRET=a", "BROKER_READER_SECRET=b", "BROKER_TLS_CERT_FILE="+cert, "BROKER_TLS_KEY_FILE="+key)
	writer, reader := cfg, cfg
	writer.Ident, writer.Secret, writer.TLS, writer.CAFile = "writer", secret.New("a"), true, ca.File
	reader.Ident, reader.Secret, reader.TLS, reader.CAFile = "reader", secret.New("b"), true, ca.File
	if err := carries(t, writer, reader); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", cfg.Address()); err != nil { //nolint:noctx // loopback
		t.Error(err)
	} else {
		_, _ = io.WriteString(c, "no TLS\r\n\r\n")
		if answer, _ := io.ReadAll(c); bytes.Contains(answer, []byte("spamtraps")) {
			t.Errorf("it greets without TLS: %q", answer)
		}
		_ = c.Close()
	}
}

// TestManner: what is set reaches the broker.
func TestManner(t *testing.T) {
	got := manner(config.Broker{Name: "n", Manners: "tentacool", MaxFrame: 2000, Hold: 3, Exact: true, Channels: []string{"a", "b"}})
	want := hpfeedstest.Config{Name: "n", Manners: hpfeedstest.Tentacool, MaxFrame: 2000, Hold: map[string]int{"a": 3, "b": 3}, Exact: true}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("%+v, not %+v", got, want)
	}
}

func TestScript(t *testing.T) {
	cfg, _ := boot(t, "BROKER_SCRIPT=auth-error")
	cfg.Secret = secret.New("x")
	if err := carries(t, cfg, cfg); err == nil || !strings.Contains(err.Error(), "Authentication failed for x") {
		t.Error(err)
	}
}

func TestRefusedSettings(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "users.json")
	if err := os.WriteFile(broken, []byte(`{"bob": "s3cret"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := filepath.Join(t.TempDir(), "nobody.json")
	if err := os.WriteFile(nobody, []byte(`{"bob": {"secret": "", "pubchans": ["*"]}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		env  string
		code int
		want string
	}{
		{"BROKER_LISTEN=x", daemon.ExitRefused, `BROKER_LISTEN must be host:port, not "x"`},
		{"BROKER_SCRIPT=no-such", daemon.ExitRefused, "BROKER_SCRIPT must be one of auth-error,"},
		{"BROKER_MANNERS=other", daemon.ExitRefused, "BROKER_MANNERS"},
		{"BROKER_MAX_FRAME=10", daemon.ExitRefused, "BROKER_MAX_FRAME must be between"},
		{"BROKER_TLS_CERT_FILE=x", daemon.ExitRefused, "BROKER_TLS_KEY_FILE must be set together"},
		{"BROKER_CHANNELS=a," + strings.Repeat("b", 200), daemon.ExitRefused, "BROKER_CHANNELS must have at most 127 bytes, not 200; entry 2"},
		{"BROKER_HOLD=-1", daemon.ExitRefused, "BROKER_HOLD must not be negative"},
		{"BROKER_NAME=x", daemon.ExitFailed, "nobody could log in: set BROKER_USERS"},
		{"BROKER_USERS=" + broken, daemon.ExitFailed, "is not of the form"},
		{"BROKER_USERS=" + nobody, daemon.ExitFailed, "has an entry without an ident or a secret"},
		{"BROKER_TLS_CERT_FILE=" + broken + " BROKER_TLS_KEY_FILE=" + broken + " BROKER_WRITER_SECRET=x", daemon.ExitFailed, "read certificate"},
		{"BROKER_USERS=/nowhere", daemon.ExitFailed, "no such file"},
	} {
		t.Run(test.env, func(t *testing.T) {
			log := &output{}
			code := daemon.Main(service, daemon.Process{
				Env: append([]string{"ADMIN_ADDR=127.0.0.1:0", "BROKER_LISTEN=127.0.0.1:0"}, strings.Fields(test.env)...), Stdout: io.Discard, Stderr: log, Signals: make(chan os.Signal),
			})
			if code != test.code || !strings.Contains(log.String(), test.want) {
				t.Errorf("code %d:\n%s", code, log)
			}
			if strings.Contains(log.String(), "s3cret") {
				t.Error("a secret is in the log")
			}
		})
	}
}
