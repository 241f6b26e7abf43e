package state

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
)

// Folder is what was published of one mailbox folder under one UIDVALIDITY. All methods are safe for concurrent use.
type Folder struct {
	store  *Store
	name   string // of the file
	header header

	mu      sync.RWMutex
	all     uids
	pending uids // in all, but not on the disk
	// fresh tells that the file must be written anew: there is none, it is another UIDVALIDITY's, or its end is not what we wrote.
	fresh    bool
	retired  bool
	size     int64 // of the file
	appended int64 // of that, since it was written anew
}

// Has tells whether a mail was published. It does not block on the disk, but for an Add under way.
func (f *Folder) Has(uid uint32) bool {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.all.has(uid)
}

// Missing returns which of the UIDs in ranges were not published, in order and without overlap. ranges may come in any order. Its
// cost follows the number of ranges, not of UIDs.
func (f *Folder) Missing(ranges []Range) []Range {
	wanted := setOf(ranges)
	f.mu.RLock()
	defer f.mu.RUnlock()
	return wanted.without(f.all)
}

// Len returns how many mails are remembered.
func (f *Folder) Len() uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.all.len()
}

// compactAfter is how much is appended at least before the file is written anew.
const compactAfter = 64 << 10

// Add remembers that mails were published. It returns after fsync, of the folder too where the file is a new one. After an error the mails are
// not on the disk, but Has knows them until the process ends, so that a full disk makes no loop; the next Add, if only of no mails, tries
// them again.
func (f *Folder) Add(list []uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retired {
		return fmt.Errorf("remember mails of folder %q: its UIDVALIDITY is not %d any more", f.header.Folder, f.header.UIDValidity)
	}
	fresh := setOfUIDs(list).without(f.all)
	f.all = f.all.union(fresh)
	if !f.store.Durable() {
		return nil
	}
	f.pending = f.pending.union(fresh)
	if len(f.pending) == 0 {
		return nil
	}
	if err := f.write(); err != nil {
		f.fresh = true // what is at the end of the file now, nobody knows; and a failed fsync must not be tried again
		return fmt.Errorf("remember %d mails of folder %q of %q: %w", f.pending.len(), f.header.Folder, f.header.Account, err)
	}
	f.pending = nil
	return nil
}

func (f *Folder) path() string { return filepath.Join(f.store.path, f.name) }

// write puts what is pending on the disk.
func (f *Folder) write() error {
	if f.fresh || f.appended > compactAfter+2*(f.size-f.appended) {
		return f.rewrite()
	}
	file, err := os.OpenFile(f.path(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	text := f.pending.appendLines(nil, f.header)
	if info, err := file.Stat(); err != nil || info.Size() != f.size {
		return errors.Join(err, errors.New("the file is not as long as it was left: it is written anew next time"))
	}
	if err := writeAndSync(file, text); err != nil {
		return err
	}
	f.size += int64(len(text))
	f.appended += int64(len(text))
	return nil
}

// rewrite writes the whole file aside and puts it into its place.
func (f *Folder) rewrite() error {
	path := f.path()
	file, err := os.OpenFile(path+newSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	text := f.all.appendLines(f.header.line(), f.header)
	err = writeAndSync(file, text)
	if err == nil {
		err = os.Rename(path+newSuffix, path)
	}
	if err == nil {
		err = syncFolder(f.store.path)
	}
	if err != nil {
		_ = os.Remove(path + newSuffix)
		return err
	}
	f.fresh, f.size, f.appended = false, int64(len(text)), 0
	return nil
}

func writeAndSync(file *os.File, text []byte) error {
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// load reads the file, if there is one.
func (f *Folder) load() error {
	file, err := os.Open(f.path())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	found, err := read(io.LimitReader(file, maxFileBytes+1))
	if errors.Is(err, errDamaged) {
		f.store.log.Error().Str("file", f.path()).Err(err).Str("account", f.header.Account).Str("folder", f.header.Folder).
			Msg("the state of a folder cannot be read and is set aside: what is in the folder comes again, with the same message ids")
		if f.store.peek {
			return nil
		}
		return setAside(f.path())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", f.path(), err)
	}
	if found.header.Account != f.header.Account || found.header.Folder != f.header.Folder {
		return fmt.Errorf("%s is that of folder %q of %q", f.path(), found.header.Folder, found.header.Account)
	}
	if found.header.UIDValidity != f.header.UIDValidity {
		f.sayChanged(found.header.UIDValidity, found.all.len())
		return nil
	}
	if found.bad > 0 {
		f.store.log.Warn().Str("file", f.path()).Int("lines", found.bad).Str("account", f.header.Account).Str("folder", f.header.Folder).
			Msg("the state of a folder has lines that cannot be read, as a crash leaves them: mails that they told of come again")
	}
	f.all, f.size, f.appended = found.all, found.size, found.size
	f.fresh = found.bad > 0
	return nil
}

func (f *Folder) sayChanged(before uint32, known uint64) {
	f.store.log.Warn().Str("account", f.header.Account).Str("folder", f.header.Folder).Uint32("before", before).
		Uint32("uidvalidity", f.header.UIDValidity).Uint64("forgotten", known).
		Msg("the folder has a new UIDVALIDITY, so its mails count as new: those that were published come again, with other message ids")
}

// retire ends a Folder in favour of one with another UIDVALIDITY.
func (f *Folder) retire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.retired = true
}
