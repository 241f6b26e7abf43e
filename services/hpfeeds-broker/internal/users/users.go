// Package users knows who may log in at hpfeeds-broker.
package users

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"spamtraps.internal/hpfeeds-broker/internal/config"
	"spamtraps.internal/libs/hpfeeds/hpfeedstest"
	"spamtraps.internal/libs/secret"
)

// Load returns the users by ident, and what tells the secret of one whose secret is not among them, because it lies in a file that is read
// at each login. It makes the secrets that are absent when cfg names a folder for them.
func Load(cfg config.Broker) (map[string]hpfeedstest.User, func(ident string) (string, error), error) {
	if cfg.Users != "" {
		known, err := read(cfg.Users)
		return known, nil, err
	}
	secrets := map[string]secret.Secret{"writer": cfg.WriterSecret, "reader": cfg.ReaderSecret}
	known := map[string]hpfeedstest.User{"writer": {Publish: cfg.Channels}, "reader": {Subscribe: cfg.Channels}}
	if cfg.FenceChannel != "" {
		known["writer"] = hpfeedstest.User{Publish: append([]string{cfg.FenceChannel}, cfg.Channels...), Subscribe: []string{cfg.FenceChannel}}
	}
	for ident, held := range secrets {
		if !held.IsSet() && cfg.Secrets != "" {
			path := filepath.Join(cfg.Secrets, ident, "password")
			if err := create(path); err != nil {
				return nil, nil, fmt.Errorf("make the secret of %s: %w", ident, err)
			}
			secrets[ident] = secret.FromFile(path)
		}
		if !secrets[ident].IsSet() {
			delete(known, ident)
		}
	}
	if len(known) == 0 {
		return nil, nil, errors.New("nobody could log in: set BROKER_USERS, BROKER_SECRETS, BROKER_WRITER_SECRET or BROKER_READER_SECRET")
	}
	return known, func(ident string) (string, error) {
		held, ok := secrets[ident]
		if !ok {
			return "", errors.New("no such ident")
		}
		return held.Reveal()
	}, nil
}

// read reads a file of the Python broker's form. Its errors name no secret.
func read(path string) (map[string]hpfeedstest.User, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read users: %w", err)
	}
	defer func() { _ = file.Close() }()
	var entries map[string]struct {
		Secret   string   `json:"secret"`
		PubChans []string `json:"pubchans"`
		SubChans []string `json:"subchans"`
	}
	if err := json.NewDecoder(io.LimitReader(file, 1<<20)).Decode(&entries); err != nil {
		return nil, fmt.Errorf("read users: %s is not of the form {\"ident\": {\"secret\": \"…\", \"pubchans\": [], \"subchans\": []}}", path)
	}
	known := make(map[string]hpfeedstest.User, len(entries))
	for ident, entry := range entries {
		if ident == "" || len(ident) > 255 || entry.Secret == "" {
			return nil, fmt.Errorf("read users: %s has an entry without an ident or a secret", path)
		}
		known[ident] = hpfeedstest.User{Secret: entry.Secret, Publish: entry.PubChans, Subscribe: entry.SubChans}
	}
	if len(known) == 0 {
		return nil, fmt.Errorf("read users: %s has none", path)
	}
	return known, nil
}

// create writes a random secret of 43 characters into a file, unless there is one. It appears whole or not at all.
func create(path string) error {
	if held, err := os.Stat(path); err == nil && held.Size() > 0 {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // it never fails
	file, err := os.CreateTemp(filepath.Dir(path), ".secret-*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(base64.RawURLEncoding.EncodeToString(raw))
	err = errors.Join(err, file.Chmod(0o400), file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}
