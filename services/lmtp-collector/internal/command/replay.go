package command

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/pflag"

	"spamtraps.internal/libs/amqp"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/lmtp-collector/internal/archive"
	"spamtraps.internal/lmtp-collector/internal/config"
	"spamtraps.internal/lmtp-collector/internal/replay"
)

// Replay returns the subcommand that feeds mails out of backups and archives to the broker again.
func Replay() daemon.Command[config.Config] {
	var o replayOptions
	return daemon.Command[config.Config]{
		Name:  "replay",
		Usage: "[flags] PATH…",
		About: "publish mails of maildirs, mbox files, .eml files, folders of these, or stdin (-) again",
		Flags: o.register,
		Run: func(ctx context.Context, p daemon.Process, cfg config.Config, args []string) int {
			return (&replayer{replayOptions: o, out: p.Stdout, notes: p.Stderr}).main(ctx, p.Stdin, cfg, args)
		},
	}
}

// replayOptions are the flags.
type replayOptions struct {
	since, until    string
	domains, hashes []string
	queue, state    string
	dryRun          bool
}

func (o *replayOptions) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.since, "since", "", "only mail received at this time or later: 2026-11-20, 2026-11-20T14:00, 2026-11-20T14:00:00Z, or 36h, 7d for that long ago (UTC)")
	flags.StringVar(&o.until, "until", "", "only mail received before this time")
	flags.StringSliceVar(&o.domains, "rcpt-domain", nil, "only mail to one of these domains; without an envelope To, Cc and the like count")
	flags.StringSliceVar(&o.hashes, "sha256", nil, "only mail whose sha256 begins so")
	flags.StringVar(&o.queue, "queue", "", "publish to this queue alone, which must exist, instead of the exchange")
	flags.StringVar(&o.state, "state", "", "file to keep how far it is, so that the same command goes on there after it was ended")
	flags.BoolVarP(&o.dryRun, "dry-run", "n", false, "publish nothing; list what would be")
}

// replayer is one call of the command.
type replayer struct {
	replayOptions
	out, notes io.Writer

	show                       func(replay.Report) // progress
	say                        func(line string)   // beside it
	replayed, passed, bad, old int
	bytes                      int64
}

func (r *replayer) main(ctx context.Context, stdin io.Reader, cfg config.Config, paths []string) int {
	err := r.run(ctx, stdin, cfg, paths)
	switch {
	case errors.As(err, new(usageError)):
		fmt.Fprintf(r.notes, "lmtp-collector: %s\n", err)
		return daemon.ExitRefused
	case err != nil:
		fmt.Fprintf(r.notes, "lmtp-collector: replay: %s\n", printable(err.Error()))
		return daemon.ExitFailed
	case r.bad > 0:
		return daemon.ExitFailed
	}
	return daemon.ExitOK
}

func (r *replayer) run(ctx context.Context, stdin io.Reader, cfg config.Config, paths []string) (err error) {
	filter, err := r.filter(time.Now())
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return usageError("replay takes the paths of what is to be replayed: maildirs, mbox files, .eml files, folders of these, or - for stdin")
	}
	for i, path := range paths {
		if path != "-" {
			if paths[i], err = filepath.Abs(path); err != nil {
				return err
			}
		}
	}
	state, err := r.openState(paths)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	if mails, complete := state.Before(); complete {
		fmt.Fprintf(r.notes, "all is replayed already, %d mails: remove %s to begin anew\n", mails, r.state)
		return nil
	}
	sources, err := archive.Open(paths, stdin, cfg.AMQP.MaxMessageBytes)
	if err != nil {
		return err
	}
	if len(sources) == 0 {
		return errors.New("there is no mail: looked for maildirs, .mbox and .eml files")
	}
	job := &replay.Replay{
		Sources: sources, Filter: filter, State: state,
		App: "lmtp-collector/" + daemon.Version(), Collector: "lmtp-collector", Sensor: cfg.Sensor,
		Window: cfg.AMQP.InFlight, Bytes: cfg.AMQP.InFlightBytes, Done: r.done,
	}
	r.say = func(line string) { fmt.Fprintln(r.notes, line) }
	if r.dryRun {
		r.show = r.list
		err = job.Run(ctx)
	} else {
		err = r.publish(ctx, cfg.AMQP, cfg.LogLevel, job)
	}
	r.sumUp(err)
	return err
}

// publish runs the job with a publisher of its own.
func (r *replayer) publish(ctx context.Context, cfg amqp.Config, level string, job *replay.Replay) error {
	if r.queue != "" {
		cfg = cfg.ToQueue(r.queue)
	}
	log := zerolog.Nop()
	if level == "debug" {
		log = zerolog.New(zerolog.ConsoleWriter{Out: r.notes, NoColor: true}).With().Timestamp().Logger()
	}
	publisher := amqp.NewPublisher(cfg, log, prometheus.NewRegistry())
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan error, 1)
	go func() { ended <- publisher.Run(running) }()
	job.Publisher = publisher

	total := int64(0)
	for _, source := range job.Sources {
		total += source.Bytes
	}
	end := r.progress(total, func() string {
		if state := publisher.State(); !state.OK {
			return state.Text
		}
		return ""
	})
	err := job.Run(ctx)
	end()
	stop()
	return errors.Join(err, <-ended)
}

// progress begins to show how far it is: as a bar on a terminal, else now and then as a line. The end returned takes the bar away.
func (r *replayer) progress(total int64, trouble func() string) (end func()) {
	finished := make(chan struct{})
	stopped := make(chan struct{})
	end = func() {
		close(finished)
		<-stopped
	}
	if daemon.IsTerminal(r.notes) {
		if total == 0 {
			total = -1
		}
		bar := progressbar.NewOptions64(total,
			progressbar.OptionSetWriter(r.notes), progressbar.OptionShowBytes(true), progressbar.OptionShowCount(), progressbar.OptionSetWidth(20),
			progressbar.OptionThrottle(200*time.Millisecond), progressbar.OptionClearOnFinish(), progressbar.OptionSetDescription("replaying"))
		r.show = func(report replay.Report) { _ = bar.Add64(report.Size) }
		r.say = func(line string) { _, _ = progressbar.Bprintln(bar, line) }
		go r.every(time.Second, finished, stopped, func() {
			if text := trouble(); text != "" {
				bar.Describe("waiting for " + printable(text))
				return
			}
			bar.Describe("replaying")
		}, func() { _ = bar.Clear() })
		return end
	}
	shown := make(chan replay.Report)
	r.show = func(report replay.Report) { shown <- report }
	go func() {
		defer close(stopped)
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		mails, bytes := 0, int64(0)
		for {
			select {
			case report := <-shown:
				mails++
				bytes += report.Size
			case <-tick.C:
				text := ""
				if cause := trouble(); cause != "" {
					text = "; waiting for " + printable(cause)
				}
				fmt.Fprintf(r.notes, "replay: %d mails behind, %s of %s%s\n", mails, size(bytes), size(total), text)
			case <-finished:
				return
			}
		}
	}()
	return end
}

// every calls do until finished, then last.
func (r *replayer) every(interval time.Duration, finished <-chan struct{}, stopped chan<- struct{}, do, last func()) {
	defer close(stopped)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-finished:
			last()
			return
		}
	}
}

// done counts, and names what is bad.
func (r *replayer) done(report replay.Report) {
	switch report.Outcome {
	case replay.Replayed:
		r.replayed++
		r.bytes += report.Size
	case replay.Passed:
		r.passed++
	case replay.Before:
		r.old++
	default:
		r.bad++
		r.say(fmt.Sprintf("bad: %s: %s", printable(report.Name), printable(report.Err.Error())))
	}
	r.show(report)
}

// list prints a line for each mail of a dry run.
func (r *replayer) list(report replay.Report) {
	if report.Message == nil {
		return
	}
	headers := report.Message.Headers
	fmt.Fprintf(r.out, "%v  %10v  %v  %s\n", headers["received_at"], headers["size"], headers["sha256"], printable(report.Name))
}

func (r *replayer) sumUp(err error) {
	verb := "replayed"
	if r.dryRun {
		verb = "would be replayed"
	}
	text := fmt.Sprintf("%d mails %s (%s), %d did not match, %d bad", r.replayed, verb, size(r.bytes), r.passed, r.bad)
	if r.old > 0 {
		text += fmt.Sprintf("; %d mails or folders were behind already", r.old)
	}
	if err != nil {
		text += "; not all were reached"
		if r.state != "" {
			text += ": the same command goes on there"
		}
	}
	fmt.Fprintln(r.notes, text)
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
	return fmt.Sprintf("%d bytes", n)
}

// openState opens the state file, if one is wanted. A dry run leaves it alone.
func (r *replayer) openState(paths []string) (*replay.State, error) {
	if r.state == "" || r.dryRun {
		return nil, nil //nolint:nilnil // a nil State keeps nothing
	}
	job, err := json.Marshal([]any{paths, r.since, r.until, r.domains, r.hashes, r.queue})
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(job)
	return replay.OpenState(r.state, hex.EncodeToString(sum[:]))
}

func (r *replayer) filter(now time.Time) (f replay.Filter, err error) {
	if f.Since, err = parseTime("since", r.since, now); err != nil {
		return f, err
	}
	if f.Until, err = parseTime("until", r.until, now); err != nil {
		return f, err
	}
	for _, domain := range r.domains {
		f.Domains = append(f.Domains, strings.TrimPrefix(domain, "@"))
	}
	for _, hash := range r.hashes {
		hash = strings.ToLower(hash)
		if !regexp.MustCompile(`^[0-9a-f]{6,64}$`).MatchString(hash) {
			return f, usageError(fmt.Sprintf("--sha256 takes 6 to 64 hex digits, not %q", hash))
		}
		f.SHA256 = append(f.SHA256, hash)
	}
	return f, nil
}

// parseTime reads a point in time, or how long ago it is.
func parseTime(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, nil
		}
	}
	if days, found := strings.CutSuffix(text, "d"); found {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	return time.Time{}, usageError(fmt.Sprintf("--%s takes a time such as 2026-11-20, 2026-11-20T14:00:00Z, 36h or 7d, not %q", flag, text))
}
