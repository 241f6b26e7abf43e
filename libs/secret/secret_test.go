package secret_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"spamtraps.internal/libs/secret"
)

func TestSecretIsNeverPrinted(t *testing.T) {
	s := secret.New("hunter2")
	held := struct{ Password secret.Secret }{s}
	encoded, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	shown := []string{string(encoded), s.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		shown = append(shown, fmt.Sprintf(verb, s), fmt.Sprintf(verb, held), fmt.Sprintf(verb, &held))
	}
	for _, text := range shown {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") {
			t.Errorf("secret shows in %q", text)
		}
	}
	if got, err := s.Reveal(); err != nil || got != "hunter2" {
		t.Errorf("Reveal() = %q, %v", got, err)
	}
}

func TestSecretFileIsReadAtEachReveal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := secret.FromFile(path)
	for content, want := range map[string]string{"one\n": "one", "two\r\n": "two", "three": "three", "four\n\n": "four\n"} {
		write(content)
		if got, err := s.Reveal(); err != nil || got != want {
			t.Errorf("file %q: Reveal() = %q, %v, want %q", content, got, err, want)
		}
	}
	write("\n")
	if _, err := s.Reveal(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("empty file: error %v does not name it", err)
	}
	if _, err := secret.FromFile(path + ".none").Reveal(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: error %v does not name it", err)
	}
}
