package maildir

import (
	"context"
	"errors"
	"io"
	"os"
	"time"
)

// deleteGone deletes the mails whose envelopes lie in gone/, those of before this process too, as they come, until ctx ends. On some disks each
// takes milliseconds, for which nobody should have to wait.
func (m *Maildir) deleteGone(ctx context.Context) {
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		if err := m.emptyGone(ctx); err != nil {
			m.log.Error().Err(err).Msg("a delivered mail cannot be deleted: it is tried again later")
		}
		select {
		case <-m.leaving:
		case <-again.C:
		case <-ctx.Done():
			return
		}
	}
}

// emptyGone deletes the mails whose envelopes lie in gone/, and then these, until there are none, ctx ends, or one cannot be deleted.
func (m *Maildir) emptyGone(ctx context.Context) error {
	for {
		began := time.Now()
		names, err := firstNames(m.path(goneFolder))
		if err != nil || len(names) == 0 {
			return err
		}
		deleted := 0
		for _, file := range names {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // told to stop
			}
			name, isEnvelope := cut(file, envelopeSuffix)
			if _, _, ours := parseName(name); !ours || !isEnvelope {
				continue
			}
			if err := m.removeMail(name, began); err != nil {
				return err
			}
			if err := remove(m.path(goneFolder, file)); err != nil {
				return err
			}
			deleted++
		}
		if deleted == 0 {
			return nil // what is left is none of ours
		}
	}
}

// firstNames returns some names of a folder, none when it is empty.
func firstNames(path string) ([]string, error) {
	folder, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = folder.Close() }()
	names, err := folder.Readdirnames(1000)
	if len(names) > 0 || errors.Is(err, io.EOF) {
		return names, nil
	}
	return nil, err
}
