package main

import (
	"context"
	"errors"

	"spamtraps.internal/imap-collector/internal/account"
	"spamtraps.internal/imap-collector/internal/collector"
	"spamtraps.internal/imap-collector/internal/command"
	"spamtraps.internal/libs/daemon"
)

// exitOversize is the exit code of a run that has left nothing behind but what is too large.
const exitOversize = daemon.ExitCode(4) //nolint:errname // an exit code

// once goes through all mailboxes once, shows how far it is, and sums up. It returns an error unless each was emptied of what was asked.
func (p *program) once(ctx context.Context, d *daemon.Daemon, accounts []account.Account, boxes *collector.Collector) error {
	showing, hide := context.WithCancel(ctx)
	hidden := make(chan struct{})
	go func() {
		defer close(hidden)
		command.Progress(showing, p.screen, d.Log, boxes.Status)
	}()
	results, err := boxes.Once(ctx)
	hide()
	<-hidden
	command.Summary(p.stdout, accounts, results)
	switch outcome := command.OutcomeOf(results); {
	case err != nil && ctx.Err() != nil:
		return errors.Join(command.ErrNotEmptied, errors.New("it was told to stop"))
	case err != nil:
		return err
	case outcome == command.Failed:
		return command.ErrNotEmptied
	case outcome == command.Oversize:
		d.Log.Warn().Msg("mails that are too large were left where they are")
		return exitOversize
	}
	return nil
}
