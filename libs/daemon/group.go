package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// group runs the parts of a service and stops them in the reverse order of their start.
type group struct {
	log zerolog.Logger
	// ended takes the first part that returns; that is enough to know that all must stop.
	ended chan *part

	mu       sync.Mutex
	parts    []*part
	stopping bool
}

// part is a goroutine with a name. err may be read once done is closed.
type part struct {
	name   string
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func newGroup(log zerolog.Logger) *group {
	return &group{log: log, ended: make(chan *part, 1)}
}

func (g *group) start(name string, run func(context.Context) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stopping {
		return
	}
	g.parts = append(g.parts, g.launch(name, run, g.ended))
}

// launch runs a part outside of the order, and tells ended, if there is one, when it has returned.
//
//nolint:contextcheck,nolintlint // a part ends in its turn, not with its caller; this acts where Go is called, which nolintlint cannot see
func (g *group) launch(name string, run func(context.Context) error, ended chan<- *part) *part {
	ctx, cancel := context.WithCancel(g.log.WithContext(context.Background()))
	p := &part{name: name, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = g.guard(ctx, name, run)
		select {
		case ended <- p:
		default:
		}
	}()
	return p
}

// guard turns a panic into an error, because a process that goes on without one of its parts looks alive and isn't, and takes
// the error of a cancelled context for the clean end that it is. It logs any other.
func (g *group) guard(ctx context.Context, name string, run func(context.Context) error) (err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v", reason)
			g.log.Error().Err(err).Str("part", name).Strs("stack", strings.Split(string(debug.Stack()), "\n")).Msg("panic")
		}
	}()
	err = run(ctx)
	if err == nil || (ctx.Err() != nil && errors.Is(err, context.Canceled)) {
		return nil
	}
	if errors.As(err, new(ExitCode)) {
		return err
	}
	g.log.Error().Err(err).Str("part", name).Msg("failed")
	return err
}

// shutdown is how the parts are made to end.
type shutdown struct {
	timeout time.Duration
	signals <-chan os.Signal // another one means: at once
}

// stop ends first and then all parts, the last started first, and returns the exit code. It waits for each of them, but for
// all together no longer than the timeout; it logs which part was too slow.
func (g *group) stop(first *part, how shutdown) int {
	g.mu.Lock()
	g.stopping = true
	order := append(slices.Clone(g.parts), first) // last in, so first out
	g.mu.Unlock()
	defer func() {
		for _, p := range order { // when the wait was cut short, the others still hear of it
			p.cancel()
		}
	}()
	late := time.NewTimer(how.timeout)
	defer late.Stop()
	code := ExitOK
	for _, p := range slices.Backward(order) {
		p.cancel()
		if cut := g.await(p, late.C, how); cut != ExitOK {
			return cut
		}
		code = worse(code, p.err)
	}
	return code
}

// worse returns the exit code after one more part: a failure counts most, then a code that a part chose.
func worse(code int, err error) int {
	var chosen ExitCode
	switch {
	case err == nil || code == ExitFailed:
		return code
	case errors.As(err, &chosen):
		return int(chosen)
	default:
		return ExitFailed
	}
}

// await waits for one part, and returns another code than ExitOK when it must not wait any longer.
func (g *group) await(p *part, late <-chan time.Time, how shutdown) int {
	select {
	case <-p.done: // asked alone first: a part that has stopped is not what a signal or the timeout finds
		return ExitOK
	default:
	}
	select {
	case <-p.done:
		return ExitOK
	case <-late:
		g.log.Error().Str("part", p.name).Stringer("timeout", how.timeout).Msg("did not stop in time")
		return ExitTimeout
	case sig := <-how.signals:
		g.log.Error().Str("part", p.name).Stringer("signal", sig).Msg("told twice to stop, ended at once")
		return ExitFailed
	}
}
