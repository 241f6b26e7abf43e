// Package state remembers on disk which mails were published, where the mailbox itself cannot: it is read-only, or nothing is to change in
// it. So nothing is published for ever again. What is in a mailbox is never lost by losing the state: it comes again, with the same ids.
//
// # Files
//
// A mailbox folder has one file, whose name is a hash of the account's id and the folder's name, for a server could call a folder anything:
//
//	spamtraps-imap-state 1 {"account":"anna@imap.example","folder":"INBOX","uidvalidity":1700000000}
//	1-4711,4713 9ae0daaf
//	4714-4777 1c2b1b02
//
// Each line after the first was appended with one fsync: UIDs, and the CRC-32C of their text. Now and then the file is written anew, aside, and
// renamed. What a crash has left of the last line does not count, and is gone with the next write.
package state

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rs/zerolog"
)

// Store is a folder with what was published, one file a mailbox folder. It is opened once a process; a lock keeps other processes out.
// It is safe for concurrent use by different folders, and by several users of one.
type Store struct {
	path string // "": nothing is kept
	peek bool   // nothing is changed
	log  zerolog.Logger
	lock *os.File

	mu      sync.Mutex
	folders map[string]*Folder // by name of their file
}

const (
	lockName   = "lock"
	fileSuffix = ".uids"
	newSuffix  = ".new"     // being written
	badSuffix  = ".damaged" // set aside
)

// Open opens the store in the folder path, which is made when it does not exist. It does not wait for another process that has it: that is
// an error. With an empty path nothing is kept beyond the process.
func Open(path string, log zerolog.Logger) (*Store, error) {
	s := &Store{path: path, log: log, folders: make(map[string]*Folder)}
	if path == "" {
		return s, nil
	}
	if err := makeFolder(path); err != nil {
		return nil, fmt.Errorf("make the folder of the state: %w", err)
	}
	var err error
	if s.lock, err = lock(filepath.Join(path, lockName)); err != nil {
		return nil, err
	}
	if err := s.sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("look at the folder of the state: %w", err), s.Close())
	}
	return s, nil
}

// Peek opens a store only to look, also while another process has it. Nothing in the folder is changed; what is added is kept in memory only.
func Peek(path string, log zerolog.Logger) *Store {
	return &Store{path: path, peek: true, log: log, folders: make(map[string]*Folder)}
}

// makeFolder makes a folder that lasts.
func makeFolder(path string) error {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(filepath.Clean(path)))
}

// lock takes the lock that lasts as long as the process, whatever ends it.
func lock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the folder of the state: %w", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		_ = file.Truncate(0)
		_, _ = file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0) // for whoever finds it locked
		return file, nil
	}
	defer file.Close()
	if !errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock the folder of the state: %w", err)
	}
	owner := make([]byte, 20)
	n, _ := file.ReadAt(owner, 0)
	return nil, fmt.Errorf("the folder of the state %s is in use by another process (%s): each needs its own", filepath.Dir(path),
		strconv.Quote(strings.TrimSpace(string(owner[:n]))))
}

// sweep removes what a crash has left half-written.
func (s *Store) sweep() error {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if strings.HasSuffix(entry.Name(), fileSuffix+newSuffix) {
			if err := os.Remove(filepath.Join(s.path, entry.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close lets another process have the store. Nothing is lost by not calling it: every Add was durable.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Durable tells whether what is added outlives the process.
func (s *Store) Durable() bool { return s.path != "" && !s.peek }

// Folder returns what is known of a mailbox folder with this UIDVALIDITY. What was remembered with another one is logged, and forgotten with the
// first Add: the server says that its UIDs mean other mails now (RFC 9051 §2.3.1.1). A Folder of before, with that other one, adds nothing any
// more. It blocks on the disk when the folder is new to the process. An error means that the state cannot be read now, or was written by a version of
// this program that we do not know; nothing was changed then, and nothing should be published.
func (s *Store) Folder(accountID, folder string, uidValidity uint32) (*Folder, error) {
	key := fileName(accountID, folder)
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.folders[key]
	if known != nil && known.header.UIDValidity == uidValidity {
		return known, nil
	}
	f := &Folder{store: s, name: key, header: header{Account: accountID, Folder: folder, UIDValidity: uidValidity}, fresh: true}
	if s.path != "" {
		if err := f.load(); err != nil {
			return nil, fmt.Errorf("read the state of folder %q of %q: %w", folder, accountID, err)
		}
	}
	if known != nil {
		if s.path == "" {
			f.sayChanged(known.header.UIDValidity, known.Len())
		}
		known.retire()
	}
	s.folders[key] = f
	return f, nil
}

// fileName is the name of a folder's file. Lengths keep the two parts apart, whatever they hold.
func fileName(accountID, folder string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d:%s%d:%s", len(accountID), accountID, len(folder), folder))
	return hex.EncodeToString(sum[:20]) + fileSuffix
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	defer folder.Close()
	return folder.Sync()
}

// setAside gets a file out of the way that cannot be read, without losing it.
func setAside(path string) error {
	if err := os.Rename(path, path+badSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncFolder(filepath.Dir(path))
}
