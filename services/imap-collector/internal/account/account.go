// Package account is which mailboxes to collect from and how: the file mailboxes.yml with all of its mistakes named at once, one mailbox
// from the environment, and which of them belong to this shard.
package account

import (
	"errors"
	"slices"
	"strings"
	"time"

	"spamtraps.internal/imap-collector/internal/auth"
	"spamtraps.internal/libs/secret"
)

// Account is one mailbox to collect from. It is a value that nobody changes after it was loaded; copies are cheap and safe to share.
type Account struct {
	// Name is what logs, metrics and pages call it: the entry's `name`, else username@host. No two accounts have the same.
	Name string
	// ID is its identity for message ids and for what is remembered on disk: the entry's `id`, else username@host. It stays when
	// the host or the user name change, if the operator says so. No two accounts have the same.
	ID string

	Host     string // a name, or an address without brackets
	Port     int
	Username string
	TLS      TLSMode
	// CheckCert is false when any certificate of the server is believed; CAFile is the PEM file of the authorities that sign it,
	// "" for the system's.
	CheckCert bool
	CAFile    string
	// Proxy is socks5://[user:password@]host:port, or unset. The server's name is resolved by the proxy.
	Proxy secret.Secret
	// Login proves who we are. It is never nil.
	Login auth.Login

	// Folders are as configured: names, patterns (* is anything, % anything but the hierarchy's delimiter, ? one character), and special uses
	// (`\Junk`, `\All`, …; RFC 6154). There is at least one.
	Folders []string
	Fetch   FetchMode
	After   After
	// Expunge allows to expunge what others have marked \Deleted, where the server cannot expunge ours alone (IMAP_EXPUNGE=always).
	Expunge bool

	// PollInterval is how long at most a folder goes unlooked at, beside IDLE.
	PollInterval time.Duration
	// MaxMessageBytes is the largest mail that is collected; a larger one is left where it is.
	MaxMessageBytes int64
	// Enabled is false for an entry that the operator has switched off. Select leaves those out.
	Enabled bool
}

// TLSMode is how a connection to the server is made private.
type TLSMode string

// The modes there are.
const (
	TLSImplicit TLSMode = "implicit" // from the first byte (RFC 8314 §3.2)
	TLSStartTLS TLSMode = "starttls" // by the command of this name, and not at all without it
	TLSNone     TLSMode = "none"     // never: the operator said so
)

// FetchMode is which mails of a folder are collected.
type FetchMode string

// The modes there are.
const (
	FetchUnseen FetchMode = "unseen" // those without \Seen
	FetchAll    FetchMode = "all"    // all that are there
	FetchNew    FetchMode = "new"    // those that were not published before, by what is remembered on disk and whatever their flags
)

// After is what becomes of a mail in its mailbox once the broker has it.
type After struct {
	Kind AfterKind
	// Folder is where to, for AfterMove: a name, or a special use like `\Trash`.
	Folder string
}

// AfterKind is the kind of an After.
type AfterKind string

// The kinds there are.
const (
	AfterSeen    AfterKind = "seen"    // it is marked \Seen
	AfterDelete  AfterKind = "delete"  // it is deleted
	AfterMove    AfterKind = "move"    // it is moved to another folder
	AfterNothing AfterKind = "nothing" // it stays as it is, and is remembered on disk
)

// String returns it as it is configured: "move:Archive".
func (a After) String() string {
	if a.Kind == AfterMove {
		return string(a.Kind) + ":" + a.Folder
	}
	return string(a.Kind)
}

// UnmarshalText reads what String writes.
func (a *After) UnmarshalText(text []byte) error {
	kind, folder, named := strings.Cut(string(text), ":")
	after := After{Kind: AfterKind(kind), Folder: strings.TrimSpace(folder)}
	switch {
	case after.Kind == AfterMove && after.Folder == "":
		return errors.New("move needs a folder, as in move:Archive")
	case after.Kind == AfterMove:
		folder, problem := folderName(after.Folder)
		if problem != "" {
			return errors.New("a folder " + problem)
		}
		if strings.ContainsAny(folder, wildcards) {
			return errors.New("mail moves to one folder, not to a pattern")
		}
		after.Folder = folder
	case named || !slices.Contains([]AfterKind{AfterSeen, AfterDelete, AfterNothing}, after.Kind):
		return errors.New("it is seen, delete, move:FOLDER or nothing")
	}
	*a = after
	return nil
}

// MarshalText is String.
func (a After) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
