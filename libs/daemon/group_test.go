package daemon

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// journal is a log and an order of events that parts write to at the same time.
type journal struct {
	mu     sync.Mutex
	log    bytes.Buffer
	events []string
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.Write(p)
}

func (j *journal) note(event string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.events = append(j.events, event)
}

// partFor is a part that needs a while to stop.
func (j *journal) partFor(name string, stopping time.Duration, end error) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.note("tell " + name)
		time.Sleep(stopping) // of the test's own clock: this is the work of stopping, nobody waits for anything by it
		j.note("end " + name)
		return end
	}
}

func done(context.Context) error { return nil }

func TestStopIsInReverseOrderAndInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := newGroup(zerolog.New(&j))
		g.start("a", j.partFor("a", time.Second, context.Canceled))
		g.start("b", j.partFor("b", time.Second, nil))
		g.start("c", j.partFor("c", time.Second, nil))
		code := g.stop(g.launch("start", done, nil), shutdown{timeout: time.Minute})
		if got := strings.Join(j.events, ", "); got != "tell c, end c, tell b, end b, tell a, end a" {
			t.Errorf("stopped in the order %s", got)
		}
		if code != ExitOK || j.log.Len() > 0 {
			t.Errorf("exit code %d, log %s", code, &j.log)
		}
	})
}

func TestStopCodes(t *testing.T) {
	broken := errors.New("it broke")
	for _, row := range []struct {
		name    string
		parts   func(*journal, *group)
		signals []os.Signal
		want    int
		log     string
	}{
		{name: "clean", want: ExitOK, parts: func(j *journal, g *group) { g.start("a", j.partFor("a", time.Second, nil)) }},
		{name: "a code of its own", want: 4, parts: func(j *journal, g *group) { g.start("a", j.partFor("a", time.Second, ExitCode(4))) }},
		{name: "a failure counts more", want: ExitFailed, log: `"error":"it broke","part":"b","message":"failed"`, parts: func(j *journal, g *group) {
			g.start("a", j.partFor("a", time.Second, ExitCode(4)))
			g.start("b", j.partFor("b", time.Second, broken))
			g.start("c", j.partFor("c", time.Second, ExitCode(5)))
		}},
		{name: "error while stopping", want: ExitFailed, log: `"error":"it broke","part":"b","message":"failed"`, parts: func(j *journal, g *group) {
			g.start("a", j.partFor("a", time.Second, nil))
			g.start("b", j.partFor("b", time.Second, broken))
			g.start("c", j.partFor("c", time.Second, nil))
		}},
		{
			name: "each in time, all too late", want: ExitTimeout, log: `"part":"a","timeout":"10s","message":"did not stop in time"`,
			parts: func(j *journal, g *group) {
				g.start("a", j.partFor("a", 6*time.Second, nil))
				g.start("b", j.partFor("b", 6*time.Second, nil))
			},
		},
		{name: "error and too late", want: ExitTimeout, log: `"part":"a","timeout":"10s"`, parts: func(j *journal, g *group) {
			g.start("a", j.partFor("a", time.Hour, nil))
			g.start("b", j.partFor("b", 0, broken))
		}},
		{
			name: "second signal", want: ExitFailed, signals: []os.Signal{syscall.SIGTERM}, log: `"part":"a","signal":"terminated"`,
			parts: func(j *journal, g *group) { g.start("a", j.partFor("a", time.Second, nil)) },
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				g := newGroup(zerolog.New(&j))
				row.parts(&j, g)
				signals := make(chan os.Signal, 1)
				for _, sig := range row.signals {
					signals <- sig
				}
				first := g.launch("start", done, nil)
				synctest.Wait()
				if code := g.stop(first, shutdown{timeout: 10 * time.Second, signals: signals}); code != row.want {
					t.Errorf("exit code %d, want %d", code, row.want)
				}
				for _, p := range g.parts { // the late ones, which a process would end here
					<-p.done
				}
				if !strings.Contains(j.log.String(), row.log) || (row.log == "") != (j.log.Len() == 0) {
					t.Errorf("log %s, want %s", &j.log, row.log)
				}
			})
		})
	}
}

func TestPanicOfAPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		g := newGroup(zerolog.New(&j))
		g.start("waits", j.partFor("waits", 0, nil))
		g.start("breaks", func(context.Context) error { panic("boom") })
		if p := <-g.ended; p.name != "breaks" {
			t.Errorf("%s ended first", p.name)
		}
		if code := g.stop(g.launch("start", done, nil), shutdown{timeout: time.Minute}); code != ExitFailed {
			t.Errorf("exit code %d", code)
		}
		for _, want := range []string{`"error":"panic: boom"`, `"part":"breaks"`, "TestPanicOfAPart"} {
			if !strings.Contains(j.log.String(), want) {
				t.Errorf("log lacks %s: %s", want, &j.log)
			}
		}
	})
}

func TestNothingStartsAfterTheStop(t *testing.T) {
	g := newGroup(zerolog.Nop())
	g.stop(g.launch("start", done, nil), shutdown{timeout: time.Minute})
	g.start("late", func(context.Context) error {
		t.Error("started")
		return nil
	})
	if len(g.parts) > 0 {
		t.Error("a part is registered")
	}
}

func TestPartsFindTheLogger(t *testing.T) {
	var j journal
	g := newGroup(zerolog.New(&j))
	g.start("logs", func(ctx context.Context) error {
		zerolog.Ctx(ctx).Info().Msg("here")
		return nil
	})
	<-g.ended
	if !strings.Contains(j.log.String(), `"message":"here"`) {
		t.Errorf("log %q", &j.log)
	}
}
