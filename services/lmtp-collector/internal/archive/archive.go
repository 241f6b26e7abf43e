// Package archive reads mails out of what people keep them in: maildirs, with the envelopes of ours; mbox files; folders of .eml files,
// with an envelope beside each where there is one; a stream. It writes nothing and takes no lock.
package archive

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"spamtraps.internal/lmtp-collector/internal/maildir"
)

// ErrTooLarge is the error of a mail that has more bytes than are wanted; it is not read into memory.
var ErrTooLarge = errors.New("the mail is too large")

// Mail is one mail of a Source.
type Mail struct {
	Name string // for people: a path, or that of an mbox and where in it
	// Mark tells where in its source the mail lies. Marks are in the order of the mails, byte by byte, and stay the same from one
	// time that the source is read to the next.
	Mark string
	Size int64 // bytes that reading it takes of its source, for a progress bar

	// Envelope returns what is known of the mail beside its bytes, nil when that is nothing. It must be called before the source is asked
	// for the next mail.
	Envelope func() (*maildir.Record, error)
	// Body returns the mail's bytes, and when it was received: by its name in a maildir or its From line in an mbox, else by its topmost Received
	// line, its Date, or when its file was last written. It may be called at any time, once, from any goroutine.
	Body func() ([]byte, time.Time, error)
}

// Source is one place with mails.
type Source struct {
	Name  string // its path, "-" for the stream
	Bytes int64  // of all its mails, about; 0 when that is not known
	// Mails returns all mails, oldest first as far as that is known beforehand. An error is of the source as a whole, and ends it.
	Mails func() iter.Seq2[Mail, error]
}

// Open finds the sources that paths stand for, in an order that stays the same: each path is a maildir, an mbox file, one mail, a folder in
// which such are looked for, or "-", which stands for stdin. A mail of more than limit bytes is named, and not read. It lists maildirs
// and folders, and so may take a while with millions of files, and keeps their paths in memory.
func Open(paths []string, stdin io.Reader, limit int64) ([]Source, error) {
	o := opener{limit: limit}
	for i, path := range paths {
		if slices.Contains(paths[:i], path) {
			return nil, fmt.Errorf("open the archive: %s is named twice", path)
		}
		if path == "-" {
			o.sources = append(o.sources, stream("-", stdin, limit))
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
		case info.IsDir():
			err = o.folder(path)
		default:
			err = o.file(path, info)
		}
		if err != nil {
			return nil, fmt.Errorf("open the archive: %w", err)
		}
	}
	return o.sources, nil
}

type opener struct {
	limit   int64
	sources []Source
}

// file adds an mbox, or else what must be one mail.
func (o *opener) file(path string, info fs.FileInfo) error {
	isMbox, err := beginsLikeMbox(path)
	if err != nil {
		return err
	}
	if isMbox {
		o.sources = append(o.sources, mboxFile(path, info.Size(), o.limit))
		return nil
	}
	o.sources = append(o.sources, files(path, []string{path}, info.Size(), o.limit))
	return nil
}

// folder adds a maildir, or what there is of mail in any other folder, and then those in it.
func (o *opener) folder(path string) error {
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return err
	}
	names := make(map[string]bool, len(entries))
	for _, entry := range entries {
		if entry.IsDir() {
			names[entry.Name()] = true
		}
	}
	if names["new"] && names["cur"] {
		source, err := fromMaildir(path, names["pending"] && names["done"] && names["aside"], o.limit)
		if err != nil {
			return err
		}
		o.sources = append(o.sources, source)
	} else if err := o.looseFiles(path, entries); err != nil {
		return err
	}
	for _, entry := range entries {
		inside := names["new"] && names["cur"] && slices.Contains([]string{"new", "cur", "tmp", "pending", "done", "aside"}, entry.Name())
		if entry.IsDir() && !inside {
			if err := o.folder(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// looseFiles adds the .eml files of a folder, as one source, and each .mbox file.
func (o *opener) looseFiles(path string, entries []fs.DirEntry) error {
	var mails []string
	var boxes []Source
	total := int64(0)
	for _, entry := range entries {
		suffix := strings.ToLower(filepath.Ext(entry.Name()))
		if !entry.Type().IsRegular() || (suffix != ".eml" && suffix != ".mbox") {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		file := filepath.Join(path, entry.Name())
		if suffix == ".mbox" {
			boxes = append(boxes, mboxFile(file, info.Size(), o.limit))
			continue
		}
		mails = append(mails, file)
		total += info.Size()
	}
	if len(mails) > 0 {
		o.sources = append(o.sources, files(path, mails, total, o.limit))
	}
	o.sources = append(o.sources, boxes...)
	return nil
}

// files is a source of single mails.
func files(name string, paths []string, total, limit int64) Source {
	return Source{Name: name, Bytes: total, Mails: func() iter.Seq2[Mail, error] {
		return func(yield func(Mail, error) bool) {
			for _, path := range paths {
				if !yield(file(path, filepath.Base(path), limit), nil) {
					return
				}
			}
		}
	}}
}

// file is one mail in a file, with the envelope that may lie beside it.
func file(path, mark string, limit int64) Mail {
	return Mail{
		Name: path, Mark: mark, Size: sizeOf(path),
		Envelope: func() (*maildir.Record, error) { return envelopeBeside(path) },
		Body: func() ([]byte, time.Time, error) {
			body, written, err := readMail(path, limit)
			return body, receivedAt(body, written), err
		},
	}
}

func envelopeBeside(path string) (*maildir.Record, error) {
	data, err := os.ReadFile(strings.TrimSuffix(path, filepath.Ext(path)) + ".json")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, err
	}
	return maildir.Decode(data)
}

func sizeOf(path string) int64 {
	info, err := os.Lstat(path)
	if err != nil {
		return 0 // reading it will say why
	}
	return info.Size()
}

// readMail returns a file whole, and when it was last written.
func readMail(path string, limit int64) ([]byte, time.Time, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, time.Time{}, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, time.Time{}, err
	case !info.Mode().IsRegular():
		return nil, time.Time{}, errors.New("it is no file")
	case info.Size() > limit:
		return nil, time.Time{}, tooLarge(info.Size(), limit)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		data, err = nil, tooLarge(int64(len(data)), limit)
	}
	return data, info.ModTime(), err
}

func tooLarge(size, limit int64) error {
	return fmt.Errorf("%w: it has %d bytes, and AMQP_MAX_MESSAGE_BYTES is %d", ErrTooLarge, size, limit)
}
