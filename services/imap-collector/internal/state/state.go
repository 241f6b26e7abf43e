// Package state remembers on disk which mails were published, where the mailbox itself cannot: it is read-only, or nothing is to change in
// it. So nothing is published for ever again. What is in a mailbox is never lost by losing the state: it comes again, with the same ids.
package state

import (
	"errors"

	"github.com/rs/zerolog"
)

// Store is a folder with what was published, one file a mailbox folder. It is opened once a process; a lock keeps other processes out.
// It is safe for concurrent use by different folders, and by several users of one.
type Store struct{}

// Open opens the store in the folder path, which is made when it does not exist. It does not wait for another process that has it: that is
// an error. With an empty path nothing is kept beyond the process.
func Open(path string, log zerolog.Logger) (*Store, error) {
	return nil, errors.New("state: not built yet")
}

// Close lets another process have the store. Nothing is lost by not calling it: every Add was durable.
func (s *Store) Close() error { return nil }

// Durable tells whether what is added outlives the process.
func (s *Store) Durable() bool { return false }

// Folder returns what is known of a mailbox folder with this UIDVALIDITY. What was remembered with another one is logged, and forgotten with the
// first Add: the server says that its UIDs mean other mails now (RFC 9051 §2.3.1.1). An error means that the state cannot be
// read now, or was written by a version of this program that we do not know; nothing was changed then, and nothing should be published.
func (s *Store) Folder(accountID, folder string, uidValidity uint32) (*Folder, error) {
	return nil, errors.New("state: not built yet")
}

// Range is the UIDs from First to Last, both included. First ≤ Last.
type Range struct{ First, Last uint32 }

// Folder is what was published of one mailbox folder under one UIDVALIDITY. All methods are safe for concurrent use.
type Folder struct{}

// Has tells whether a mail was published. It does not block.
func (f *Folder) Has(uid uint32) bool { return false }

// Add remembers that mails were published. It returns after fsync of file and folder. After an error the mails count as not published
// on disk, but Has knows them until the process ends, so that a full disk makes no loop; the next Add tries them again.
func (f *Folder) Add(uids []uint32) error { return nil }

// Missing returns which of the UIDs in ranges were not published, in order and without overlap. ranges may come in any order. Its
// cost follows the number of ranges, not of UIDs.
func (f *Folder) Missing(ranges []Range) []Range { return nil }

// Len returns how many mails are remembered.
func (f *Folder) Len() uint64 { return 0 }
