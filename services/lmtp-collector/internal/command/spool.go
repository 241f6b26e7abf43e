// Package command holds the subcommands of lmtp-collector beside those that every service has.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"spamtraps.internal/libs/daemon"
	"spamtraps.internal/lmtp-collector/internal/config"
	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// Spool returns the subcommand that shows what waits in the maildir or was set aside there, has what was set aside tried again, and
// copies mails out of it. It may run beside the service, which it neither needs nor disturbs, and it never deletes a mail.
func Spool() daemon.Command[config.Config] {
	return daemon.Command[config.Config]{
		Name:  "spool",
		Usage: "[list [STATE] | show NAME | retry aside|NAME… | export DIR [STATE|NAME…]]",
		About: "show, retry and copy mails of the maildir; STATE is waiting, aside or delivered",
		Run:   runSpool,
	}
}

func runSpool(ctx context.Context, p daemon.Process, cfg config.Config, args []string) int {
	s := &spooler{out: p.Stdout, notes: p.Stderr}
	err := s.run(ctx, cfg.Maildir.Path, args)
	switch {
	case err == nil && !s.incomplete:
		return daemon.ExitOK
	case errors.As(err, new(usageError)):
		fmt.Fprintf(p.Stderr, "lmtp-collector: %s\n", err)
		return daemon.ExitRefused
	case err != nil:
		fmt.Fprintf(p.Stderr, "lmtp-collector: %s\n", printable(err.Error()))
	}
	return daemon.ExitFailed
}

// usageError is a command line that cannot be meant.
type usageError string

func (e usageError) Error() string { return string(e) }

// spooler is one call of the command.
type spooler struct {
	view       *maildir.View
	out, notes io.Writer
	incomplete bool // some mail could not be read; it was named
}

func (s *spooler) run(ctx context.Context, path string, args []string) (err error) {
	verb := "list"
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	do, known := map[string]func(context.Context, []string) error{
		"list": s.list, "show": s.show, "retry": s.retry, "export": s.export,
	}[verb]
	if !known {
		return usageError(fmt.Sprintf("spool can list, show, retry and export, not %q (spool -h shows how)", verb))
	}
	if path == "" {
		return usageError("MAILDIR is not set: say which maildir is meant, with -m or MAILDIR")
	}
	if s.view, err = maildir.NewView(path); err != nil {
		return err
	}
	return do(ctx, args)
}

func (s *spooler) list(ctx context.Context, args []string) error {
	states, names, err := selection(args)
	if err != nil {
		return err
	}
	if len(names) > 0 {
		return usageError(fmt.Sprintf("spool list takes waiting, aside or delivered, not %q", names[0]))
	}
	fmt.Fprintf(s.out, "%-9s  %-20s  %10s  %-66s  %s\n", "STATE", "SINCE", "BYTES", "NAME", "FROM > TO")
	for _, state := range states {
		mails, bytes := 0, int64(0)
		for e, err := range s.view.Entries(state) {
			if err != nil {
				return err
			}
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			mails++
			bytes += e.Size
			fmt.Fprintf(s.out, "%-9s  %-20s  %10d  %-66s  %s\n", e.State, e.Since.UTC().Format(time.RFC3339), e.Size, e.Name, describe(e))
		}
		fmt.Fprintf(s.notes, "%s: %d mails, %d bytes\n", state, mails, bytes)
	}
	return nil
}

// describe tells in one line from whom to whom a mail is, and what is wrong with it.
func describe(e maildir.Entry) string {
	if e.Err != nil {
		return "? (" + printable(e.Err.Error()) + ")"
	}
	known, err := e.Record.Envelope()
	if err != nil {
		return "? (" + printable(err.Error()) + ")"
	}
	text := "?"
	if known.LMTP != nil {
		text = printable("<"+known.LMTP.MailFrom+">") + " > " + printable(known.LMTP.RcptTo[0])
		if more := len(known.LMTP.RcptTo) - 1; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	if e.Record.Aside != "" {
		text += " (" + printable(e.Record.Aside) + ")"
	}
	return text
}

func (s *spooler) show(_ context.Context, args []string) error {
	if len(args) != 1 {
		return usageError("spool show takes the name of one mail, as spool list shows it")
	}
	e, err := s.view.Find(args[0])
	if err != nil {
		return err
	}
	data, err := s.view.Envelope(e)
	if err != nil {
		return err
	}
	fmt.Fprint(s.out, printableJSON(data))
	_, err = s.view.Body(e)
	if err == nil {
		fmt.Fprintf(s.notes, "%s since %s; the mail is there, as it was received\n", e.State, e.Since.UTC().Format(time.RFC3339))
	}
	return err
}

func (s *spooler) retry(_ context.Context, args []string) error {
	states, names, err := selection(args)
	if err != nil {
		return err
	}
	if len(args) == 0 || (len(names) == 0 && states[0] != maildir.StateAside) {
		return usageError("spool retry takes the names of mails, or the word aside for all that were set aside; those that wait are tried by themselves")
	}
	done := 0
	var batch []maildir.Entry
	flush := func() error {
		n, err := s.view.Retry(batch)
		done, batch = done+n, batch[:0]
		return err
	}
	for e, err := range s.choose(states, names) {
		if err != nil {
			return err
		}
		if _, err := s.view.Body(e); e.Err != nil || err != nil { // it must not keep the others back
			s.name(e, errors.Join(e.Err, err))
			continue
		}
		if batch = append(batch, e); len(batch) == retryAtOnce {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	err = flush()
	fmt.Fprintf(s.notes, "%d mails wait for the broker again\n", done)
	return err
}

// retryAtOnce is how many mails go back in one step.
const retryAtOnce = 1000

func (s *spooler) export(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError("spool export takes a folder to copy to, or - and the name of one mail for stdout")
	}
	to, args := args[0], args[1:]
	states, names, err := selection(args)
	if err != nil {
		return err
	}
	if to == "-" {
		return s.exportOne(names)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	copied := 0
	for e, err := range s.choose(states, names) {
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		if err := s.copyTo(to, e); err != nil {
			s.name(e, err)
			continue
		}
		copied++
	}
	fmt.Fprintf(s.notes, "%d mails copied to %s, each as .eml with its envelope as .json\n", copied, to)
	return nil
}

func (s *spooler) exportOne(names []string) error {
	if len(names) != 1 {
		return usageError("spool export - takes the name of one mail")
	}
	e, err := s.view.Find(names[0])
	if err != nil {
		return err
	}
	body, err := s.view.Body(e)
	if body == nil && err != nil {
		return err
	}
	if err != nil { // damaged: better than nothing, but not in silence
		s.name(e, err)
	}
	_, err = s.out.Write(body)
	return err
}

// copyTo never writes over a file. A mail that is not the one that was stored is copied, and named.
func (s *spooler) copyTo(folder string, e maildir.Entry) error {
	envelope, err := s.view.Envelope(e)
	if err != nil {
		return err
	}
	body, damaged := s.view.Body(e)
	if body == nil && damaged != nil {
		return damaged
	}
	if err := create(filepath.Join(folder, e.Name+".eml"), body); err != nil {
		return err
	}
	return errors.Join(damaged, create(filepath.Join(folder, e.Name+".json"), envelope))
}

func create(path string, data []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Close())
}

// name says what is wrong with one mail.
func (s *spooler) name(e maildir.Entry, err error) {
	s.incomplete = true
	fmt.Fprintf(s.notes, "%s: %s\n", e.Name, printable(err.Error()))
}

// choose returns the mails that are meant, one by one: there may be millions.
func (s *spooler) choose(states []maildir.State, names []string) iter.Seq2[maildir.Entry, error] {
	return func(yield func(maildir.Entry, error) bool) {
		for _, name := range names {
			if e, err := s.view.Find(name); !yield(e, err) {
				return
			}
		}
		for _, state := range states {
			for e, err := range s.view.Entries(state) {
				if !yield(e, err) {
					return
				}
			}
		}
	}
}

// selection reads which mails are meant: those of a state, or some by their names; nothing means those that the broker does not have.
func selection(args []string) (states []maildir.State, names []string, err error) {
	if len(args) == 0 {
		return []maildir.State{maildir.StateWaiting, maildir.StateAside}, nil, nil
	}
	switch state := maildir.State(args[0]); state {
	case maildir.StateWaiting, maildir.StateAside, maildir.StateDelivered:
		if len(args) > 1 {
			return nil, nil, usageError(fmt.Sprintf("%s stands for all such mails, so %q is too much", state, args[1]))
		}
		return []maildir.State{state}, nil, nil
	}
	for _, name := range args {
		name = strings.TrimSuffix(strings.TrimSuffix(filepath.Base(name), ".json"), ".eml")
		names = append(names, name)
	}
	return nil, names, nil
}
