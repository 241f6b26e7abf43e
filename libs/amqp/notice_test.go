package amqp

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// A broker that is away for an hour, and is asked every second, is about one line a minute.
func TestTroubleIsLoggedOnceAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		logger := zerolog.New(log)
		var n notice
		causes := []string{"connection refused", "no answer"}
		for i := range 3600 {
			n.warn(&logger, "cannot reach rabbitmq:5672", causes[i%2])
			time.Sleep(time.Second)
		}
		if lines := len(log.at("warn")); lines < 60 || lines > 121 {
			t.Errorf("%d warnings", lines)
		}
		n.over(&logger, "it is back", time.Hour)
		n.over(&logger, "it is back", time.Hour)
		if lines := log.at("info"); len(lines) != 1 || !strings.Contains(log.text(), `"after":3600000`) {
			t.Errorf("the end: %v", lines)
		}
	})
}

func TestShortOutageIsOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &journal{}
		logger := zerolog.New(log)
		var n notice
		for _, what := range []string{"lost the connection", "cannot reach", "cannot open a connection"} {
			n.warn(&logger, what, "")
			time.Sleep(time.Second)
		}
		if lines := log.at("warn"); len(lines) != 1 || lines[0].Message != "amqp: lost the connection" {
			t.Errorf("%v", lines)
		}
	})
}

func TestPauses(t *testing.T) {
	longest := func(d time.Duration) time.Duration { return d }
	none := func(time.Duration) time.Duration { return 0 }
	for _, row := range []struct {
		slow        bool
		first, last time.Duration
		least       time.Duration
	}{
		{false, 100 * time.Millisecond, 2 * time.Second, 0},
		{true, 5 * time.Second, time.Minute, 5 * time.Second},
	} {
		p := pauses{jitter: longest, slow: row.slow}
		if got := p.next(); got != row.first {
			t.Errorf("slow %v: first %v", row.slow, got)
		}
		for range 100 {
			p.next()
		}
		if got := p.next(); got != row.last {
			t.Errorf("slow %v: last %v", row.slow, got)
		}
		p.jitter = none
		if got := p.next(); got != row.least {
			t.Errorf("slow %v: least %v", row.slow, got)
		}
	}
	for range 1000 {
		if d := fullJitter(time.Second); d < 0 || d > time.Second {
			t.Fatalf("jitter %v", d)
		}
	}
}
