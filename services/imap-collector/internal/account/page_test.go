package account

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"spamtraps.internal/imap-collector/internal/auth"
)

// docs/imap.md and docs/oauth.md tell of each key that there is.
func TestPagesTellOfEachKey(t *testing.T) {
	for page, of := range map[string]reflect.Type{"imap.md": reflect.TypeFor[Entry](), "oauth.md": reflect.TypeFor[auth.OAuth]()} {
		data, err := os.ReadFile("../../../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		rows := ""
		for line := range strings.Lines(string(data)) {
			if strings.HasPrefix(line, "| `") {
				cell, _, _ := strings.Cut(line[2:], " | ")
				rows += cell + "\n"
			}
		}
		for field := range of.Fields() {
			key := strings.ToLower(field.Tag.Get("env") + field.Tag.Get("section"))
			if !strings.Contains(rows, "`"+key+"`") {
				t.Errorf("%s has no row for %s", page, key)
			}
		}
	}
}
