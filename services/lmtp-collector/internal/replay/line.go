package replay

import "context"

// completion is a mail that is behind, or was given up.
type completion struct {
	number       int
	source, mark string // "" : it has no place in the state
	report       Report
}

// line keeps the mails that are under way in order: one is behind when those before it are. One goroutine owns it.
type line struct {
	replay   *Replay
	places   chan struct{} // one for each mail under way; it is free again when the state file says that the mail is behind
	left     chan completion
	finished chan struct{} // no more will come
	broken   chan struct{} // closed when the state cannot be written
	next     int           // number of the next mail; only the dispatcher uses it
	behind   int           // how many are; only run uses it, and whoever has waited for its end
}

func newLine(r *Replay) *line {
	window := max(1, r.Window)
	return &line{
		replay: r, places: make(chan struct{}, window), left: make(chan completion, window),
		finished: make(chan struct{}), broken: make(chan struct{}),
	}
}

// enter waits for a place and returns the mail's number in line. It returns false when ctx or the line has ended.
func (l *line) enter(ctx context.Context) (number int, ok bool) {
	if ctx.Err() != nil {
		return 0, false
	}
	select {
	case l.places <- struct{}{}:
		l.next++
		return l.next - 1, true
	case <-l.broken:
	case <-ctx.Done():
	}
	return 0, false
}

// leave says what became of a mail. It never blocks: there are no more mails under way than the channel has room for.
func (l *line) leave(c completion) { l.left <- c }

// add is enter and leave for what needs no work.
func (l *line) add(ctx context.Context, c completion) bool {
	number, ok := l.enter(ctx)
	if ok {
		c.number = number
		l.leave(c)
	}
	return ok
}

// run reports mails in order, and writes down how far that is, until finished. A mail that was given up holds up all behind it.
func (l *line) run() error {
	waiting := make(map[int]completion)
	for {
		select {
		case c := <-l.left:
			waiting[c.number] = c
		case <-l.finished:
			for len(l.left) > 0 {
				c := <-l.left
				waiting[c.number] = c
			}
			return l.advance(waiting)
		}
		for len(l.left) > 0 { // one write for all that have come
			c := <-l.left
			waiting[c.number] = c
		}
		if err := l.advance(waiting); err != nil {
			close(l.broken)
			l.discard()
			return err
		}
	}
}

// discard takes in what still comes, until finished.
func (l *line) discard() {
	for {
		select {
		case <-l.left:
		case <-l.finished:
			return
		}
	}
}

// advance reports the mails that are behind now.
func (l *line) advance(waiting map[int]completion) error {
	var last *completion
	from := l.behind
	for {
		c, ok := waiting[l.behind]
		if !ok || c.report.Outcome == unfinished {
			break
		}
		delete(waiting, l.behind)
		l.behind++
		l.replay.Done(c.report)
		l.replay.State.count(c.report.Outcome)
		if c.mark != "" && c.report.Outcome != Before {
			last = &c
		}
	}
	if last != nil {
		if err := l.replay.State.save(last.source, last.mark); err != nil {
			return err
		}
	}
	for range l.behind - from {
		<-l.places
	}
	return nil
}
