package maildir

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// State is where a mail of a maildir stands.
type State string

// The states of mails that have an envelope.
const (
	StateWaiting   State = "waiting"   // the broker does not have it yet
	StateAside     State = "aside"     // it can never pass, unless somebody does something about it
	StateDelivered State = "delivered" // the broker has it; this is a copy
)

// View looks into a maildir, without the lock: a Maildir may write there at the same time. What it returns may be out of date at once.
// It must not be used from several goroutines at once.
type View struct {
	dir   *Maildir
	began time.Time // so the folders are looked through once, not for each mail that nobody can find
	hit   Entry     // the last one that Find has found: its neighbours lie in the same folder
}

// NewView returns a View of the maildir at path. It fails when there is none, or none of ours: without pending/ there are no envelopes.
func NewView(path string) (*View, error) {
	for _, name := range []string{newFolder, curFolder, pendingFolder, doneFolder, asideFolder} {
		if info, err := os.Stat(filepath.Join(path, name)); err != nil {
			return nil, fmt.Errorf("open the maildir %s: %w", path, err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("open the maildir %s: %s is no folder", path, name)
		}
	}
	return &View{dir: &Maildir{cfg: Config{Path: filepath.Clean(path)}, host: hostName(), queue: newQueue()}, began: time.Now()}, nil
}

// Entry is one mail of a View.
type Entry struct {
	Name  string // base name
	State State
	Since time.Time // when it was stored
	Size  int64     // bytes
	// Record is its envelope; nil when that cannot be read, and then Err matches ErrDamaged or ErrVersion, or is the disk's.
	Record *Record
	Err    error

	path string // of the envelope
}

// Entries returns the mails in a state, oldest first, each with its envelope. An error is of a folder that cannot be read, and ends it.
// Those that come, or change their state, meanwhile may be missing.
func (v *View) Entries(state State) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		folders, err := v.folders(state)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		for _, folder := range folders {
			names, err := listFolder(folder)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // a bucket may be gone by now
				yield(Entry{}, err)
				return
			}
			for _, name := range names {
				if e, there := read(folder, name, state); there && !yield(e, nil) {
					return
				}
			}
		}
	}
}

// folders returns where the envelopes of mails in a state lie.
func (v *View) folders(state State) ([]string, error) {
	top := v.dir.path(map[State]string{StateWaiting: pendingFolder, StateDelivered: doneFolder, StateAside: asideFolder}[state])
	if state == StateAside {
		return []string{top}, nil
	}
	buckets, err := listFolder(top)
	for i, bucket := range buckets {
		buckets[i] = filepath.Join(top, bucket)
	}
	return buckets, err
}

// read reads one envelope, unless it is none of ours, or has just left.
func read(folder, file string, state State) (e Entry, there bool) {
	base, isEnvelope := cut(file, envelopeSuffix)
	since, size, ours := parseName(base)
	if !isEnvelope || !ours {
		return Entry{}, false
	}
	e = Entry{Name: base, State: state, Since: since, Size: size, path: filepath.Join(folder, file)}
	if state == StateWaiting && isVoid(e.path, base) {
		return Entry{}, false
	}
	data, err := os.ReadFile(e.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, false
	}
	if err == nil {
		e.Record, err = Decode(data)
	}
	e.Err = err
	return e, true
}

// isVoid tells whether an envelope in pending/ is that of a mail which is still being stored: then the mail lies in tmp/. It was there before the
// envelope, and the envelope is whole before it leaves; so an envelope that is not void can be read.
func isVoid(envelope, name string) bool {
	root := filepath.Dir(filepath.Dir(filepath.Dir(envelope)))
	_, err := os.Lstat(filepath.Join(root, tmpFolder, name))
	return err == nil
}

// Find returns the mail of a base name, whatever its state. Its error matches ErrUnknown when there is none.
func (v *View) Find(name string) (Entry, error) {
	if v.hit.path != "" {
		if e, there := read(filepath.Dir(v.hit.path), name+envelopeSuffix, v.hit.State); there {
			return e, nil
		}
	}
	for _, state := range []State{StateWaiting, StateAside, StateDelivered} {
		folders, err := v.folders(state)
		if err != nil {
			return Entry{}, err
		}
		for _, folder := range folders {
			if e, there := read(folder, name+envelopeSuffix, state); there {
				v.hit = e
				return e, nil
			}
		}
	}
	return Entry{}, fmt.Errorf("%w: %s in %s", ErrUnknown, name, v.dir.cfg.Path)
}

// Body returns a mail's bytes. Its errors match ErrGone when the mail is not there any more, and ErrDamaged when it is not the one that
// was stored; then the bytes are returned nevertheless.
func (v *View) Body(e Entry) ([]byte, error) {
	path, err := v.locate(e)
	if err != nil {
		return nil, err
	}
	body, err := os.ReadFile(path)
	if err == nil && e.Record != nil && digestOf(body) != e.Record.Digest() {
		err = ErrDamaged
	}
	return body, err
}

func (v *View) locate(e Entry) (string, error) {
	if _, err := os.Lstat(v.dir.path(goneFolder, e.Name+envelopeSuffix)); err == nil { // it is delivered, and about to be deleted
		return "", ErrGone
	}
	v.dir.queue.taken[e.Name] = true // or the look through the folders would not remember it
	defer delete(v.dir.queue.taken, e.Name)
	path, err := v.dir.guess(e.Name)
	if path != "" || err != nil {
		return path, err
	}
	return v.dir.find(e.Name, v.began)
}

// Envelope returns the envelope of a mail as it lies on the disk.
func (v *View) Envelope(e Entry) ([]byte, error) { return os.ReadFile(e.path) }

// Retry has mails that were set aside wait for the broker again, all or, on an error, none of them. A Maildir that runs finds them within
// seconds, any other when it is opened. One that is gone or damaged, or whose envelope cannot be read, is an error. A crash leaves none in
// neither place: the mails go first, then the envelopes of those that wait appear, in one rename; the others are deleted last.
func (v *View) Retry(entries []Entry) (done int, err error) {
	if len(entries) == 0 {
		return 0, nil
	}
	name := bucketName(time.Now())
	bucket := v.dir.path(tmpFolder, name)
	if err := os.Mkdir(bucket, 0o700); err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := v.prepare(e, bucket); err != nil {
			return 0, errors.Join(fmt.Errorf("retry %s: %w", e.Name, err), os.RemoveAll(bucket))
		}
	}
	err = syncFolder(bucket)
	if err == nil {
		err = syncFolder(v.dir.path(newFolder))
	}
	if err == nil {
		err = os.Rename(bucket, v.dir.path(pendingFolder, name))
	}
	if err != nil {
		return 0, errors.Join(err, os.RemoveAll(bucket))
	}
	if err := syncFolder(v.dir.path(pendingFolder)); err != nil {
		return 0, err
	}
	for _, e := range entries {
		if err := remove(e.path); err != nil {
			return len(entries), fmt.Errorf("delete the old envelope of %s: %w", e.Name, err)
		}
	}
	return len(entries), nil
}

// prepare moves one mail to where mails belong, and writes its envelope into a bucket that nobody sees yet.
func (v *View) prepare(e Entry, bucket string) error {
	if e.State != StateAside {
		return fmt.Errorf("it is %s, not set aside", e.State)
	}
	if e.Err != nil {
		return e.Err
	}
	if _, err := v.Body(e); err != nil {
		return err
	}
	path, err := v.locate(e)
	if err != nil {
		return err
	}
	if filepath.Dir(path) == v.dir.path(asideFolder) {
		if err := os.Rename(path, v.dir.path(newFolder, e.Name)); err != nil {
			return err
		}
	}
	record := *e.Record
	record.Aside, record.AsideAt = "", nil
	data, err := record.encode()
	if err != nil {
		return err
	}
	return write(filepath.Join(bucket, e.Name+envelopeSuffix), data, true)
}

// MailPaths returns the paths of the mails in new/ and cur/, sorted by base name (what stands before the flags): oldest first, as
// names begin with the time. Any maildir has these two folders; path need not be one of ours.
func MailPaths(path string) ([]string, error) {
	type mail struct{ base, path string }
	var mails []mail
	for _, folder := range []string{newFolder, curFolder} {
		folder = filepath.Join(path, folder)
		err := eachName(folder, func(names []string) {
			for _, name := range names {
				base, _, _ := strings.Cut(name, ":")
				if !strings.HasPrefix(name, ".") {
					mails = append(mails, mail{base, filepath.Join(folder, name)})
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(mails, func(a, b mail) int { return strings.Compare(a.base, b.base) })
	paths := make([]string, len(mails))
	for i, m := range mails {
		paths[i] = m.path
	}
	return paths, nil
}
