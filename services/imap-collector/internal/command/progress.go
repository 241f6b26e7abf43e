package command

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"spamtraps.internal/imap-collector/internal/collector"
	"spamtraps.internal/libs/daemon"
)

const (
	// redraw is how often lines of progress are drawn anew, report how often one is logged where there is no terminal.
	redraw = 250 * time.Millisecond
	report = 10 * time.Second
	// mostBars is how many mailboxes are shown at once.
	mostBars = 12
	// rateWindow is what rate and remaining time are taken from.
	rateWindow = 15 * time.Second
)

// Progress shows how far a run is until ctx ends, and returns when the lines are gone again: on a terminal a line for each mailbox that is worked on and
// one for all, elsewhere a line of the log now and then.
func Progress(ctx context.Context, screen *Screen, log zerolog.Logger, status func() []collector.Status) {
	if screen != nil && screen.IsTerminal() {
		newBars(screen).run(ctx, status)
		return
	}
	tick := time.NewTicker(report)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			sum := sumOf(status())
			log.Info().Int("published", sum.Published).Int("found", sum.Found).Int64("bytes", sum.Bytes).Int("mailboxes", sum.all).
				Int("done", sum.done).Int("failed", sum.failed).Msg("progress")
		case <-ctx.Done():
			return
		}
	}
}

// sum is all mailboxes together.
type sum struct {
	collector.Result
	all, done, failed int
}

func sumOf(boxes []collector.Status) sum {
	total := sum{all: len(boxes)}
	for _, b := range boxes {
		total.Found += b.Found
		total.Published += b.Published
		total.Bytes += b.Bytes
		total.Oversize += b.Oversize
		total.Parked += b.Parked
		total.Unmarked += b.Unmarked
		switch b.Doing {
		case collector.DoingDone:
			total.done++
		case collector.DoingFailed:
			total.failed++
		}
	}
	return total
}

// bars are the lines on a terminal. One goroutine changes them; the library's draws what they say.
type bars struct {
	screen   *Screen
	progress *mpb.Progress
	total    *mpb.Bar
	shown    map[string]*mpb.Bar
	rate     rate
	pace     atomic.Value // string: rate and remaining time
}

func newBars(screen *Screen) *bars {
	b := &bars{screen: screen, shown: make(map[string]*mpb.Bar)}
	b.pace.Store("")
	b.progress = mpb.New(mpb.WithOutput(screen.file), mpb.WithWidth(24), mpb.WithRefreshRate(redraw))
	b.total = b.add("all", 1<<20, decor.Any(func(decor.Statistics) string { return b.pace.Load().(string) }))
	return b
}

// add adds a line, the further down the larger its place is. Its total is not known yet, so it never ends by itself.
func (b *bars) add(name string, place int, more ...decor.Decorator) *mpb.Bar {
	return b.progress.AddBar(0, mpb.BarPriority(place), mpb.PrependDecorators(decor.Name(fmt.Sprintf("%-32.32s ", daemon.Printable(name)))),
		mpb.AppendDecorators(append([]decor.Decorator{decor.CountersNoUnit(" %d of %d")}, more...)...))
}

func (b *bars) run(ctx context.Context, status func() []collector.Status) {
	b.screen.show(b.progress)
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for ctx.Err() == nil {
		b.update(status(), time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	for _, bar := range b.shown {
		bar.Abort(true)
	}
	b.total.Abort(true)
	b.progress.Wait()
	b.screen.show(nil)
}

// update brings the lines to where the mailboxes are.
func (b *bars) update(boxes []collector.Status, now time.Time) {
	active := make(map[string]bool)
	for place, box := range boxes {
		if box.Doing != collector.DoingFetching && box.Doing != collector.DoingConnecting || len(active) == mostBars {
			continue
		}
		active[box.Name] = true
		bar := b.shown[box.Name]
		if bar == nil {
			bar = b.add(box.Name, place)
			b.shown[box.Name] = bar
		}
		bar.SetTotal(int64(max(box.Found, box.Published)), false)
		bar.SetCurrent(int64(box.Published))
	}
	for name, bar := range b.shown {
		if !active[name] {
			bar.Abort(true)
			delete(b.shown, name)
		}
	}
	all := sumOf(boxes)
	b.total.SetTotal(int64(max(all.Found, all.Published)), false)
	b.total.SetCurrent(int64(all.Published))
	b.pace.Store(fmt.Sprintf(", %d of %d mailboxes%s", all.done+all.failed, all.all, b.rate.after(now, all)))
}

// rate is how fast it goes, over the last while.
type rate struct{ points []point }

type point struct {
	at    time.Time
	mails int
	bytes int64
}

// after takes in how far it is, and returns the rate in words, with the time that what is found so far still needs.
func (r *rate) after(now time.Time, all sum) string {
	r.points = append(r.points, point{now, all.Published, all.Bytes})
	for len(r.points) > 2 && now.Sub(r.points[0].at) > rateWindow {
		r.points = r.points[1:]
	}
	first := r.points[0]
	seconds := now.Sub(first.at).Seconds()
	if seconds <= 0 || all.Published == first.mails {
		return ""
	}
	perSecond := float64(all.Published-first.mails) / seconds
	text := fmt.Sprintf(", %.0f/s, %s/s", perSecond, size(int64(float64(all.Bytes-first.bytes)/seconds)))
	if left := all.Found - all.Published; left > 0 {
		text += fmt.Sprintf(", %s left", time.Duration(float64(left)/perSecond*float64(time.Second)).Round(time.Second))
	}
	return text
}

// size writes a number of bytes as people do.
func size(n int64) string {
	for _, unit := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.bytes {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.bytes), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}
