// Package secret holds a value that must never be seen: a password, a token, a URL with a password in it. It is the one
// package of libs that others of libs may import, because a secret that each package hid in its own way would leak in one of them.
package secret

import (
	"fmt"
	"os"
	"strings"
)

// Secret is a value that is given literally or as the path of a file that holds it. However it is printed, logged or
// encoded it shows as "***" (as "" while unset); only Reveal gives it away. The zero value is unset. It is a value type:
// copies are independent, and reading copies from several goroutines is safe.
type Secret struct {
	value string
	file  string
}

const hidden = "***"

// New returns a secret with a literal value. An empty value makes an unset secret.
func New(value string) Secret { return Secret{value: value} }

// FromFile returns a secret that is read from path each time it is revealed, so that a rotated file counts without a restart.
func FromFile(path string) Secret { return Secret{file: path} }

// IsSet tells whether a value or a file was given. It does not read the file.
func (s Secret) IsSet() bool { return s.value != "" || s.file != "" }

// File returns the path that the secret is read from, or "" for a literal or unset one. A path is no secret.
func (s Secret) File() string { return s.file }

// Reveal returns the secret itself. A file is read anew at each call, less one trailing line end; an unreadable or empty
// file is an error that names it. An unset secret is "".
func (s Secret) Reveal() (string, error) {
	if s.file == "" {
		return s.value, nil
	}
	raw, err := os.ReadFile(s.file)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(string(raw), "\n"), "\r")
	if text == "" {
		return "", fmt.Errorf("read secret: %s is empty", s.file)
	}
	return text, nil
}

// UnmarshalText sets a literal value (encoding.TextUnmarshaler).
func (s *Secret) UnmarshalText(text []byte) error {
	*s = Secret{value: string(text)}
	return nil
}

// SetFile makes the secret one that is read from path.
func (s *Secret) SetFile(path string) { *s = Secret{file: path} }

// String hides the value.
func (s Secret) String() string {
	if !s.IsSet() {
		return ""
	}
	return hidden
}

// GoString hides the value from %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// Format hides the value from every verb of fmt, among them those that would print fields.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// MarshalText hides the value from JSON, YAML and every other encoder of text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
