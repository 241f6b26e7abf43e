package archive

import (
	"errors"
	"io/fs"
	"iter"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// fromMaildir is a source of the mails in new/ and cur/ of a maildir. Those of ours come with their envelopes; what was set aside there is
// left out, as it could not be published the first time: its folder can be named as an archive of its own.
func fromMaildir(path string, ours bool, limit int64) (Source, error) {
	paths, err := maildir.MailPaths(path)
	if err != nil {
		return Source{}, err
	}
	var view *maildir.View
	if ours {
		if view, err = maildir.NewView(path); err != nil {
			return Source{}, err
		}
	}
	total := int64(0)
	for _, path := range paths {
		total += sizeOf(path)
	}
	return Source{Name: path, Bytes: total, Mails: func() iter.Seq2[Mail, error] {
		return func(yield func(Mail, error) bool) {
			for _, path := range paths {
				base, _, _ := strings.Cut(filepath.Base(path), ":")
				mail := Mail{
					Name: path, Mark: base, Size: sizeOf(path),
					Envelope: func() (*maildir.Record, error) { return findEnvelope(view, base) },
					Body: func() ([]byte, time.Time, error) {
						body, at, err := readMail(path, limit)
						if errors.Is(err, fs.ErrNotExist) {
							body, at, err = readMail(elsewhere(path, base), limit)
						}
						if named := nameTime(base); !named.IsZero() {
							return body, named, err
						}
						return body, receivedAt(body, at), err
					},
				}
				if !yield(mail, nil) {
					return
				}
			}
		}
	}}, nil
}

// findEnvelope returns the envelope of a mail in a maildir of ours; view is nil for any other.
func findEnvelope(view *maildir.View, base string) (*maildir.Record, error) {
	if view == nil {
		return nil, nil //nolint:nilnil // there is none
	}
	e, err := view.Find(base)
	if errors.Is(err, maildir.ErrUnknown) {
		return nil, nil //nolint:nilnil // as for a mail that somebody else has put there
	}
	if err != nil {
		return nil, err
	}
	return e.Record, e.Err
}

// elsewhere returns where a mail lies that a mail program has moved since the folders were listed.
func elsewhere(path, base string) string {
	folder := filepath.Dir(filepath.Dir(path))
	found, err := filepath.Glob(filepath.Join(folder, "*", globEscaper.Replace(base)+"*"))
	if err != nil || len(found) == 0 {
		return path
	}
	slices.Sort(found)
	return found[0]
}

var globEscaper = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// nameTime returns when a mail came to a maildir: its name begins with that, in seconds since 1970.
func nameTime(base string) time.Time {
	digits, _, found := strings.Cut(base, ".")
	seconds, err := strconv.ParseInt(digits, 10, 64)
	if !found || err != nil || seconds <= 0 || len(digits) > 11 {
		return time.Time{}
	}
	return time.Unix(seconds, 0).UTC()
}
