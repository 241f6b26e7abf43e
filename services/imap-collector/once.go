package main

import (
	"context"
	"fmt"

	"spamtraps.internal/imap-collector/internal/collector"
	"spamtraps.internal/libs/daemon"
)

// once goes through all mailboxes once. It returns an error when one of them was not emptied of what was asked.
func once(ctx context.Context, d *daemon.Daemon, boxes *collector.Collector) error {
	results, err := boxes.Once(ctx)
	if err != nil {
		return err
	}
	failed, oversize := 0, 0
	for _, r := range results {
		if r.Err != nil {
			failed++
		}
		oversize += r.Oversize
	}
	switch {
	case failed > 0:
		return fmt.Errorf("%d of %d mailboxes were not emptied of what was asked", failed, len(results))
	case oversize > 0:
		d.Log.Warn().Int("mails", oversize).Msg("mails that are too large were left where they are")
		return exitOversize
	}
	return nil
}
