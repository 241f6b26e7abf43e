package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// stateVersion is the version of the state file.
const stateVersion = 1

// State is the file that says how far a replay is. A nil *State keeps nothing.
type State struct {
	file *os.File
	now  progress
}

// progress is what the file holds, as JSON.
type progress struct {
	Version  int    `json:"version"`
	Job      string `json:"job"` // what is replayed: another job must not go on here
	Source   string `json:"source"`
	After    string `json:"after"` // mark of the last mail that is behind
	Replayed int    `json:"replayed"`
	Passed   int    `json:"passed"`
	Bad      int    `json:"bad"`
	Complete bool   `json:"complete"`
}

// OpenState opens the state file at path, or makes it. It fails when another process has it, or when it is about another job. Close it after the
// run.
func OpenState(path, job string) (*State, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state file: %w", err)
	}
	s := &State{file: file, now: progress{Version: stateVersion, Job: job}}
	if err := s.read(job); err != nil {
		return nil, errors.Join(fmt.Errorf("the state file %s %w", path, err), file.Close())
	}
	return s, nil
}

func (s *State) read(job string) error {
	if err := syscall.Flock(int(s.file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.New("is in use by another replay")
	}
	data, err := io.ReadAll(s.file)
	if err != nil || len(data) == 0 {
		return err
	}
	var found progress
	if err := json.Unmarshal(data, &found); err != nil || found.Version != stateVersion {
		return errors.New("cannot be read: remove it to begin anew")
	}
	if found.Job != job {
		return errors.New("is of a replay with other paths, filters or queue: name another file, or remove this one to begin anew")
	}
	s.now = found
	return nil
}

// Close gives the file back.
func (s *State) Close() error {
	if s == nil {
		return nil
	}
	return s.file.Close()
}

// Before tells what runs before this one have done: how many mails are behind, and whether those are all.
func (s *State) Before() (mails int, complete bool) {
	if s == nil {
		return 0, false
	}
	return s.now.Replayed + s.now.Passed + s.now.Bad, s.now.Complete
}

func (s *State) position() (source, after string) {
	if s == nil {
		return "", ""
	}
	return s.now.Source, s.now.After
}

func (s *State) count(o Outcome) {
	if s == nil {
		return
	}
	switch o {
	case Replayed:
		s.now.Replayed++
	case Passed:
		s.now.Passed++
	case Bad:
		s.now.Bad++
	case unfinished, Before:
	}
}

func (s *State) save(source, after string) error {
	if s == nil {
		return nil
	}
	s.now.Source, s.now.After = source, after
	return s.write()
}

func (s *State) complete() error {
	if s == nil {
		return nil
	}
	s.now.Complete = true
	return s.write()
}

// block is what a write of the file is rounded up to, so that the file never gets shorter and one write is all of it.
const block = 4096

func (s *State) write() error {
	data, err := json.Marshal(s.now)
	if err != nil {
		return fmt.Errorf("write the state file: %w", err)
	}
	data = append(data, bytes.Repeat([]byte(" "), block-1-len(data)%block)...)
	data = append(data, '\n')
	if _, err = s.file.WriteAt(data, 0); err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return fmt.Errorf("write the state file %s: %w", s.file.Name(), err)
	}
	return nil
}
