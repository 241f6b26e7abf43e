package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// admin serves /livez, /readyz, /metrics and the status page at /.
type admin struct {
	listener net.Listener
	server   *http.Server
}

// adminStop is what a request in flight gets when everything else has stopped.
const adminStop = time.Second

func newAdmin(ctx context.Context, addr string, ready *readiness, metrics *prometheus.Registry, page *statusPage, log zerolog.Logger) (*admin, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("ADMIN_ADDR cannot be listened on: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "OK\n") })
	mux.Handle("GET /readyz", ready)
	mux.Handle("GET /{$}", page)
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	return &admin{listener: listener, server: &http.Server{
		Handler:           neverCached(mux),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(zerolog.NewSlogHandler(log), slog.LevelWarn),
	}}, nil
}

func (a *admin) addr() string { return a.listener.Addr().String() }

// run serves until ctx ends; it is a part of the group, the first one and so the last to stop.
func (a *admin) run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- a.server.Serve(a.listener) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %s: %w", a.addr(), err)
	case <-ctx.Done():
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), adminStop)
	defer cancel()
	if err := a.server.Shutdown(ctx); err != nil {
		_ = a.server.Close() // a slow reader of metrics holds up no stop
	}
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", a.addr(), err)
	}
	return nil
}

func neverCached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		next.ServeHTTP(w, r)
	})
}

// readiness answers /readyz: 200 when the service can work, else 503, with a line for each thing that is watched.
type readiness struct {
	mu     sync.Mutex
	phase  phase
	checks map[string]func() Health
}

// phase is where in its life the service is; only a running one is ready.
type phase string

const (
	starting phase = "starting"
	running  phase = "running"
	stopping phase = "stopping"
)

func newReadiness() *readiness {
	return &readiness{phase: starting, checks: make(map[string]func() Health)}
}

func (r *readiness) watch(name string, check func() Health) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.checks[name] = check
}

func (r *readiness) enter(p phase) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = p
}

// ServeHTTP calls the checks.
func (r *readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	ok, lines := r.lines()
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, line := range lines {
		_, _ = io.WriteString(w, readyLine(line)) // whoever asked may be gone
	}
}

func (r *readiness) current() phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.phase
}

// lines says whether the service can work, and how each thing that is watched is, sorted by name.
func (r *readiness) lines() (bool, []Health) {
	r.mu.Lock()
	phase, checks := r.phase, make(map[string]func() Health, len(r.checks))
	names := make([]string, 0, len(r.checks))
	for name, check := range r.checks {
		checks[name] = check
		names = append(names, name)
	}
	r.mu.Unlock()

	ready := phase == running
	lines := []Health{{ready, string(phase)}}
	slices.Sort(names)
	for _, name := range names {
		health := checks[name]()
		ready = ready && health.OK
		lines = append(lines, Health{health.OK, watchText(name, health.Text)})
	}
	return ready, lines
}

// watchText begins with the name of what is watched, also when the check leaves it out.
func watchText(name, text string) string {
	switch {
	case text == "":
		text = name
	case !strings.HasPrefix(text, name+":"):
		text = name + ": " + text
	}
	return string(escapeUnsafe([]byte(text)))
}

func readyLine(h Health) string {
	if h.OK {
		return "OK " + h.Text + "\n"
	}
	return "NOK " + h.Text + "\n"
}
