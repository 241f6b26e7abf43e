package daemon_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"spamtraps.internal/libs/daemon"
)

// life is a Main that runs until its signals say otherwise.
type life struct {
	signals chan os.Signal
	events  chan map[string]any // the log
	stderr  *console
	code    chan int
}

func start(t *testing.T, svc daemon.Service[trapConfig], args, env []string) *life {
	t.Helper()
	l := &life{signals: make(chan os.Signal, 2), events: make(chan map[string]any, 100), stderr: new(console), code: make(chan int, 1)}
	read, write := io.Pipe()
	go func() {
		defer close(l.events)
		for lines := bufio.NewScanner(read); lines.Scan(); {
			var event map[string]any
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				t.Errorf("log line %q: %v", lines.Text(), err)
				continue
			}
			l.events <- event
		}
	}()
	go func() {
		defer write.Close()
		stderr := io.MultiWriter(l.stderr, write)
		l.code <- daemon.Main(svc, daemon.Process{Args: args, Env: env, Stdout: io.Discard, Stderr: stderr, Signals: l.signals})
	}()
	return l
}

// await returns the first event with this message.
func (l *life) await(t *testing.T, message string) map[string]any {
	t.Helper()
	for event := range l.events {
		if event["message"] == message {
			return event
		}
	}
	t.Fatalf("the log ended without %q:\n%s", message, l.stderr)
	return nil
}

func (l *life) url(t *testing.T, path string) string {
	t.Helper()
	return fmt.Sprintf("http://%s%s", l.await(t, "listening")["addr"], path)
}

// logged finds an event, written as its message and fields, in what has been logged.
func (l *life) logged(t *testing.T, want string) {
	t.Helper()
	for line := range strings.Lines(l.stderr.String()) {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatal(err)
		}
		text := fmt.Sprint(event["message"])
		for _, field := range []string{"part", "timeout", "signal", "error"} {
			if value, ok := event[field]; ok {
				text += fmt.Sprintf(" %s=%v", field, value)
			}
		}
		if text == want {
			return
		}
	}
	t.Errorf("the log lacks %q:\n%s", want, l.stderr)
}

func (l *life) end(t *testing.T, want int) {
	t.Helper()
	if got := <-l.code; got != want {
		t.Errorf("exit code %d, want %d, log:\n%s", got, want, l.stderr)
	}
	l.await(t, "stopped")
}

func until(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// TestReadyThroughLife follows /livez and /readyz from before the start to the end.
func TestReadyThroughLife(t *testing.T) {
	mayStart, mayStop, stopping := make(chan struct{}), make(chan struct{}), make(chan struct{})
	healthy := make(chan bool, 1)
	healthy <- true
	svc := service(func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
		<-mayStart
		d.Watch("publisher", func() daemon.Health { return daemon.Health{OK: true} })
		d.Watch("amqp", func() daemon.Health {
			ok := <-healthy
			healthy <- ok
			if ok {
				return daemon.Health{OK: true, Text: "amqp: connected"}
			}
			return daemon.Health{Text: "cannot reach rabbitmq:5672\nOK \x1b[32mforged"}
		})
		d.Go("intake", func(ctx context.Context) error {
			<-ctx.Done()
			close(stopping)
			<-mayStop
			return nil
		})
		return nil
	})
	l := start(t, svc, nil, nil)
	base := l.url(t, "")
	expect := func(path string, status int, body string) {
		t.Helper()
		if gotStatus, gotBody := get(t, base+path); gotStatus != status || gotBody != body {
			t.Errorf("%s: %d %q, want %d %q", path, gotStatus, gotBody, status, body)
		}
	}
	expect("/livez", http.StatusOK, "OK\n")
	expect("/readyz", http.StatusServiceUnavailable, "NOK starting\n")
	close(mayStart)
	l.await(t, "started")
	expect("/readyz", http.StatusOK, "OK running\nOK amqp: connected\nOK publisher\n")
	healthCode, healthText, _ := run(t, []string{"healthcheck", "--url", base + "/readyz"}, nil)
	if healthCode != 0 || !strings.Contains(healthText, "OK amqp: connected") {
		t.Errorf("healthcheck: %d %q", healthCode, healthText)
	}

	<-healthy
	healthy <- false
	expect("/readyz", http.StatusServiceUnavailable, "OK running\nNOK amqp: cannot reach rabbitmq:5672\\u000aOK \\u001b[32mforged\nOK publisher\n")
	expect("/livez", http.StatusOK, "OK\n")
	healthCode, healthText, _ = run(t, []string{"healthcheck"}, []string{"ADMIN_ADDR=" + strings.TrimPrefix(base, "http://127.0.0.1"), "AMQP_PORT=broken"})
	if healthCode != 1 || !strings.Contains(healthText, "NOK amqp") {
		t.Errorf("healthcheck: %d %q", healthCode, healthText)
	}
	<-healthy
	healthy <- true

	l.signals <- syscall.SIGTERM
	<-stopping
	expect("/readyz", http.StatusServiceUnavailable, "NOK stopping\nOK amqp: connected\nOK publisher\n")
	expect("/livez", http.StatusOK, "OK\n")
	close(mayStop)
	l.end(t, daemon.ExitOK)
	if code, _, stderr := run(t, []string{"healthcheck", "--url", base + "/readyz"}, nil); code != 1 || !strings.Contains(stderr, "refused") {
		t.Errorf("healthcheck after the end: %d %q", code, stderr)
	}
}

func TestEndOfLife(t *testing.T) {
	for _, row := range []struct {
		name    string
		svc     func(context.Context, *daemon.Daemon, trapConfig) error
		signals []os.Signal
		want    int
		log     string
	}{
		{
			name: "signal", want: daemon.ExitOK, signals: []os.Signal{syscall.SIGINT}, log: `stopping signal=interrupt`,
			svc: func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
				d.Go("part", until)
				return nil
			},
		},
		{
			name: "part is done", want: daemon.ExitOK, log: `a part has ended, stopping part=once`,
			svc: func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
				d.Go("part", until)
				d.Go("once", func(context.Context) error { return nil })
				return nil
			},
		},
		{
			name: "part fails", want: daemon.ExitFailed, log: `failed part=once error=broken`,
			svc: func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
				d.Go("part", until)
				d.Go("once", func(context.Context) error { return errors.New("broken") })
				return nil
			},
		},
		{
			name: "part panics", want: daemon.ExitFailed, log: `panic part=once error=panic: boom`,
			svc: func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
				d.Go("part", until)
				d.Go("once", func(context.Context) error { panic("boom") })
				return nil
			},
		},
		{
			name: "start fails", want: daemon.ExitFailed, log: `failed part=start error=no port`,
			svc: func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
				d.Go("part", until)
				return errors.New("no port")
			},
		},
		{
			name: "start panics", want: daemon.ExitFailed, log: `panic part=start error=panic: boom`,
			svc: func(context.Context, *daemon.Daemon, trapConfig) error { panic("boom") },
		},
		{
			name: "signal while starting", want: daemon.ExitOK, signals: []os.Signal{syscall.SIGTERM}, log: `stopping signal=terminated`,
			svc: func(ctx context.Context, _ *daemon.Daemon, _ trapConfig) error { return until(ctx) },
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := start(t, service(row.svc), nil, nil)
			for _, sig := range row.signals {
				l.signals <- sig
			}
			l.end(t, row.want)
			l.logged(t, row.log)
		})
	}
}

// TestStuckPart has a part that never stops: the process must end with the code and the name, and at a second signal at once.
func TestStuckPart(t *testing.T) {
	for _, row := range []struct {
		name    string
		env     []string
		signals []os.Signal
		want    int
		log     string
	}{
		{
			name: "timeout", env: []string{"SHUTDOWN_TIMEOUT=10ms"}, signals: []os.Signal{syscall.SIGTERM}, want: daemon.ExitTimeout,
			log: `did not stop in time part=stuck timeout=10ms`,
		},
		{
			name: "second signal", env: []string{"SHUTDOWN_TIMEOUT=1h"}, signals: []os.Signal{syscall.SIGTERM, syscall.SIGTERM}, want: daemon.ExitFailed,
			log: `told twice to stop, ended at once part=stuck signal=terminated`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			release := make(chan struct{})
			svc := service(func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
				d.Go("stuck", func(context.Context) error {
					<-release
					return nil
				})
				return nil
			})
			l := start(t, svc, nil, row.env)
			l.await(t, "started")
			for _, sig := range row.signals {
				l.signals <- sig
			}
			l.end(t, row.want)
			l.logged(t, row.log)
			close(release) // what os.Exit would do, for the leak check
		})
	}
}

// TestProbesAnswerNothingElse holds what a stranger, a browser or a cache could do with the probes.
func TestProbesAnswerNothingElse(t *testing.T) {
	l := start(t, service(func(context.Context, *daemon.Daemon, trapConfig) error { return nil }), nil, nil)
	base := l.url(t, "")
	for _, row := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/livez", http.StatusOK},
		{http.MethodHead, "/livez", http.StatusOK},
		{http.MethodPost, "/livez", http.StatusMethodNotAllowed},
		{http.MethodDelete, "/readyz", http.StatusMethodNotAllowed},
		{http.MethodPut, "/metrics", http.StatusMethodNotAllowed},
		{http.MethodGet, "/", http.StatusOK},
		{http.MethodPost, "/", http.StatusMethodNotAllowed},
		{http.MethodGet, "/index.html", http.StatusNotFound},
		{http.MethodGet, "/debug/pprof/", http.StatusNotFound},
	} {
		req, err := http.NewRequestWithContext(t.Context(), row.method, base+row.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != row.want || answer.Header.Get("Cache-Control") != "no-store" ||
			answer.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %s %v", row.method, row.path, answer.Status, answer.Header)
		}
	}
	_, metrics := get(t, base+"/metrics")
	for _, want := range []string{
		`spamtraps_build_info{go_version="go1`, `service="trap",version="dev"} 1`, "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	l.signals <- syscall.SIGTERM
	l.end(t, daemon.ExitOK)
}

func TestAdminAddrInUse(t *testing.T) {
	taken, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	code, _, stderr := run(t, nil, []string{"ADMIN_ADDR=" + taken.Addr().String()})
	want := "ADMIN_ADDR cannot be listened on: listen tcp " + taken.Addr().String() + ": bind: address already in use"
	if code != daemon.ExitFailed || !strings.Contains(stderr, want) {
		t.Errorf("exit code %d, log:\n%s", code, stderr)
	}
}

// TestOldTypeIsExplained holds the one sentence for those who fed hpfeeds with the Python package's collectors.
func TestOldTypeIsExplained(t *testing.T) {
	for kind, want := range map[string]int{"hpfeeds": 1, "amqp": 0} {
		l := start(t, service(func(_ context.Context, d *daemon.Daemon, _ trapConfig) error {
			d.Go("once", func(context.Context) error { return nil })
			return nil
		}), []string{"-f", file(t, "feed.yml", "type: "+kind+"\n")}, nil)
		l.end(t, daemon.ExitOK)
		if got := strings.Count(l.stderr.String(), "hpfeeds-bridge takes the hpfeeds section"); got != want {
			t.Errorf("type %s: said %d times, log:\n%s", kind, got, l.stderr)
		}
	}
}

// TestSecretsAreNeverShown gives a secret in every way there is, works and fails with it, and looks for it in all that is printed.
func TestSecretsAreNeverShown(t *testing.T) {
	const hidden = "hunter2"
	password := file(t, "password", hidden+"\n")
	var shown strings.Builder
	for _, args := range [][]string{{"config"}, {"config", "--markdown"}, {"-h"}, {"show"}, {"healthcheck"}, {"version"}} {
		for _, env := range [][]string{
			{"AMQP_SECRET=" + hidden, "LOG_LEVEL=debug"},
			{"AMQP_SECRET_FILE=" + password},
			{"AMQP_URL=amqp://writer:" + hidden + "@rabbitmq/"},
			{"AMQP_SECRET=" + hidden, "AMQP_SECRET_FILE=" + password},
			{"AMQP_SECRET=" + hidden, "AMQP_URL=" + hidden},
			{"AMQP_SECRT=" + hidden, "AMQP_PORT=x"},
			{"FEED_CONFIG=" + file(t, "feed.yml", "amqp:\n  secret: "+hidden+"\n  port: x\n")},
			{"FEED_CONFIG=" + file(t, "feed.yml", "amqp:\n  secret: ["+hidden+"]\n  secrt: "+hidden+"\n")},
			{"FEED_CONFIG=" + file(t, "feed.yml", "amqp:\n  secret: *"+hidden+"\n")},
			{"FEED_CONFIG=" + file(t, "feed.yml", "amqp:\n  secret: '"+hidden+"\n")},
			{"FEED_CONFIG=" + file(t, "feed.yml", "amqp:\n  secret: @"+hidden+"\n")},
			{"FEED_CONFIG=" + file(t, "feed.yml", "amqp: "+hidden+"\n")},
		} {
			_, stdout, stderr := run(t, args, append(env, "ADMIN_ADDR=127.0.0.1:1"))
			shown.WriteString(stdout + stderr)
		}
	}
	for _, env := range [][]string{
		{"AMQP_SECRET=" + hidden}, {"AMQP_SECRET_FILE=" + password}, {"AMQP_URL=amqp://writer:" + hidden + "@rabbitmq/"},
	} {
		l := start(t, service(func(_ context.Context, d *daemon.Daemon, cfg trapConfig) error {
			d.Watch("amqp", func() daemon.Health { return daemon.Health{OK: true, Text: fmt.Sprintf("%+v", cfg)} })
			d.Log.Debug().Any("config", cfg).Str("text", fmt.Sprintf("%#v", cfg)).Msg("config")
			d.Go("fails", func(ctx context.Context) error {
				<-ctx.Done()
				return fmt.Errorf("with %v", cfg.Broker.Secret)
			})
			return nil
		}), []string{"-v"}, env)
		base := l.url(t, "")
		l.await(t, "started")
		_, ready := get(t, base+"/readyz")
		_, metrics := get(t, base+"/metrics")
		l.signals <- syscall.SIGTERM
		l.end(t, daemon.ExitFailed)
		if strings.HasPrefix(env[0], "AMQP_URL=") && strings.Contains(l.stderr.String(), `"AMQP_HOST"`) {
			t.Error("a setting that doesn't count is logged as effective")
		}
		shown.WriteString(ready + metrics + l.stderr.String())
	}
	if text := shown.String(); strings.Contains(text, hidden) || strings.Contains(text, "default-password") {
		t.Errorf("a secret shows in\n%s", text)
	}
	if !strings.Contains(shown.String(), `"AMQP_SECRET":"***"`) {
		t.Error("the log lacks the settings")
	}
	if !strings.Contains(shown.String(), `"level":"debug"`) {
		t.Error("-v isn't debug")
	}
}

// TestRealSignals boots with the process's own signals.
func TestRealSignals(t *testing.T) {
	var stderr console
	svc := service(func(context.Context, *daemon.Daemon, trapConfig) error {
		return syscall.Kill(os.Getpid(), syscall.SIGTERM)
	})
	p := daemon.OSProcess()
	p.Args, p.Stderr = nil, &stderr
	if code := daemon.Main(svc, p); code != daemon.ExitOK || !strings.Contains(stderr.String(), `"signal":"terminated"`) {
		t.Errorf("exit code %d, log:\n%s", code, &stderr)
	}
}

// TestCommandEndsAtASignal has a command that would run for ever.
func TestCommandEndsAtASignal(t *testing.T) {
	signals := make(chan os.Signal, 1)
	svc := service(nil)
	svc.Commands[0].Run = func(ctx context.Context, _ daemon.Process, _ trapConfig, _ []string) int {
		signals <- syscall.SIGINT
		<-ctx.Done()
		return daemon.ExitFailed
	}
	if code := daemon.Main(svc, daemon.Process{Args: []string{"show"}, Signals: signals}); code != daemon.ExitFailed {
		t.Errorf("exit code %d", code)
	}
}

// TestHealthcheckOfAFrozenService asks one that takes the connection and never answers.
func TestHealthcheckOfAFrozenService(t *testing.T) {
	frozen, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer frozen.Close()
	code, _, stderr := run(t, []string{"healthcheck"}, []string{"ADMIN_ADDR=" + frozen.Addr().String()})
	if code != daemon.ExitFailed || !strings.Contains(stderr, "context deadline exceeded") {
		t.Errorf("exit code %d, stderr %s", code, stderr)
	}
}

// TestWrongStructs holds that a service which could not be configured doesn't even boot.
func TestWrongStructs(t *testing.T) {
	type noCommon struct{}
	type noKind struct {
		daemon.Common
		Field map[string]string `env:"FIELD"`
	}
	type noSource struct {
		daemon.Common
		Field string `env:"-"`
	}
	type noPart struct {
		daemon.Common
		Section struct {
			Whole string `env:"WHOLE" over:"PART"`
		} `section:"X"`
	}
	for want, boot := range map[string]func(){
		"does not embed daemon.Common":                         boot[noCommon],
		"a setting cannot be of type map[string]string":        boot[noKind],
		`a setting with the tag env:"-" can be set by nothing`: boot[noSource],
		"X_WHOLE is over PART, which isn't there":              boot[noPart],
	} {
		t.Run(want, func(t *testing.T) {
			defer func() {
				if reason := fmt.Sprint(recover()); !strings.Contains(reason, want) {
					t.Errorf("panic %s", reason)
				}
			}()
			boot()
		})
	}
}

func boot[C any]() {
	svc := daemon.Service[C]{Name: "trap", Defaults: func() C { return *new(C) }}
	daemon.Main(svc, daemon.Process{Args: []string{"version"}, Stdout: io.Discard, Stderr: io.Discard})
}
