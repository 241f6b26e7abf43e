// Package command holds the subcommands of hpfeeds-bridge beside those that every service has.
package command

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"os"
	"time"

	"github.com/spf13/pflag"

	"spamtraps.internal/hpfeeds-bridge/internal/config"
	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/libs/hpfeeds"
)

// Tail returns the subcommand that subscribes to channels and prints what comes, so that one can see the feed work. The ident needs the right to
// subscribe, which that of the bridge itself need not have. It runs until it is told to stop.
func Tail() daemon.Command[config.Config] {
	var o tailOptions
	return daemon.Command[config.Config]{
		Name:  "tail",
		Usage: "[-o DIR] [-n COUNT] [CHANNEL…]",
		About: "subscribe to channels (HPFEEDS_CHANNELS, unless named) and print a line for each mail that comes",
		Flags: o.register,
		Run: func(ctx context.Context, p daemon.Process, cfg config.Config, args []string) int {
			return (&tailer{tailOptions: o, out: p.Stdout, notes: p.Stderr}).main(ctx, cfg, args)
		},
	}
}

type tailOptions struct {
	folder string
	count  int
}

func (o *tailOptions) register(flags *pflag.FlagSet) {
	flags.StringVarP(&o.folder, "output", "o", "", "folder to write each mail into, as an .eml file")
	flags.IntVarP(&o.count, "count", "n", 0, "stop after so many mails; 0 is never")
}

// tailer is one call of the command.
type tailer struct {
	tailOptions
	out, notes io.Writer
	folder     *os.Root // nil: mails are not written
	received   int
	said       string // the last note, so that it is not repeated at each try
}

func (t *tailer) main(ctx context.Context, cfg config.Config, channels []string) int {
	if err := t.run(ctx, cfg, channels); err != nil {
		fmt.Fprintf(t.notes, "hpfeeds-bridge: tail: %s\n", hpfeeds.Sanitize(err.Error()))
		if errors.As(err, new(usageError)) {
			return daemon.ExitRefused
		}
		return daemon.ExitFailed
	}
	return daemon.ExitOK
}

func (t *tailer) run(ctx context.Context, cfg config.Config, channels []string) (err error) {
	if !cfg.HPFeeds.IsSet() {
		return usageError("HPFEEDS_HOST is not set: say which hpfeeds broker is meant")
	}
	if len(channels) == 0 {
		channels = cfg.HPFeeds.Channels
	}
	for _, channel := range channels {
		if problem := hpfeeds.CheckName(channel); problem != "" {
			return usageError("a channel " + problem)
		}
	}
	if t.tailOptions.folder != "" {
		if t.folder, err = os.OpenRoot(t.tailOptions.folder); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, t.folder.Close()) }()
	}
	var retry hpfeeds.Backoff
	for {
		began := time.Now()
		err := t.follow(ctx, cfg.HPFeeds, channels)
		var e *hpfeeds.Error
		switch {
		case err == nil, ctx.Err() != nil:
			return nil
		case !errors.As(err, &e), e.Permanent: // a file that could not be written, or what somebody has to change first
			return err
		}
		t.note(err.Error())
		if retry.Wait(ctx, time.Since(began), err) != nil {
			return nil // told to stop
		}
	}
}

// note says what has changed.
func (t *tailer) note(text string) {
	if text != t.said {
		t.said = text
		fmt.Fprintln(t.notes, "hpfeeds-bridge: tail:", hpfeeds.Sanitize(text))
	}
}

// follow prints what comes over one connection. It returns nil when enough has come.
func (t *tailer) follow(ctx context.Context, cfg hpfeeds.Config, channels []string) error {
	options := hpfeeds.Options{}
	if cfg.MaxPayload > 0 {
		options.MaxFrame = int(cfg.MaxPayload) + 1<<10
	}
	conn, err := hpfeeds.Dial(ctx, cfg, options)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.Subscribe(channels...); err != nil {
		return err
	}
	t.note("connected to " + cfg.Address())
	for t.count == 0 || t.received < t.count {
		m, err := conn.Receive(ctx)
		if err != nil {
			return err
		}
		if err := t.show(m); err != nil {
			return err
		}
	}
	return nil
}

// show prints a line for a message, and writes it into the folder.
func (t *tailer) show(m hpfeeds.Message) error {
	t.received++
	body := content(m.Payload)
	if t.folder != nil {
		if err := t.keep(body); err != nil {
			return fmt.Errorf("write a mail: %w", err)
		}
	}
	sum := sha256.Sum256(body)
	_, err := fmt.Fprintf(t.out, "%s  %s  %10d  %s  %s\n",
		time.Now().UTC().Format(time.RFC3339), hpfeeds.Sanitize(m.Channel), len(body), hex.EncodeToString(sum[:]), subject(body))
	return err
}

// content returns the mail in a payload, which BRIDGE_PAYLOAD may have wrapped.
func content(payload []byte) []byte {
	var wrapped struct {
		Version int    `json:"version"`
		Mail    []byte `json:"mail"`
	}
	if bytes.HasPrefix(payload, []byte(`{"version":`)) && json.Unmarshal(payload, &wrapped) == nil && wrapped.Version > 0 && wrapped.Mail != nil {
		return wrapped.Mail
	}
	return payload
}

const (
	// maxHeader is how much of a mail is searched for its subject.
	maxHeader = 64 << 10
	// maxSubject is how much of a subject is shown, in characters.
	maxSubject = 80
)

// subject returns the subject of a mail for a terminal, or nothing if it has none that can be found.
func subject(body []byte) string {
	m, err := mail.ReadMessage(io.LimitReader(bytes.NewReader(body), maxHeader))
	if err != nil {
		return ""
	}
	text := m.Header.Get("Subject")
	if decoded, err := new(mime.WordDecoder).DecodeHeader(text); err == nil {
		text = decoded
	}
	short := []rune(hpfeeds.Sanitize(text))
	if len(short) > maxSubject {
		return string(short[:maxSubject]) + "…"
	}
	return string(short)
}

// keep writes a mail. Its file appears whole or not at all, under a name that nothing of the mail is in, and replaces none; it is not
// forced to the disk.
func (t *tailer) keep(body []byte) (err error) {
	random := make([]byte, 8)
	_, _ = rand.Read(random) // it never fails
	name := fmt.Sprintf("%s-%06d-%x.eml", time.Now().UTC().Format("20060102T150405.000000000"), t.received, random)
	file, err := t.folder.OpenFile("."+name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(body)
	if err = errors.Join(err, file.Close()); err == nil {
		err = t.folder.Rename("."+name, name)
	}
	if err != nil {
		return errors.Join(err, t.folder.Remove("."+name))
	}
	return nil
}
