package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"spamtraps.internal/libs/secret"
)

// keeper has a mailbox's refresh token, and writes each new one that the provider gives to the disk before the old one may be gone: into the
// file that it came from, else (read-only, a mounted secret, no file at all) into the folder of the state. Both are written aside, fsynced
// and renamed, so that a crash leaves the one or the other, whole.
//
// What lies in the folder of the state counts only for the token that was configured when it was written: whoever configures another one means it.
type keeper struct {
	configured secret.Secret
	path       string // in the folder of the state; "": there is none

	mu     sync.Mutex
	memory *kept // what could not be written, or was
	origin string
}

// kept is the file in the folder of the state.
type kept struct {
	Version int       `json:"version"`
	Origin  string    `json:"origin"` // fingerprint of the token that was configured
	Token   string    `json:"refresh_token"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"`
}

const keptVersion = 1

// maxKeptBytes is what a file of ours can hold.
const maxKeptBytes = 4 * maxTokenBytes

// load returns the refresh token to use now. It reads the disk.
func (k *keeper) load() (string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	configured, err := k.configured.Reveal()
	if err != nil {
		return "", err
	}
	if err := checkToken(configured); err != nil {
		return "", fmt.Errorf("the refresh token %w", err)
	}
	k.origin = fingerprint(configured)
	if k.memory != nil && k.memory.Origin == k.origin {
		return k.memory.Token, nil
	}
	k.memory = nil
	found, err := readKept(k.path)
	switch {
	case err != nil:
		return "", err
	case found != nil && found.Origin == k.origin:
		k.memory = found
		return found.Token, nil
	}
	k.memory = &kept{Version: keptVersion, Origin: k.origin, Token: configured, Since: k.writtenAt()}
	return configured, nil
}

// writtenAt is when the file of the configured token was written.
func (k *keeper) writtenAt() time.Time {
	if info, err := os.Stat(k.configured.File()); err == nil {
		return info.ModTime()
	}
	return time.Time{}
}

// keep remembers what the provider has given: another token than before is on the disk when it returns nil. After an error it is remembered in memory only, and the
// next call tries the disk again.
func (k *keeper) keep(token string, lasts Lasts) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	old := k.memory
	if old != nil && old.Token == token {
		old.Until = lasts.Until
		if old.Until.IsZero() { // each use begins its time anew
			old.Since = lasts.Since
		}
		if k.written() {
			return nil
		}
	}
	next := &kept{Version: keptVersion, Origin: k.origin, Token: token, Since: lasts.Since, Until: lasts.Until}
	k.memory = next
	var toFile error
	if path := k.configured.File(); path != "" {
		if toFile = replaceFile(path, []byte(token+"\n")); toFile == nil {
			next.Origin = fingerprint(token)
			k.origin = next.Origin
			return nil
		}
	}
	if k.path == "" {
		return errors.Join(toFile, errors.New("and there is no IMAP_STATE to write it to"))
	}
	data, err := json.MarshalIndent(next, "", "  ")
	if err != nil {
		return err
	}
	if err := replaceFile(k.path, append(data, '\n')); err != nil {
		return errors.Join(toFile, err)
	}
	return nil
}

// written tells whether the token in memory is the one that a restart would find.
func (k *keeper) written() bool {
	if k.memory.Origin == fingerprint(k.memory.Token) {
		return true // it is the configured one itself
	}
	found, err := readKept(k.path)
	return err == nil && found != nil && found.Token == k.memory.Token && found.Origin == k.memory.Origin
}

func (k *keeper) lasts() Lasts {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.memory == nil {
		return Lasts{Since: k.writtenAt()}
	}
	return Lasts{Since: k.memory.Since, Until: k.memory.Until}
}

// readKept reads a file in the folder of the state; nil: there is none. One that a later version wrote is an error: the token in it is the only
// one that works, perhaps, and must not be written over.
func readKept(path string) (*kept, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // no state, no file
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil //nolint:nilnil // no file
	case err != nil:
		return nil, fmt.Errorf("read refresh token: %w", err)
	case !info.Mode().IsRegular() || info.Size() > maxKeptBytes:
		return nil, fmt.Errorf("read refresh token: %s is none of our files", path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read refresh token: %w", err)
	}
	var found kept
	if err := json.Unmarshal(data, &found); err != nil {
		return nil, fmt.Errorf("read refresh token: %s is not what was written: remove it to begin with the configured token", path)
	}
	if found.Version != keptVersion {
		return nil, fmt.Errorf("read refresh token: %s is of version %d, which this program does not know", path, found.Version)
	}
	if checkToken(found.Token) != nil {
		return nil, fmt.Errorf("read refresh token: %s holds no token: remove it to begin with the configured one", path)
	}
	return &found, nil
}

// replaceFile writes a file aside, fsyncs it, gives it its name and fsyncs the folder. The file keeps its owner and mode, where it had them.
func replaceFile(path string, data []byte) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	aside := path + ".new"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a crash
		return fmt.Errorf("write refresh token: %w", err)
	}
	if err := writeDurably(aside, path, data); err != nil {
		_ = os.Remove(aside)
		return fmt.Errorf("write refresh token: %w", err)
	}
	if err := os.Rename(aside, path); err != nil {
		_ = os.Remove(aside)
		return fmt.Errorf("write refresh token: %w", err)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write refresh token: %w", err)
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("write refresh token: %w", err)
	}
	return nil
}

func writeDurably(aside, like string, data []byte) error {
	file, err := os.OpenFile(aside, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	if info, err := os.Stat(like); err == nil {
		if err := file.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
		if owner, ok := info.Sys().(*syscall.Stat_t); ok {
			_ = file.Chown(int(owner.Uid), int(owner.Gid)) // only root can give a file away
		}
	}
	if _, err := file.Write(data); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}
